-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which session does a request belong to? The option `key` names a header, a
-- cookie or an argument; without it, it is MCP's Mcp-Session-Id and the router
-- knows the rules of that protocol.
--
-- The id must be the one that the backend reads in the same request. Arguments
-- and cookies that can be read in two ways are refused (router/sole.lua); of
-- several headers the one that was looked up is passed on.
--
-- Nearly all requests have the name once and nothing odd about it: then a few
-- searches for a letter are all, and no table is made.

local headers = require "resty.mooring.router.headers"
local sole = require "resty.mooring.router.sole"

local byte = string.byte
local find = string.find
local gsub = string.gsub
local lower = string.lower
local next = next
local sub = string.sub
local type = type

local _M = {}

local MCP_HEADER = "mcp-session-id"
local MUST = "must be { header = name }, { cookie = name } or { arg = name }"

-- What a name may be made of.
local CHARS = {
    header = "^[%w%-]+$", cookie = "^[%w_%-]+$", arg = "^[%w_%-]+$",
}
local EQUAL = 61


---
-- The check of the option `key`, for resty.mooring.options.
function _M.check(key)
    if type(key) ~= "table" then
        return false, MUST
    end
    local where, name = next(key)
    local chars = CHARS[where]
    local ok = chars and next(key, where) == nil and type(name) == "string"
               and find(name, chars) ~= nil
    return ok or false, MUST
end


local function read_mcp(var)
    return var.http_mcp_session_id
end


local function header(name)
    local listed = lower(name)
    local variable = "http_" .. gsub(listed, "-", "_")
    return function(var, settles)
        local id = headers.one(listed)
        if not id then
            id = var[variable]
            if id and settles then
                headers.keep_one(name, id)
            end
        end
        return id
    end
end


-- Is there a letter that makes a name or a value look like another one?
local function is_odd(text, has_underscore)
    return find(text, "%", 1, true) or find(text, "+", 1, true)
           or find(text, ";", 1, true) or find(text, "[", 1, true)
           or has_underscore and find(text, ".", 1, true)
end


local function argument(name)
    name = lower(name)
    local variable = "arg_" .. name
    local names = { [sole.argument_name(name)] = true }
    local has_underscore = find(name, "_", 1, true)
    return function(var)
        if sole.has_fragment(var) then
            return false
        end
        local args = var.args
        if not args then
            return nil
        end
        local text = lower(args)
        local at = find(text, name, 1, true)
        if is_odd(text, has_underscore)
           or at and find(text, name, at + 1, true)
        then
            return sole.argument(args, names)
        end
        return at and var[variable]
    end
end


-- Is it at the beginning of a cookie, and is all of it the name?
local function is_cookie(text, at, behind)
    return byte(text, behind) == EQUAL
           and (at == 1 or sub(text, at - 2, at - 1) == "; ")
end


-- A value that stands for itself.
local function is_plain(value)
    return not (find(value, "%", 1, true) or find(value, '"', 1, true)
                or find(value, " ", 1, true) or find(value, "\\", 1, true)
                or find(value, "\t", 1, true) or find(value, ",", 1, true))
end


local function cookie(name)
    local has_underscore = find(name, "_", 1, true)
    return function(var)
        local text = var.http_cookie
        if not text then
            return nil
        end
        if not has_underscore then
            local at = find(text, name, 1, true)
            if not at then
                return nil
            end
            local behind = at + #name
            if is_cookie(text, at, behind)
               and not find(text, name, behind, true)
            then
                local last = find(text, ";", behind, true) or #text + 1
                local value = sub(text, behind + 1, last - 1)
                if is_plain(value) then
                    return value
                end
            end
        end
        return sole.cookie(text, name)
    end
end


local READERS = { header = header, cookie = cookie, arg = argument }


---
-- @param key as checked, or nil
-- @return function(var, settles) that returns the id of a request: nil or ""
--         for none, false when it can be read in two ways; with `settles` it
--         leaves the backend no other one to read. And: is it MCP?
function _M.reader(key)
    if not key then
        return read_mcp, true
    end
    local where, name = next(key)
    if where == "header" and lower(name) == MCP_HEADER then
        return read_mcp, true
    end
    return READERS[where](name), false
end


return _M
