-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The transport of plain LuaJIT: one blocking connection to Redis, made when
-- it is first needed and made anew after it was lost.
--
--     enqueue --> queue --+
--                         +-- one send --> Redis --> waiting (by order)
--     call ---------------+                             |
--                                  batch of a call <----+----> callback
--
-- Replies belong to commands by order alone, so whatever leaves the order in
-- doubt (a timeout, a malformed reply, half a command sent) closes the
-- connection and fails everything that waits. Nothing that may have been sent
-- is ever sent again: only a connection found closed *before* the send is
-- replaced silently.
--
-- A process forked off does not share the connection: it notices on its first
-- use and connects by itself. A transport belongs to one coroutine at a time,
-- though callbacks may use it.
--
-- The connection and what becomes of it are in blocking/connection.lua; here is
-- the queue of commands, and what callers see.

local binding = require "resty.mooring.ffi"
local connection = require "resty.mooring.transport.blocking.connection"
local errors = require "resty.mooring.errors"
local fifo = require "resty.mooring.transport.fifo"
local protocol = require "resty.mooring.transport.protocol"

local C = binding.C

local concat = table.concat
local connect = connection.connect
local drain = connection.drain
local drop = connection.drop
local encode = protocol.encode
local around = protocol.around
local encode_all = protocol.encode_all
local exchange = connection.exchange
local freshen = connection.freshen
local new_fifo = fifo.new
local pop = fifo.pop
local push = fifo.push
local send = connection.send
local setmetatable = setmetatable
local settle = connection.settle
local size = fifo.size

-- Commands that are enqueued are sent while no more than this is unanswered,
-- which the kernel's buffers hold also when the server has stopped reading.
local WINDOW_BYTES = 32 * 1024
local WINDOW_COMMANDS = 64
local MAX_QUEUE = 10000
local EVERYTHING = math.huge

-- ms between two connections that are given up on request.
local RECONNECT_EVERY = 1000

local _M = {}
local mt = { __index = _M }


-- Moves queued commands to `waiting`, at least `limit` bytes of them if there
-- are as many. Returns their bytes.
local function take_queued(self, limit)
    local queue, parts, bytes = self.queue, {}, 0
    while size(queue) > 0 and bytes < limit do
        local command = pop(queue)
        parts[#parts + 1] = command.bytes
        bytes = bytes + #command.bytes
        push(self.waiting, command.callback)
    end
    return concat(parts)
end


-- Sends queued commands as far as the kernel surely takes them.
local function flush(self)
    if self.conn and size(self.queue) > 0
       and self.unanswered < WINDOW_BYTES
       and size(self.waiting) < WINDOW_COMMANDS
    then
        send(self, take_queued(self, WINDOW_BYTES),
             C.mr_now() + self.command_ms)
    end
end


local function closed()
    return nil, "transport is closed", errors.CLOSED
end


---
-- A transport; it connects when it is first needed.
-- @param opts table of
--        host, port or path: the server, by TCP or by unix socket
--        user, password: for AUTH, or nil
--        db: number for SELECT, or nil for 0
--        connect_timeout: seconds, for each address the host has (looking up
--        a name is not bounded)
--        command_timeout: seconds, for the replies to one call
--        max_queue: commands enqueued and unanswered (nil: 10000)
-- @return transport
function _M.new(opts)
    return setmetatable({
        opts = opts,
        address = protocol.address(opts),
        command_ms = opts.command_timeout * 1000,
        max_queue = opts.max_queue or MAX_QUEUE,
        conn = nil,
        lost = nil,             -- why the last connection was given up
        closed = false,
        polling = false,
        queue = new_fifo(),     -- { bytes, callback } not sent yet
        waiting = new_fifo(),   -- entries whose replies are on their way
        unanswered = 0,         -- bytes sent since `waiting` was empty
        on_up = {},             -- called when a connection was made
        retiring = nil,         -- why the connection is to be given up
        reconnected = 0,        -- ms: when `reconnect` was last heeded
        commands = 0,
        sends = 0,
        connects = 0,
        timeouts = 0,
        errors = 0,
        dropped = 0,
    }, mt)
end


---
-- Connects and authenticates unless that has been done.
-- @return true; or nil, message, "unavailable" or "closed"
function _M:ready()
    freshen(self)
    if self.closed then
        return closed()
    end
    return connect(self)
end


local function call_encoded(self, bytes, n)
    if n > 0 then
        freshen(self)
    end
    if self.closed then
        return closed()
    elseif n == 0 then
        return {}
    end

    local ok, err, code = connect(self)
    if not ok then
        return nil, err, code
    end

    self.commands = self.commands + n
    if size(self.queue) > 0 then
        bytes = take_queued(self, EVERYTHING) .. bytes
    end
    return exchange(self, bytes, n)
end


---
-- Sends commands, and what was enqueued before them, in one write and waits
-- for their replies.
-- @param commands array of commands, each an array of strings
-- @return array of as many replies: string, number, false (the nil reply),
--         { err = text } or an array of replies with field n;
--         or nil, message, code: "unavailable" (not connected, or the
--         connection was lost, in which case the message says whether the
--         outcome is unknown), "timeout" (sent, but no reply within
--         command_timeout: the outcome is unknown) or "closed"
function _M:call(commands)
    if #commands == 0 then
        return call_encoded(self, "", 0)
    end
    local bytes, err, code = encode_all(commands)
    if not bytes then
        return nil, err, code
    end
    return call_encoded(self, bytes, #commands)
end


---
-- As call, with two commands that protocol.around makes.
-- @param heads, arg  for that
-- @return both replies; or nil, message, code
function _M:call_pair(heads, arg)
    local replies, err, code = call_encoded(self, around(heads, arg), 2)
    if not replies then
        return nil, err, code
    end
    return replies[1], replies[2]
end


---
-- Sends a command without waiting for its reply, or queues it for the next
-- call when there is no connection or the server is behind with its replies.
-- @param command array of strings
-- @param callback function(reply, err, code), called once from within a later
--        call, enqueue, poll, ready or close (from this enqueue when the send
--        fails), or nil
-- @return true; or nil, message, code: "unavailable" (too many unanswered, the
--         callback is not called) or "closed"
function _M:enqueue(command, callback)
    drain(self)
    if self.closed then
        return closed()
    elseif size(self.queue) + size(self.waiting) >= self.max_queue then
        self.dropped = self.dropped + 1
        return nil, "could not enqueue a command: " .. self.max_queue
                    .. " are unanswered", errors.UNAVAILABLE
    end

    local bytes, err, code = encode(command)
    if not bytes then
        return nil, err, code
    end
    push(self.queue, { bytes = bytes, callback = callback or false })
    self.commands = self.commands + 1
    flush(self)
    return true
end


---
-- Takes in the replies that have arrived, without waiting, and sends what was
-- held back.
function _M:poll()
    drain(self)
    flush(self)
end


---
-- Has `fn` called each time a connection was made, and now if there is one:
-- what fn enqueues is sent first.
function _M:on_connect(fn)
    self.on_up[#self.on_up + 1] = fn
    if self.conn then
        fn()
    end
end


---
-- Has the next call connect anew, because the connection leads to the wrong
-- server; at most once a second.
-- @param why string, for errors
function _M:reconnect(why)
    local now = C.mr_now()
    if self.conn and now - self.reconnected >= RECONNECT_EVERY then
        self.reconnected = now
        self.retiring = why
    end
end


---
-- A snapshot for monitoring.
-- @return table of
--        connected: boolean, as far as is known
--        queued: number of commands not sent yet
--        commands, sends, connects, timeouts: totals
--        errors: connections that failed or could not be made
--        dropped: commands that enqueue refused
function _M:stats()
    return {
        connected = self.conn ~= nil,
        queued = size(self.queue),
        commands = self.commands,
        sends = self.sends,
        connects = self.connects,
        timeouts = self.timeouts,
        errors = self.errors,
        dropped = self.dropped,
    }
end


-- Sends what is queued and waits for all replies, at most command_timeout.
local function finish(self)
    if size(self.queue) > 0 then
        freshen(self)
        if not connect(self) then
            return
        end
        send(self, take_queued(self, EVERYTHING), C.mr_now() + self.command_ms)
    end
    settle(self)
end


---
-- Closes the transport. What was enqueued is sent first and waited for, at
-- most command_timeout each. Idempotent.
-- @return true
function _M:close()
    if self.closed then
        return true
    end
    self.closed = true
    finish(self)
    if self.conn then
        drop(self, "transport is closed", errors.CLOSED)
    end
    return true
end


return _M
