-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Commands of the cosocket transport that go over a connection of their own:
-- of the request that calls, or of a timer for what was enqueued. Each
-- connects, authenticates, sends, reads and closes.
--
-- `self` is the transport (transport.cosocket); here are its fields
--     failure, failed_until   while they hold, callers fail at once
--     flush_until             ms: until then a timer for the queue is expected

local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local links = require "resty.mooring.transport.link"
local slots = require "resty.mooring.transport.slot"

local now = binding.now
local timer_at = ngx.timer.at

local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

local _M = {}

-- ms for which nobody tries again after a failure.
_M.BACKOFF = 50

-- ms after which a timer that should have run at once is not expected any more:
-- nginx drops what is over lua_max_running_timers.
local OVERDUE = 1000


---
-- Notes that the server cannot be had: until then callers get `err` at once.
-- The place for any policy about servers that are down.
-- @param until_ms time of the monotonic clock, ms
function _M.fail_fast(self, err, until_ms)
    self.failure, self.failed_until = err, until_ms
    self.counters.errors = self.counters.errors + 1
end


---
-- @return what callers have to be told at once, or nil: they may try
function _M.failing(self)
    return now() < self.failed_until and self.failure or nil
end


---
-- Opens a connection of the running request or timer.
-- @return link; or nil, message, "unavailable"
function _M.open(self)
    local failure = _M.failing(self)
    if failure then
        return nil, failure, UNAVAILABLE
    end

    local link, err, code = links.open(self.opts)
    if not link then
        _M.fail_fast(self, err, now() + _M.BACKOFF)
        return nil, err, code
    end
    self.failure = nil
    self.counters.connects = self.counters.connects + 1
    return link
end


---
-- Connects, sends, waits for the replies and closes.
-- @param bytes of the commands, a string or an array
-- @param n how many they are
-- @return as call() of the transport
function _M.call(self, bytes, n)
    local link, err, code = _M.open(self)
    if not link then
        return nil, err, code
    end

    local counters = self.counters
    counters.sends = counters.sends + 1
    local replies
    replies, err, code = link:request(bytes, n)
    link:close()
    if not replies then
        local kind = code == TIMEOUT and "timeouts" or "errors"
        counters[kind] = counters[kind] + 1
        return nil, "could not get a reply from " .. link.address .. ": "
                    .. err .. ", the outcome is unknown", code
    end
    return replies
end


-- @return array of slots, array of their bytes, how many commands they are
local function take_unsent(self)
    local batch, bytes, n = {}, {}, 0
    local slot = slots.pop(self.pipeline.unsent)
    while slot do
        if slot.abandoned then
            slots.release(slot)
        else
            batch[#batch + 1], bytes[#bytes + 1] = slot, slots.wire(slot)
            n = n + slot.want
        end
        slot = slots.pop(self.pipeline.unsent)
    end
    return batch, bytes, n
end


---
-- Sends what is queued and completes it.
function _M.flush(self)
    local batch, bytes, n = take_unsent(self)
    if n == 0 then
        return
    end

    local replies, err, code = _M.call(self, bytes, n)
    local at = 0
    for i = 1, #batch do
        local slot = batch[i]
        for _ = 1, replies and slot.want or 0 do
            at = at + 1
            slots.deliver(slot, replies[at])
        end
        slots.complete(slot, err, code)
    end
end


local function flush_timer(_, self)
    self.flush_until = 0
    if not self.running then
        _M.flush(self)
    end
end


---
-- Sends what is queued from a timer of its own, as soon as this turn of the
-- event loop is over.
-- @return true; or nil, message
function _M.flush_soon(self)
    if now() < self.flush_until then
        return true
    end
    self.flush_until = now() + OVERDUE
    return timer_at(0, flush_timer, self)
end


return _M
