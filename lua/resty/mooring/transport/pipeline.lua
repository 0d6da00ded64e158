-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A pipeline: commands of many requests on one link.
--
--     requests --push--> unsent --writer--> sent --reader--> completed
--                          |                  |
--                          '---- one send ----'---- replies in order
--
-- Two light threads of one timer own the link while `run` lasts. The writer is
-- the thread that called `run`: it sends all that is queued in one go (64 KiB
-- at most, or one command that is longer) and sleeps on a semaphore in between.
-- nginx wakes it once the other events of a turn of its loop are done, so
-- requests that arrive together are sent together. The reader takes replies,
-- which come in the order of the commands. Two threads that last, not one for
-- each command: what a timer allocates for a thread is freed only when the
-- timer ends.
--
-- The queues outlast the link. What was sent on a link that is lost fails, its
-- outcome is unknown; what was not sent stays and goes to the next link.

local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local semaphore = require "ngx.semaphore"
local slots = require "resty.mooring.transport.slot"

local complete = slots.complete
local deliver = slots.deliver
local ffi_copy = binding.ffi.copy
local ffi_new = binding.ffi.new
local ffi_string = binding.ffi.string
local max = math.max
local now = binding.now
local pcall = pcall
local pop = slots.pop
local push = slots.push
local setmetatable = setmetatable
local thread = ngx.thread
local tostring = tostring
local type = type

local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

-- A command that stays without reply for this many times command_timeout is
-- taken for the sign of a dead connection rather than of a slow command.
local STALLED = 3

-- Seconds the writer sleeps while nothing is under way.
local LONG = 3600

local _M = {}
local mt = { __index = _M }


---
-- @param command_timeout seconds
-- @param counters table whose `sends` and `commands` are kept
function _M.new(command_timeout, counters)
    return setmetatable({
        unsent = slots.queue(),
        sent = slots.queue(),
        counters = counters,
        command_timeout = command_timeout,
        wake = nil,         -- semaphore of the running writer
        asleep = false,     -- the writer waits on it
        lost = nil,         -- why the reader has ended
        answered = false,   -- a reply has come on this link
        drain_until = nil,  -- ms: stopping, at this time at the latest
    }, mt)
end


-- Wakes the writer, from any request and phase.
local function rouse(self)
    if self.asleep then
        self.asleep = false
        self.wake:post()
    end
end


---
-- Queues a slot, to be sent on the running link or on the next one.
function _M.push(self, slot)
    slot.since = now()
    push(self.unsent, slot)
    self.counters.commands = self.counters.commands + slot.want
    if self.asleep then
        rouse(self)
    end
end


---
-- Commands without a reply so far.
function _M.pending(self)
    return self.unsent.n + self.sent.n
end


---
-- Lets `run` end: what is queued is sent, replies are waited for, both for at
-- most command_timeout.
function _M.stop(self)
    self.drain_until = self.drain_until or now() + self.command_timeout * 1000
    rouse(self)
end


---
-- Undoes `stop`, for the next link.
function _M.resume(self)
    self.drain_until = nil
end


-- ------------------------------------------------------------- the writer --

-- What is to be sent is put together here, and becomes one string: short ones
-- for each command would be made, and collected, in vain. Nothing yields while
-- this is in use.
local ROOM = 65536
local out = ffi_new("char[?]", ROOM)


local function append(at, text)
    ffi_copy(out + at, text, #text)
    return at + #text
end


-- Bytes of a slot on the wire.
local function size_of(slot)
    local heads, bytes = slot.heads, slot.bytes
    return heads and #heads[1] + #heads[2] + 2 * #bytes + 2 or #bytes
end


local function append_slot(at, slot)
    local heads, bytes = slot.heads, slot.bytes
    if not heads then
        return append(at, bytes)
    end
    at = append(append(at, heads[1]), bytes)
    return append(append(append(at, heads[2]), bytes), "\r\n")
end


-- Moves unsent slots to the sent ones, as many as there is room for.
-- @return their bytes, or nil: there are none
local function take_unsent(self)
    local unsent, sent, time = self.unsent, self.sent, now()
    local at, large = 0, nil

    local slot = unsent.first
    while slot and not large do
        local size = size_of(slot)
        if at > 0 and at + size > ROOM then
            break
        end
        pop(unsent)
        if slot.abandoned then
            slots.release(slot)
        else
            if size > ROOM then
                large = slots.wire(slot)
            else
                at = append_slot(at, slot)
            end
            slot.bytes, slot.since = nil, time
            push(sent, slot)
        end
        slot = unsent.first
    end
    return large or at > 0 and ffi_string(out, at) or nil
end


local function stalled(self)
    local oldest = self.sent.first
    return oldest
           and now() - oldest.since > STALLED * 1000 * self.command_timeout
end


-- Is there nothing left to do, or no time left to do it?
local function drained(self)
    local deadline = self.drain_until
    return deadline and (not self.sent.first or now() >= deadline)
end


local function sleep(self)
    local seconds = self.sent.first and self.command_timeout or LONG
    local deadline = self.drain_until
    if deadline then
        seconds = max(0.001, (deadline - now()) / 1000)
    end

    self.asleep = true
    self.wake:wait(seconds)
    self.asleep = false
end


-- @return why the link is lost, code for what was sent; or nil: stopped
local function write_loop(self, link)
    local counters = self.counters

    while not self.lost do
        local bytes = take_unsent(self)
        if bytes then
            local ok, err = link:send(bytes)
            if not ok then
                return err
            end
            counters.sends = counters.sends + 1
        elseif drained(self) then
            return nil
        else
            sleep(self)
        end

        if stalled(self) then
            return "no reply for " .. STALLED * self.command_timeout .. " s",
                   TIMEOUT
        end
    end
    return self.lost
end


-- ------------------------------------------------------------- the reader --

-- A reply nobody waits for: Redis says so why it hangs up ("max number of
-- clients reached"), anything else is out of step.
local function unexpected(reply)
    local text = type(reply) == "table" and reply.err
    return text or "a reply without a command"
end


-- @return why the link has to be closed; or nil: all replies are delivered
local function take_replies(self, reader)
    local sent = self.sent
    while true do
        local reply, err = reader:next()
        if reply == nil then
            return err
        end

        local slot = sent.first
        if not slot then
            return unexpected(reply)
        end
        self.answered = true
        if deliver(slot, reply) then
            complete(pop(sent))
        end
    end
end


local function read_loop(self, link)
    local reader = link.reader
    repeat
        local ok, err = link:receive()
        err = not ok and err or take_replies(self, reader)
        if err then
            return err
        elseif self.drain_until then
            rouse(self)
        end
    until false
end


-- Whatever ends the reader, the writer has to know: nothing else would ever
-- complete the slots.
local function read(self, link)
    local _, why = pcall(read_loop, self, link)
    self.lost = tostring(why)
    rouse(self)
end


---
-- Serves the queue over a link until it is lost or `stop` is called. The link
-- is closed then, and every slot that was sent is completed.
-- @return nil: stopped; or why the link was lost
function _M.run(self, link)
    self.wake = semaphore.new(0)
    self.lost, self.answered = nil, false
    link:set_idle()

    local reader = thread.spawn(read, self, link)
    local why, code = write_loop(self, link)
    -- close() would fail under a waiting reader; to kill it closes the socket.
    thread.kill(reader)
    link:close()

    local err = why and "lost the connection: " .. why or "no reply in time"
    slots.complete_all(self.sent, link.address .. ": " .. err
        .. "; the outcome is unknown", code or (why and UNAVAILABLE or TIMEOUT))
    return why
end


---
-- Fails what was not sent.
-- @param before  ms: only what was queued earlier
function _M.fail_unsent(self, err, code, before)
    slots.complete_all(self.unsent, err, code, before)
end


return _M
