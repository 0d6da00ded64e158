-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Backends from DNS, as a headless service has them: all addresses of a name
-- with one port (type "A" or "AAAA"), or what SRV records say (RFC 2782): the
-- targets of the lowest priority, with their ports and weights.
--
-- lua-resty-dns asks; it is loaded only where DNS is configured. What may go
-- wrong (no answer, an error, no record) is told to the caller, who keeps the
-- list there was: a name server in trouble must not empty the set of backends.
--
-- To be called where cosockets work. An answer is as good as the network to the
-- name server; the number of a query is random, so that nobody can answer
-- without having seen it.

local find = string.find
local format = string.format
local ipairs = ipairs
local lower = string.lower
local match = string.match
local max = math.max
local min = math.min
local ngx = ngx
local pcall = pcall
local setmetatable = setmetatable
local tonumber = tonumber
local type = type

local _M = {}
local mt = { __index = _M }

local FIELDS = {
    dns = true, port = true, type = true, interval = true, scheme = true,
    server_name = true, weight = true, nameservers = true, timeout = true,
}
local TYPES = { A = 1, AAAA = 28, SRV = 33 }
local TRIES = 2          -- each of `timeout`
local MAX_WEIGHT = 65535


-- ------------------------------------------------------------ the option --

local function is_positive(value)
    return type(value) == "number" and value > 0 and value < 1e6
end


local function is_port(value)
    return type(value) == "number" and value % 1 == 0 and value >= 1
           and value <= 65535
end


local function are_nameservers(value)
    if type(value) ~= "table" or #value == 0 then
        return false
    end
    for _, server in ipairs(value) do
        if type(server) ~= "string" or server == "" then
            return false
        end
    end
    return true
end


local CHECKS = {
    { "dns", function(value)
        return type(value) == "string" and #value <= 253
               and find(value, "^[%w_][%w%-_%.]*$") ~= nil
               and not find(value, "..", 1, true)
    end, "must be a full name" },
    { "type", function(value)
        return value == nil or TYPES[value] ~= nil
    end, 'must be "A", "AAAA" or "SRV"' },
    { "scheme", function(value)
        return value == nil or value == "http" or value == "https"
    end, 'must be "http" or "https"' },
    { "interval", function(value)
        return value == nil or is_positive(value)
    end, "must be a positive number of seconds" },
    { "timeout", function(value)
        return value == nil or is_positive(value)
    end, "must be a positive number of seconds" },
    { "nameservers", function(value)
        return value == nil or are_nameservers(value)
    end, 'must be an array of "address" or "address:port"' },
}


---
-- Is this { dns = name, ... }, and if so, what is wrong with it?
-- @return nil when all is well, else a text that names the field; weight and
--         server_name are left to those who know backends
function _M.check(opts)
    for name in pairs(opts) do
        if not FIELDS[name] then
            return "has a field that is not known: " .. tostring(name)
        end
    end
    for _, check in ipairs(CHECKS) do
        local name, is_right, must = check[1], check[2], check[3]
        if not is_right(opts[name]) then
            return "." .. name .. " " .. must
        end
    end
    if opts.type == "SRV" then
        return opts.port ~= nil
               and ".port must not be there: SRV records have one" or nil
    end
    return not is_port(opts.port) and ".port must be a port" or nil
end


local function read_resolv_conf()
    local servers = {}
    local file = io.open("/etc/resolv.conf", "r")
    for line in file and file:lines() or function() end do
        servers[#servers + 1] = match(line, "^%s*nameserver%s+(%S+)")
    end
    if file then
        file:close()
    end
    return servers
end


-- "10.0.0.2:53", "10.0.0.2", "[fd00::2]:53" or "fd00::2" -> { host, port }
local function server_address(text)
    local host, port = match(text, "^(%[.-%]):(%d+)$")
    if not host then
        host, port = match(text, "^([^:]+):(%d+)$")
    end
    if not host then
        host = find(text, "^[^%[]*:") and "[" .. text .. "]" or text
    end
    return { host, tonumber(port) or 53 }
end


-- Debian's package has it under another name than OpenResty.
local function load_resolver()
    for _, name in ipairs { "resty.dns.resolver", "nginx.dns.resolver" } do
        local ok, resolver = pcall(require, name)
        if ok then
            return resolver
        end
    end
    return nil, "needs the module resty.dns.resolver (lua-resty-dns; in Debian "
                .. "and Ubuntu the package lua-nginx-dns)"
end


---
-- @param opts as checked
-- @return an object with the method read(); or nil and what is missing
function _M.new(opts)
    local resolver, missing = load_resolver()
    if not resolver then
        return nil, missing
    end
    local nameservers = opts.nameservers or read_resolv_conf()
    if #nameservers == 0 then
        return nil, ".nameservers must be there: /etc/resolv.conf has none"
    end
    local servers = {}
    for i, server in ipairs(nameservers) do
        servers[i] = server_address(server)
    end
    return setmetatable({
        resolver = resolver,
        servers = servers,
        timeout = (opts.timeout or 1) * 1000,
        name = lower(match(opts.dns, "^(.-)%.?$")),
        type = opts.type or "A",
        port = opts.port,
        scheme = opts.scheme or "http",
        server_name = opts.server_name,
        weight = opts.weight,
    }, mt)
end


-- -------------------------------------------------------------- questions --

local function random_id()
    local file = io.open("/dev/urandom", "rb")
    local bytes = file and file:read(2)
    if file then
        file:close()
    end
    return bytes and bytes:byte(1) * 256 + bytes:byte(2) or ngx.time() % 65536
end


local function ask(client, name, kind)
    client._id = random_id()
    local answers, err = client:query(name, {
        qtype = TYPES[kind], additional_section = kind == "SRV",
    })
    if not answers then
        return nil, err
    elseif answers.errcode then
        return nil, format("%s for %s", answers.errstr, name)
    end
    return answers
end


local function url_of(self, address, port)
    local host = find(address, ":", 1, true) and "[" .. address .. "]"
                 or address
    return format("%s://%s:%d", self.scheme, host, port)
end


local function read_addresses(self, client)
    local answers, err = ask(client, self.name, self.type)
    if not answers then
        return nil, err
    end
    local list = {}
    for _, answer in ipairs(answers) do
        if answer.type == TYPES[self.type] then
            list[#list + 1] = {
                url = url_of(self, answer.address, self.port),
                weight = self.weight,
                server_name = self.server_name
                              or self.scheme == "https" and self.name or nil,
            }
        end
    end
    return list
end


-- The records of the lowest priority, and the addresses that came with them.
local function sort_out(answers)
    local lowest, records, addresses = 65536, {}, {}
    for _, answer in ipairs(answers) do
        if answer.type == TYPES.SRV and answer.target ~= "" then
            if answer.priority < lowest then
                lowest, records = answer.priority, {}
            end
            if answer.priority == lowest then
                records[#records + 1] = answer
            end
        elseif answer.type == TYPES.A or answer.type == TYPES.AAAA then
            local name = lower(answer.name)
            addresses[name] = addresses[name] or {}
            addresses[name][#addresses[name] + 1] = answer.address
        end
    end
    return records, addresses
end


-- Of a name that may be an alias.
local function ask_addresses(client, name)
    local err
    for _, kind in ipairs { "A", "AAAA" } do
        local answers
        answers, err = ask(client, name, kind)
        local found = {}
        for _, answer in ipairs(answers or {}) do
            found[#found + 1] = answer.address
        end
        if #found > 0 then
            return found
        end
    end
    return nil, err or "no address for " .. name
end


local function read_services(self, client)
    local answers, err = ask(client, self.name, "SRV")
    if not answers then
        return nil, err
    end
    local records, known = sort_out(answers)
    local list = {}
    for _, record in ipairs(records) do
        local target = lower(record.target)
        local addresses = known[target]
        if not addresses then
            addresses, err = ask_addresses(client, target)
        end
        if not addresses then
            return nil, err
        end
        for _, address in ipairs(addresses) do
            list[#list + 1] = {
                url = url_of(self, address, record.port),
                weight = self.weight
                         or max(1, min(MAX_WEIGHT, record.weight)),
                server_name = self.server_name
                              or self.scheme == "https" and target or nil,
            }
        end
    end
    return list
end


---
-- Asks for the backends. Waits.
-- @return array as the option `backends`, possibly empty, in no order that
--         means anything; or nil, message
function _M.read(self)
    local client, err = self.resolver:new {
        nameservers = self.servers, timeout = self.timeout, retrans = TRIES,
    }
    if not client then
        return nil, err
    end
    if self.type == "SRV" then
        return read_services(self, client)
    end
    return read_addresses(self, client)
end


return _M
