-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Copies of remote sessions in the local tier: for how long they are good, how
-- they are put there, and how the record they are copies of is renewed.
--
-- The functions take a routing storage, of which they use
--     cache, coherence, remote, tells_expiry, ttl_ms, local_ttl_ms, closed,
--     too_large
--
-- Sliding expiry over Redis: the *mark* of a copy is the time from which its
-- record has less than `ttl` left. A hit past the mark claims the renewal for a
-- moment (other workers go on hitting), queues it, and moves the mark for good
-- when Redis says 1; on 0 the copy leaves.

local cache = require "resty.mooring.cache"
local mooring_ffi = require "resty.mooring.ffi"

local clock = mooring_ffi.now
local min = math.min

local NEVER, QUIETLY = cache.NEVER, cache.QUIETLY

local _M = {}


-- Until when a copy made at `asked` is believed for its age alone: without a
-- lease nobody tells us of changes.
local function believed_until(self, asked)
    if self.coherence and not self.cache:is_unleased() then
        return NEVER
    end
    return asked + self.local_ttl_ms
end


---
-- Is a copy too old, at `now`, to be believed?
function _M.is_old(self, stamp, now)
    return now >= believed_until(self, stamp)
end


-- What `times` returns.
local current = { stamp = 0, fresh_until = 0, expires_at = 0 }


---
-- The times of a copy of a record that at `asked` had `left` to live.
-- @param asked ms, taken before the remote was asked
-- @param left seconds, or nil: not known
-- @return { stamp, fresh_until, expires_at } in ms; always the same table, good
--         until the next call
function _M.times(self, asked, left)
    local fresh_until = believed_until(self, asked)
    local expires_at = NEVER
    if left then
        expires_at = asked + left * 1000
        fresh_until = min(fresh_until, expires_at - self.ttl_ms)
    end
    current.stamp, current.fresh_until = asked, fresh_until
    current.expires_at = expires_at
    return current
end


-- Puts a copy: true when it is kept.
local function put(self, id, s, text, times, token, flags)
    local coherence = self.coherence
    if coherence and not coherence:may_keep() then
        return false
    end
    local rc = self.cache:put(id, text, cache.PUT_TOKEN + flags, times, token,
                              s)
    if rc == cache.TOO_LARGE then
        self.too_large = self.too_large + 1
    end
    return rc == 0
end


---
-- Keeps a copy if nothing has happened to the session since the token.
-- @param s the session, text its record
-- @param flags of cache.put beside PUT_TOKEN; not 0: this is a write of ours,
--        so a copy that is there may be older
-- @return true when it is kept
function _M.fill(self, id, s, text, times, token, flags)
    if self.closed then
        return false
    elseif put(self, id, s, text, times, token, flags) then
        return true
    elseif flags ~= 0 then
        self.cache:invalidate(id, QUIETLY)
    end
    return false
end


---
-- The remote has no such session: a copy that is still here was deleted
-- elsewhere, or has expired there. (Unless it was made here after the remote
-- was asked: then the token is no longer valid.)
function _M.vanish(self, id, token)
    local tier = self.cache
    if self.closed then
        return
    end
    local entry, failed = tier:find(id, true)
    local ref = entry and entry.ref
    if not (ref or failed) or not tier:is_valid(id, token) then
        return
    end
    -- That very copy: one that is made at this moment has to stay.
    if failed or tier:remove_ref(ref, cache.VANISHED) == nil then
        tier:invalidate(id, QUIETLY)
    end
end


-- How long others leave a renewal to the caller that claimed it.
local function claim_ms(self)
    return min(self.ttl_ms / 20, 10000)
end


---
-- Queues the renewal of a session.
-- @param ref of its copy, or false: there is none
function _M.renew(self, s, ref)
    local asked = clock()
    self.remote:renew(s, ref and function(renewed)
        if self.closed then
            return
        elseif renewed then
            local times = _M.times(self, asked, self.remote:lifetime(s))
            self.cache:renew(ref, times.fresh_until, times.expires_at)
        elseif renewed == false
               and self.cache:remove_ref(ref, cache.VANISHED) == nil
        then
            self.cache:invalidate(s.id, QUIETLY)
        end
    end)
end


---
-- Queues the renewal of a session that was hit past its mark, unless another
-- caller of any worker is at it.
function _M.claim_and_renew(self, s, ref)
    if self.cache:claim(ref, clock() + claim_ms(self)) then
        _M.renew(self, s, ref)
    end
end


---
-- The mark of a copy has passed and there is nothing to renew (max_lifetime is
-- near): hits go on until it expires.
function _M.pass_mark(self, entry)
    local till = min(believed_until(self, entry.stamp), entry.expires_at)
    self.cache:renew(entry.ref, till, entry.expires_at)
end


---
-- Keeps a fetched session that has less than ttl left, under a claim of its own
-- until its renewal is answered.
function _M.fill_and_renew(self, id, s, asked, token)
    local times = _M.times(self, asked, self.ttl_ms / 1000)
    times.fresh_until = min(asked + claim_ms(self), believed_until(self, asked))
    local kept = _M.fill(self, id, s, s._record, times, token, 0)
    _M.renew(self, s, kept and self.cache:last_ref())
end


return _M
