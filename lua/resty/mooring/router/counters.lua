-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Counts of all workers. A worker counts in a table of its own, which costs a
-- request next to nothing, and adds what is new to the dictionary `mooring` of
-- http.conf once a second: totals over all workers, also those that are gone.

local pairs = pairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- The outcomes of requests, values of $mooring_result, and other events.
local NAMES = {
    -- requests
    "bound",          -- went to the backend of their session
    "stale",          -- as bound, while the store could not be asked
    "unpinned",       -- belonged to no session
    "created",        -- opened one
    "deleted",        -- ended one
    "not_found",      -- named a session that is not known
    "invalid",        -- named one that cannot exist
    "unavailable",    -- the store could not be asked
    "unreachable",    -- the backend could not be connected to
    "failed",         -- the backend gave no usable answer
    "not_allowed",    -- bound to what may not be dialled
    -- events
    "forgotten",      -- bindings removed since their backend is gone
    "reinitialized",  -- sessions another backend has taken over
    "ended",          -- bindings removed since their stream has ended
    "refused",        -- sessions that a policy did not admit a request to
    "foreign_ids",    -- response headers Mcp-Session-Id that were taken away
    "dropped",        -- bindings that should have been removed and were not
    "refresh_errors", -- lists of backends that could not be had
    "orphans",        -- sessions a backend opened that could not be bound
}


---
-- @param dict ngx.shared dictionary, or nil: then one worker's counts it is
-- @param prefix of the keys
function _M.new(dict, prefix)
    local self = { dict = dict, prefix = prefix .. ":count:", now = {},
                   told = {} }
    for _, name in pairs(NAMES) do
        self.now[name], self.told[name] = 0, 0
    end
    return setmetatable(self, mt)
end


---
-- Adds to a count in a dictionary, which is made if there is room for it: other
-- entries are not pushed out.
-- @return false when it could not be added
function _M.add_to(dict, name, n)
    if dict:incr(name, n) then
        return true
    end
    local ok, err = dict:safe_add(name, 0)
    return (ok or err == "exists") and dict:incr(name, n) ~= nil
end
local add_to = _M.add_to


---
-- Counts one event.
function _M.add(self, name)
    local now = self.now
    now[name] = now[name] + 1
end


---
-- Adds what is new to the shared counts.
function _M.flush(self)
    local dict, told = self.dict, self.told
    if not dict then
        return
    end
    for name, count in pairs(self.now) do
        local new = count - told[name]
        if new ~= 0 and add_to(dict, self.prefix .. name, new) then
            told[name] = count
        end
    end
end


---
-- @return table of name to number, over all workers (others' as of their last
--         second)
function _M.totals(self)
    self:flush()
    local totals = {}
    for name, count in pairs(self.now) do
        totals[name] = self.dict and self.dict:get(self.prefix .. name) or count
    end
    return totals
end


return _M
