-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The cosocket transport inside one nginx worker. Its failures are in
-- cosocket_failures_spec.lua; what takes several requests, phases or the end of
-- a worker is in spec/integration/cosocket_spec.lua.

local cosockets = require "support.cosockets"
local servers = require "support.servers"

local odd_peer = cosockets.odd_peer
local outcome = cosockets.outcome
local seconds_of = cosockets.seconds_of
local together = cosockets.together
local wait_for = servers.wait_for

local CALLERS = 1200 -- more than slots are kept for reuse

describe("resty.mooring.transport.cosocket", function()
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


    describe(":on_connect", function()
        it("calls at once where the connection is up, and with each new one", function()
            local transport, calls = connected(), 0
            transport:on_connect(function() calls = calls + 1 end)
            assert.equal(1, calls)
            transport:reconnect "another server"
            wait_for(function() return calls == 2 end, 5, "the new connection")
        end)
    end)

    describe(":reconnect", function()
        it("makes a new connection, once a second", function()
            local transport = connected()
            local one = outcome(transport, "CLIENT", "ID")
            transport:reconnect "another server"
            local two = wait_for(function()
                local id = outcome(transport, "CLIENT", "ID")
                return type(id) == "number" and id ~= one and id
            end, 5, "the new connection")
            transport:reconnect "too soon"
            assert.equal(two, (outcome(transport, "CLIENT", "ID")))
        end)
    end)

    describe("with an address of IPv6", function()
        it("names it as a URL does", function()
            local transport = new { host = "::1", port = servers.free_port() }
            local replies, err, code = transport:call { { "PING" } }
            assert.is_nil(replies)
            assert.matches("[::1]:", err, 1, true)
            assert.equal("unavailable", code)
        end)
    end)

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

        it("gives each of 1200 concurrent callers the value of its own key", function()
            local transport = connected { command_timeout = 5 }
            local commands = {}
            for i = 1, CALLERS do
                commands[i] = { "SET", "key:" .. i, "value " .. i }
            end
            assert(transport:call(commands))
            local before = transport:stats()

            local values = together(CALLERS, function(i)
                return outcome(transport, "GET", "key:" .. i)
            end)

            for i = 1, CALLERS do
                assert.equal("value " .. i, values[i])
            end
            local after = transport:stats()
            assert.equal(CALLERS, after.commands - before.commands)
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
            jit.off() -- compiled code takes memory as well, and more comes by and by,
            jit.flush() -- at exits of what is there, too
            finally(function() jit.on() end)
            local function many(n)
                for _ = 1, n do
                    assert(transport:call { { "PING" } })
                end
                collectgarbage()
                collectgarbage()
                return collectgarbage("count")
            end
            many(2000)
            -- What other specs have left behind goes, and comes, once: a leak
            -- shows each time.
            local least = math.huge
            for _ = 1, 4 do
                local before = many(100)
                least = math.min(least, many(3000) - before)
            end
            assert.is_true(least < 10, least .. " KiB more")
        end)
    end)


    describe(":call_pair", function()
        -- GET and STRLEN of one key.
        local function heads(key)
            return { "*2\r\n$3\r\nGET\r\n$" .. #key .. "\r\n",
                     "\r\n*2\r\n$6\r\nSTRLEN\r\n$" .. #key .. "\r\n" }
        end

        local function pair(transport, key)
            return transport:call_pair(heads(key), key)
        end

        it("returns both replies, on either connection", function()
            redis:cli("SET", "k", "value")
            for _, transport in ipairs { connected(), new() } do
                assert.same({ "value", 5 }, { pair(transport, "k") })
                assert.same({ false, 0 }, { pair(transport, "none") })
            end
        end)

        it("returns errors as replies", function()
            redis:cli("LPUSH", "list", "x")
            local first, second = pair(connected(), "list")
            assert.matches("^WRONGTYPE", first.err)
            assert.matches("^WRONGTYPE", second.err)
        end)

        it("gives each of many concurrent callers its own, whatever they send", function()
            local transport = connected { command_timeout = 5 }
            local large = ("x"):rep(70000)
            local results = together(400, function(i)
                if i % 4 == 0 then
                    return transport:call { { "ECHO", i .. ("y"):rep(1000) },
                                            { "ECHO", tostring(i) } }
                end
                local key = i % 100 == 1 and large .. i or "key" .. i
                assert(transport:call { { "SET", key, ("z"):rep(i) } })
                local value, length = pair(transport, key)
                return { value, length }
            end)
            for i, result in ipairs(results) do
                assert.same(i % 4 == 0 and { i .. ("y"):rep(1000), tostring(i) }
                            or { ("z"):rep(i), i }, result)
            end
        end)

        it("says why there are none", function()
            local transport = connected { command_timeout = 0.2 }
            redis:pause()
            finally(function() redis:resume() end)
            local first, err, code = pair(transport, "k")
            assert.is_nil(first)
            assert.matches("outcome is unknown", err)
            assert.equal("timeout", code)
        end)
    end)


    -- So it is when the connection is lost in a worker that is exiting.
    it("answers calls of several commands that were left in the queue", function()
        local transport = new()
        transport.connected = true
        local threads = {}
        for i = 1, 3 do
            threads[i] = ngx.thread.spawn(transport.call, transport,
                                          { { "ECHO", "a" .. i }, { "ECHO", "b" .. i } })
        end
        transport.connected = false
        require("resty.mooring.transport.alone").flush(transport)
        for i = 1, 3 do
            local _, replies = ngx.thread.wait(threads[i])
            assert.same({ "a" .. i, "b" .. i }, replies)
        end
    end)

    it("does not send what was left in the queue and is waited for no longer", function()
        local transport = new { command_timeout = 0.05 }
        transport.connected = true
        local replies, err, code = transport:call { { "SET", "late", "1" } }
        assert.is_nil(replies)
        assert.matches("could not send", err)
        assert.equal("unavailable", code)

        local reply
        assert(transport:enqueue({ "EXISTS", "late" }, function(value) reply = value end))
        transport.connected, transport.opts.command_timeout = false, 5
        require("resty.mooring.transport.alone").flush(transport)
        assert.equal(0, reply)
        assert.equal(0, transport:stats().queued)
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

        it("sends what was queued where there is no shared connection", function()
            local transport = new()
            local reply
            transport:enqueue({ "INCR", "n" }, function(value) reply = value end)
            assert.is_true(transport:close())
            wait_for(function() return reply end, 5, "the reply")
            assert.equal(1, reply)
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
