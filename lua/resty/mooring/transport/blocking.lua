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

local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local protocol = require "resty.mooring.transport.protocol"

local C = binding.C
local ffi = binding.ffi

local concat = table.concat
local decode = protocol.decode
local encode = protocol.encode
local encode_all = protocol.encode_all
local ffi_gc = ffi.gc
local ffi_string = ffi.string
local notify = protocol.notify
local setmetatable = setmetatable
local sub = string.sub
local type = type

local OK = C.MR_OK
local PROTOCOL = C.MR_PROTOCOL
local TIMED_OUT = C.MR_TIMEOUT

-- Commands that are enqueued are sent while no more than this is unanswered,
-- which the kernel's buffers hold also when the server has stopped reading.
local WINDOW_BYTES = 32 * 1024
local WINDOW_COMMANDS = 64
local MAX_QUEUE = 10000
local EVERYTHING = math.huge

-- ms between two connections that are given up on request.
local RECONNECT_EVERY = 1000

-- How messages about commands that have been sent end.
local UNKNOWN = ", the outcome is unknown"

local conn_slot = ffi.new("mr_conn *[1]")
local reply_slot = ffi.new("mr_reply *[1]")
local message = ffi.new("char[256]")

local _M = {}
local mt = { __index = _M }


-- A queue of values, false among them.
local function new_fifo()
    return { first = 1, last = 0 }
end


local function size(fifo)
    return fifo.last - fifo.first + 1
end


local function push(fifo, value)
    local last = fifo.last + 1
    fifo.last = last
    fifo[last] = value
end


local function pop(fifo)
    local first = fifo.first
    local value = fifo[first]
    fifo[first] = nil
    if first == fifo.last then
        fifo.first, fifo.last = 1, 0
    else
        fifo.first = first + 1
    end
    return value
end


local function close_conn(conn)
    C.mr_conn_close(conn)
end


-- Completes one waiting entry: the batch of a call, or the callback of an
-- enqueued command (false when it has none).
local function complete(entry, reply, err, code)
    if type(entry) ~= "table" then
        return notify(entry, reply, err, code)
    end
    if err then
        entry.err, entry.code = err, code
    else
        local n = entry.n + 1
        entry.n, entry[n] = n, reply
    end
end


-- Closes the connection and fails all that wait for its replies. The list is
-- replaced first, since callbacks may use the transport again.
local function drop(self, err, code)
    local conn, waiting = self.conn, self.waiting
    self.conn, self.lost = nil, err
    self.waiting = new_fifo()
    self.unanswered = 0
    C.mr_conn_close(ffi_gc(conn, nil))

    while size(waiting) > 0 do
        complete(pop(waiting), nil, err, code)
    end
end


local function drop_timed_out(self, what)
    self.timeouts = self.timeouts + 1
    drop(self, "could not " .. what .. " " .. self.address .. ": no reply "
               .. "within " .. self.opts.command_timeout .. " s" .. UNKNOWN,
         errors.TIMEOUT)
end


local function drop_failed(self, what, cause)
    self.errors = self.errors + 1
    local unknown = size(self.waiting) > 0 and UNKNOWN or ""
    drop(self, "could not " .. what .. " " .. self.address .. ": " .. cause
               .. unknown, errors.UNAVAILABLE)
end


local function drop_for(self, rc, what)
    if rc == TIMED_OUT then
        return drop_timed_out(self, what)
    end
    local cause = ffi_string(C.mr_conn_error(self.conn))
    if rc == PROTOCOL then
        cause = "malformed reply: " .. cause
    end
    return drop_failed(self, what, cause)
end


-- Sends bytes whose entries are in `waiting`. Returns whether all went out;
-- if not, the connection is gone and the entries have failed.
local function send(self, bytes, deadline)
    self.sends = self.sends + 1
    self.unanswered = self.unanswered + #bytes
    local rc = C.mr_conn_send(self.conn, bytes, #bytes, deadline)
    if rc == OK then
        return true
    end
    drop_for(self, rc, "send to")
    return false
end


-- Takes one reply and hands it to whom it belongs.
-- Returns MR_OK, MR_TIMEOUT, or another code: the connection is gone.
local function receive(self, deadline)
    local rc = C.mr_conn_recv(self.conn, deadline, reply_slot)
    if rc == TIMED_OUT then
        return rc
    elseif rc ~= OK then
        drop_for(self, rc, "get a reply from")
        return rc
    end

    local value = decode(reply_slot[0])
    C.mr_reply_free(reply_slot[0])
    local waiting = self.waiting
    if size(waiting) == 0 then
        drop_failed(self, "use the connection to",
                    type(value) == "table" and value.err -- it takes its leave
                    or "an unexpected reply")
        return PROTOCOL
    end
    local entry = pop(waiting)
    if size(waiting) == 0 then
        self.unanswered = 0
    end

    complete(entry, value)
    return OK
end


-- Takes in all replies that have arrived. Callbacks that come back here find
-- it being done.
local function drain(self)
    if self.conn and not self.polling then
        self.polling = true
        repeat
            local rc = receive(self, 0)
        until rc ~= OK or not self.conn
        self.polling = false
    end
end


-- Sends bytes, the last n commands of which make up a batch, and waits for the
-- batch. Returns as call().
local function exchange(self, bytes, n)
    local deadline = C.mr_now() + self.command_ms
    local batch = { n = 0 }
    for _ = 1, n do
        push(self.waiting, batch)
    end

    if send(self, bytes, deadline) then
        while batch.n < n and not batch.err do
            if receive(self, deadline) == TIMED_OUT then
                drop_timed_out(self, "get a reply from")
            end
        end
    end

    if batch.err then
        return nil, batch.err, batch.code
    end
    return batch
end


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


local function fail_queued(self, err, code)
    local queue = self.queue
    self.queue = new_fifo()
    while size(queue) > 0 do
        notify(pop(queue).callback, nil, err, code)
    end
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


local function open(self)
    local opts = self.opts
    local rc = C.mr_conn_open(opts.host, opts.port or 0, opts.path,
                              opts.connect_timeout * 1000, conn_slot, message,
                              ffi.sizeof(message))
    if rc ~= OK then
        self.errors = self.errors + 1
        return nil, "could not connect to " .. self.address .. ": "
                    .. ffi_string(message)
    end
    self.conn = ffi_gc(conn_slot[0], close_conn)
    return true
end


-- What became of a handshake says nothing of the commands: none was sent.
local function without_unknown(err)
    return sub(err, -#UNKNOWN) == UNKNOWN and sub(err, 1, -#UNKNOWN - 1) or err
end


local function shake_hands(self)
    local commands = protocol.handshake(self.opts)
    if #commands == 0 then
        return true
    end

    local replies, err = exchange(self, encode_all(commands), #commands)
    if not replies then
        return nil, without_unknown(err)
    end
    local ok
    ok, err = protocol.check_handshake(commands, replies, self.opts)
    if not ok then
        self.errors = self.errors + 1
        drop(self, err, errors.UNAVAILABLE)
    end
    return ok, err
end


-- Waits for the replies that are on their way, at most command_timeout.
local function settle(self)
    local deadline = C.mr_now() + self.command_ms
    while self.conn and size(self.waiting) > 0 do
        if receive(self, deadline) == TIMED_OUT then
            drop_timed_out(self, "get a reply from")
        end
    end
end


-- Closes a connection that `reconnect` was called for.
local function retire(self)
    settle(self)
    if self.conn then
        drop(self, self.retiring, errors.UNAVAILABLE)
    end
    self.retiring = nil
end


-- Makes sure there is a connection that was alive a moment ago. When there is
-- none to be had, all that is queued fails: sent much later it could undo what
-- others have done since.
local function connect(self)
    drain(self)
    if self.retiring then
        retire(self)
    end
    if self.conn then
        return true
    end

    local ok, err = open(self)
    if ok then
        ok, err = shake_hands(self)
    end
    if not ok then
        fail_queued(self, err, errors.UNAVAILABLE)
        return nil, err, errors.UNAVAILABLE
    end
    self.connects = self.connects + 1
    for i = 1, #self.on_up do
        self.on_up[i]()
    end
    if not self.conn then -- what was sent for them has found it closed
        err = without_unknown(self.lost)
        fail_queued(self, err, errors.UNAVAILABLE)
        return nil, err, errors.UNAVAILABLE
    end
    return true
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
    if self.closed then
        return closed()
    end
    return connect(self)
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
    return self:call_encoded(encode_all(commands), #commands)
end


---
-- As call, with commands as protocol.encode_all would make them.
-- @param bytes string
-- @param n how many they are
function _M:call_encoded(bytes, n)
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
-- Sends a command without waiting for its reply, or queues it for the next
-- call when there is no connection or the server is behind with its replies.
-- @param command array of strings
-- @param callback function(reply, err, code), called once from within a later
--        call, enqueue, poll, ready or close (from this enqueue when the send
--        fails), or nil
-- @return true; or nil, message, code: "unavailable" (too many unanswered, the
--         callback is not called) or "closed"
function _M:enqueue(command, callback)
    if self.closed then
        return closed()
    end
    drain(self)
    if size(self.queue) + size(self.waiting) >= self.max_queue then
        self.dropped = self.dropped + 1
        return nil, "could not enqueue a command: " .. self.max_queue
                    .. " are unanswered", errors.UNAVAILABLE
    end

    push(self.queue, { bytes = encode(command), callback = callback or false })
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
