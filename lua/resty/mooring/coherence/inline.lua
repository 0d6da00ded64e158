-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The listener of plain LuaJIT, where nothing happens between the calls of the
-- storage: each call drains what has been pushed, at most once a millisecond,
-- and writes a beacon when one is due. A caller that was idle for longer than
-- the lease misses first, which is right, since nobody has listened.
--
-- Several processes may share a region (fork); one of them owns the listener, as
-- among the workers of an nginx, see coherence.worker.

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
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local OK, TIMED_OUT = 0, -11
local RETRY, RETRY_REFUSED = 1000, 30000 -- ms
local HANDSHAKE = 250                    -- ms

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
        retry_at = 0,
        conn = nil,
        pid = nil,
        token = 0,
    }, mt)
end


local function drop(self, err, refused)
    if self.conn then
        C.mr_conn_close(ffi.gc(self.conn, nil))
        self.conn = nil
    end
    self.coherence:lost()
    self.retry_at = clock() + (refused and RETRY_REFUSED or RETRY)
    if refused then
        self.coherence:refused()
        log.warn_limited("tracking", "Redis does not push invalidations to us (",
                         err, "): entries are believed for local_ttl only")
    end
end


local function send(self, commands)
    local bytes = encode_all(commands)
    local rc = C.mr_conn_send(self.conn, bytes, #bytes, C.mr_now() + HANDSHAKE)
    if rc ~= OK then
        drop(self, ffi_string(C.mr_conn_error(self.conn)))
        return false
    end
    return true
end


-- Takes one reply before the deadline: value, or nil and the mr_rc.
local function receive(self, deadline)
    local rc = C.mr_conn_recv(self.conn, deadline, reply_out)
    if rc ~= OK then
        return nil, rc
    end
    local value = decode(reply_out[0])
    C.mr_reply_free(reply_out[0])
    return value
end


-- Feeds what arrives before the deadline to the protocol. Returns false when
-- the connection is gone.
local function drain(self, deadline, done)
    while not (done and done()) do
        local reply, rc = receive(self, deadline)
        if reply == nil then
            if rc == TIMED_OUT then
                return true
            end
            drop(self, ffi_string(C.mr_conn_error(self.conn)))
            return false
        end
        local commands, wrong, refused = self.coherence:take(reply)
        if wrong then
            drop(self, wrong, refused)
            return false
        elseif commands and not send(self, commands) then
            return false
        end
    end
    return true
end


local function authenticate(self)
    local commands = protocol.handshake(self.target)
    if #commands == 0 then
        return true
    end
    if not send(self, commands) then
        return false
    end
    local replies = {}
    for i = 1, #commands do
        replies[i] = receive(self, C.mr_now() + HANDSHAKE)
        if replies[i] == nil then
            drop(self, "no answer to AUTH")
            return false
        end
    end
    local ok, err = protocol.check_handshake(commands, replies, self.target)
    if not ok then
        drop(self, err)
    end
    return ok
end


local function connect(self)
    local target = self.target
    local rc = C.mr_conn_open(target.host, target.port or 0, target.path,
                              target.connect_timeout * 1000, conn_out, message,
                              ffi.sizeof(message))
    if rc ~= OK then
        return drop(self, ffi_string(message))
    end
    self.conn = ffi.gc(conn_out[0], function(conn) C.mr_conn_close(conn) end)
    if authenticate(self)
       and send(self, self.coherence:connected(self.token, false))
    then
        drain(self, C.mr_now() + HANDSHAKE, function()
            return self.coherence.state == "live"
        end)
    end
end


-- A connection belongs to the process that made it.
local function notice_fork(self)
    local pid = mooring_ffi.pid()
    if self.pid ~= pid then
        if self.conn then
            C.mr_conn_close(ffi.gc(self.conn, nil))
            self.conn = nil
            self.coherence.state = "lost"
        end
        self.pid, self.token = pid, pid * 1048576 + 1
    end
end


local function work(self, now)
    notice_fork(self)
    if not election.claim(self.cache, self.token, self.patience) then
        return
    end
    election.beat(self.cache, self.token)
    if not self.conn and now >= self.retry_at then
        connect(self)
    end
    if self.conn and drain(self, 0) then
        self.coherence:beacon()
        if self.coherence:is_silent() then
            drop(self, "no invalidation message has come back")
        end
    end
end


---
-- Does what there is to do without waiting (but for a connect that is due); to
-- be called at the beginning of every call of the storage.
function _M.poll(self)
    local now = clock()
    if now - self.polled >= 1 then
        self.polled = now
        work(self, now)
        self.coherence.transport:poll()
    end
end


---
-- Nothing goes on between calls.
function _M.start()
end


---
-- Closes the connection and leaves the listener to others.
function _M.stop(self)
    if self.conn then
        C.mr_conn_close(ffi.gc(self.conn, nil))
        self.conn = nil
    end
    self.coherence:lost()
    election.resign(self.cache, self.token)
end


return _M
