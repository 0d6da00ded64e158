-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A link: one authenticated connection to Redis over a cosocket.
--
-- It belongs to the request or timer that opened it: nginx refuses to touch a
-- cosocket from any other. transport.pipeline shares one between requests by
-- letting them touch a queue only.

local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local protocol = require "resty.mooring.transport.protocol"

local ceil = math.ceil
local find = string.find
local max = math.max
local now = binding.now
local setmetatable = setmetatable
local tcp = ngx.socket.tcp
local type = type

local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

-- receiveany returns what has arrived, at most this many bytes and no more
-- than is left of one lua_socket_buffer_size buffer.
local CHUNK = 65536

-- ms, 24 days: the read of an idle connection has no reason to end. (A read
-- that times out writes to the error log.)
local FOREVER = 2 ^ 31 - 1

local _M = {}
local mt = { __index = _M }


local function milliseconds(seconds)
    return max(1, ceil(seconds * 1000))
end


-- Cosockets know nothing of /etc/hosts; the one name everybody expects to find
-- there stands for itself.
local function dial(sock, opts)
    if opts.path then
        return sock:connect("unix:" .. opts.path)
    end

    local host = opts.host
    if host == "localhost" then
        host = "127.0.0.1"
    elseif find(host, ":", 1, true) then
        host = "[" .. host .. "]"
    end

    local ok, err = sock:connect(host, opts.port)
    if ok then
        sock:setoption("tcp-nodelay", true)
        sock:setoption("keepalive", true)
    end
    return ok, err
end


-- The PING is there for the answer, whatever it says: a server that is frozen
-- still has its kernel accept connections.
local function shake_hands(self, opts, alive)
    local commands = protocol.handshake(opts)
    local last = #commands
    if alive then
        commands[last + 1] = { "PING" }
    elseif last == 0 then
        return true
    end

    local replies
    local bytes, err = protocol.encode_all(commands)
    if bytes then
        replies, err = self:request(bytes, #commands)
    end
    if not replies then
        return nil, "could not connect to " .. self.address .. ": " .. err
    end
    local pong = alive and replies[last + 1]
    self.complaint = type(pong) == "table" and pong.err
    commands[last + 1] = nil
    return protocol.check_handshake(commands, replies, opts)
end


---
-- Connects, authenticates and selects the database. Waits at most
-- connect_timeout, and command_timeout for the handshake if there is one; a
-- host name is resolved by nginx' `resolver`, which has its own timeout.
-- @param opts of the transport
-- @param alive boolean: make sure that the server answers
-- @return link; or nil, message, "unavailable"
function _M.open(opts, alive)
    local reader, err = protocol.reader()
    if not reader then
        return nil, err, UNAVAILABLE
    end
    local sock = tcp()
    local self = setmetatable({
        sock = sock,
        reader = reader,
        address = protocol.address(opts),
        command_timeout = milliseconds(opts.command_timeout),
        complaint = nil, -- what it has answered to a PING, if not PONG
    }, mt)

    sock:settimeout(milliseconds(opts.connect_timeout))
    local ok
    ok, err = dial(sock, opts)
    if not ok then
        return nil, "could not connect to " .. self.address .. ": " .. err,
               UNAVAILABLE
    end

    ok, err = shake_hands(self, opts, alive)
    if not ok then
        self:close()
        return nil, err, UNAVAILABLE
    end
    return self
end


---
-- From now on reads may take for ever, and sends command_timeout.
function _M.set_idle(self)
    self.sock:settimeouts(self.command_timeout, self.command_timeout, FOREVER)
end


---
-- Sends bytes or an array of them.
-- @return true; or nil, message: the link is dead
function _M.send(self, bytes)
    local sent, err = self.sock:send(bytes)
    if not sent then
        return nil, "could not send: " .. err
    end
    return true
end


---
-- Waits for bytes and feeds the reader.
-- @return how many bytes (0 when the read timed out); or nil, message: the link
--         is dead
function _M.receive(self)
    local bytes, err = self.sock:receiveany(CHUNK)
    if bytes then
        local ok
        ok, err = self.reader:feed(bytes)
        return ok and #bytes, err
    elseif err == "timeout" then
        return 0
    end
    return nil, "connection lost: " .. err
end


-- Reads n replies within command_timeout, however slowly they trickle in.
local function read_replies(self, n)
    local deadline = now() + self.command_timeout
    local replies, got = {}, 0

    while got < n do
        local reply, err = self.reader:next()
        if reply ~= nil then
            got = got + 1
            replies[got] = reply
        elseif not err then
            local left = deadline - now()
            if left <= 0 then
                return nil, "no reply within " .. self.command_timeout
                            .. " ms", TIMEOUT
            end
            self.sock:settimeout(left)
            local ok
            ok, err = self:receive()
            err = not ok and err
        end
        if err then
            return nil, err, UNAVAILABLE
        end
    end

    -- One too many, and from then on every reply would go to the wrong command.
    if self.reader:next() ~= nil then
        return nil, "a reply without a command", UNAVAILABLE
    end
    return replies
end


---
-- Sends commands and waits for their replies, at most command_timeout.
-- Not while a pipeline is running on the link.
-- @param bytes of the commands
-- @param n how many they are
-- @return array of n replies; or nil, message, "timeout" or "unavailable": the
--         link is to be closed
function _M.request(self, bytes, n)
    self.sock:settimeout(self.command_timeout)
    local ok, err = self:send(bytes)
    if not ok then
        return nil, err, UNAVAILABLE
    end
    return read_replies(self, n)
end


---
-- Idempotent.
function _M.close(self)
    self.sock:close()
end


return _M
