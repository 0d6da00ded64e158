-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The transport of nginx workers, which it never blocks.
--
--                      long-lived object                otherwise
--     call()     --->  the one connection that the      a connection of its own
--     enqueue()  --->  object has in this worker        (transport.alone)
--                      (transport.owner, .pipeline)
--
-- The shared connection is owned by a timer, so it outlives requests. start()
-- in init_worker_by_lua begins it; without that an object is taken for
-- long-lived once a second request uses it. Until then, with `lua_code_cache
-- off` (all that a request makes dies with it, and a timer would keep it alive
-- for ever), without free timers, and in a worker that is exiting (its timers
-- are dead, its requests are not), a command takes a connection of its own.
--
-- Commands of one request are executed in their order while they use one
-- connection, the shared one.
--
-- To look inside: stats(), and the error log.

local alone = require "resty.mooring.transport.alone"
local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local new_table = require "table.new"
local owner = require "resty.mooring.transport.owner"
local pipelines = require "resty.mooring.transport.pipeline"
local protocol = require "resty.mooring.transport.protocol"
local slots = require "resty.mooring.transport.slot"

local acquire = slots.acquire
local around = protocol.around
local encode = protocol.encode
local encode_all = protocol.encode_all
local exiting = ngx.worker.exiting
local get_phase = ngx.get_phase
local ngx = ngx
local now = binding.now
local release = slots.release
local setmetatable = setmetatable
local wait = slots.wait

local CLOSED = errors.CLOSED
local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

local MAX_QUEUE = 10000

-- ms between two connections that are given up on request.
local RECONNECT_EVERY = 1000

-- Where a coroutine can be suspended.
local CAN_WAIT = {
    rewrite = true, server_rewrite = true, access = true, content = true,
    timer = true, ssl_cert = true, ssl_session_fetch = true,
    ssl_client_hello = true,
}

-- Where not even a timer can be made.
local TIMERLESS = { init = true, exit_worker = true }

local _M = {}
local mt = { __index = _M }


---
-- A transport. Does not connect.
-- @param opts table of
--        host, port or path: the server, by TCP or by unix socket. The host is
--        an address, a name that nginx' `resolver` knows (/etc/hosts is not
--        read), or "localhost", which stands for 127.0.0.1
--        user, password: for AUTH, or nil
--        db: number for SELECT, or nil for 0
--        connect_timeout: seconds, without the time of the resolver
--        command_timeout: seconds, for the replies to one call
--        max_queue: commands under way from which on enqueue() refuses more
--        (nil: 10000)
-- @return transport
function _M.new(opts)
    local counters = { commands = 0, sends = 0, connects = 0, timeouts = 0,
                       errors = 0, dropped = 0 }
    return setmetatable({
        opts = opts,
        address = protocol.address(opts),
        command_timeout = opts.command_timeout,
        max_queue = opts.max_queue or MAX_QUEUE,
        counters = counters,
        pipeline = pipelines.new(opts.command_timeout, counters),
        closed = false,
        requests = 0,            -- that have used the object before start()
        running = false,         -- see transport.owner
        connected = false,
        waiting = slots.queue(),
        on_up = {},
        attempts = 0,
        timer = 0,
        due = nil,
        reconnected = 0,         -- ms: when `reconnect` was last heeded
        failure = nil,           -- see transport.alone
        failed_until = 0,
        flush_until = 0,
    }, mt)
end


local function closed()
    return nil, "transport is closed", CLOSED
end


---
-- Begins to connect, in the background, and keeps the connection up from then
-- on. For init_worker_by_lua; idempotent.
-- @return true; or nil, message, code: there is no timer to be had, or it was
--         closed
function _M.start(self)
    if self.closed then
        return closed()
    elseif owner.is_running(self) then
        return true
    elseif TIMERLESS[get_phase()] or exiting() then
        return nil, "there are no timers here", UNAVAILABLE
    end
    self.requests = 2
    return owner.start(self)
end


-- Has a request before this one used the object?
local function used_before(self)
    if self.requests < 2 then
        local ctx = ngx.ctx
        if not ctx[self] then
            ctx[self] = true
            self.requests = self.requests + 1
        end
    end
    return self.requests > 1
end


-- Is the shared connection the one to use? Starts it when there is none.
local function shared(self)
    if owner.is_running(self) then
        return not exiting()
    end
    return used_before(self) and self:start()
end


-- The time is up.
local function timed_out(self, slot)
    self.counters.timeouts = self.counters.timeouts + 1
    if slot.bytes then
        return nil, "could not send to " .. self.address .. " within "
                    .. self.command_timeout .. " s", UNAVAILABLE
    end
    return nil, "could not get a reply from " .. self.address .. " within "
                .. self.command_timeout .. " s, the outcome is unknown", TIMEOUT
end


local function call_shared(self, bytes, n)
    local slot = acquire()
    slot.bytes, slot.want, slot.replies = bytes, n, new_table(n, 0)
    self.pipeline:push(slot)
    if not wait(slot, self.command_timeout) then
        return timed_out(self, slot)
    end

    local replies, err, code = slot.replies, slot.err, slot.code
    release(slot)
    if err then
        return nil, err, code
    end
    return replies
end


-- As call_shared with two commands, without a table.
local function pair_shared(self, heads, arg)
    local slot = acquire()
    slot.bytes, slot.heads, slot.want = arg, heads, 2
    self.pipeline:push(slot)
    if not wait(slot, self.command_timeout) then
        return timed_out(self, slot)
    end

    local first, second = slot.first, slot.second
    local err, code = slot.err, slot.code
    release(slot)
    if err then
        return nil, err, code
    end
    return first, second
end


-- Everything but the usual case.
local function call_unconnected(self, bytes, n)
    local phase = get_phase()
    if self.closed then
        return closed()
    elseif not CAN_WAIT[phase] then
        return nil, "cannot wait for a reply in the phase " .. phase,
               UNAVAILABLE
    elseif n == 0 then
        return {}
    end

    if shared(self) then
        local ok, err, code = owner.await(self)
        if self.connected then
            return call_shared(self, bytes, n)
        elseif owner.is_running(self) and not exiting() then
            return nil, err or "lost the connection to " .. self.address,
                   ok and UNAVAILABLE or code
        end
    end
    self.counters.commands = self.counters.commands + n
    return alone.call(self, bytes, n)
end


---
-- Sends commands together and waits for their replies.
-- @param commands array of commands, each an array of strings
-- @return array of as many replies: string, number, false (the nil reply),
--         { err = text } or an array of replies with field n;
--         or nil, message, code: "timeout" (sent, but no reply within
--         command_timeout: the outcome is unknown), "unavailable" (not
--         connected; or the connection was lost, in which case the message says
--         that the outcome is unknown; or a phase that cannot wait) or "closed"
-- Waits command_timeout at most, and before that, while there is no
-- connection, as long as ready().
function _M.call(self, commands)
    local n = #commands
    if n == 0 then
        return call_unconnected(self, "", 0)
    end
    local bytes, err, code = encode_all(commands)
    if not bytes then
        return nil, err, code
    end
    if self.connected and CAN_WAIT[get_phase()] then
        return call_shared(self, bytes, n)
    end
    return call_unconnected(self, bytes, n)
end


---
-- As call, with two commands that protocol.around makes.
-- @param heads, arg  for that
-- @return both replies; or nil, message, code
function _M.call_pair(self, heads, arg)
    if self.connected and CAN_WAIT[get_phase()] then
        return pair_shared(self, heads, arg)
    end
    local replies, err, code = call_unconnected(self, around(heads, arg), 2)
    if not replies then
        return nil, err, code
    end
    return replies[1], replies[2]
end


local function refuse(self, why)
    self.counters.dropped = self.counters.dropped + 1
    return nil, "could not enqueue a command: " .. why, UNAVAILABLE
end


-- Makes sure that what is queued will be sent.
-- @return true; or nil, message
local function arrange_sending(self)
    local phase = get_phase()
    if TIMERLESS[phase] then
        return nil, "there are no timers in the phase " .. phase
    end
    return shared(self) or alone.flush_soon(self)
end


---
-- Sends a command without waiting, in every phase but init and exit_worker.
-- @param command array of strings
-- @param callback function(reply, err, code), called at most once in a timer,
--        or nil. It must not wait: other replies queue up behind it
-- @return true; or nil, message, code: "unavailable" (too many are under way,
--         or there is no timer; the callback is not called) or "closed"
-- While there is no connection a command is kept, for 5 s at most.
function _M.enqueue(self, command, callback)
    if self.closed then
        return closed()
    elseif self.pipeline:pending() >= self.max_queue then
        return refuse(self, self.max_queue .. " are under way")
    end

    local bytes, err, code = encode(command)
    if not bytes then
        return nil, err, code
    elseif not self.connected then
        local ok
        ok, err = arrange_sending(self)
        if not ok then
            return refuse(self, err)
        end
    end

    local slot = acquire()
    slot.bytes, slot.want = bytes, 1
    slot.enqueued, slot.callback = true, callback
    self.pipeline:push(slot)
    return true
end


---
-- Connects and authenticates unless that has been done.
-- @return true; or nil, message, "unavailable" or "closed"
-- Waits connect_timeout at most, and command_timeout for AUTH and SELECT.
function _M.ready(self)
    local phase = get_phase()
    if self.connected then
        return true
    elseif self.closed then
        return closed()
    elseif not CAN_WAIT[phase] then
        return nil, "cannot connect in the phase " .. phase, UNAVAILABLE
    elseif shared(self) then
        return owner.await(self)
    end

    local link, err, code = alone.open(self)
    if not link then
        return nil, err, code
    end
    link:close()
    return true
end


---
-- Has `fn` called each time the shared connection has come up, before any
-- caller is woken that waits for it, and now if it is up: what fn enqueues is
-- sent first. fn must not wait.
function _M.on_connect(self, fn)
    self.on_up[#self.on_up + 1] = fn
    if self.connected then
        fn()
    end
end


---
-- Gives the shared connection up for a new one, because it leads to the wrong
-- server. Replies under way are waited for, command_timeout at most. Without a
-- connection, or within a second of the last time, nothing happens.
-- @param why string, for the log
function _M.reconnect(self, why)
    local time = now()
    if self.connected and time - self.reconnected >= RECONNECT_EVERY then
        self.reconnected = time
        log.warn("connects to ", self.address, " anew: ", why)
        self.connected = false
        self.pipeline:stop()
    end
end


---
-- A snapshot for monitoring, of this object in this worker.
-- @return table of
--        connected: boolean, the shared connection is up
--        queued: number of commands not sent yet
--        commands, sends, connects, timeouts: totals
--        errors: connections that failed or could not be made
--        dropped: commands that enqueue refused
function _M.stats(self)
    local counters = self.counters
    return {
        connected = self.connected,
        queued = self.pipeline.unsent.n,
        commands = counters.commands,
        sends = counters.sends,
        connects = counters.connects,
        timeouts = counters.timeouts,
        errors = counters.errors,
        dropped = counters.dropped,
    }
end


---
-- Closes the transport. In the background what is queued is sent and waited
-- for, command_timeout at most. Idempotent.
-- @return true
function _M.close(self)
    if self.closed then
        return true
    end
    self.closed, self.connected = true, false
    self.pipeline:stop()
    if not self.running and self.flush_until == 0 then
        self.pipeline:fail_unsent("transport is closed", CLOSED)
    end
    return true
end


return _M
