-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The request as policies see it. A field is found out when it is first asked
-- for, and then kept:
--
--     req.method          "POST"
--     req.path            "/mcp", decoded, without the query
--     req.headers[name]   string or nil; case does not matter, nor - or _
--     req.args[name]      string or nil, decoded; "" for ?name
--     req.cookies[name]   string or nil
--     req.remote_addr     "10.1.2.3"
--     req.session_id      the id the client has sent, or nil
--     req.rpc_method      "initialize": method of the JSON-RPC message in .body
--     req.body            of a request whose body the router has read, else nil
--
-- Nothing here reads a body, waits, or fails a request. `current` is for the
-- access, header filter, log and content phases of that request; `freeze` makes
-- a copy that is good in a timer, too; `build` makes one of a table, for specs.
-- Of several headers, arguments or cookies of one name the first counts.

local jsonrpc = require "resty.mooring.router.jsonrpc"

local concat = table.concat
local error = error
local gmatch = string.gmatch
local gsub = string.gsub
local lower = string.lower
local match = string.match
local ngx = ngx
local pairs = pairs
local rawset = rawset
local setmetatable = setmetatable
local tostring = tostring
local type = type

local _M = {}

local MAX_ARGS = 100
local MAX_HEADERS = 100 -- in a frozen request


-- Header names as nginx' variables have them.
local function normal(name)
    return type(name) == "string" and gsub(lower(name), "-", "_") or nil
end


-- A table that is asked with any spelling of a header's name.
local function headers_of(lookup)
    return setmetatable({}, {
        __index = function(_, name)
            name = normal(name)
            return name and lookup(name)
        end,
        __metatable = "headers",
    })
end


local function parse_cookies(text)
    local cookies = {}
    for pair in gmatch(text or "", "[^;]+") do
        -- Trimmed greedily: a lazy match looks at every run of spaces once for
        -- each of its bytes.
        local name, value = match(pair, "^%s*([^=%s]+)%s*=%s*(.*)$")
        if name and cookies[name] == nil then
            cookies[name] = match(value, "^.*%S") or ""
        end
    end
    return cookies
end


local function first_values(args)
    local values = {}
    for name, value in pairs(args) do
        if type(value) == "table" then
            value = value[1]
        end
        values[name] = value == true and "" or value
    end
    return values
end


local function rpc_method(body)
    return body and jsonrpc.method(body)
end


-- -------------------------------------------------- the current request --

local function header_variable(name)
    return ngx.var["http_" .. name]
end


local FINDERS = {
    method = function() return ngx.req.get_method() end,
    path = function() return ngx.var.uri end,
    headers = function() return headers_of(header_variable) end,
    args = function() return first_values(ngx.req.get_uri_args(MAX_ARGS)) end,
    cookies = function() return parse_cookies(ngx.var.http_cookie) end,
    remote_addr = function() return ngx.var.remote_addr end,
    rpc_method = function(req) return rpc_method(req.body) end,
}


-- The metatable is not a script's to take away or to change: the router asks
-- the same object again.
local lazy = {
    __metatable = "request",
    __index = function(req, name)
        local finder = FINDERS[name]
        if finder then
            local value = finder(req)
            rawset(req, name, value)
            return value
        end
    end,
}


---
-- The request that is being served.
-- @param session_id that the client has sent, or nil
-- @param body what the router has read of it, or nil
function _M.current(session_id, body)
    return setmetatable({ session_id = session_id, body = body }, lazy)
end


---
-- A copy of the current request that is good after its end. Without its body.
-- Scripts may have written anything to `req`: all is found out anew but the id,
-- which may be one that the policy has found.
function _M.freeze(req)
    local id = req.session_id
    req = _M.current(type(id) == "string" and id or nil)
    local headers = {}
    for name, value in pairs(ngx.req.get_headers(MAX_HEADERS)) do
        headers[name] = type(value) == "table" and value[1] or value
    end
    return _M.build {
        method = req.method, path = req.path, headers = headers,
        args = req.args, cookies = req.cookies, remote_addr = req.remote_addr,
        session_id = req.session_id,
    }
end


-- --------------------------------------------------------- of a table --

local KINDS = {
    method = "string", path = "string", headers = "table", args = "table",
    cookies = "table", remote_addr = "string", session_id = "string",
    rpc_method = "string", body = "string",
}


local function check(fields)
    if type(fields) ~= "table" then
        error("fields must be a table", 3)
    end
    for name, value in pairs(fields) do
        local kind = KINDS[name]
        if not kind then
            error(tostring(name) .. " is not a field of a request", 3)
        elseif type(value) ~= kind then
            error(name .. " must be a " .. kind, 3)
        end
    end
end


local function built_headers(headers)
    local values = {}
    for name, value in pairs(headers) do
        values[normal(name)] = type(value) == "table" and concat(value, ", ")
                               or value
    end
    return headers_of(function(name) return values[name] end)
end


---
-- A request made of a table, for specs.
-- @param fields table of any of the fields above; default: GET /
-- @return request; raises naming the field that is wrong
function _M.build(fields)
    check(fields)
    local headers = fields.headers or {}
    local req = {
        method = fields.method or "GET",
        path = fields.path or "/",
        headers = built_headers(headers),
        args = first_values(fields.args or {}),
        remote_addr = fields.remote_addr or "127.0.0.1",
        session_id = fields.session_id,
        body = fields.body,
        rpc_method = fields.rpc_method or rpc_method(fields.body),
    }
    req.cookies = fields.cookies or parse_cookies(req.headers.cookie)
    return req
end


return _M
