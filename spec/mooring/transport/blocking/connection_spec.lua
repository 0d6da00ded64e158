-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- When the blocking transport connects, and when it does not.

local blocking = require "resty.mooring.transport.blocking"
local servers = require "support.servers"

describe("resty.mooring.transport.blocking.connection", function()
    local redis, transport

    local function open(port)
        transport = blocking.new { host = "127.0.0.1", port = port or redis.port,
                                   connect_timeout = 1, command_timeout = 5 }
        return transport
    end

    local function ask(...)
        return assert(transport:call { { ... } })[1]
    end

    setup(function() redis = servers.redis() end)
    teardown(function() servers.stop_all() end)
    after_each(function() transport:close() end)

    describe("on_connect", function()
        it("calls at once where there is a connection, and with each new one", function()
            open()
            assert(transport:ready())
            local calls = 0
            transport:on_connect(function() calls = calls + 1 end)
            assert.equal(1, calls)
            redis:restart()
            servers.wait_for(function() return transport:ready() end, 5, "a connection")
            assert.equal(2, calls)
        end)

        it("has what the function enqueues sent before the command that connects", function()
            open()
            transport:on_connect(function() transport:enqueue { "SET", "first", "x" } end)
            assert.equal("x", ask("GET", "first"))
        end)
    end)

    describe("reconnect", function()
        it("has the next call connect anew, once a second", function()
            open()
            local one = ask("CLIENT", "ID")
            transport:reconnect "another server"
            local two = ask("CLIENT", "ID")
            assert.not_equal(one, two)
            transport:reconnect "too soon"
            assert.equal(two, ask("CLIENT", "ID"))
        end)

        it("is nothing without a connection", function()
            open()
            transport:reconnect "another server"
            assert.equal(0, transport:stats().connects)
            assert.equal("PONG", ask "PING")
            assert.equal(1, transport:stats().connects)
        end)

        it("is nothing more once the connection is gone anyway", function()
            open()
            ask "PING"
            transport:reconnect "another server"
            redis:restart()
            servers.wait_for(function() return transport:ready() end, 5, "a connection")
            assert.equal("PONG", ask "PING")
        end)
    end)

    it("fails what is queued when it is closed and nobody is there", function()
        open(servers.free_port())
        local results
        assert.is_true(transport:enqueue({ "PING" }, function(...) results = { ... } end))
        assert.is_true(transport:close())
        assert.is_nil(results[1])
        assert.matches("refused", results[2])
        assert.equal("unavailable", results[3])
    end)
end)
