-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The cosocket transport inside one nginx worker. What takes several requests,
-- phases or the end of a worker is in spec/integration/cosocket_spec.lua.

local cosocket = require "resty.mooring.transport.cosocket"
local servers = require "support.servers"

local wait_for = servers.wait_for

describe("resty.mooring.transport.cosocket", function()
    local redis, transports

    setup(function() redis = servers.redis() end)
    teardown(function() servers.stop_all() end)

    before_each(function()
        transports = {}
        redis:cli("FLUSHALL")
        redis:cli("CONFIG", "RESETSTAT")
    end)

    after_each(function()
        for _, transport in ipairs(transports) do
            transport:close()
        end
    end)

    -- A transport that is not started.
    local function new(opts)
        opts = opts or {}
        if not opts.port then
            opts.path = opts.path or redis.socket
        else
            opts.host = opts.host or "127.0.0.1"
        end
        opts.connect_timeout = opts.connect_timeout or 1
        opts.command_timeout = opts.command_timeout or 1
        local transport = cosocket.new(opts)
        transports[#transports + 1] = transport
        return transport
    end

    -- One whose shared connection is up.
    local function connected(opts)
        local transport = new(opts)
        assert(transport:start())
        assert(transport:ready())
        return transport
    end

    -- Runs fn(1) to fn(n) in light threads; returns their first results.
    local function together(n, fn)
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

    -- What a call with one command returned, or its error code.
    local function outcome(transport, ...)
        local replies, _, code = transport:call { { ... } }
        return replies and replies[1] or code
    end

    -- A server that says what no Redis would.
    local function odd_peer()
        local peer = servers.node("spec/fixtures/resp_peer.mjs")
        finally(function() peer:stop() end)
        return peer
    end

    local function seconds_of(fn)
        local start = servers.now()
        fn()
        return servers.now() - start
    end


    describe(":call", function()
        it("returns replies of every type in the order of the commands", function()
            local replies = assert(connected():call {
                { "SET", "k", "a\r\nb\0c" },
                { "GET", "k" },
                { "GET", "none" },
                { "INCR", "n" },
                { "INCR", "k" },
                { "EVAL", "return {1, {'x', false}}", "0" },
            })

            assert.equal("OK", replies[1])
            assert.equal("a\r\nb\0c", replies[2])
            assert.is_false(replies[3])
            assert.equal(1, replies[4])
            assert.matches("^ERR value is not an integer", replies[5].err)
            assert.same({ 1, { "x", false, n = 2 }, n = 2 }, replies[6])
            assert.equal(6, #replies)
        end)

        it("returns as many replies as commands also for none", function()
            assert.same({}, connected():call {})
        end)

        it("gives each of 1000 concurrent callers the value of its own key", function()
            local transport = connected { command_timeout = 5 }
            local commands = {}
            for i = 1, 1000 do
                commands[i] = { "SET", "key:" .. i, "value " .. i }
            end
            assert(transport:call(commands))
            local before = transport:stats()

            local values = together(1000, function(i)
                return outcome(transport, "GET", "key:" .. i)
            end)

            for i = 1, 1000 do
                assert.equal("value " .. i, values[i])
            end
            local after = transport:stats()
            assert.equal(1000, after.commands - before.commands)
            assert.is_true(after.sends - before.sends < 100)
            assert.equal(1, after.connects)
        end)

        it("keeps batches of concurrent callers whole", function()
            local transport = connected { command_timeout = 5 }
            together(50, function(i)
                local commands = {}
                for j = 1, 20 do
                    commands[j] = { "ECHO", i .. "/" .. j }
                end
                local replies = assert(transport:call(commands))
                for j = 1, 20 do
                    assert.equal(i .. "/" .. j, replies[j])
                end
            end)
        end)

        it("carries values larger than any buffer, both ways", function()
            local transport = connected { command_timeout = 10 }
            local values = together(4, function(i)
                local value = string.rep(string.char(64 + i), 3000000 + i)
                assert.equal("OK", outcome(transport, "SET", "big:" .. i, value))
                return outcome(transport, "GET", "big:" .. i) == value
            end)
            assert.same({ true, true, true, true }, values)
        end)

        it("works over TCP and with the name localhost", function()
            assert.equal("PONG", outcome(connected { port = redis.port }, "PING"))
            assert.equal("PONG",
                         outcome(connected { port = redis.port, host = "localhost" }, "PING"))
        end)

        it("leaves no garbage behind", function()
            local transport = connected()
            local function many(n)
                for _ = 1, n do
                    assert(transport:call { { "PING" } })
                end
                collectgarbage()
                collectgarbage()
                return collectgarbage("count")
            end
            many(2000)
            local before = many(100)
            local growth = many(10000) - before
            assert.is_true(growth < 32, growth .. " KiB more")
        end)
    end)


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


    describe(":enqueue", function()
        -- A callback and where it leaves its arguments.
        local function recorder()
            local seen = {}
            return function(reply, err, code)
                seen[#seen + 1] = { reply = reply, err = err, code = code }
            end, seen
        end

        it("hands the reply to the callback", function()
            local transport = connected()
            local callback, seen = recorder()
            assert.is_true(transport:enqueue({ "SET", "k", "v" }))
            assert.is_true(transport:enqueue({ "GET", "k" }, callback))
            assert.is_true(transport:enqueue({ "GET", "none" }, callback))
            assert.equal(0, #seen)
            wait_for(function() return #seen == 2 end)
            assert.same({ { reply = "v" }, { reply = false } }, seen)
        end)

        it("keeps the order with calls", function()
            local transport = connected()
            for i = 1, 10 do
                transport:enqueue { "RPUSH", "list", i .. "" }
            end
            local list = transport:call({ { "LRANGE", "list", "0", "-1" } })[1]
            assert.equal("1,2,3,4,5,6,7,8,9,10", table.concat(list, ","))
        end)

        it("survives a callback that raises", function()
            local transport = connected()
            local callback, seen = recorder()
            transport:enqueue({ "PING" }, function() error("on purpose") end)
            transport:enqueue({ "PING" }, callback)
            wait_for(function() return #seen == 1 end)
            assert.equal("PONG", outcome(transport, "PING"))
            assert.equal(1, transport:stats().connects)
        end)

        it("refuses more than max_queue commands", function()
            local transport = connected { max_queue = 3 }
            for _ = 1, 3 do
                assert(transport:enqueue({ "PING" }))
            end
            local ok, err, code = transport:enqueue({ "PING" })
            assert.is_nil(ok)
            assert.matches("3 are under way", err)
            assert.equal("unavailable", code)
            assert.equal(1, transport:stats().dropped)
            assert.equal("PONG", outcome(transport, "PING"))
            assert(transport:enqueue({ "PING" }))
        end)

        it("sends what was not sent over the next connection", function()
            local own = servers.redis()
            finally(function() own:stop() end)
            local transport = connected { port = own.port }
            own:stop()
            wait_for(function() return not transport:stats().connected end)
            local callback, seen = recorder()
            assert(transport:enqueue({ "SET", "k", "v" }, callback))
            assert.equal(0, #seen)

            own:start()
            wait_for(function() return #seen == 1 end, 3)
            assert.same({ { reply = "OK" } }, seen)
            assert.equal("v", own:cli("GET k"))
        end)

        it("gives up after 5 s without a connection", function()
            local transport = new { path = "/nonexistent/redis.sock" }
            assert(transport:start())
            assert.is_nil((transport:ready()))
            local callback, seen = recorder()
            assert(transport:enqueue({ "PING" }, callback))
            wait_for(function() return #seen == 1 end, 8)
            assert.equal("unavailable", seen[1].code)
            assert.matches("not sent", seen[1].err)
        end)

        it("tells the callback when the connection is lost before the reply", function()
            local transport = connected { command_timeout = 5 }
            local callback, seen = recorder()
            transport:enqueue({ "BLPOP", "none", "0" }, callback)
            transport:enqueue({ "PING" }, callback)
            wait_for(function()
                return redis:cli("INFO clients"):find("blocked_clients:1", 1, true)
            end)
            redis:cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            wait_for(function() return #seen == 2 end)
            for i = 1, 2 do
                assert.is_nil(seen[i].reply)
                assert.equal("unavailable", seen[i].code)
                assert.matches("outcome is unknown", seen[i].err)
            end
        end)

        it("works on an object that was not started", function()
            local transport = new()
            local callback, seen = recorder()
            for i = 1, 3 do
                assert(transport:enqueue({ "ECHO", "e" .. i }, callback))
            end
            wait_for(function() return #seen == 3 end)
            assert.same({ { reply = "e1" }, { reply = "e2" }, { reply = "e3" } }, seen)
            assert.equal(1, transport:stats().connects)
        end)
    end)


    describe("an object that was not started", function()
        it("uses connections of the request's own", function()
            local transport = new()
            for i = 1, 3 do
                assert.equal("e" .. i, outcome(transport, "ECHO", "e" .. i))
            end
            assert.is_true(transport:ready())
            local stats = transport:stats()
            assert.is_false(stats.connected)
            assert.equal(4, stats.connects)
            assert.equal(3, stats.commands)
            wait_for(function()
                return not redis:cli("CLIENT LIST"):find("cmd=echo", 1, true)
            end)
        end)

        it("times out on them", function()
            local transport = new { command_timeout = 0.2 }
            redis:pause()
            finally(function() redis:resume() end)
            local took = seconds_of(function()
                local _, err, code = transport:call { { "PING" } }
                assert.equal("timeout", code)
                assert.matches("outcome is unknown", err)
            end)
            assert.is_true(took < 0.5, took)
        end)

        it("is bounded also when the reply trickles in", function()
            local peer = odd_peer()
            peer:ask { op = "behave", answer = "$100\r\nx" }
            local transport = new { port = peer.port, command_timeout = 0.2 }
            assert.equal("timeout", outcome(transport, "PING"))
        end)
    end)


    describe(":ready", function()
        it("connects", function()
            local transport = new()
            assert(transport:start())
            assert.is_false(transport:stats().connected)
            assert.is_true(transport:ready())
            assert.is_true(transport:stats().connected)
            assert.is_true(transport:start())
            assert.equal(1, transport:stats().connects)
        end)
    end)


    describe(":close", function()
        it("lets commands under way finish and refuses new ones", function()
            local transport = connected()
            local waiting = ngx.thread.spawn(outcome, transport, "ECHO", "x")
            local reply
            transport:enqueue({ "SET", "k", "v" }, function(value) reply = value end)
            assert.is_true(transport:close())
            assert.is_true(transport:close())

            local _, value = ngx.thread.wait(waiting)
            assert.equal("x", value)
            wait_for(function() return reply == "OK" end)
            for _, result in ipairs {
                { transport:call { { "PING" } } }, { transport:enqueue { "PING" } },
                { transport:ready() }, { transport:start() },
            } do
                assert.same({ n = 0, [2] = "transport is closed", [3] = "closed" },
                            { n = 0, result[1], result[2], result[3] })
            end
        end)

        it("closes the connection", function()
            local transport = connected()
            assert.equal("OK", outcome(transport, "CLIENT", "SETNAME", "closing"))
            transport:close()
            wait_for(function()
                return not redis:cli("CLIENT LIST"):find("name=closing", 1, true)
            end)
        end)

        it("does not wait for a server that has gone silent", function()
            local transport = connected { command_timeout = 0.2 }
            redis:pause()
            finally(function() redis:resume() end)
            local code
            transport:enqueue({ "PING" }, function(_, _, c) code = c end)
            transport:close()
            wait_for(function() return code end, 1)
            assert.equal("timeout", code)
        end)

        it("fails what waits for a connection", function()
            local transport = new { path = "/nonexistent/redis.sock" }
            assert(transport:start())
            transport:ready()
            local code
            transport:enqueue({ "PING" }, function(_, _, c) code = c end)
            transport:close()
            wait_for(function() return code end, 2)
            assert.equal("closed", code)
        end)
    end)
end)
