-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Redis is away, or as good as away: who is served, who is told, and how soon.

local servers = require "support.servers"
local storage_app = require "support.storage_app"

local wait_for = servers.wait_for

local CONNECT, COMMAND = 0.2, 0.3 -- seconds
local REDIS = "connect_timeout = 0.2, command_timeout = 0.3"
local ROUTING = "coherence_lease = 0.5"
local SLACK = 0.2 -- seconds, of a busy machine

describe("a replica whose Redis", function()
    local redis, b

    before_each(function() redis = servers.redis() end)

    after_each(function() servers.stop_all() end)

    local function start(opts)
        opts = opts or {}
        opts.url, opts.redis = opts.url or redis.url, REDIS
        opts.routing = ROUTING .. (opts.routing or "")
        b = storage_app.start(opts)
        return b
    end

    local function warm(n)
        b:ask { op = "fill", prefix = "s", n = n }
        for _, pid in ipairs(b:worker_pids()) do
            assert.is_true(b:ask({ op = "warm", prefix = "s", n = n }, pid).value)
        end
        redis:cli("SAVE") -- so that they outlive a SIGKILL
    end

    local function use_everywhere(args)
        local answers, using = {}, {}
        args.op = "use"
        for i, pid in ipairs(b:worker_pids()) do
            using[i] = b:begin(args, pid)
        end
        for i, wait in ipairs(using) do
            answers[i] = wait()
        end
        return answers
    end

    local function use_known()
        return use_everywhere { prefix = "s", of = 50, n = 500, pause = 0.002 }
    end

    local function use_unknown(n)
        return use_everywhere { id = "unknown", n = n or 5 }
    end

    local function sum(answers, ...)
        local total = 0
        for _, answer in ipairs(answers) do
            for _, what in ipairs { ... } do
                total = total + (answer.counts[what] or 0)
            end
        end
        return total
    end

    local function slowest(answers)
        local most = 0
        for _, answer in ipairs(answers) do
            most = math.max(most, answer.slowest)
        end
        return most / 1000
    end

    local function lease_over()
        wait_for(function() return not b:stats().coherence.coherent end, 3, "the end of the lease")
    end

    -- Full service within 5 s.
    local function assert_back()
        wait_for(function()
            local answers = use_everywhere { prefix = "s", of = 50, n = 50 }
            return sum(answers, "ok") == 100 and b:stats().coherence.coherent,
                   sum(answers, "ok")
        end, 5, "full service")
        assert.equal(1000, sum(use_known(), "ok"))
    end

    it("was stopped goes on serving what it knows, marked and counted, and comes back", function()
        start()
        warm(50)
        redis:kill()
        local answers = use_known()
        assert.equal(1000, sum(answers, "ok", "stale"))
        lease_over()
        local before = b:stats(b:worker_pids()[1])["local"].stale
        answers = use_known()
        assert.equal(1000, sum(answers, "stale"))
        assert.is_true(slowest(answers) < CONNECT + COMMAND + SLACK, slowest(answers))
        assert.equal(before + 500, b:stats(b:worker_pids()[1])["local"].stale)
        local loaded = b:ask { op = "load", id = "s1" }
        assert.same({ "http://10.0.0.1:8080", "stale" }, { loaded.value, loaded.code })

        answers = use_unknown()
        assert.equal(10, sum(answers, "unavailable"))
        assert.is_true(slowest(answers) < 2 * COMMAND, slowest(answers))
        redis:start()
        assert_back()
    end)

    it("is frozen goes on likewise, and soon wastes no time on it", function()
        start()
        warm(50)
        redis:pause()
        lease_over()
        local answers = use_unknown()
        assert.equal(10, sum(answers, "unavailable", "timeout"))
        assert.is_true(slowest(answers) < 2 * COMMAND, slowest(answers))
        answers = use_everywhere { prefix = "s", of = 50, n = 20 }
        assert.equal(40, sum(answers, "stale"))
        assert.is_true(slowest(answers) < CONNECT + COMMAND + SLACK, slowest(answers))
        wait_for(function()
            local now = use_unknown()
            return slowest(now) < 0.05, slowest(now)
        end, 5, "failures without delay")
        redis:resume()
        assert_back()
    end)

    it("was stopped fails what it knows, with serve_stale = false", function()
        start { routing = ", serve_stale = false" }
        warm(50)
        redis:kill()
        lease_over()
        assert.equal(1000, sum(use_known(), "unavailable"))
        assert.equal(0, b:stats()["local"].stale)
        redis:start()
        assert_back()
    end)

    it("was away before it started serves nothing, and comes up with it", function()
        redis:kill()
        start { listening = false }
        assert.equal(10, sum(use_unknown(), "unavailable"))
        redis:start()
        b:listener(5)
        assert.equal(10, sum(use_unknown(), "not_found"))
    end)

    it("comes and goes never has 'not found' mistaken for 'unavailable'", function()
        -- Nothing is kept: each question goes to Redis.
        start { routing = ", negative_ttl = 0, max_record = 64" }
        b:ask { op = "store", id = "there", url = "http://v:1" }
        redis:cli("EVAL", [[ for i = 1, 300 do redis.call("SET", "x" .. i, "") end ]], "0")
        redis:cli("SAVE")
        local asking = {}
        for i, pid in ipairs(b:worker_pids()) do
            asking[i] = {
                b:begin({ op = "observe", id = "there", seconds = 30 }, pid),
                b:begin({ op = "observe", id = "absent", seconds = 30 }, pid),
            }
        end
        servers.nap(0.2)
        redis:kill()
        servers.nap(0.3)
        -- Loads for more than half a second, and says so (-LOADING) meanwhile.
        redis.args = { "--key-load-delay", 2000, "--loading-process-events-interval-bytes", 1024 }
        redis:start()
        servers.nap(0.5)
        redis:pause()
        servers.nap(0.6)
        redis:resume()
        redis:cli("CLIENT KILL TYPE normal")
        servers.nap(0.3)
        for _, id in ipairs { "there", "absent" } do
            b:ask { op = "stop", id = id }
        end
        for i = 1, 2 do
            local there, absent = asking[i][1]().counts, asking[i][2]().counts
            assert.is_true(there.ok > 10 and absent.not_found > 10)
            assert.is_true((absent.unavailable or 0) > 10)
            for what in pairs(there) do
                assert.is_true(what == "ok" or what == "unavailable"
                               or what == "timeout", what)
            end
            for what in pairs(absent) do
                assert.is_true(what == "not_found" or what == "unavailable"
                               or what == "timeout", what)
            end
        end
    end)

    describe("goes away after it has said of a session", function()
        local proxy

        -- Two sessions that are hits; b hears of what is done with them, but
        -- can ask nothing any more.
        local function start_deaf_to_data()
            proxy = servers.node("spec/fixtures/redis_proxy.mjs", { "--upstream=" .. redis.port })
            start { url = "redis://127.0.0.1:" .. proxy.port, workers = 1 }
            warm(2)
            proxy:ask { op = "hold", kind = "data", dir = "up" }
        end

        local function go_away()
            proxy:ask { op = "upstream", port = servers.free_port() }
            proxy:ask { op = "cut" }
            lease_over()
        end

        local function answer(id)
            local got = b:ask { op = "resolve", id = id }
            return got.code
        end

        it("that it was changed, does not serve that one stale", function()
            start_deaf_to_data()
            redis:cli("PERSIST mooring:session:s1")
            wait_for(function() return b:ask({ op = "peek", id = "s1" }).dead end)
            go_away()
            assert.equal("unavailable", answer "s1")
            assert.equal("stale", answer "s2")
        end)

        it("that all were flushed, serves none stale", function()
            start_deaf_to_data()
            redis:cli("FLUSHALL")
            wait_for(function() return b:ask({ op = "peek", id = "s1" }).dead end)
            go_away()
            assert.equal("unavailable", answer "s1")
            assert.equal("unavailable", answer "s2")
        end)
    end)

    it("is out of memory is read, believed and not written", function()
        start()
        warm(50)
        b:ask { op = "store", id = "cold", url = "http://x:1" }
        wait_for(function() -- all keys of the ring of beacons are there
            return redis:command_counts().pexpire
        end, 10)
        redis:cli("CONFIG SET maxmemory 1")
        assert.equal("unavailable", b:ask({ op = "create", id = "new" }).code)
        for _ = 1, 3 do
            assert.equal(1000, sum(use_known(), "ok"))
            assert.is_true(b:stats().coherence.coherent)
        end
        assert.equal("http://x:1", b:ask({ op = "resolve", id = "cold" }).value)
        redis:cli("CONFIG SET maxmemory 0")
        assert.is_true(b:ask({ op = "create", id = "new" }).value)
    end)

    describe("is no Redis: a call takes no longer than configured when it", function()
        local PEERS = {
            ["accepts and never answers"] = { answer = "" },
            ["answers one byte a second"] = { answer = "+PONG\r\n$3\r\nabc\r\n", interval = 1000 },
            ["sends garbage"] = { answer = "HTTP/1.1 400 Bad Request\r\n\r\n" },
            ["greets with garbage"] = { greeting = "\0\1\2\3", answer = "*1000000000\r\n" },
            ["closes after each answer"] = { answer = "+PONG\r\n", ["end"] = true },
            ["answers +PONG to everything"] = { answer = "+PONG\r\n" },
        }

        local function assert_in_time(port)
            start { url = "redis://127.0.0.1:" .. port, listening = false }
            for round = 1, 2 do
                for _, op in ipairs { "resolve", "store", "create", "delete", "ready" } do
                    local answer = b:ask { op = "timed", what = { op = op, id = "k" .. round } }
                    assert.is_true(answer.ms / 1000 < CONNECT + COMMAND + SLACK,
                                   op .. " " .. answer.ms)
                end
            end
        end

        for name, peer in pairs(PEERS) do
            it(name, function()
                local server = servers.node("spec/fixtures/resp_peer.mjs")
                peer.op = "behave"
                server:ask(peer)
                assert_in_time(server.port)
            end)
        end

        it("answers PING, and nothing that is asked later", function()
            local proxy = servers.node("spec/fixtures/redis_proxy.mjs",
                                       { "--upstream=" .. redis.port })
            for _, text in ipairs { "GET", "SET", "DEL", "INFO", "TRACKING" } do
                proxy:ask { op = "hold", dir = "up", text = text }
            end
            assert_in_time(proxy.port)
        end)
    end)
end)
