-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What misses, changes and hits cost Redis and the memory of a replica.

local servers = require "support.servers"
local storage_app = require "support.storage_app"

local wait_for = servers.wait_for

local KEY = "mooring:session:"

describe("replica b", function()
    local redis, a, b
    local names = 0

    setup(function()
        redis = servers.redis()
        a = storage_app.start { url = redis.url, workers = 1 }
        b = storage_app.start { url = redis.url, routing = "negative_ttl = 30" }
    end)

    teardown(function() servers.stop_all() end)

    before_each(function() b:listener() end)

    local function fresh()
        names = names + 1
        return "cost-" .. names .. "-"
    end

    local function count(command)
        return redis:command_counts()[command] or 0
    end

    -- What a command costs: how many of `command` were executed meanwhile, once
    -- their number stands still.
    local function cost(command, fn)
        local before = count(command)
        fn()
        local last, since = count(command), servers.now()
        wait_for(function()
            local now = count(command)
            if now ~= last then
                last, since = now, servers.now()
            end
            return servers.now() - since > 0.1
        end, 10)
        return last - before
    end

    -- Sessions that are hits in all workers of b.
    local function warm(n)
        local prefix = fresh()
        a:ask { op = "fill", prefix = prefix, n = n }
        for _, pid in ipairs(b:worker_pids()) do
            assert.is_true(b:ask({ op = "warm", prefix = prefix, n = n }, pid).value)
        end
        return prefix
    end

    local function pttl(id)
        return tonumber(redis:cli("PTTL " .. KEY .. id))
    end

    describe("asks Redis once", function()
        it("for 1,000 requests of one worker at a time for one session", function()
            local id = fresh()
            a:ask { op = "store", id = id, url = "http://x:1" }
            assert.equal(1, cost("get", function()
                assert.same({ ["http://x:1"] = 1000 },
                            b:ask({ op = "together", id = id, n = 1000 }).counts)
            end))
        end)

        it("for 1,000 requests of one worker at a time for one that is not there", function()
            local id = fresh()
            assert.equal(1, cost("get", function()
                assert.same({ not_found = 1000 },
                            b:ask({ op = "together", id = id, n = 1000 }).counts)
            end))
        end)

        it("for an unknown id that is asked for again and again", function()
            local id, pid = fresh(), b:worker_pids()[1]
            assert.equal(1, cost("get", function()
                for _ = 1, 3 do
                    local use = b:ask({ op = "use", id = id, n = 1000 }, pid)
                    assert.same({ not_found = 1000 }, use.counts)
                end
            end))
        end)

        it("to renew a session that all workers use when its time has come", function()
            local id = warm(1) .. 1
            redis:cli("PEXPIRE " .. KEY .. id .. " 60000") -- the ttl is 7200 s
            for _, pid in ipairs(b:worker_pids()) do
                wait_for(function() -- fetched anew, and its mark has passed
                    local fresh_until = b:ask({ op = "peek", id = id }, pid).fresh_until
                    return fresh_until and fresh_until < b:stats(pid).now
                end)
            end
            local function renewals() -- beacons are PEXPIREs, too
                local sum = 0
                for _, pid in ipairs(b:worker_pids()) do
                    sum = sum + b:stats(pid).remote.renewals
                end
                return sum
            end
            local before, using = renewals(), {}
            for i, pid in ipairs(b:worker_pids()) do
                using[i] = b:begin({ op = "use", id = id, n = 300, pause = 0.001 }, pid)
            end
            for _, wait in ipairs(using) do
                assert.equal(300, wait().counts.ok)
            end
            assert.equal(1, renewals() - before)
            assert.is_true(pttl(id) > 7200 * 1000)
        end)
    end)

    it("knows at once of a session that others make where it found none", function()
        for _ = 1, 8 do
            local id = fresh()
            for _, pid in ipairs(b:worker_pids()) do
                assert.equal("not_found", b:ask({ op = "resolve", id = id }, pid).code)
            end
            assert.is_true(a:ask({ op = "create", id = id, url = "http://x:1" }).value)
            for _, pid in ipairs(b:worker_pids()) do
                wait_for(function()
                    return b:ask({ op = "resolve", id = id }, pid).value == "http://x:1"
                end, 0.2, "the new session")
            end
        end
    end)

    it("asks again for an unknown id when negative_ttl has passed", function()
        local c = storage_app.start { url = redis.url, workers = 1, name = "c",
                                      routing = "negative_ttl = 0.1" }
        finally(function() c:stop() end)
        local id = fresh()
        local gets = cost("get", function()
            c:ask { op = "use", id = id, n = 100, pause = 0.01 } -- for 1 s
        end)
        assert.is_true(gets > 2 and gets <= 20, gets)
    end)

    it("keeps its memory and its sessions through 100,000 unknown ids", function()
        local prefix = warm(1000)
        local pid = b:worker_pids()[1]
        local entries = b:stats()["local"].entries
        local evicted = b:stats()["local"].evicted
        local flood
        local gets = cost("get", function()
            flood = b:ask({ op = "flood", prefix = fresh(), n = 100000, threads = 64 }, pid, 60)
        end)
        assert.equal(100000, flood.counts.not_found)
        assert.is_true(gets <= 100064, gets)
        assert.is_true(flood.kilobytes < 3072, flood.kilobytes .. " KiB")
        assert.equal(entries, b:stats()["local"].entries)
        assert.equal(evicted, b:stats()["local"].evicted)
        assert.equal(0, cost("get", function()
            for _, one in ipairs(b:worker_pids()) do
                assert.equal(1000, b:ask({ op = "use", prefix = prefix, of = 1000, n = 1000 },
                                         one).counts.ok)
            end
        end))
        assert.same({}, b:ask({ op = "flights" }, pid).value)
    end)

    it("is asked 20,000 times without a command, but for two beacons a second", function()
        local prefix = warm(100)
        a:stop()
        finally(function() a:start() end)
        servers.nap(0.2)
        redis:cli("CONFIG RESETSTAT")
        local from = servers.now()
        local using = {}
        for i, pid in ipairs(b:worker_pids()) do
            using[i] = b:begin({ op = "use", prefix = prefix, of = 100, n = 10000,
                                 every = 5, pause = 0.001 }, pid)
        end
        for _, wait in ipairs(using) do
            assert.equal(10000, wait().counts.ok)
        end
        local counts, seconds = redis:command_counts(), servers.now() - from
        local beacons = (counts.set or 0) + (counts.pexpire or 0)
        assert.is_true(seconds > 2, seconds)
        assert.is_true(beacons >= 1 and beacons <= 2 * seconds + 1, beacons)
        counts.set, counts.pexpire, counts.info, counts["config|resetstat"] = nil, nil, nil, nil
        assert.same({}, counts)
    end)

    for _, start in ipairs { "inside.start()", "" } do
        it("is as good as cold, and leaves nothing behind, with lua_code_cache off "
           .. (start == "" and "and no start()" or "and start()"), function()
            local c = storage_app.start { url = redis.url, workers = 1, name = "uncached",
                http = "lua_code_cache off;", start = start, listening = false,
                log_level = "error" }
            finally(function() c:stop() end)
            local timers
            for i = 1, 15 do
                assert.is_true(c:ask({ op = "store", id = "k", url = "http://x:" .. i }).value)
                assert.equal("http://x:" .. i, c:ask({ op = "resolve", id = "k" }).value)
                if i == 5 then
                    timers = c:ask({ op = "timers" }).value
                end
            end
            wait_for(function()
                local now = c:ask({ op = "timers" }).value
                return now <= timers, now .. " timers, not " .. timers
            end, 2)
            assert.equal("", c:error_log():gsub("[^\n]*lua_code_cache is off[^\n]*\n", ""))
        end)
    end

    it("hits a session whose max_lifetime is too near to renew it", function()
        local c = storage_app.start { url = redis.url, workers = 1, name = "lifetime",
                                      redis = "max_lifetime = 100" }
        finally(function() c:stop() end)
        c:ask { op = "store", id = "lifetime", url = "http://x:1" }
        c:wait_for_hit("lifetime", c:worker_pids()[1])
        assert.equal(100, c:ask({ op = "use", id = "lifetime", n = 100 }).hits)
        assert.equal(0, c:stats().remote.renewals)
    end)

    it("listens from the second request on, without start()", function()
        local c = storage_app.start { url = redis.url, workers = 1, name = "unstarted",
                                      start = "", listening = false }
        finally(function() c:stop() end)
        a:ask { op = "store", id = "unstarted", url = "http://x:1" }
        c:wait_for_hit("unstarted", c:worker_pids()[1])
        assert.is_true(c:stats().coherence.coherent)
    end)

    describe("when a session it holds is changed elsewhere", function()
        it("reads it once more, and the next use is a hit", function()
            local id = warm(1) .. 1
            local gets = cost("get", function()
                a:ask { op = "store", id = id, url = "http://x:1" }
            end)
            -- b once, and a once for what it has changed itself
            assert.is_true(gets <= 2, gets)
            assert.equal(0, cost("get", function()
                for _, pid in ipairs(b:worker_pids()) do
                    local use = b:ask({ op = "use", id = id, n = 10 }, pid)
                    assert.equal(10, use.counts.ok)
                    assert.equal("http://x:1", b:ask({ op = "resolve", id = id }, pid).value)
                end
            end))
        end)

        it("does not renew it by that", function()
            local id = warm(1) .. 1
            assert.equal(1, cost("get", function()
                a:stop()
                finally(function() a:start() end)
                redis:cli("PEXPIRE " .. KEY .. id .. " 60000") -- the ttl is 7200 s
            end))
            assert.is_true(pttl(id) <= 60000)
            b:ask { op = "resolve", id = id }
            wait_for(function() return pttl(id) > 7200 * 1000 end, 2, "the renewal by a use")
        end)

        it("reads a bounded number in the background, and the others when used", function()
            local prefix = warm(900)
            a:stop()
            finally(function() a:start() end)
            local started = servers.now()
            local gets = cost("get", function()
                redis:cli("EVAL", [[ for i = 1, 900 do
                    redis.call("PEXPIRE", KEYS[1] .. i, 10000000) end ]], "1", KEY .. prefix)
            end)
            local most = 200 + 200 * (servers.now() - started)
            assert.is_true(gets >= 200 and gets <= most, gets .. " of " .. most)
            assert.equal(900 - gets, cost("get", function()
                b:ask { op = "use", prefix = prefix, of = 900, n = 900 }
            end))
        end)

        it("reads nothing in the background when very many are", function()
            local prefix = warm(10)
            local pid = b:listener()
            local epoch = b:stats(pid)["local"].epoch
            assert.equal(0, cost("get", function()
                redis:cli("EVAL", [[ for i = 1, 5000 do
                    redis.call("SET", KEYS[1] .. "x" .. i, "", "PX", 60000)
                end ]], "1", KEY .. prefix)
                wait_for(function() return b:stats(pid)["local"].epoch == epoch + 1 end)
            end))
            assert.equal(10, cost("get", function()
                b:ask { op = "use", prefix = prefix, of = 10, n = 10 }
            end))
        end)

        it("tells on_evict once that it is gone, and not that it was overwritten", function()
            local prefix = warm(2)
            b:ask { op = "events" }
            a:ask { op = "store", id = prefix .. 1, url = "http://x:1" }
            a:ask { op = "delete", id = prefix .. 2 }
            local heard
            wait_for(function()
                heard = b:ask({ op = "events" }).value
                return #heard > 0
            end, 2, "the hook")
            for _, pid in ipairs(b:worker_pids()) do
                b:ask({ op = "use", prefix = prefix, of = 2, n = 20 }, pid)
            end
            assert.same({ prefix .. "2 gone" }, heard)
            assert.same({}, b:ask({ op = "events" }).value)
        end)
    end)
end)
