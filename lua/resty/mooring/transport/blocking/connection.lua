-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The one connection of the blocking transport: how it comes up, who gets which
-- reply, and how it ends.
--
--     freshen, connect --> open, AUTH, SELECT --> on_up
--     exchange, send ----> Redis --> receive --> the first in `waiting`: the
--                          batch of a call, or a callback
--     anything in doubt -> drop: all that waits fails
--
-- Callbacks run in the middle of this and may use the transport again, so each
-- step looks again whether there still is a connection, and lists are replaced
-- before what is in them is told. No reply comes late: the connection that it
-- would come by is closed. A process forked off is told by C that the
-- connection is not its own, and opens another one.
--
-- The functions take a transport (resty.mooring.transport.blocking), of which
-- they use
--     opts, address, command_ms, conn, lost, polling, queue, waiting,
--     unanswered, on_up, retiring, and the counters sends, connects, timeouts,
--     errors

local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local fifo = require "resty.mooring.transport.fifo"
local protocol = require "resty.mooring.transport.protocol"

local C = binding.C
local ffi = binding.ffi

local decode = protocol.decode
local encode_all = protocol.encode_all
local ffi_gc = ffi.gc
local ffi_string = ffi.string
local new_fifo = fifo.new
local notify = protocol.notify
local pop = fifo.pop
local push = fifo.push
local size = fifo.size
local sub = string.sub
local type = type

local OK = C.MR_OK
local PROTOCOL = C.MR_PROTOCOL
local TIMED_OUT = C.MR_TIMEOUT

-- How messages about commands that have been sent end.
local UNKNOWN = ", the outcome is unknown"

local conn_slot = ffi.new("mr_conn *[1]")
local reply_slot = ffi.new("mr_reply *[1]")
local message = ffi.new("char[256]")

local _M = {}


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


---
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


---
-- Sends bytes whose entries are in `waiting`.
-- @param deadline ms, of mr_now
-- @return whether all went out; if not, the connection is gone and the entries
--         have failed
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


---
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


---
-- Sends bytes, the last n commands of which make up a batch, and waits for the
-- batch.
-- @return as call()
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


local function fail_queued(self, err, code)
    local queue = self.queue
    self.queue = new_fifo()
    while size(queue) > 0 do
        notify(pop(queue).callback, nil, err, code)
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

    local bytes, err = encode_all(commands)
    if not bytes then
        drop(self, err, errors.UNAVAILABLE)
        return nil, err
    end
    local replies
    replies, err = exchange(self, bytes, #commands)
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


---
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


---
-- Takes in what has arrived, and notices a connection that is of no use any
-- more. Callbacks run in this, one of which may close the transport: to be
-- called before anybody looks whether it is closed.
local function freshen(self)
    drain(self)
    if self.retiring then
        retire(self)
    end
end


---
-- Makes sure there is a connection, which after `freshen` was alive a moment
-- ago. When there is none to be had, all that is queued fails: sent much later
-- it could undo what others have done since.
-- @return true; or nil, message, "unavailable"
local function connect(self)
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


_M.connect = connect
_M.drain = drain
_M.drop = drop
_M.exchange = exchange
_M.freshen = freshen
_M.send = send
_M.settle = settle


return _M
