-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The cosocket transport, inside one nginx worker, when Redis is slow, gone,
-- not to be trusted or not to be had.

local cosockets = require "support.cosockets"
local servers = require "support.servers"

local odd_peer = cosockets.odd_peer
local outcome = cosockets.outcome
local seconds_of = cosockets.seconds_of
local together = cosockets.together
local wait_for = servers.wait_for

describe("resty.mooring.transport.cosocket: failures", function()
    local redis

    setup(function() redis = servers.redis() end)
    teardown(function() servers.stop_all() end)

    before_each(function()
        redis:cli("FLUSHALL")
        redis:cli("CONFIG", "RESETSTAT")
    end)

    after_each(function() cosockets.close_all() end)

    local function new(opts) return cosockets.new(redis, opts) end
    local function connected(opts) return cosockets.connected(redis, opts) end


    describe("a command that times out", function()
        after_each(function() redis:resume() end)

        it("fails with timeout in time, and says that its outcome is unknown", function()
            local transport = connected { command_timeout = 0.2 }
            redis:pause()
            local replies, err, code
            local took = seconds_of(function()
                replies, err, code = transport:call { { "PING" } }
            end)

            assert.is_nil(replies)
            assert.equal("timeout", code)
            assert.matches("outcome is unknown", err)
            assert.is_true(took >= 0.15 and took < 0.5, took)
            assert.equal(1, transport:stats().timeouts)
        end)

        it("never leaves its late reply to another command", function()
            local transport = connected { command_timeout = 0.5 }
            redis:pause()
            local outcomes = together(20, function(i)
                return outcome(transport, "ECHO", "late " .. i)
            end)
            for i = 1, 20 do
                assert.equal("timeout", outcomes[i])
            end
            redis:resume()

            for round = 1, 3 do
                local values = together(50, function(i)
                    return outcome(transport, "ECHO", round .. ":" .. i)
                end)
                for i = 1, 50 do
                    assert.equal(round .. ":" .. i, values[i])
                end
            end
            -- The late replies did come on this very connection.
            assert.equal(1, transport:stats().connects)
            assert.equal(70 + 100, redis:command_counts().echo)
        end)

        it("gets a reply that comes in the turn in which its time is up", function()
            local transport = connected { command_timeout = 0.1 }
            local pending = ngx.thread.spawn(function()
                return transport:call { { "BLPOP", "none", "0.05" } }
            end)
            -- Once it is sent nothing runs until reply and time-out are both due.
            ngx.sleep(0.01)
            local start = servers.now()
            repeat until servers.now() - start > 0.2
            local _, replies = ngx.thread.wait(pending)
            assert.same({ false }, replies)

            for i = 1, 5 do
                assert.equal("e" .. i, outcome(transport, "ECHO", "e" .. i))
            end
            assert.equal(0, transport:stats().timeouts)
        end)

        it("costs the connection when the server stays silent", function()
            local transport = connected { command_timeout = 0.1 }
            redis:pause()
            for _ = 1, 2 do
                assert.equal("timeout", outcome(transport, "PING"))
            end
            wait_for(function() return not transport:stats().connected end, 3)
            redis:resume()

            assert(wait_for(function() return transport:ready() end, 3))
            assert.equal("PONG", outcome(transport, "PING"))
            assert.is_true(transport:stats().connects >= 2)
        end)

        it("is cancelled when it was never sent", function()
            local transport = connected { command_timeout = 0.3 }
            redis:pause()
            -- More than the kernel takes: the writer gets stuck in it.
            local big = ngx.thread.spawn(outcome, transport, "SET", "big",
                                         string.rep("x", 30000000))
            wait_for(function() return transport:stats().queued == 0 end)
            local _, err, code = transport:call { { "SET", "small", "1" } }
            ngx.thread.wait(big)
            redis:resume()

            assert.equal("unavailable", code)
            assert.matches("could not send", err)
            assert(wait_for(function() return transport:ready() end, 3))
            assert.is_false(transport:call({ { "GET", "small" } })[1])
        end)
    end)


    describe("a connection that is lost", function()
        it("fails every waiting call, and the next one works", function()
            local transport = connected { command_timeout = 5 }
            local blocked = ngx.thread.spawn(outcome, transport, "BLPOP", "none", "0")
            local waiting = {}
            for i = 1, 50 do
                waiting[i] = ngx.thread.spawn(function()
                    local _, err, code = transport:call { { "PING" } }
                    return code, err
                end)
            end
            wait_for(function()
                return redis:cli("INFO clients"):find("blocked_clients:1", 1, true)
            end)

            redis:cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            local took = seconds_of(function()
                local _, code = ngx.thread.wait(blocked)
                assert.equal("unavailable", code)
                for i = 1, 50 do
                    local _, waiter_code, err = ngx.thread.wait(waiting[i])
                    assert.equal("unavailable", waiter_code)
                    assert.matches("outcome is unknown", err)
                end
            end)

            assert.is_true(took < 1, took)
            assert.equal("PONG", outcome(transport, "PING"))
            assert.equal(2, transport:stats().connects)
        end)

        it("is made anew when an idle one is closed", function()
            local transport = connected()
            redis:cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            wait_for(function() return transport:stats().connects == 2 end)
            assert.equal("PONG", outcome(transport, "PING"))
        end)

        it("is closed over a malformed reply, which the error names", function()
            local peer = odd_peer()
            peer:ask { op = "behave", answer = "+PONG\r\n" }
            local transport = connected { port = peer.port }
            peer:ask { op = "behave", answer = "no RESP\r\n" }

            local replies, err, code = transport:call { { "GET", "k" } }

            assert.is_nil(replies)
            assert.equal("unavailable", code)
            assert.matches("malformed reply", err)
            wait_for(function() return peer:ask("seen").connections > 1 end)
        end)

        it("is closed over a reply to no command", function()
            local peer = odd_peer()
            peer:ask { op = "behave", answer = "+PONG\r\n" }
            local transport = connected { port = peer.port }
            peer:ask { op = "behave", answer = "$1\r\na\r\n$1\r\nb\r\n" }
            assert.equal("a", outcome(transport, "GET", "k"))
            wait_for(function() return peer:ask("seen").connections > 1 end)

            local alone = new { port = peer.port }
            local _, err = alone:call { { "GET", "k" } }
            assert.matches("a reply without a command", err)
        end)

        it("tells why the server does not want us", function()
            local peer = odd_peer()
            peer:ask { op = "behave", ["end"] = true,
                       greeting = "-ERR max number of clients reached\r\n" }
            local transport = new { port = peer.port }
            assert(transport:start())

            wait_for(function()
                local _, err = transport:call { { "PING" } }
                return err and err:find("max number of clients reached", 1, true)
            end)
        end)
    end)


    describe("a server that is down", function()
        it("is unavailable at once, and available soon after its start", function()
            local own = servers.redis()
            finally(function() own:stop() end)
            local transport = connected { port = own.port }
            own:stop()
            wait_for(function()
                return outcome(transport, "PING") == "unavailable"
            end)

            local took = seconds_of(function()
                for _ = 1, 100 do
                    local _, err, code = transport:call { { "PING" } }
                    assert.equal("unavailable", code)
                    assert.matches("could not connect to 127.0.0.1:%d+: ", err)
                end
                assert.is_nil((transport:ready()))
            end)
            assert.is_true(took < 0.2, took)

            own:start()
            wait_for(function() return outcome(transport, "PING") == "PONG" end, 3)
        end)

        it("is not hammered with connections, not even if it accepts them", function()
            local peer = odd_peer()
            peer:ask { op = "behave", ["end"] = true, answer = "+PONG\r\n" }
            local transport = new { port = peer.port }
            assert(transport:start())

            local deadline = servers.now() + 1
            while servers.now() < deadline do
                together(10, function() return outcome(transport, "PING") end)
                ngx.sleep(0.001)
            end
            local connections = peer:ask("seen").connections
            assert.is_true(connections > 1 and connections < 20, connections)
        end)

        it("costs a call no more than connect_timeout when it does not answer", function()
            -- A queue of connections that nobody accepts: it fills up, and
            -- further ones wait for ever.
            local own = servers.redis { "--tcp-backlog", "1" }
            own:pause()
            finally(function() own:resume() own:stop() end)
            local fillers = {}
            wait_for(function()
                local sock = ngx.socket.tcp()
                sock:settimeout(100)
                fillers[#fillers + 1] = sock
                return not sock:connect("127.0.0.1", own.port)
            end)

            local transport = new { port = own.port, connect_timeout = 0.2 }
            assert(transport:start())
            local code
            local took = seconds_of(function() code = outcome(transport, "PING") end)
            assert.equal("unavailable", code)
            assert.is_true(took < 0.5, took)
            took = seconds_of(function() code = outcome(transport, "PING") end)
            assert.equal("unavailable", code)
            assert.is_true(took < 0.1, took)
        end)
    end)


    describe("the handshake", function()
        local locked

        setup(function()
            locked = servers.redis { "--requirepass", "s3cret!", password = "s3cret!" }
            locked:cli("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all")
        end)

        it("authenticates and selects the database, for either connection", function()
            for _, make in ipairs { new, connected } do
                local transport = make { path = locked.socket, password = "s3cret!", db = 3 }
                assert.equal("OK", outcome(transport, "SET", "k", "v"))
                assert.matches("keys=1", locked:cli("INFO keyspace"):match("db3:%S+"))
                assert.equal("OK", outcome(transport, "FLUSHDB"))
            end
        end)

        it("authenticates a user", function()
            local transport = connected { path = locked.socket, user = "ann", password = "pw" }
            assert.equal("ann", outcome(transport, "ACL", "WHOAMI"))
        end)

        it("fails with Redis' words and without the password", function()
            for _, start in ipairs { true, false } do
                local transport = new { path = locked.socket, password = "wrong-one" }
                if start then
                    assert(transport:start())
                end
                for _, method in ipairs { "ready", "call" } do
                    local ok, err, code = transport[method](transport, { { "PING" } })
                    assert.is_nil(ok)
                    assert.equal("unavailable", code)
                    assert.matches("WRONGPASS", err)
                    assert.not_matches("wrong%-one", err)
                end
            end
        end)

        it("refuses a database that does not exist", function()
            local transport = new { db = 99 }
            assert(transport:start())
            local ok, err, code = transport:ready()
            assert.is_nil(ok)
            assert.equal("unavailable", code)
            assert.matches("select database 99", err)
        end)
    end)
end)
