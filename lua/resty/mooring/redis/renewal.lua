-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sliding expiry: how long sessions live in Redis, and how a session in use is
-- kept from expiring.
--
--     written or renewed       less than ttl left       expires
--     |------- 0.5 ttl ---------|-------- ttl -----------|
--                               a use here is due: PEXPIRE to 1.5 ttl
--
-- A renewal is queued and not waited for. One that gets lost costs nothing: a
-- later use is due as well. One that comes late does no harm either: PEXPIRE
-- brings no deleted session back.

local errors = require "resty.mooring.errors"
local mooring_ffi = require "resty.mooring.ffi"

local wall_clock = mooring_ffi.C.mr_time

local closed = errors.closed
local floor = math.floor
local format = string.format
local min = math.min

local _M = {}

local HEADROOM = 1.5 -- written with this many times the ttl


---
-- How long a session is kept that is written or renewed now.
-- @return seconds; 0 or less when it is older than max_lifetime
function _M.lifetime(self, s)
    local seconds = self.ttl * HEADROOM
    if self.max_lifetime then
        seconds = min(seconds, s.created_at + self.max_lifetime - wall_clock())
    end
    return seconds
end


---
-- Seconds as Redis wants them after PX and PEXPIRE.
-- @return string
function _M.milliseconds(seconds)
    return format("%d", floor(seconds * 1000 + 0.5))
end


---
-- Is it time to renew a session that is in use?
-- @param s session
-- @param left seconds until its record expires
-- False also where a renewal would gain nothing because max_lifetime is near:
-- it would still be a change to every replica that holds a copy.
function _M.is_due(self, s, left)
    return left < self.ttl and self:lifetime(s) - left > self.ttl / 20
end


---
-- Queues the renewal of a session in use and returns at once.
-- @param s session
-- @param callback optional function(renewed): true, false when there is no
--        such session any more, nil when the outcome is not known
-- @return true, or nil, message, code when it could not even be queued
function _M.renew(self, s, callback)
    if self.closed then
        return closed()
    end
    local lifetime = self:lifetime(s)
    self.renewals = self.renewals + 1
    return self.transport:enqueue(
        { "PEXPIRE", self.key_prefix .. s.id, _M.milliseconds(lifetime) },
        callback and function(reply)
            if reply == 1 or reply == 0 then
                callback(reply == 1)
            else
                callback(nil)
            end
        end)
end


return _M
