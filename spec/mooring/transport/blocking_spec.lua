-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local blocking = require "resty.mooring.transport.blocking"
local servers = require "support.servers"

local function elapsed(fn, ...)
    local began = servers.now()
    fn(...)
    return servers.now() - began
end

describe("resty.mooring.transport.blocking", function()
    local redis
    local transports = {}

    setup(function()
        redis = servers.redis()
        redis:cli("ACL", "SETUSER", "alice", "on", ">pa%.55", "~*", "+@all")
        redis:cli("ACL", "SETUSER", "bob", "on", ">secret", "~*", "+@all", "-select")
    end)

    teardown(function() servers.stop_all() end)

    before_each(function() redis:cli("FLUSHALL") end)

    after_each(function()
        for i = #transports, 1, -1 do
            transports[i]:close()
            transports[i] = nil
        end
    end)

    -- A transport to the shared redis, or to what opts say.
    local function connect(opts)
        local all = { connect_timeout = 1, command_timeout = 5 }
        if not (opts and opts.path) then
            all.host, all.port = "127.0.0.1", redis.port
        end
        for name, value in pairs(opts or {}) do
            all[name] = value
        end
        local t = blocking.new(all)
        transports[#transports + 1] = t
        return t
    end

    -- One command, which must be answered.
    local function ask(t, ...)
        local replies = assert(t:call { { ... } })
        assert.equal(1, #replies)
        return replies[1]
    end

    local function clients()
        local _, n = redis:cli("CLIENT LIST"):gsub("cmd=", "")
        return n
    end

    -- A callback that notes what it is given, in order.
    local function recorder()
        local calls = {}
        return function(...) calls[#calls + 1] = { ... } end, calls
    end

    describe(".new", function()
        it("does not connect", function()
            local t = connect { port = servers.free_port() }
            assert.is_false(t:stats().connected)
            assert.equal(0, t:stats().connects)
        end)
    end)

    describe(":call", function()
        it("talks over TCP", function()
            local t = connect()
            assert.equal("OK", ask(t, "SET", "k", "v"))
            assert.equal("v", ask(t, "GET", "k"))
            assert.is_true(t:stats().connected)
        end)

        it("talks over a unix socket", function()
            local t = connect { path = redis.socket }
            assert.equal("OK", ask(t, "SET", "k", "v"))
            assert.equal("v", redis:cli("GET k"))
        end)

        it("returns every kind of reply", function()
            local t = connect()
            local replies = assert(t:call {
                { "SET", "k", "v" }, { "GET", "none" }, { "STRLEN", "k" },
                { "LPUSH", "k", "x" }, { "MGET", "k", "none" },
                { "EVAL", "return {1, {'a', {}}, false, redis.error_reply('ERR e')}", "0" },
            })
            assert.equal("OK", replies[1])
            assert.is_false(replies[2])
            assert.equal(1, replies[3])
            assert.matches("^WRONGTYPE ", replies[4].err)
            assert.same({ "v", false, n = 2 }, replies[5])
            assert.same({ 1, { "a", { n = 0 }, n = 2 }, false, { err = "ERR e" }, n = 4 },
                        replies[6])
            assert.equal(6, #replies)
        end)

        it("keeps integers exact to 2^53", function()
            local t = connect()
            assert.equal(9007199254740992, ask(t, "INCRBY", "n", "9007199254740992"))
            assert.equal(-1, ask(t, "INCRBY", "m", "-1"))
        end)

        it("carries every byte", function()
            local bytes = {}
            for i = 0, 255 do
                bytes[#bytes + 1] = string.char(i)
            end
            local t, value = connect(), table.concat(bytes) .. "\r\n$5\r\n\0"
            ask(t, "SET", "k\0\r\n", value)
            assert.equal(value, ask(t, "GET", "k\0\r\n"))
            assert.equal("", ask(t, "ECHO", ""))
        end)

        it("carries large values", function()
            local t, value = connect(), ("0123456789abcdef"):rep(65536)
            ask(t, "SET", "k", value)
            assert.is_true(ask(t, "GET", "k") == value)
        end)

        it("sends 1000 commands in one write and keeps their order", function()
            local t, commands = connect(), {}
            for i = 1, 1000 do
                commands[i] = { "ECHO", tostring(i) }
            end
            assert.is_true(t:ready())
            local sends = t:stats().sends
            local replies = assert(t:call(commands))
            assert.equal(1000, #replies)
            for i = 1, 1000 do
                assert.equal(tostring(i), replies[i])
            end
            assert.equal(sends + 1, t:stats().sends)
            assert.equal(1000, t:stats().commands)
        end)

        it("takes commands with many arguments", function()
            local t, command = connect(), { "RPUSH", "list" }
            for i = 1, 1000 do
                command[i + 2] = "value " .. i
            end
            assert.equal(1000, assert(t:call { command })[1])
            assert.equal("value 1000", ask(t, "LINDEX", "list", "-1"))
        end)

        it("answers no commands with no replies", function()
            assert.same({}, connect():call {})
        end)

        it("uses one connection for all calls", function()
            local t = connect()
            for _ = 1, 20 do
                ask(t, "PING")
            end
            assert.equal(1, t:stats().connects)
        end)
    end)

    describe("the handshake", function()
        it("authenticates with user and password and selects a database", function()
            local t = connect { user = "alice", password = "pa%.55", db = 3 }
            assert.equal("alice", ask(t, "ACL", "WHOAMI"))
            ask(t, "SET", "k", "v")
            assert.equal("v", redis:cli("-n", "3", "GET", "k"))
            assert.equal("", redis:cli("GET k"))
        end)

        it("authenticates with a password alone", function()
            local guarded = servers.redis { "--requirepass", "only me", password = "only me" }
            local t = connect { port = guarded.port, password = "only me" }
            assert.equal("PONG", ask(t, "PING"))
            guarded:stop()
        end)

        it("fails with Redis' words, not with the password", function()
            local t = connect { user = "alice", password = "WRONGPASS-mine" }
            local ok, err, code = t:call { { "PING" } }
            assert.is_nil(ok)
            assert.equal("unavailable", code)
            assert.matches("could not authenticate at 127.0.0.1:" .. redis.port
                           .. ": WRONGPASS ", err, 1, true)
            assert.is_nil(err:find("mine", 1, true))
            assert.is_false(t:stats().connected)
            assert.equal(0, t:stats().connects)
        end)

        it("drops what a server quotes of the AUTH command", function()
            local deaf = servers.redis { "--rename-command", "AUTH", "" }
            local t = connect { port = deaf.port, user = "eve", password = ("hidden"):rep(40) }
            local _, err, code = t:ready()
            assert.equal("unavailable", code)
            assert.matches("unknown command", err)
            assert.is_nil(err:find("hidden", 1, true))
            deaf:stop()
        end)

        it("fails when the database cannot be selected", function()
            local _, err, code = connect({ db = 99 }):ready()
            assert.equal("unavailable", code)
            assert.matches("could not select database 99 at [%d.:]+: ERR ", err)
            _, err = connect({ user = "bob", password = "secret", db = 1 }):ready()
            assert.matches("could not select database 1 at [%d.:]+: NOPERM ", err)
        end)

        it("sends no command to a database that was not asked for", function()
            connect({ db = 99 }):call { { "SET", "k", "v" } }
            assert.equal("", redis:cli("GET k"))
        end)

        it("is made again after a reconnect", function()
            local t = connect { user = "alice", password = "pa%.55", db = 3 }
            ask(t, "PING")
            redis:cli("CLIENT KILL USER alice")
            assert.equal("alice", ask(t, "ACL", "WHOAMI"))
            assert.equal(2, t:stats().connects)
        end)
    end)

    describe("when nobody listens", function()
        it("fails at once, naming the address", function()
            local port = servers.free_port()
            local t = connect { port = port }
            local ok, err, code
            assert.is_true(elapsed(function()
                ok, err, code = t:call { { "PING" } }
            end) < 0.5)
            assert.is_nil(ok)
            assert.equal("could not connect to 127.0.0.1:" .. port
                         .. ": Connection refused", err)
            assert.equal("unavailable", code)
            assert.equal(1, t:stats().errors)
        end)

        it("names the unix socket", function()
            local path = servers.tmpdir() .. "/none"
            local _, err, code = connect({ path = path }):ready()
            assert.equal("could not connect to unix:" .. path
                         .. ": No such file or directory", err)
            assert.equal("unavailable", code)
        end)

        it("connects as soon as somebody does", function()
            local port = servers.free_port()
            local t = connect { port = port }
            assert.is_nil(t:ready())
            local late = servers.redis { port = port }
            assert.is_true(t:ready())
            assert.equal("PONG", ask(t, "PING"))
            late:stop()
        end)
    end)

    describe("when the connect hangs", function()
        local frozen, held

        -- A stopped server accepts nothing; once its backlog is full, the
        -- kernel leaves further connects unanswered.
        setup(function()
            frozen = servers.redis { "--tcp-backlog", "1" }
            frozen:pause()
            held = {}
            for i = 1, 20 do
                held[i] = blocking.new { host = "127.0.0.1", port = frozen.port,
                                         connect_timeout = 0.1, command_timeout = 0.1 }
                if not held[i]:ready() then
                    return
                end
            end
            error("the backlog is never full")
        end)

        teardown(function()
            for _, t in ipairs(held) do
                t:close()
            end
            frozen:stop()
        end)

        it("gives up after connect_timeout", function()
            local t = connect { port = frozen.port, connect_timeout = 0.2 }
            local err, code, _
            local took = elapsed(function() _, err, code = t:call { { "PING" } } end)
            assert.equal("could not connect to 127.0.0.1:" .. frozen.port
                         .. ": Connection timed out", err)
            assert.equal("unavailable", code)
            assert.is_true(took >= 0.19 and took < 1, took)
        end)
    end)

    describe("when Redis does not answer", function()
        after_each(function() redis:resume() end)

        it("gives up after command_timeout and says that the outcome is unknown", function()
            local t = connect { command_timeout = 0.2 }
            ask(t, "PING")
            redis:pause()
            local ok, err, code
            local took = elapsed(function()
                ok, err, code = t:call { { "SET", "k", "v" }, { "GET", "k" } }
            end)
            assert.is_nil(ok)
            assert.equal("timeout", code)
            assert.matches("could not get a reply from 127.0.0.1:" .. redis.port
                .. ": no reply within 0.2 s, the outcome is unknown", err, 1, true)
            assert.is_true(took >= 0.19 and took < 1, took)
            assert.equal(1, t:stats().timeouts)
            assert.is_false(t:stats().connected)
        end)

        it("never gives the late reply to the next caller", function()
            local t = connect { command_timeout = 0.2 }
            ask(t, "PING")
            redis:pause()
            local _, _, code = t:call { { "ECHO", "late" } }
            assert.equal("timeout", code)
            redis:resume()
            assert.equal("mine", ask(t, "ECHO", "mine"))
            assert.equal(2, t:stats().connects)
        end)

        it("does not repeat the command", function()
            local t = connect { command_timeout = 0.2 }
            ask(t, "PING")
            redis:pause()
            local _, _, code = t:call { { "INCR", "n" } }
            assert.equal("timeout", code)
            redis:resume()
            servers.wait_for(function() return redis:cli("GET n") ~= "" end, 5, "the INCR")
            ask(t, "PING")
            assert.equal("1", ask(t, "GET", "n"))
        end)

        it("gives up likewise when Redis does not even take the command", function()
            local t = connect { command_timeout = 0.2 }
            ask(t, "PING")
            redis:pause()
            local ok, err, code = t:call { { "SET", "k", ("x"):rep(30000000) } }
            assert.is_nil(ok)
            assert.equal("timeout", code)
            assert.matches("could not send to 127.0.0.1:" .. redis.port
                .. ": no reply within 0.2 s, the outcome is unknown", err, 1, true)
            assert.equal(1, t:stats().timeouts)
            redis:resume()
            assert.equal("0", redis:cli("EXISTS k"))
        end)

        it("calls a hung handshake unavailable: no command was sent", function()
            local t = connect { command_timeout = 0.2, db = 1 }
            redis:pause()
            local err, code, _
            local took = elapsed(function() _, err, code = t:call { { "SET", "k", "v" } } end)
            assert.equal("unavailable", code)
            assert.matches("no reply within 0.2 s$", err)
            assert.is_true(took < 1, took)
        end)
    end)

    describe("when the connection is lost", function()
        it("notices before it sends, and reconnects", function()
            local t = connect()
            ask(t, "PING")
            redis:cli("CLIENT KILL TYPE normal SKIPME yes")
            assert.equal("OK", ask(t, "SET", "k", "v"))
            assert.equal(2, t:stats().connects)
        end)

        it("survives a restart of Redis", function()
            local own = servers.redis()
            local t = connect { port = own.port }
            ask(t, "PING")
            own:stop()
            local _, err, code = t:call { { "PING" } }
            assert.equal("unavailable", code)
            assert.matches("Connection refused", err)
            own:start()
            assert.equal("PONG", ask(t, "PING"))
            own:stop()
        end)

        it("fails a command that was sent, without repeating it", function()
            local t = connect { user = "alice", password = "pa%.55" }
            -- The server hangs up on us after the second reply.
            local ok, err, code = t:call {
                { "INCR", "n" }, { "CLIENT", "KILL", "USER", "alice", "SKIPME", "no" },
                { "PING" },
            }
            assert.is_nil(ok)
            assert.equal("unavailable", code)
            assert.matches("the outcome is unknown", err, 1, true)
            assert.equal("PONG", ask(t, "PING"))
            assert.equal("1", redis:cli("GET n"))
        end)
    end)

    describe("when the peer is no Redis", function()
        local peer

        setup(function() peer = servers.node("spec/fixtures/resp_peer.mjs") end)
        teardown(function() peer:stop() end)

        local function behave(how)
            how.op = "behave"
            peer:ask(how)
        end

        local function failure(opts)
            opts = opts or {}
            opts.port = peer.port
            local t = connect(opts)
            local ok, err, code = t:call { { "PING" } }
            assert.is_nil(ok)
            assert.is_false(t:stats().connected)
            return err, code, t
        end

        it("says what is malformed, and closes the connection", function()
            behave { answer = "HTTP/1.1 400 Bad Request\r\n\r\n" }
            local err, code, t = failure()
            assert.equal("unavailable", code)
            assert.matches('malformed reply: Protocol error, got "H" as reply type byte', err,
                           1, true)
            behave { answer = "+PONG\r\n" }
            assert.equal("PONG", ask(t, "PING"))
            assert.equal(2, t:stats().connects)
        end)

        it("bounds the whole call when the reply comes one byte at a time", function()
            behave { answer = "+PONGPONGPONGPONGPONG\r\n", interval = 50 }
            local code, _
            local took = elapsed(function() _, code = failure { command_timeout = 0.3 } end)
            assert.equal("timeout", code)
            assert.is_true(took < 1, took)
        end)

        it("takes a slow reply that is complete in time", function()
            behave { answer = "$4\r\nslow\r\n", interval = 5 }
            assert.equal("slow", ask(connect { port = peer.port }, "PING"))
        end)

        it("refuses an array or a string of absurd size", function()
            for _, answer in ipairs { "*1000000000\r\n", "$1000000000\r\n",
                                      "*1\r\n*1000000000\r\n" } do
                behave { answer = answer }
                local err, code = failure()
                assert.equal("unavailable", code)
                assert.matches("malformed reply: a reply takes more than", err, 1, true)
            end
        end)

        it("refuses deep nesting and RESP3", function()
            behave { answer = ("*1\r\n"):rep(9) .. ":1\r\n" }
            assert.matches("malformed reply: arrays are nested", (failure()), 1, true)
            behave { answer = "%1\r\n+a\r\n+b\r\n" }
            assert.matches("malformed reply: ", (failure()), 1, true)
        end)

        it("says that the server hung up in the middle of a reply", function()
            behave { answer = "$100\r\nabc", ["end"] = true }
            local err, code = failure()
            assert.equal("unavailable", code)
            assert.matches("the server closed the connection, the outcome is unknown", err,
                           1, true)
        end)

        it("gives nobody a reply that was not asked for", function()
            behave { answer = "+PONG\r\n+surprise\r\n" }
            local t = connect { port = peer.port }
            assert.equal("PONG", ask(t, "PING"))
            servers.wait_for(function()
                t:poll()
                return not t:stats().connected
            end, 5, "the surprise")
            assert.equal("PONG", ask(t, "PING"))
            assert.equal(2, t:stats().connects)
        end)

        it("sends AUTH and SELECT in one write before anything else", function()
            behave { answer = "+OK\r\n+OK\r\n" }
            local before = #peer:ask("seen").received
            local t = connect { port = peer.port, password = "pw", db = 2 }
            assert.is_true(t:ready())
            assert.equal("*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n",
                         peer:ask("seen").received:sub(before + 1))
            assert.equal(1, t:stats().sends)
        end)
    end)

    describe(":enqueue", function()
        it("sends without waiting and calls back later", function()
            local t = connect()
            ask(t, "PING")
            local callback, calls = recorder()
            assert.is_true(t:enqueue({ "INCR", "n" }, callback))
            assert.same({}, calls)
            servers.wait_for(function()
                t:poll()
                return #calls > 0
            end, 5, "the callback")
            assert.same({ { 1 } }, calls)
        end)

        it("takes no time when Redis is frozen", function()
            local t = connect { command_timeout = 0.3 }
            ask(t, "PING")
            redis:pause()
            local callback, calls = recorder()
            local took = elapsed(function()
                for _ = 1, 1000 do
                    assert.is_true(t:enqueue({ "INCR", "n" }, callback))
                end
            end)
            assert.is_true(took < 0.25, took)
            assert.is_true(t:stats().queued > 0)
            redis:resume()
            assert.equal("1000", ask(t, "GET", "n"))
            assert.equal(1000, #calls)
            assert.same({ 1000 }, calls[1000])
        end)

        it("holds back what the kernel might not take, and sends it after all", function()
            local t = connect()
            ask(t, "PING")
            redis:pause()
            local callback, calls = recorder()
            for i = 1, 3 do
                t:enqueue({ "APPEND", "k", tostring(i):rep(20000) }, callback)
            end
            local queued = t:stats().queued
            redis:resume()
            assert.equal(1, queued)
            servers.wait_for(function()
                t:poll()
                return #calls == 3
            end, 5, "all replies")
            assert.same({ { 20000 }, { 40000 }, { 60000 } }, calls)
            assert.equal(("1"):rep(20000) .. ("2"):rep(20000) .. ("3"):rep(20000),
                         ask(t, "GET", "k"))
        end)

        it("goes on with what was held back once Redis answers", function()
            local t = connect()
            ask(t, "PING")
            redis:pause()
            local callback, calls = recorder()
            for _ = 1, 1000 do
                t:enqueue({ "ECHO", ("x"):rep(200) }, callback)
            end
            redis:resume()
            servers.wait_for(function()
                t:poll()
                return #calls == 1000
            end, 5, "all replies")
            assert.equal(0, t:stats().queued)
        end)

        it("runs no callback within another one", function()
            local t = connect()
            ask(t, "PING")
            redis:pause()
            local depth, deepest, count = 0, 0, 0
            local function callback()
                depth, count = depth + 1, count + 1
                deepest = math.max(depth, deepest)
                if count <= 50 then
                    t:enqueue({ "PING" }, callback)
                end
                depth = depth - 1
            end
            for _ = 1, 50 do
                t:enqueue({ "PING" }, callback)
            end
            redis:resume()
            redis:cli("PING") -- by now ours are answered
            servers.wait_for(function()
                t:poll()
                return count == 100
            end, 5, "all replies")
            assert.equal(1, deepest)
        end)

        it("lets a callback reconnect when the connection was lost", function()
            local own = servers.redis()
            local t = connect { port = own.port }
            ask(t, "PING")
            own:pause()
            local seen, callback, calls = nil, recorder()
            t:enqueue({ "INCR", "n" }, function(_, _, code)
                seen = { code, ask(t, "ECHO", "again") }
            end)
            t:enqueue({ "INCR", "n" }, callback)
            own:kill()
            own:start()
            t:poll()
            assert.same({ "unavailable", "again" }, seen)
            assert.equal(1, #calls)
            assert.equal("unavailable", calls[1][3])
            own:stop()
        end)

        it("keeps the order with calls, whose replies stay theirs", function()
            local t = connect()
            local callback, calls = recorder()
            t:enqueue({ "ECHO", "1" }, callback) -- not connected yet
            assert.equal("2", ask(t, "ECHO", "2"))
            t:enqueue({ "ECHO", "3" }, callback)
            t:enqueue({ "ECHO", "no callback" })
            assert.equal("4", ask(t, "ECHO", "4"))
            assert.same({ { "1" }, { "3" } }, calls)
        end)

        it("fails what is queued when the connect fails", function()
            local t = connect { port = servers.free_port() }
            local callback, calls = recorder()
            assert.is_true(t:enqueue({ "PING" }, callback))
            assert.is_nil((t:ready()))
            assert.equal(1, #calls)
            assert.is_nil(calls[1][1])
            assert.matches("could not connect", calls[1][2])
            assert.equal("unavailable", calls[1][3])
            assert.equal(0, t:stats().queued)
        end)

        it("fails what was sent when no reply comes", function()
            local t = connect { command_timeout = 0.2 }
            ask(t, "PING")
            redis:pause()
            local callback, calls = recorder()
            t:enqueue({ "INCR", "n" }, callback)
            local _, _, code = t:call { { "PING" } }
            redis:resume()
            assert.equal("timeout", code)
            assert.equal(1, #calls)
            assert.matches("the outcome is unknown", calls[1][2], 1, true)
            assert.equal("timeout", calls[1][3])
        end)

        it("refuses more than max_queue unanswered commands", function()
            local t = connect { max_queue = 3 }
            local callback, calls = recorder()
            for _ = 1, 3 do
                assert.is_true(t:enqueue({ "INCR", "n" }, callback))
            end
            local ok, err, code = t:enqueue({ "INCR", "n" }, callback)
            assert.is_nil(ok)
            assert.equal("could not enqueue a command: 3 are unanswered", err)
            assert.equal("unavailable", code)
            assert.equal(1, t:stats().dropped)
            assert.equal("3", ask(t, "GET", "n"))
            assert.equal(3, #calls)
            assert.is_true(t:enqueue({ "INCR", "n" }))
        end)

        it("lets callbacks use the transport", function()
            local t = connect()
            local seen = {}
            t:enqueue({ "ECHO", "a" }, function(reply)
                seen[1] = reply
                seen[2] = ask(t, "ECHO", "b")
                t:enqueue({ "ECHO", "c" }, function(inner) seen[3] = inner end)
            end)
            local replies = assert(t:call { { "ECHO", "x" }, { "ECHO", "y" } })
            assert.same({ "x", "y" }, { replies[1], replies[2] })
            assert.equal("z", ask(t, "ECHO", "z"))
            assert.same({ "a", "b", "c" }, seen)
        end)

        describe("whose callback closes the transport", function()
            local t, callback, calls

            before_each(function()
                t = connect()
                callback, calls = recorder()
                ask(t, "PING")
                redis:pause()
                t:enqueue({ "INCR", "n" }, function(reply)
                    callback(reply)
                    t:close()
                end)
            end)

            for method, argument in pairs { enqueue = { "INCR", "n" },
                                            call = { { "INCR", "n" } }, ready = false } do
                it("lets " .. method .. " do nothing that hears of it first", function()
                    redis:resume()
                    redis:cli("PING") -- by now ours is answered
                    local ok, err, code = t[method](t, argument, callback)
                    assert.is_nil(ok)
                    assert.same({ "transport is closed", "closed" }, { err, code })
                    assert.same({ { 1 } }, calls)
                    assert.is_false(t:stats().connected)
                    assert.equal(0, t:stats().queued)
                end)
            end

            it("has those behind it executed as well", function()
                t:enqueue({ "INCR", "n" }, callback)
                redis:resume()
                servers.wait_for(function()
                    t:poll()
                    return #calls == 2
                end, 5, "both replies")
                assert.same({ { 1 }, { 2 } }, calls)
                assert.is_false(t:stats().connected)
            end)
        end)

        it("keeps callers from the errors of a callback", function()
            local t = connect()
            local err = stub(require "resty.mooring.log", "err")
            t:enqueue({ "PING" }, function() error("broken") end)
            assert.equal("mine", ask(t, "ECHO", "mine"))
            assert.stub(err).was_called(1)
            err:revert()
        end)
    end)

    describe(":close", function()
        it("sends what is queued, and waits for the replies", function()
            local t = connect()
            local callback, calls = recorder()
            for _ = 1, 500 do
                t:enqueue({ "INCR", "n" }, callback)
            end
            assert.is_true(t:close())
            assert.equal(500, #calls)
            assert.equal("500", redis:cli("GET n"))
        end)

        it("waits no longer than command_timeout", function()
            local t = connect { command_timeout = 0.2 }
            ask(t, "PING")
            redis:pause()
            local callback, calls = recorder()
            t:enqueue({ "INCR", "n" }, callback)
            local took = elapsed(t.close, t)
            redis:resume()
            assert.is_true(took >= 0.19 and took < 1, took)
            assert.equal(1, #calls)
            assert.equal("timeout", calls[1][3])
        end)

        it("is idempotent, and leaves no connection", function()
            local t = connect()
            ask(t, "PING")
            local before = clients()
            assert.is_true(t:close())
            assert.is_true(t:close())
            servers.wait_for(function() return clients() < before end, 5, "the end of a client")
            assert.is_false(t:stats().connected)
        end)

        it("makes every later call fail as closed", function()
            local t = connect()
            t:close()
            for _, result in ipairs {
                { t:call { { "PING" } } }, { t:enqueue { "PING" } }, { t:ready() },
            } do
                assert.is_nil(result[1])
                assert.equal("transport is closed", result[2])
                assert.equal("closed", result[3])
            end
            t:poll()
        end)
    end)

    describe("with a Redis whose clients are all taken", function()
        local taken, taker

        setup(function()
            taken = servers.redis { "--maxclients", "1" }
            taker = blocking.new { host = "127.0.0.1", port = taken.port,
                                   connect_timeout = 1, command_timeout = 5 }
            assert(taker:ready())
        end)

        teardown(function() taker:close() end)

        -- It says so and hangs up before it is asked anything, sooner or later
        -- than what on_up sends: its words are then taken for the reply to that,
        -- or lost with a send that fails.
        it("fails, most often with its words, also when something is sent first", function()
            local told = 0
            for _ = 1, 100 do
                local t = connect { port = taken.port }
                local words = ""
                t.on_up[1] = function()
                    t:enqueue({ "INFO" }, function(reply)
                        words = type(reply) == "table" and reply.err or ""
                    end)
                end
                local replies, err, code = t:call { { "PING" } }
                assert.is_nil(replies)
                assert.equal("unavailable", code)
                words = words .. err
                told = told + (words:find("max number of clients", 1, true) and 1 or 0)
            end
            assert.is_true(told > 0)
        end)
    end)
end)
