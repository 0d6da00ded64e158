-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What may be dialled. A binding comes from a store that others write to, and
-- whoever can write there must not turn the proxy into a relay to anywhere. By
-- default a binding is honoured when its backend was ever configured here:
-- also in an earlier generation of this nginx, since backends that are taken
-- out of the list keep their sessions. The dictionary `mooring` of http.conf
-- remembers that over a reload.

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


local function remember(dict, prefix, url)
    if dict then
        dict:set(prefix .. url, true)
    end
end


---
-- @param allow the option: array of URLs, function(url), or nil
-- @param peers the configured backends, which are always allowed
-- @param dict ngx.shared dictionary or nil
-- @param prefix of the keys
function _M.new(allow, peers, dict, prefix)
    local self = { listed = {}, prefix = prefix .. ":allow:" }
    for _, peer in ipairs(peers) do
        self.listed[peer.url] = true
        remember(dict, self.prefix, peer.url)
    end
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
    if self.listed[url] then
        return true
    elseif self.ask then
        return ask(self, url)
    end
    return self.dict ~= nil and self.dict:get(self.prefix .. url) == true
end


return _M
