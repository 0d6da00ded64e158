-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Mistakes one could make in the local tier, planted into the nginx under test:
-- a checker that does not find them proves nothing by finding nothing. They
-- replace functions of the loaded modules; the shipped code has no switch.

local binding = require "resty.mooring.ffi"
local cache = require "resty.mooring.cache"
local coherence = require "resty.mooring.coherence"
local redis_storage = require "resty.mooring.redis_storage"

local _M = {}

local BUGS = {}


-- Whoever renames what is replaced here has to come by.
local function replace(module, name, make)
    local original = module[name]
    if type(original) ~= "function" then
        error("history.bugs: there is no function " .. name .. " any more")
    end
    module[name] = make(original)
end


local function nothing()
end


-- (a) What was fetched is kept whatever has happened to it since it was asked
-- for.
function BUGS.tokens()
    replace(cache, "put", function(put)
        return function(self, id, text, flags, times)
            if flags % (2 * cache.PUT_TOKEN) >= cache.PUT_TOKEN then
                flags = flags - cache.PUT_TOKEN
            end
            return put(self, id, text, flags, times)
        end
    end)
end


-- (b) After a loss of the listener's connection old copies are believed again.
function BUGS.no_epoch()
    replace(cache, "bump_epoch", function() return nothing end)
end


-- (b) The epoch is bumped when the connection is made, not when the
-- subscription is confirmed: what is filled in between is believed.
function BUGS.early_epoch()
    local bump = cache.bump_epoch
    replace(cache, "bump_epoch", function() return nothing end)
    replace(coherence, "connected", function(connected)
        return function(self, ...)
            bump(self.cache)
            return connected(self, ...)
        end
    end)
end


-- (c) Copies are believed for as long as nobody says otherwise.
function BUGS.no_lease()
    replace(cache, "set_lease", function(set_lease)
        return function(self)
            return set_lease(self, binding.now() + 1e9)
        end
    end)
end


-- (d) Sessions that are used but not written expire.
function BUGS.no_renewal()
    replace(redis_storage, "renew", function() return nothing end)
end


---
-- Plants a bug.
-- @param name of one above, or "" for none
function _M.plant(name)
    if name ~= "" then
        local plant = BUGS[name] or error("no such bug: " .. name)
        plant()
    end
end


---
-- Names of all, sorted.
function _M.names()
    local names = {}
    for name in pairs(BUGS) do
        names[#names + 1] = name
    end
    table.sort(names)
    return names
end


return _M
