-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- URLs of Redis servers:
--
--     redis://[[user]:password@]host[:port][/db]      TCP
--     unix://[[user]:password@]/path/to.sock[?db=N]   unix socket
--
-- User and password may be percent-encoded. Nothing here ever puts a password
-- into a message.

local char = string.char
local find = string.find
local gsub = string.gsub
local match = string.match
local sub = string.sub
local tonumber = tonumber

local _M = {}


local function percent_decode(text)
    return (gsub(text, "%%(%x%x)", function(hex)
        return char(tonumber(hex, 16))
    end))
end


-- Splits "user:password@rest": the last "@" counts, since passwords hold them.
local function split_userinfo(text)
    local userinfo, rest = match(text, "^(.*)@(.*)$")
    if not userinfo then
        return nil, nil, text
    end
    local user, password = match(userinfo, "^([^:]*):(.*)$")
    if not user then
        return nil, nil, nil, "must be user:password before the @"
    end
    return user ~= "" and percent_decode(user) or nil,
           password ~= "" and percent_decode(password) or nil, rest
end


local function parse_db(text)
    if text == nil or text == "" then
        return 0
    end
    local db = match(text, "^%d+$") and tonumber(text)
    if not db or db > 65535 then
        return nil, "must name a database number"
    end
    return db
end


local function parse_host(text)
    local host, port
    if sub(text, 1, 1) == "[" then
        host, port = match(text, "^%[([%x:%.]+)%](.*)$")
    else
        host, port = match(text, "^([%w%.%-_]+)(.*)$")
    end
    if not host then
        return nil, nil, "must name a host"
    end
    if port == "" then
        return host, 6379
    end
    port = tonumber(match(port, "^:(%d+)$"))
    if not port or port < 1 or port > 65535 then
        return nil, nil, "must have a port from 1 to 65535"
    end
    return host, port
end


local function parse_tcp(rest, target)
    local authority, db = match(rest, "^([^/]*)/?(.*)$")
    local host, port, err = parse_host(authority)
    if err then
        return nil, err
    end
    target.host, target.port = host, port
    target.db, err = parse_db(db)
    if err then
        return nil, err
    end
    return target
end


local function parse_unix(rest, target)
    local path, query = match(rest, "^(/[^?]*)%??(.*)$")
    local err
    if not path then
        return nil, "must have an absolute path after unix://"
    end
    if query ~= "" and not find(query, "^db=") then
        return nil, "may have ?db=N and no other parameter"
    end
    target.path = path
    target.db, err = parse_db(match(query, "^db=(.*)$"))
    if err then
        return nil, err
    end
    return target
end


---
-- @param url string
-- @return { host, port } or { path }, with db, user, password; or nil and what
--         the url must be (a text that goes behind "opts.url ")
function _M.parse(url)
    local scheme, rest = match(url, "^(%a[%w+%-%.]*)://(.*)$")
    if scheme == "rediss" then
        return nil, "must be redis:// or unix://: TLS to Redis is not "
                    .. "supported, put stunnel in between"
    end
    if scheme ~= "redis" and scheme ~= "unix" then
        return nil, "must begin with redis:// or unix://"
    end

    local user, password, location, err = split_userinfo(rest)
    if err then
        return nil, err
    end
    local target = { user = user, password = password }
    if scheme == "redis" then
        return parse_tcp(location, target)
    end
    return parse_unix(location, target)
end


---
-- The address without credentials, for messages.
function _M.address(target)
    if target.path then
        return "unix:" .. target.path
    end
    local host = find(target.host, ":", 1, true) and "[" .. target.host .. "]"
                 or target.host
    return host .. ":" .. target.port
end


return _M
