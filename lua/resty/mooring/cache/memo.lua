-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- This worker's memo of what it has decoded: where hits are found.
--
--     refs[id]      -> generation and slot of the entry, packed in one number
--     urls[slot]    -> its backend_url     (resolve)
--     protos[slot]  -> its decoded session (load; copied for each caller),
--                      which takes 800 bytes: none where resolve was enough
--     ids[slot]     -> the id, so that a slot has at most one memo entry
--
-- A memo entry is believed only when C.mr_hit says that the slot still holds
-- that generation, that nobody has disbelieved it and that its time has not
-- come. So a change needs no message to other workers, and the memo no
-- cleaning: it holds at most one entry for each slot.
--
-- The size of refs. Left to LuaJIT, 1,000 ids fill a table of 1,024: every
-- third of them is in the place of another one, which a look-up has to walk to,
-- and as soon as ids come and go, all of the table is made anew for each 24 of
-- them. For regions of up to SMALL entries, whose refs stay in the caches of
-- the CPU all the same, it is at most half full, and made anew here, after as
-- many new ids as there are entries.
--
-- The functions take a cache.

local mooring_ffi = require "resty.mooring.ffi"
local new_table = require "table.new"

local C = mooring_ffi.C
local clock = mooring_ffi.now

local pairs = pairs
local unpack = unpack

local _M = {}

-- A ref is a generation times this plus a slot (MR_SLOT_BITS).
local SLOTS = 16777216

local SMALL = 4096 -- entries
local SPARE = 8    -- slots there are beside those (MR_SPARE_SLOTS)


-- New ids may come `room` times before LuaJIT would have to look for more.
local function new_refs(self)
    local slots = self.memo_slots
    self.room = slots
    return new_table(0, 2 * slots)
end


---
-- Begins with nothing.
-- @param max_entries of the region
function _M.init(self, max_entries)
    local slots = max_entries <= SMALL and max_entries + SPARE or 0
    self.memo_slots = slots
    self.refs = new_refs(self)
    self.urls = new_table(slots, 0)
    self.protos = new_table(slots, 0)
    self.ids = new_table(slots, 0)
end


-- Another id comes into refs. There are so many at most, but those that have
-- left still take places there.
local function make_room(self)
    self.room = self.room - 1
    if self.room == 0 then
        local fresh = new_refs(self)
        for id, ref in pairs(self.refs) do
            fresh[id] = ref
        end
        self.refs = fresh
    end
end


---
-- Keeps what was decoded.
-- @param id string
-- @param ref of the entry
-- @param url its backend_url, or nil
-- @param proto the session, or nil
function _M.memoize(self, id, ref, url, proto)
    local slot = ref % SLOTS
    local ids = self.ids
    local refs, previous = self.refs, ids[slot]
    if previous and previous ~= id then
        -- The session that had this slot may have been found elsewhere since.
        local elsewhere = refs[previous]
        if elsewhere and elsewhere % SLOTS == slot then
            refs[previous] = nil
        end
    end
    if not refs[id] then
        make_room(self)
        refs = self.refs
    end
    ids[slot] = id
    refs[id] = ref
    self.urls[slot] = url
    self.protos[slot] = proto
end


-- A worker begins with misses, and what LuaJIT sees then it compiles as the way
-- things go: hits would leave such a trace halfway for as long as the worker
-- lives, and a loop that calls what was compiled by itself goes no further than
-- there. So a trace that is being recorded ends where a miss is noticed: unpack
-- is not compiled, and LuaJIT cannot go on behind it ("stitch") when all of its
-- results are returned. Such a trace is no obstacle: hits get one of their own
-- from there, and callers are compiled right through the function.
local NOTHING = {}


---
-- The hot path of resolve: no lock, no allocation.
-- @param id string
-- @return the backend_url, or nil: look with `find`
function _M.url(self, id)
    local ref = self.refs[id]
    if ref then
        local slot = C.mr_hit(self.handle, ref, clock())
        if slot >= 0 then
            return self.urls[slot]
        end
    end
    return nil, unpack(NOTHING)
end


---
-- The hot path of load. No lock.
-- @param id string
-- @return the memoized session, which the caller must copy; or nil
function _M.proto(self, id)
    local ref = self.refs[id]
    local proto = ref and self.protos[ref % SLOTS]
    if proto and C.mr_hit(self.handle, ref, clock()) >= 0 then
        return proto
    end
    return nil, unpack(NOTHING)
end


return _M
