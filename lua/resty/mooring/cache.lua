-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The local tier as Lua sees it: a region of the C core, and in front of it
-- this worker's memo of what it has decoded (cache/memo.lua). No worker ever
-- tells another about a change: the region does.
--
-- Hooks are called from here (resty.mooring.evictions). Three parts of a cache
-- are elsewhere:
--
--     cache/memo.lua    hits
--     cache/region.lua  names, and how a region is opened
--     cache/belief.lua  tokens, epoch, lease, server, doubts

local belief = require "resty.mooring.cache.belief"
local errors = require "resty.mooring.errors"
local evictions = require "resty.mooring.evictions"
local isolated = require "resty.mooring.isolated"
local log = require "resty.mooring.log"
local memo = require "resty.mooring.cache.memo"
local mooring_ffi = require "resty.mooring.ffi"
local record = require "resty.mooring.record"
local region = require "resty.mooring.cache.region"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi
local clock = mooring_ffi.now

local decode = record.decode
local error = error
local ffi_new = ffi.new
local ffi_string = ffi.string
local memoize = memo.memoize
local notify = evictions.notify
local pcall = pcall
local setmetatable = setmetatable
local tonumber = tonumber
local tostring = tostring
local type = type

local _M = {}
local mt = { __index = _M }

_M.NEVER = belief.NEVER

-- Reasons an entry leaves for (enum mr_reason), and what hooks are told.
local QUIETLY, DELETED, VANISHED, CLOSED = 0, 3, 4, 5
_M.QUIETLY, _M.DELETED, _M.VANISHED, _M.CLOSED = QUIETLY, DELETED, VANISHED,
                                                CLOSED

_M.PUT_ABSENT, _M.PUT_PRESENT, _M.PUT_REFUSE = 1, 2, 4
_M.PUT_TOKEN, _M.PUT_BUMP = 8, 16

local OK, NOT_FOUND, EXISTS, FULL, BUSY, CHANGED, TOO_LARGE =
    0, -1, -2, -3, -4, -5, -6
_M.CHANGED, _M.TOO_LARGE = CHANGED, TOO_LARGE

local STATS = { "entries", "max_entries", "bytes_used", "max_bytes",
                "region_bytes", "epoch", "hits", "misses", "puts", "removed",
                "expired", "evicted", "evicted_for_space", "refused",
                "lock_timeouts", "repairs" }

local MAX_TAG = 1023 -- MR_TAGS - 1

-- Slots looked at in one hold of the lock by work that walks the region.
local STEP = 2048

-- How often work that has to be done is tried while there is no lock, or no
-- memory, to be had.
local MAX_TRIES = 10

-- A step that removes that many (it removes 512 at most) is followed by another
-- one soon, in seconds.
local MANY, SOON = 256, 0.01


---
-- Opens the region.
-- @param opts table: name, fingerprint, max_entries, max_bytes, max_record
--        (bytes), slide (seconds), carry_over, on_evict; see c/mooring.h
-- @param level of the caller to blame for a name that is taken
-- @return the cache; raises when there is no region to be had
function _M.new(opts, level)
    level = (level or 1) + 1
    region.check_name(opts.name, opts.fingerprint, level)

    local handle, err = region.open(opts)
    if not handle then
        error("could not open the local tier: " .. err, level)
    end

    local self = setmetatable({
        handle = handle,
        name = opts.name,
        fingerprint = opts.fingerprint,
        entry = ffi_new("mr_entry"),
        put_args = ffi_new("mr_put"),
        ref_out = ffi_new("double[1]"),
    }, mt)
    memo.init(self, opts.max_entries)
    evictions.init(self, opts.on_evict)
    region.enter(self)

    return self
end


-- ----------------------------------------------------------------- hooks --

-- See resty.mooring.evictions. Hooks run after the call into C, and so after
-- the lock; they may use this very object.
_M.add_hook = evictions.add_hook
_M.notify = notify
_M.hold_back = evictions.hold_back
_M.release = evictions.release


-- ------------------------------------------------------------------ memo --

_M.url = memo.url
_M.proto = memo.proto


-- -------------------------------------------------------------- look-ups --

---
-- Looks an entry up under the lock. An expired entry leaves.
-- @param id string
-- @param peek true: this is no use of the session
-- @return mr_entry (valid until the next call on this cache); or nil: there is
--         none; or nil, mr_rc: nobody could say
function _M.find(self, id, peek)
    local rc = C.mr_cache_find(self.handle, id, #id, clock(), peek and 1 or 0,
                               self.entry)
    if notify(self) and rc == OK then
        -- The hook may have looked up something else.
        rc = self.handle and C.mr_cache_find(self.handle, id, #id, clock(), 1,
                                             self.entry) or NOT_FOUND
    end
    if rc ~= OK then
        return nil, rc ~= NOT_FOUND and rc or nil
    end
    return self.entry
end


_M.KEEP_URL, _M.KEEP_SESSION = 1, 2


---
-- Decodes a found entry and memoizes it for the hot path.
-- @param keep KEEP_URL (of resolve), KEEP_SESSION (of load as well: the session
--        that is returned must be copied then), or nil: nothing
-- @return session, or nil, message, "invalid"
function _M.decode(self, id, entry, keep)
    local ref = entry.ref
    local session, err, code =
        decode(ffi_string(entry.value, entry.value_len), id)
    if not session then
        return nil, err, code
    end
    if keep then
        memoize(self, id, ref, session.metadata.backend_url,
                keep == _M.KEEP_SESSION and session or nil)
    end
    return session
end


-- ---------------------------------------------------------------- belief --

_M.token = belief.token
_M.copy_token = belief.copy_token
_M.is_valid = belief.is_valid
_M.bump_epoch = belief.bump_epoch
_M.instance = belief.instance
_M.lease = belief.lease
_M.set_lease = belief.set_lease
_M.is_leased = belief.is_leased
_M.is_unleased = belief.is_unleased
_M.server = belief.server
_M.set_server = belief.set_server
_M.doubt = belief.doubt
_M.flush = belief.flush


-- ------------------------------------------------------------------ tags --

---
-- Says what entries are counted by. Those that are there already keep the tag
-- they have.
-- @param classifier function(session) -> tag, an integer from 0 (none) to 1023;
--        anything else is taken for 0. Called whenever a session is put.
function _M.classify(self, classifier)
    self.classifier = classifier
end


---
-- How many entries of all workers have that tag.
function _M.tagged(self, tag)
    return (C.mr_cache_tagged(self.handle, tag))
end


local function tag_of(self, session)
    local ok, tag = pcall(self.classifier, session)
    if not ok then
        log.warn_limited("classify", "classify failed: ", tostring(tag))
    elseif type(tag) == "number" and tag >= 0 and tag <= MAX_TAG
           and tag % 1 == 0
    then
        return tag
    end
    return 0
end


-- ---------------------------------------------------------------- writes --

---
-- Puts a record.
-- @param id, text strings
-- @param flags sum of the PUT_ flags
-- @param times { stamp, fresh_until, expires_at } in ms of the region's clock
-- @param token of `token`, or nil
-- @param session whose record it is, to be counted by its tag; or nil
-- @return mr_rc
function _M.put(self, id, text, flags, times, token, session)
    local stamp, fresh_until = times.stamp, times.fresh_until
    local expires_at = times.expires_at
    -- Before put_args and after times, which what it calls may use as well.
    local tag = self.classifier and session and tag_of(self, session) or 0
    local args = self.put_args
    args.key, args.key_len = id, #id
    args.value, args.value_len = text, #text
    args.flags = flags
    args.tag = tag
    args.now = clock()
    args.stamp = stamp
    args.fresh_until = fresh_until
    args.expires_at = expires_at
    if token then
        args.token = token
    end
    local rc = C.mr_cache_put(self.handle, args, self.ref_out)
    local ref = self.ref_out[0]
    notify(self)
    self.ref_out[0] = ref -- not that of what a hook has put
    return rc
end


---
-- The reference of the entry made by the last successful put.
function _M.last_ref(self)
    return (tonumber(self.ref_out[0]))
end


---
-- Removes an entry: nil when it was there, else the mr_rc.
function _M.remove(self, id, reason)
    local rc = C.mr_cache_remove(self.handle, id, #id, reason)
    notify(self)
    return rc
end


---
-- Removes the very entry that was found as `ref`.
-- @return true, false when it is another one by now; or nil, mr_rc: it is still
--         there
function _M.remove_ref(self, ref, reason)
    local rc = C.mr_cache_remove_ref(self.handle, ref, reason)
    notify(self)
    if rc ~= OK and rc ~= CHANGED then
        return nil, rc
    end
    return rc == OK
end


---
-- Removal of a copy, which cannot fail. The hook is not run: see hold_back.
function _M.invalidate(self, id, reason)
    C.mr_cache_invalidate(self.handle, id, #id, reason)
end


---
-- One caller of all workers gets true and then looks after the entry; hits go
-- on until the time `until_ms`.
function _M.claim(self, ref, until_ms)
    return C.mr_cache_claim(self.handle, ref, clock(), until_ms) == OK
end


---
-- Sets the mark and the expiry of the entry behind ref.
function _M.renew(self, ref, fresh_until, expires_at)
    return C.mr_cache_renew(self.handle, ref, fresh_until, expires_at) == OK
end


-- ---------------------------------------------------------- house-keeping --

---
-- One turn of the sweep, for background.every.
-- @return true, or seconds until the next turn: much has expired at once
function _M.sweep_turn(self)
    local count = C.mr_cache_sweep(self.handle, clock(), STEP)
    local again = count < MANY or SOON
    if count <= 0 or not self.hooks then
        notify(self)
        return again
    end
    -- A hook must not end the timer that is to come again.
    local ok, err = isolated.pcall(notify, self)
    if not ok then
        self.hook_errors = self.hook_errors + 1
        log.warn_limited("on_evict", "on_evict failed: ", tostring(err))
        return SOON
    end
    return again
end


---
-- Removes what has expired, looking at `steps` slots at most.
-- @return how many were removed
function _M.sweep(self, steps)
    local count = C.mr_cache_sweep(self.handle, clock(), steps)
    notify(self)
    return count > 0 and count or 0
end


---
-- Removes entries not used since `before` (ms of the region's clock).
-- @return how many; or nil, mr_rc: there may be more
function _M.remove_unused(self, before)
    local cursor = ffi_new("uint32_t[1]")
    local total, failed = 0, 0
    repeat
        local count = C.mr_cache_remove_unused(self.handle, before, cursor,
                                               STEP)
        notify(self)
        if count < 0 then
            failed = failed + 1
            if failed > MAX_TRIES then
                return nil, count
            end
        else
            total = total + count
        end
    until count >= 0 and cursor[0] == 0
    return total
end


---
-- @return table of numbers, see mr_stats in c/mooring.h
function _M.stats(self)
    local stats = ffi_new("mr_stats")
    C.mr_cache_stats(self.handle, stats)
    local copy = { hook_errors = self.hook_errors }
    for i = 1, #STATS do
        copy[STATS[i]] = tonumber(stats[STATS[i]])
    end
    return copy
end


---
-- Walks the whole region and compares it with itself.
-- @return true, or nil and what is wrong
function _M.check(self)
    local err = ffi_new("char[256]")
    if C.mr_cache_check(self.handle, err, 256) ~= OK then
        return nil, ffi_string(err)
    end
    return true
end


local function clear(self)
    local tries = MAX_TRIES
    repeat
        local count = C.mr_cache_clear(self.handle, CLOSED, STEP)
        notify(self)
        tries = count < 0 and tries - 1 or tries
    until count == 0 or tries == 0
end


---
-- Gives the region up: a named one is detached from, a private one is cleared
-- first (reason "closed").
function _M.close(self)
    region.leave(self)
    if not self.name then
        clear(self)
    end
    evictions.finish(self)
    memo.init(self, 0)
    ffi.gc(self.handle, nil)
    C.mr_cache_close(self.handle)
    self.handle = nil
end


-- ---------------------------------------------------------------- errors --

local MESSAGES = {
    [NOT_FOUND] = { errors.NOT_FOUND_MESSAGE, errors.NOT_FOUND },
    [EXISTS] = { "session already exists", errors.ALREADY_EXISTS },
    [FULL] = { "the storage is full", errors.FULL },
    [BUSY] = { "the local tier is busy", errors.UNAVAILABLE },
    [TOO_LARGE] = { "the session is larger than max_record", errors.INVALID },
}


---
-- An mr_rc as the three results of a failed call.
function _M.failure(rc)
    local known = MESSAGES[rc]
    if known then
        return nil, known[1], known[2]
    end
    return nil, "the local tier failed: " .. mooring_ffi.strerror(rc),
           errors.UNAVAILABLE
end


return _M
