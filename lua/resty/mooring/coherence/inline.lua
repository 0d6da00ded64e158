-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The listener of plain LuaJIT, where nothing happens between the calls of the
-- storage: each call drains what has been pushed, at most once a millisecond,
-- and writes a beacon when one is due. A caller that was idle for longer than
-- the lease misses first, which is right, since nobody has listened.
--
-- Nothing here waits but the connect, and that is tried only while the data
-- connection is up: so a call does not take longer for the listener's sake when
-- the server is away. The answers to what a new connection is asked are taken
-- in by the next few calls, which are misses until then.
--
-- Several processes may share a region (fork); one of them owns the listener,
-- as among the workers of an nginx, see coherence.worker.

local election = require "resty.mooring.coherence.election"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local protocol = require "resty.mooring.transport.protocol"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi
local clock = mooring_ffi.now

local decode = protocol.decode
local encode_all = protocol.encode_all
local ffi_string = ffi.string
local ipairs = ipairs
local setmetatable = setmetatable
local unpack = unpack

local _M = {}
local mt = { __index = _M }

local OK, TIMED_OUT = 0, -11
local RETRY, RETRY_REFUSED = 250, 30000 -- ms
local SEND = 50   -- ms for a few bytes to a kernel that has just accepted
local NO_WAIT = 0 -- a deadline long past
-- ms that one call takes messages in for. What is left is for the next ones:
-- the beacons behind it are late, and the lease ends by itself.
local LONGEST = 5

local conn_out = ffi.new("mr_conn *[1]")
local reply_out = ffi.new("mr_reply *[1]")
local message = ffi.new("char[256]")


---
-- As coherence.worker.new.
function _M.new(coherence, target)
    return setmetatable({
        coherence = coherence,
        cache = coherence.cache,
        target = target,
        patience = coherence.lease_ms,
        polled = 0,
        polling = false,
        stopped = false,
        complained = false,
        retry_at = 0,
        conn = nil,
        greetings = nil, -- AUTH and SELECT while they are not answered,
        greeted = nil,   -- and their replies so far
        pid = nil,
        token = 0,
    }, mt)
end


-- -------------------------------------------------------- one connection --

local function close_conn(conn)
    C.mr_conn_close(conn)
end


local function close(self)
    if self.conn then
        close_conn(ffi.gc(self.conn, nil))
        self.conn = nil
    end
end


-- Once, until a connection has listened again.
local function complain(self, err, refused)
    if refused then
        err = self.coherence:refused(err)
    end
    if not self.complained then
        self.complained = true
        local say = refused and log.err or log.warn
        say(refused and err or "believes no copy until it hears of changes "
                               .. "again: " .. err)
    end
end


local function drop(self, err, refused)
    local listened = self.coherence.state == "live" and not refused
    close(self)
    self.coherence:lost()
    self.retry_at = clock() + (refused and RETRY_REFUSED or RETRY)
    self.complained = self.complained and not listened
    complain(self, err, refused)
end


local function send(self, commands)
    local bytes, err = encode_all(commands)
    if not bytes then
        return drop(self, err)
    end
    local rc = C.mr_conn_send(self.conn, bytes, #bytes, C.mr_now() + SEND)
    if rc ~= OK then
        drop(self, ffi_string(C.mr_conn_error(self.conn)))
    end
end


-- A reply to AUTH or SELECT.
local function take_greeting(self, reply)
    local replies, commands = self.greeted, self.greetings
    replies[#replies + 1] = reply
    if #replies < #commands then
        return
    end
    self.greetings = nil
    local ok, err = protocol.check_handshake(commands, replies, self.target)
    if not ok then
        drop(self, err)
    end
end


local function take(self, reply)
    if self.greetings then
        return take_greeting(self, reply)
    end
    local commands, wrong, refused = self.coherence:take(reply)
    if wrong then
        drop(self, wrong, refused)
    elseif commands then
        send(self, commands)
    end
end


-- Feeds what has arrived to the protocol.
local function drain(self)
    local deadline = clock() + LONGEST
    while self.conn and clock() < deadline do
        local rc = C.mr_conn_recv(self.conn, NO_WAIT, reply_out)
        if rc == TIMED_OUT then
            return
        elseif rc ~= OK then
            return drop(self, ffi_string(C.mr_conn_error(self.conn)))
        end
        local reply = decode(reply_out[0])
        C.mr_reply_free(reply_out[0])
        take(self, reply)
    end
end


local function connect(self)
    local target = self.target
    local rc = C.mr_conn_open(target.host, target.port or 0, target.path,
                              target.connect_timeout * 1000, conn_out, message,
                              ffi.sizeof(message))
    if rc ~= OK then
        return drop(self, ffi_string(message))
    end
    self.conn = ffi.gc(conn_out[0], close_conn)

    local commands = protocol.handshake(target)
    self.greetings = #commands > 0 and { unpack(commands) } or nil
    self.greeted = {}
    for _, command in ipairs(self.coherence:connected(self.token, false)) do
        commands[#commands + 1] = command
    end
    send(self, commands)
end


-- ------------------------------------------------------------- each call --

-- A connection belongs to the process that made it.
local function notice_fork(self)
    local pid = mooring_ffi.pid()
    if self.pid ~= pid then
        close(self)
        self.coherence:retired()
        self.pid, self.token = pid, pid * 1048576 + 1
    end
end


local function keep(self)
    local coherence = self.coherence
    drain(self)
    if not self.conn then
        return
    end
    coherence:beacon()
    if coherence.forbidden then
        drop(self, coherence.forbidden, true)
    elseif coherence:is_silent() then
        drop(self, "it has been silent for too long")
    elseif coherence:is_astray() then
        drop(self, "the server is another one by now")
    end
end


local function work(self, now)
    notice_fork(self)
    self.coherence:follow()
    if not election.claim(self.cache, self.token, self.patience) then
        -- It was taken for dead: another process listens.
        if self.conn then
            close(self)
            self.coherence:retired()
        end
        return
    end
    election.beat(self.cache, self.token)
    if self.conn then
        keep(self)
    elseif now >= self.retry_at
           and self.coherence.transport:stats().connected
    then
        connect(self)
    end
end


---
-- Does what there is to do without waiting (but for a connect that is due); to
-- be called at the beginning of every call of the storage.
function _M.poll(self)
    local now = clock()
    if now - self.polled < 1 or self.polling or self.stopped then
        return
    end
    self.polled, self.polling = now, true
    work(self, now)
    self.coherence.transport:poll()
    self.polling = false
end


---
-- Nothing goes on between calls.
function _M.start()
end

_M.look_after = _M.start


---
-- Closes the connection and leaves the listener to others.
function _M.stop(self)
    self.stopped = true
    close(self)
    self.coherence:close()
    election.resign(self.cache, self.token)
end


return _M
