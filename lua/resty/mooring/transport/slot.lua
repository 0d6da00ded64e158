-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Slots: what commands on a shared connection wait in for their replies.
--
--     caller                      queues                       reader
--     acquire, push --------->  unsent -> sent  ------->  deliver, complete
--     wait ........................................ semaphore .....'
--     release
--
-- A slot belongs to whoever waits for it, until `wait` fails: then it is
-- *abandoned* and belongs to the queue it is in, whose owner swallows the late
-- reply and releases it. So a reply can never reach another caller, and a
-- semaphore is never reused with a post in it that nobody has taken. A caller
-- that is killed while it waits (its client went away) leaves its slot to the
-- garbage collector.
--
-- An enqueued slot has a callback in the place of a waiter and belongs to its
-- queue from the start.
--
-- Slots and their semaphores are pooled, and queues are lists linked through
-- the slots: a call makes no garbage here.

local semaphore = require "ngx.semaphore"
local protocol = require "resty.mooring.transport.protocol"

local around = protocol.around
local notify = protocol.notify

local _M = {}

-- Slots kept for reuse in a worker; more than wait at any one time are left to
-- the garbage collector.
local MAX_POOLED = 1024

local pool
local pooled = 0


---
-- A slot with a semaphore.
-- @return slot: the caller fills in `bytes` (for the wire; with `heads`, see
--         protocol.around, what they are put around), `want` (how many
--         replies) and `replies` (where more than two go), and if nobody
--         waits for it `enqueued` and `callback`
function _M.acquire()
    local slot = pool
    if slot then
        pool = slot.next
        pooled = pooled - 1
        slot.next = nil
        return slot
    end

    return {
        semaphore = semaphore.new(0),
        bytes = nil,       -- for the wire, until they are sent
        heads = nil,       -- with these: around bytes
        want = 0,          -- replies that have to come
        got = 0,           -- replies that have come
        replies = nil,     -- array of them, or
        first = nil,       -- the only one, or the first
        second = nil,      -- of two
        err = nil,         -- why there are none
        code = nil,
        done = false,
        abandoned = false, -- the caller has given up
        enqueued = false,  -- there is no caller, but maybe a
        callback = nil,
        since = 0,         -- ms: when it was queued, later when it was sent
        next = nil,
    }
end


---
-- Gives a slot back.
function _M.release(slot)
    if pooled >= MAX_POOLED then
        return
    end

    slot.bytes, slot.heads, slot.replies = nil, nil, nil
    slot.first, slot.second = nil, nil
    slot.err, slot.code, slot.callback = nil, nil, nil
    slot.want, slot.got = 0, 0
    slot.done, slot.abandoned, slot.enqueued = false, false, false
    slot.next = pool
    pool = slot
    pooled = pooled + 1
end

local release = _M.release


---
-- Ends the wait for a slot that is in no queue any more.
-- @param err, code  why it has failed; nil: its replies are there
function _M.complete(slot, err, code)
    if slot.enqueued then
        local callback, reply = slot.callback, slot.first
        release(slot)
        return notify(callback, reply, err, code)
    elseif slot.abandoned then
        return release(slot)
    end

    slot.err, slot.code, slot.done = err, code, true
    slot.semaphore:post()
end


---
-- The commands of a slot that is not sent yet.
-- @return string
function _M.wire(slot)
    if slot.heads then
        return around(slot.heads, slot.bytes)
    end
    return slot.bytes
end


---
-- Hands a slot its next reply.
-- @return true when it was the last one
function _M.deliver(slot, reply)
    local got = slot.got + 1
    slot.got = got
    if slot.replies then
        slot.replies[got] = reply
    elseif got == 1 then
        slot.first = reply
    else
        slot.second = reply
    end
    return got == slot.want
end


---
-- Waits until a slot is completed.
-- @param seconds at most
-- @return true: look at `err`, `code` and `replies`, then release it; false:
--         it is abandoned and no longer the caller's
function _M.wait(slot, seconds)
    local woken = slot.semaphore:wait(seconds)
    if not slot.done then
        slot.abandoned = true
        return false
    end

    -- Completed in the very turn of the event loop in which the time ran out:
    -- the post has to be taken before the semaphore can be used again.
    if not woken then
        slot.semaphore:wait(0)
    end
    return true
end


---
-- A queue of slots. `n` counts the replies they have to get.
function _M.queue()
    return { first = nil, last = nil, n = 0 }
end


function _M.push(queue, slot)
    local last = queue.last
    if last then
        last.next = slot
    else
        queue.first = slot
    end
    queue.last = slot
    queue.n = queue.n + slot.want
end


---
-- Takes the oldest slot, or nil.
function _M.pop(queue)
    local slot = queue.first
    if slot then
        local following = slot.next
        queue.first = following
        if not following then
            queue.last = nil
        end
        slot.next = nil
        queue.n = queue.n - slot.want
    end
    return slot
end

local pop = _M.pop


---
-- Completes all slots of a queue.
-- @param before  ms: only those that have waited since an earlier time
function _M.complete_all(queue, err, code, before)
    while queue.first and (not before or queue.first.since < before) do
        _M.complete(pop(queue), err, code)
    end
end


return _M
