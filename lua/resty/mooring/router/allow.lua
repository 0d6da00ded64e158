-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What may be dialled. A binding comes from a store that others write to, and
-- whoever can write there must not turn the proxy into a relay to anywhere. By
-- default a binding is honoured when its backend was ever configured here:
-- also in an earlier generation of this nginx, since backends that are taken
-- out of the list keep their sessions, and pods leave DNS before their sessions
-- end. The dictionary `mooring` of http.conf remembers that over a reload.

local backends = require "resty.mooring.router.backends"
local log = require "resty.mooring.log"

local ipairs = ipairs
local pcall = pcall
local setmetatable = setmetatable
local type = type

local _M = {}
local mt = { __index = _M }

local MUST = "must be an array of URLs, or a function(url)"


---
-- The check of the option `allow`, for resty.mooring.options.
function _M.check(allow)
    if type(allow) == "function" then
        return true
    elseif type(allow) ~= "table" then
        return false, MUST
    end
    for _, url in ipairs(allow) do
        if type(url) ~= "string" or not backends.parse(url) then
            return false, MUST
        end
    end
    return #allow > 0, MUST
end


---
-- @param allow the option: array of URLs, function(url), or nil
-- @param dict ngx.shared dictionary or nil
-- @param prefix of the keys
-- @param on_new function(): there is a backend that has never been one
function _M.new(allow, dict, prefix, on_new)
    local self = { members = {}, listed = {}, memory = dict, on_new = on_new,
                   prefix = prefix .. ":allow:" }
    if type(allow) == "function" then
        self.ask = allow
    elseif allow then
        for _, url in ipairs(allow) do
            self.listed[backends.parse(url).url] = true
        end
    else
        self.dict = dict
    end
    return setmetatable(self, mt)
end


---
-- Remembers a backend for the life of this nginx, and tells of a new one.
function _M.remember(self, url)
    if not self.memory then
        return
    end
    -- Never at the cost of another entry.
    local ok, err = self.memory:safe_add(self.prefix .. url, true)
    if ok then
        self.on_new()
    elseif err ~= "exists" then
        log.warn_limited("allow full", "lua_shared_dict mooring is full: the ",
                         "sessions of a backend that leaves the list will be ",
                         "refused: ", err)
    end
end


---
-- Says which backends there are now. They are always allowed.
-- @param members array of peers
function _M.set_members(self, members)
    self.members = {}
    for _, peer in ipairs(members) do
        self.members[peer.url] = true
        self:remember(peer.url)
    end
end


local function ask(self, url)
    local ok, allowed = pcall(self.ask, url)
    if not ok then
        log.warn_limited("allow", "the function `allow` failed, ",
                         "the backend is not dialled: ", allowed)
        return false
    end
    return allowed == true
end


---
-- May this backend be dialled?
-- @param url as normalised by resty.mooring.router.backends
function _M.permits(self, url)
    if self.members[url] or self.listed[url] then
        return true
    elseif self.ask then
        return ask(self, url)
    end
    return self.dict ~= nil and self.dict:get(self.prefix .. url) == true
end


return _M
