-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which session does a request belong to? The option `key` names a header, a
-- cookie or an argument; without it, it is MCP's Mcp-Session-Id and the router
-- knows the rules of that protocol.

local find = string.find
local gsub = string.gsub
local lower = string.lower
local next = next
local type = type

local _M = {}

local MCP_HEADER = "mcp-session-id"
local MUST = "must be { header = name }, { cookie = name } or { arg = name }"

-- What a name may be made of, and the nginx variable it is found in.
local SOURCES = {
    header = { chars = "^[%w%-]+$", prefix = "http_" },
    cookie = { chars = "^[%w_%-]+$", prefix = "cookie_" },
    arg = { chars = "^[%w_%-]+$", prefix = "arg_" },
}


---
-- The check of the option `key`, for resty.mooring.options.
function _M.check(key)
    if type(key) ~= "table" then
        return false, MUST
    end
    local where, name = next(key)
    local source = SOURCES[where]
    local ok = source and next(key, where) == nil and type(name) == "string"
               and find(name, source.chars) ~= nil
    return ok or false, MUST
end


---
-- @param key as checked, or nil
-- @return name of the nginx variable that holds the id, is it MCP?
function _M.variable(key)
    if not key then
        return "http_mcp_session_id", true
    end
    local where, name = next(key)
    name = lower(name)
    if where ~= "header" then
        return SOURCES[where].prefix .. name, false
    end
    return "http_" .. gsub(name, "-", "_"), name == MCP_HEADER
end


return _M
