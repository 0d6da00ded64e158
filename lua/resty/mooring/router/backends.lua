-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The URL of a backend, and what nginx needs to know to talk to it.
--
--     parse("http://10.0.0.1:8080") -> peer
--
--     peer.url       "http://10.0.0.1:8080": what bindings hold
--     peer.host      "10.0.0.1", "[fd00::1]" or a name
--     peer.port      8080
--     peer.address   host, nil when that is a name
--     peer.tls       boolean
--     peer.upstream  value of $mooring_upstream, nil for the default one
--     peer.tls_name  name for SNI and for the verification of the certificate
--     peer.special   true unless "http://" and what nginx' $upstream_addr says
--                    is the url: nginx has to be told more than an address
--
-- Backends given by address share the upstreams "mooring" and "mooring_tls"
-- of http.conf: the balancer sets the address, idle connections are kept. They
-- are two because nginx keeps idle connections by address alone, and a plain
-- one must never serve for TLS. Names are left to nginx' own `resolver`; such
-- backends get a new connection for each request.

local byte = string.byte
local find = string.find
local format = string.format
local gmatch = string.gmatch
local ipairs = ipairs
local lower = string.lower
local match = string.match
local max = math.max
local next = next
local pairs = pairs
local sub = string.sub
local tonumber = tonumber
local tostring = tostring
local type = type

local _M = {}

local PORTS = { http = 80, https = 443 }
local STATES = { up = "up", active = "up", draining = "draining",
                 down = "down" }
local FIELDS = { url = true, weight = true, server_name = true, state = true }
local MAX_WEIGHT = 65535


local function is_ipv4(host)
    local n = 0
    for part in gmatch(host, "[^.]+") do
        n = n + 1
        -- "010" would be octal to some and decimal to others
        if not match(part, "^%d%d?%d?$") or tonumber(part) > 255
           or match(part, "^0%d")
        then
            return false
        end
    end
    return n == 4 and match(host, "^%d+%.%d+%.%d+%.%d+$") ~= nil
end


local function is_ipv6(host)
    return find(host, "^[%x:%.]+$") ~= nil and find(host, ":.*:") ~= nil
           and not find(host, ":::") and #host <= 45
end


local function is_name(host)
    return #host <= 253 and find(host, "^[%w_][%w%-_%.]*$") ~= nil
           and not find(host, "..", 1, true)
           and not find(host, "^[%d%.]+$")
end


-- "host", "host:port" or "[v6]:port" -> host, port, is it an address?
local function split_authority(authority, default_port)
    local host, rest, address
    if byte(authority, 1) == 91 then -- "["
        host, rest = match(authority, "^%[([^%]]*)%](.*)$")
        if not host or not is_ipv6(host) then
            return nil, "must hold an IPv6 address between [ and ]"
        end
        host, address = "[" .. host .. "]", true
    else
        host, rest = match(authority, "^([^:]*)(.*)$")
        address = is_ipv4(host)
        if not address and not is_name(host) then
            return nil, "must name a host"
        end
    end

    local port = default_port
    if rest ~= "" then
        port = tonumber(match(rest, "^:(%d%d?%d?%d?%d?)$"))
        if not port or port < 1 or port > 65535 then
            return nil, "must have a port from 1 to 65535"
        end
    end
    return host, port, address
end


-- What a backend URL must not have, named.
local function surplus(rest)
    if find(rest, "#", 1, true) then
        return "must not have a fragment"
    elseif find(rest, "?", 1, true) then
        return "must not have a query"
    elseif find(rest, "/", 1, true) then
        return "must not have a path: the path of the request is passed on"
    elseif find(rest, "@", 1, true) then
        return "must not have a user or password"
    end
end


local function upstream_of(scheme, host, port, address)
    if not address then
        -- always with a port: "http://mooring" would be the upstream itself
        return format("%s://%s:%d", scheme, host, port)
    end
    return scheme == "https" and "https://mooring_tls" or nil
end


---
-- @param url string
-- @return peer, see above; or nil and what the URL must be (a text that goes
--         behind the URL)
function _M.parse(url)
    local scheme, rest = match(url, "^(%a[%w+%-%.]*)://(.*)$")
    scheme = scheme and lower(scheme)
    if not PORTS[scheme] then
        return nil, "must begin with http:// or https://"
    end
    local wrong = surplus(rest)
    if wrong then
        return nil, wrong
    end
    local host, port, address = split_authority(lower(rest), PORTS[scheme])
    if not host then
        return nil, port
    end

    return {
        url = format("%s://%s:%d", scheme, host, port),
        host = host,
        address = address and host or nil,
        port = port,
        tls = scheme == "https",
        special = scheme == "https" or not is_ipv4(host),
        upstream = upstream_of(scheme, host, port, address),
        tls_name = byte(host, 1) == 91 and sub(host, 2, -2) or host,
    }
end


-- ------------------------------------------------------------ the option --

-- Whoever puts credentials into a URL does not want to find them in a log.
local function without_credentials(url)
    local behind = match(url, "^.*(@.*)$")
    return behind and "..." .. behind or url
end


local function shown(i, url)
    return format('entry %d ("%s") ', i, without_credentials(url))
end


local function check_fields(entry)
    for name in pairs(entry) do
        if not FIELDS[name] then
            return "has a field that is not known: " .. tostring(name)
        end
    end
    local weight = entry.weight
    if weight ~= nil and (type(weight) ~= "number" or weight < 1
                          or weight > MAX_WEIGHT or weight % 1 ~= 0)
    then
        return "must have a weight that is an integer from 1 to " .. MAX_WEIGHT
    end
    local server_name = entry.server_name
    if server_name ~= nil
       and not (type(server_name) == "string" and is_name(server_name))
    then
        return "must have a server_name that is a host name"
    end
    if entry.state ~= nil and not STATES[entry.state] then
        return 'must have a state that is "up", "draining" or "down"'
    end
end


local function read_entry(i, entry)
    if type(entry) == "string" then
        entry = { url = entry }
    end
    if type(entry) ~= "table" or type(entry.url) ~= "string" then
        return nil, format("entry %d must be a URL or a table with a url", i)
    end
    local wrong = check_fields(entry)
    if wrong then
        return nil, shown(i, entry.url) .. wrong
    end
    local peer, must = _M.parse(entry.url)
    if not peer then
        return nil, shown(i, entry.url) .. must
    end
    peer.weight = entry.weight or 1
    peer.state = STATES[entry.state or "up"]
    peer.tls_name = entry.server_name or peer.tls_name
    return peer
end


-- What is in the table beside an array without holes, named; nil for nothing.
local function no_array(list)
    local last = 0
    for key in pairs(list) do
        if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
            return "it has the key " .. without_credentials(tostring(key))
        end
        last = max(last, key)
    end
    for i = 1, last do
        if list[i] == nil then
            return format("entry %d is nil", i)
        end
    end
end


---
-- Reads the option `backends`.
-- @param list array of URLs or of { url =, weight =, server_name =, state = }
-- @return array of peers that also have .weight and .state; or nil and what is
--         wrong
function _M.read(list)
    if type(list) ~= "table" or next(list) == nil then
        return nil, "must be an array of at least one backend"
    end
    local stray = no_array(list)
    if stray then
        return nil, "must be an array without holes or other keys: " .. stray
    end
    local peers, seen = {}, {}
    for i, entry in ipairs(list) do
        local peer, wrong = read_entry(i, entry)
        if not peer then
            return nil, "is wrong: " .. wrong
        end
        if seen[peer.url] then
            return nil, "is wrong: " .. shown(i, peer.url)
                        .. "is there twice"
        end
        seen[peer.url] = true
        peers[i] = peer
    end
    return peers
end


return _M
