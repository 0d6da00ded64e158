-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Where the id of a session of the HTTP+SSE transport is found, in the URL of
-- the `endpoint` event as in the requests that follow it. The option `sse_id`
-- says so:
--
--     { arg = { "sessionId", "session_id" } }   an argument of such a name
--     { path = "/messages/" }                   the path segment behind that
--
-- A request with more than one such argument has no id, see router/sole.lua.

local sole = require "resty.mooring.router.sole"

local find = string.find
local gsub = string.gsub
local ipairs = ipairs
local lower = string.lower
local match = string.match
local next = next
local setmetatable = setmetatable
local sub = string.sub
local type = type
local unescape = ngx and ngx.unescape_uri

local _M = {}
local mt = { __index = _M }

local MUST = 'must be { arg = name or array of names } or { path = "/prefix/" }'
local NAMES = { "sessionId", "session_id" } -- of TypeScript, of Python


local function is_names(names)
    for _, name in ipairs(names) do
        if type(name) ~= "string" or not find(name, "^[%w_%-%.]+$") then
            return false
        end
    end
    return #names > 0
end


---
-- The check of the option `sse_id`, for resty.mooring.options.
function _M.check(where)
    if type(where) ~= "table" then
        return false, MUST
    end
    local kind, value = next(where)
    local ok = false
    if kind == "arg" then
        ok = is_names(type(value) == "table" and value or { value })
    elseif kind == "path" then
        ok = type(value) == "string" and find(value, "^/.*/$") ~= nil
             or value == "/"
    end
    return ok and next(where, kind) == nil, MUST
end


---
-- @param where the option as checked, or nil
function _M.new(where)
    local self = setmetatable({ names = {}, path = where and where.path }, mt)
    local names = where and where.arg or NAMES
    for _, name in ipairs(type(names) == "table" and names or { names }) do
        self.names[sole.argument_name(name)] = true
    end
    return self
end


-- Decoded as nginx decodes $uri: "+" is a plus.
local function decode_path(path)
    return unescape((gsub(path, "%+", "%%2B")))
end


local function from_path(self, path)
    local prefix = self.path
    if sub(path, 1, #prefix) ~= prefix then
        return nil
    end
    return match(path, "^[^/]+", #prefix + 1)
end


---
-- The id in a URL.
-- @param path decoded
-- @param args as written, or nil
-- @return string; nil when there is none, false when there are several
function _M.find(self, path, args)
    if self.path then
        return from_path(self, path)
    elseif args and args ~= "" then
        return sole.argument(args, self.names)
    end
end


-- -------------------------------------------------- the endpoint's URL --

-- "Host:443" and "host" may be the same.
local function authority(host)
    return (gsub(gsub(lower(host), ":443$", ""), ":80$", ""))
end


-- RFC 3986, 5.2.4.
local function remove_dots(path)
    local out = {}
    for segment in path:gmatch("/([^/]*)") do
        if segment == ".." then
            out[#out] = nil
        elseif segment ~= "." then
            out[#out + 1] = segment
        end
    end
    local last = match(path, "^.*/(.*)$")
    local dir = (last == "." or last == "..") and #out > 0 and "/" or ""
    return "/" .. table.concat(out, "/") .. dir
end


-- RFC 3986, 5.2.2, for a reference whose scheme and authority are taken off.
local function resolve(base, path)
    if path == "" then
        return base
    elseif sub(path, 1, 1) ~= "/" then
        path = match(base, "^.*/") .. path
    end
    return remove_dots(path)
end


---
-- The id in the URL of an endpoint event.
-- @param url as the event has it, relative or absolute
-- @param base decoded path of the request it answers
-- @param host that request's Host
-- @return id (nil for none, false for several), decoded path; or nil and nil
--         when the URL leads to another host
function _M.of_endpoint(self, url, base, host)
    local rest = match(url, "^%s*([^#]*)")
    local there, behind = match(rest, "^%a[%w+%-%.]*://([^/?]*)(.*)$")
    if not there then
        there, behind = match(rest, "^//([^/?]*)(.*)$")
    end
    if there then
        if authority(there) ~= authority(host) then
            return nil, nil
        end
        rest = sub(behind, 1, 1) == "/" and behind or "/" .. behind
    end
    local path, args = match(rest, "^([^?]*)%??(.*)$")
    path = resolve(base, decode_path(path))
    return self:find(path, args), path
end


return _M
