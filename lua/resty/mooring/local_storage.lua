-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions in memory shared by all workers of one nginx, or private to one
-- process: the embedded default, for a proxy of one replica. Here the region is
-- the truth and not a cache, so by default it refuses new sessions when it is
-- full of live ones rather than lose one.
--
-- A session expires `ttl` after its last use (store, load or resolve). Nobody
-- writes anything for that on a hit: the core notes the time of the last use in
-- the entry, and the sweep looks at it when the entry seems due.

local background = require "resty.mooring.background"
local cache = require "resty.mooring.cache"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local options = require "resty.mooring.options"
local record = require "resty.mooring.record"
local session = require "resty.mooring.session"

local C = mooring_ffi.C
local clock = mooring_ffi.now
local wall_clock = C.mr_time

local closed = errors.closed
local copy = record.copy
local decode = cache.decode
local encode = record.encode
local error = error
local invalid_id = session.invalid_id
local not_found = errors.not_found
local setmetatable = setmetatable
local type = type

local KEEP_SESSION, KEEP_URL = cache.KEEP_SESSION, cache.KEEP_URL
local NEVER = cache.NEVER

local _M = { _VERSION = mooring_ffi._VERSION }
local mt = { __index = _M }

local SWEEP_INTERVAL = 0.1 -- seconds; expired sessions leave within a few
local SWEEP_PER_CALL = 4   -- slots, where there is no timer

local OPTIONS = {
    { name = "max_entries", check = options.integer(1, 2^24),
      default = 100000, doc = "sessions held at most" },
    { name = "max_bytes", check = options.integer(1, 2^42),
      unit = "bytes", doc = "ids and records together; 512 a session" },
    { name = "max_record", check = options.integer(64, 2^24 - 1),
      default = 65536, unit = "bytes", doc = "largest record" },
    { name = "max_id_length", check = options.integer(1, 65535),
      default = session.MAX_ID_LENGTH, unit = "bytes", doc = "longest id" },
    { name = "ttl", check = options.seconds, default = 7200,
      unit = "seconds", doc = "life of an unused session" },
    { name = "max_lifetime", check = options.seconds,
      unit = "seconds", doc = "a session expires this long after created_at" },
    { name = "full", check = options.one_of("refuse", "evict"),
      default = "refuse", doc = "what happens to a new session without room" },
    { name = "name", check = options.non_empty_string,
      doc = "shares the region with all of that name, also after a reload" },
    { name = "on_evict", check = options.callable,
      doc = "function(session, reason), see README" },
}
_M.OPTIONS = OPTIONS


---
-- Makes a local storage.
-- @param opts table, see OPTIONS and the README
-- @return the storage; raises naming the option that is wrong
function _M.new(opts)
    opts = options.check(OPTIONS, opts, 2)
    local self = setmetatable({
        ttl = opts.ttl,
        max_lifetime = opts.max_lifetime,
        max_id_length = opts.max_id_length,
        -- What to raise, for whoever has set it; router/store.lua has set it
        -- for somebody else.
        limited_by = opts.max_bytes and "max_entries or max_bytes"
                     or "max_entries",
        put_flags = opts.full == "refuse" and cache.PUT_REFUSE or 0,
        closed = false,
        started = false,
    }, mt)
    self.cache = cache.new({
        name = opts.name,
        fingerprint = "local",
        max_entries = opts.max_entries,
        max_bytes = opts.max_bytes,
        max_record = opts.max_record,
        slide = opts.ttl,
        carry_over = true,
        on_evict = opts.on_evict,
    }, 2)
    return self
end


-- -------------------------------------------------------- house-keeping --

local function sweep(self)
    if self.closed then
        return false
    end
    return self.cache:sweep_turn()
end


local function arm(self)
    if not self.started and background.available() then
        self.started = true
        background.every(SWEEP_INTERVAL, self, sweep, true)
    end
end


-- Where there are no timers, each call sweeps a little.
local function keep_house(self)
    if not self.started then
        arm(self)
        if not self.started then
            self.cache:sweep(SWEEP_PER_CALL)
        end
    end
end


---
-- Arms the sweep in this nginx worker. For init_worker_by_lua: without it the
-- first call in a worker does it.
_M.start = arm


-- ---------------------------------------------------------------- checks --

local function check_id(self, id, level)
    if type(id) ~= "string" then
        error("id must be a string", level + 1)
    end
    return invalid_id(id, self.max_id_length)
end


local function check_session(self, s)
    if type(s) ~= "table" or type(s.id) ~= "string" then
        error("session must be a session", 3)
    end
    return invalid_id(s.id, self.max_id_length)
end


-- ---------------------------------------------------------------- writes --

-- When the session was last updated, and when it dies, in the region's clock.
local function times_of(self, s)
    local now = clock()
    local offset = now - wall_clock() * 1000
    local max_lifetime = self.max_lifetime
    return {
        stamp = s.updated_at * 1000 + offset,
        fresh_until = NEVER,
        expires_at = max_lifetime
                     and (s.created_at + max_lifetime) * 1000 + offset
                     or NEVER,
    }
end


-- Each put is a change that ends the tokens of others: update_if relies on it.
local function put(self, s, flags, token)
    if self.closed then
        return closed()
    end
    local wrong = check_session(self, s)
    if wrong then
        return nil, wrong, errors.INVALID
    end
    local text, err, code = encode(s)
    if not text then
        return nil, err, code
    end

    keep_house(self)
    local rc = self.cache:put(s.id, text,
                              flags + self.put_flags + cache.PUT_BUMP,
                              times_of(self, s), token, s)
    if rc == 0 then
        return true
    elseif rc == cache.CHANGED then
        return false
    end
    if rc == -3 then
        log.warn_limited("full", "the local storage is full of sessions in ",
                         "use and refuses new ones; raise ", self.limited_by)
    end
    return cache.failure(rc)
end


---
-- Creates or overwrites a session.
-- @param s session
-- @return true, or nil, message, code: invalid, full, unavailable, closed
function _M.store(self, s)
    return put(self, s, 0)
end


---
-- Stores a session whose id is not taken.
-- @return as store, and already_exists
function _M.create(self, s)
    return put(self, s, cache.PUT_ABSENT)
end


---
-- create for callers that cannot wait; here nobody has to.
-- @param callback function(created): called before this returns true
-- @return as create
function _M.create_later(self, s, callback)
    local ok, err, code = _M.create(self, s)
    if ok then
        callback(true)
    end
    return ok, err, code
end


---
-- Overwrites a session that is there.
-- @return as store, and not_found
function _M.update(self, s)
    return put(self, s, cache.PUT_PRESENT)
end


---
-- Deletes a session; an unknown id is no error.
-- @param id string
-- @return true, or nil, message, code: invalid, unavailable, closed
function _M.delete(self, id)
    if self.closed then
        return closed()
    end
    local wrong = check_id(self, id, 2)
    if wrong then
        return nil, wrong, errors.INVALID
    end
    local rc = self.cache:remove(id, cache.DELETED)
    if rc == 0 or rc == -1 then
        return true
    end
    return cache.failure(rc)
end


-- Is a session still as it was seen?
local function is_as_seen(self, id, seen)
    local current, err, code = _M.peek(self, id)
    if not current then
        if code == errors.NOT_FOUND then
            return false
        end
        return nil, err, code
    end
    if current._record ~= (seen._record or encode(seen)) then
        return false
    end
    return true, current._ref
end


---
-- Overwrites a session only while it is still as it was seen.
-- @param s session
-- @param seen session of that id as returned by load
-- @return true, false when it is another one by now or gone; or nil, message,
--         code as store
function _M.update_if(self, s, seen)
    local wrong = not self.closed and check_session(self, s)
    if wrong then
        return nil, wrong, errors.INVALID
    end
    -- The token may die for another id's sake: then the session is still as it
    -- was, and all begins anew.
    while true do
        local token = not self.closed and self.cache:token(s.id)
        local same, err, code = is_as_seen(self, s.id, seen)
        if not same then
            return same, err, code
        end
        local ok
        ok, err, code = put(self, s, cache.PUT_PRESENT + cache.PUT_TOKEN, token)
        if ok ~= false then
            return ok, err, code
        end
    end
end


---
-- Deletes a session only while it is still as it was seen.
-- @param id string
-- @param seen session as returned by load
-- @return true when it was deleted, false when it is another one by now or
--         gone; or nil, message, code
function _M.remove_if(self, id, seen)
    local same, ref, code = is_as_seen(self, id, seen)
    if not same then
        return same, ref, code
    end
    local removed, rc = self.cache:remove_ref(ref, cache.DELETED)
    if removed == nil then
        return cache.failure(rc)
    end
    return removed
end


-- ----------------------------------------------------------------- reads --

local function look(self, id, keep)
    if self.closed then
        return closed()
    end
    local wrong = check_id(self, id, 3)
    if wrong then
        return nil, wrong, errors.INVALID
    end
    keep_house(self)

    local entry, rc = self.cache:find(id, not keep)
    if not entry then
        if rc then
            return cache.failure(rc)
        end
        return not_found()
    end
    local ref = entry.ref
    local s, err, code = decode(self.cache, id, entry, keep)
    if s then
        s._ref = ref
    end
    return s, err, code
end


---
-- Loads a session; it is in use, so its expiry moves.
-- @param id string
-- @return a session of the caller's own; or nil, message, code: not_found,
--         invalid, unavailable, closed
function _M.load(self, id)
    local known = self.cache:proto(id)
    if known then
        return copy(known)
    end
    local s, err, code = look(self, id, KEEP_SESSION)
    if not s then
        return nil, err, code
    end
    return copy(s)
end


---
-- As load, but no use of the session: its expiry stays where it is.
function _M.peek(self, id)
    local s, err, code = look(self, id)
    return s, err, code
end


---
-- The backend_url of a session: the hot path, without allocation.
-- @param id string
-- @return string; or nil, message, code as load, and invalid for a session
--         that has no backend_url
function _M.resolve(self, id)
    local url = self.cache:url(id)
    if url then
        return url
    end

    local s, err, code = look(self, id, KEEP_URL)
    if not s then
        return nil, err, code
    end
    url = s.metadata.backend_url
    if not url then
        return nil, "the session has no backend_url", errors.INVALID
    end
    return url
end


-- ------------------------------------------------------------------ life --

---
-- Deletes the sessions that were neither updated nor loaded since `before`:
-- last use is the later of updated_at and the last load or resolve.
-- @param before unix seconds
-- @return how many were deleted; or nil, message, code: unavailable, closed
function _M.delete_expired(self, before)
    if type(before) ~= "number" or before ~= before then
        error("before must be a number (unix seconds)", 2)
    end
    if self.closed then
        return closed()
    end
    local count, rc = self.cache:remove_unused(
        clock() + (before - wall_clock()) * 1000)
    if not count then
        return cache.failure(rc)
    end
    return count
end


---
-- Has one more function called for each session that leaves, as `on_evict`.
-- @param on_evict function(session, reason)
function _M.add_hook(self, on_evict)
    if type(on_evict) ~= "function" then
        error("on_evict must be a function", 2)
    end
    self.cache:add_hook(on_evict)
end


---
-- Closes this object: every later call returns closed. Sessions of a named
-- storage stay for others of that name, those of a private one leave.
-- @return true
function _M.close(self)
    if not self.closed then
        self.closed = true
        self.cache:close()
    end
    return true
end


---
-- Says what sessions are counted by, in this object and from now on.
-- @param classifier function(session) -> integer from 0 (none) to 1023; it is
--        called whenever a session is stored, and must not change it
function _M.classify(self, classifier)
    if not options.callable(classifier) then
        error("classifier must be a function", 2)
    end
    if not self.closed then
        self.cache:classify(classifier)
    end
end


---
-- How many sessions there are, of all workers, that were classified so.
-- @return count; or nil, message, code: closed
function _M.tagged(self, tag)
    if self.closed then
        return closed()
    end
    return self.cache:tagged(tag)
end


---
-- @return table of numbers, see the README; or nil, message, code: closed
function _M.stats(self)
    if self.closed then
        return closed()
    end
    return self.cache:stats()
end


return _M
