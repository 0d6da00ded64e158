-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Looking sessions up in two tiers.
--
--     resolve, load --> memo --hit--> believed: no lock (resty.mooring.cache)
--                         | miss
--                       look --copy--> one lock; its renewal may be due
--                         | none to be believed
--                       fetch -------> the remote (resty.mooring.routing.fetch)
--                         | unavailable
--                       stale -------> a copy that nothing speaks against
--
-- A session that leaves here is the caller's own: what the memo and other
-- requests share is copied first.
--
-- load and resolve are methods of resty.mooring.routing_storage.

local cache = require "resty.mooring.cache"
local copies = require "resty.mooring.routing.copies"
local errors = require "resty.mooring.errors"
local fetching = require "resty.mooring.routing.fetch"
local house = require "resty.mooring.routing.house"
local mooring_ffi = require "resty.mooring.ffi"
local record = require "resty.mooring.record"

local clock = mooring_ffi.now

local copy = record.copy
local fetch = fetching.fetch
local refuse = house.refuse

local KEEP_SESSION, KEEP_URL = cache.KEEP_SESSION, cache.KEEP_URL
local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

local _M = {}


-- Looks in the region.
-- @param keep of cache.decode
-- @return the copy if it may still be believed, which others have as well, or
--         nil
local function look(self, id, keep)
    local entry = self.cache:find(id)
    if not entry or entry.believed == 0 then
        return nil
    end
    local now = clock()
    if copies.is_old(self, entry.stamp, now) then
        return nil
    end

    local s = self.cache:decode(id, entry, keep)
    if s and self.tells_expiry and now >= entry.fresh_until then
        local left = (entry.expires_at - now) / 1000
        if self.remote:is_due(s, left) then
            copies.claim_and_renew(self, s, entry.ref)
        else
            copies.pass_mark(self, entry)
        end
    end
    return s
end
_M.look = look


-- The copy while the remote cannot be asked, unless something speaks against
-- it.
local function stale(self, id)
    local entry = not self.closed and self.serve_stale and self.cache:find(id)
    if entry and entry.dead == 0 then
        local s = self.cache:decode(id, entry)
        if s then
            self.stale = self.stale + 1
            return s, nil, "stale"
        end
    end
end


-- @param keep of cache.decode
-- The last result is true for a session that others have as well.
local function slow_load(self, id, keep)
    local _, err, code = refuse(self, id, 3)
    if code then
        return nil, err, code
    end
    local s = look(self, id, keep)
    if s then
        return s, nil, nil, true
    end
    s, err, code = fetch(self, id)
    if code == UNAVAILABLE or code == TIMEOUT then
        local known, _, mark = stale(self, id)
        if known then
            return known, nil, mark
        end
    end
    return s, err, code
end


---
-- Loads a session from the local tier, or from the remote and keeps a copy.
-- @param id string
-- @return a session of the caller's own (with the third result "stale" when the
--         remote could not be asked); or nil, message, code: not_found,
--         invalid, unavailable, timeout, closed, or whatever the remote says
function _M.load(self, id)
    if self.inline then
        self.inline:poll()
    end
    local known = self.cache:proto(id)
    if known then
        return copy(known)
    end
    local s, err, code, shared = slow_load(self, id, KEEP_SESSION)
    if not s then
        return nil, err, code
    end
    return shared and copy(s) or s, nil, code
end


---
-- The backend_url of a session: the hot path, without allocation.
-- @param id string
-- @return string (and "stale" as load); or nil, message, code as load, and
--         invalid for a session that has no backend_url
function _M.resolve(self, id)
    if self.inline then
        self.inline:poll()
    end
    local url = self.cache:url(id)
    if url then
        return url
    end

    local s, err, code = slow_load(self, id, KEEP_URL)
    if not s then
        return nil, err, code
    end
    url = s.metadata.backend_url
    if not url then
        return nil, "the session has no backend_url", errors.INVALID
    end
    return url, nil, code
end


return _M
