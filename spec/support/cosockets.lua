-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What the specs of the cosocket transport share; for use inside a worker.

local cosocket = require "resty.mooring.transport.cosocket"
local servers = require "support.servers"

local _M = {}

local transports, peers = {}, {}


--- A transport that is not started, to the unix socket of `redis` unless opts
-- has a port or a path.
function _M.new(redis, opts)
    opts = opts or {}
    if opts.port then
        opts.host = opts.host or "127.0.0.1"
    else
        opts.path = opts.path or redis.socket
    end
    opts.connect_timeout = opts.connect_timeout or 1
    opts.command_timeout = opts.command_timeout or 1
    local transport = cosocket.new(opts)
    transports[#transports + 1] = transport
    return transport
end


--- A transport whose shared connection is up.
function _M.connected(redis, opts)
    local transport = _M.new(redis, opts)
    assert(transport:start())
    assert(transport:ready())
    return transport
end


--- A server that says what no Redis would.
function _M.odd_peer()
    local peer = servers.node("spec/fixtures/resp_peer.mjs")
    peers[#peers + 1] = peer
    return peer
end


--- Closes all transports and peers made so far.
function _M.close_all()
    for _, transport in ipairs(transports) do
        transport:close()
    end
    for _, peer in ipairs(peers) do
        peer:stop()
    end
    transports, peers = {}, {}
end


--- Runs fn(1) to fn(n) in light threads.
-- @return array of their first results
function _M.together(n, fn)
    local threads, results = {}, {}
    for i = 1, n do
        threads[i] = ngx.thread.spawn(fn, i)
    end
    for i = 1, n do
        local ok, result = ngx.thread.wait(threads[i])
        assert(ok, result)
        results[i] = result
    end
    return results
end


--- The reply to one command, or the error code of the call.
function _M.outcome(transport, ...)
    local replies, _, code = transport:call { { ... } }
    return replies and replies[1] or code
end


--- How long fn takes.
function _M.seconds_of(fn)
    local start = servers.now()
    fn()
    return servers.now() - start
end


return _M
