-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Things that break between a replica and its Redis while another replica goes
-- on changing a session. However it breaks: no answer from the local tier is
-- wrong for longer than the lease, and afterwards all is as before, without
-- anybody doing anything.

local observation = require "support.observation"
local servers = require "support.servers"
local storage_app = require "support.storage_app"

local wait_for = servers.wait_for

local LEASE = 500  -- ms
local TURN = 250   -- ms, of an event loop on a busy machine
local ROUTING = "coherence_lease = 0.5"

describe("replica b", function()
    local redis, proxy, a, b
    local names = 0

    setup(function()
        redis = servers.redis()
        proxy = servers.node("spec/fixtures/redis_proxy.mjs", { "--upstream=" .. redis.port })
        a = storage_app.start { url = redis.url, routing = ROUTING }
        b = storage_app.start { url = "redis://127.0.0.1:" .. proxy.port, routing = ROUTING }
    end)

    teardown(function() servers.stop_all() end)

    local function fresh()
        names = names + 1
        return "fault-" .. names
    end

    local function observe(pids)
        local observers = {}
        for i, pid in ipairs(pids or b:worker_pids()) do
            observers[i] = { b, pid }
        end
        return observation.begin(a, fresh(), observers)
    end

    -- Waits until the session is there again.
    local function wait_until_written(seen)
        wait_for(function()
            return redis:cli("EXISTS mooring:session:" .. seen.id) == "1"
        end, 10, "another version")
    end

    -- All workers agree with Redis and answer from memory.
    local function assert_whole(id, url)
        b:listener(15)
        for _, pid in ipairs(b:worker_pids()) do
            b:wait_for_hit(id, pid)
            assert.equal(url, b:ask({ op = "resolve", id = id }, pid).value)
            local use = b:ask({ op = "use", id = id, n = 100 }, pid)
            assert.same({ 100, 100 }, { use.hits, use.counts.ok })
            assert.is_true(b:ask({ op = "check" }, pid).value)
        end
    end

    local function assert_bounded(seen)
        local worst, abouts, version = seen:finish()
        if os.getenv("VERBOSE") then
            print(("\nworst %.1f ms"):format(worst), require("cjson").encode(abouts[1].counts))
        end
        assert.is_true(worst <= LEASE + TURN, "wrong for " .. worst .. " ms")
        assert.is_true((abouts[1].counts.ok or 0) > 10)
        -- A write whose outcome was unknown may have taken effect later.
        local record = redis:cli("GET mooring:session:" .. seen.id):gsub("\\/", "/")
        local stored = record:match("http://v:%d+")
        assert.is_true(tonumber(stored:match("%d+$")) >= version)
        assert_whole(seen.id, stored)
        return abouts
    end

    it("is right and whole again when nothing breaks", function()
        local seen = observe()
        servers.nap(0.5)
        for _, about in ipairs(assert_bounded(seen)) do
            assert.is_nil(about.counts.stale)
            assert.is_nil(about.counts.unavailable)
        end
    end)

    it("is right and whole again after its listening worker was killed", function()
        local listener, other = b:listener()
        local seen = observe { other }
        servers.run { "kill", "-KILL", listener }
        wait_for(function() return b:listener() ~= listener end)
        assert_bounded(seen)
    end)

    it("is right and whole again after its listener was killed with messages unread", function()
        local listener, other = b:listener()
        local seen = observe { other }
        servers.run { "kill", "-STOP", listener }
        servers.nap(0.1) -- versions go on being written
        servers.run { "kill", "-KILL", listener }
        wait_for(function() return b:listener() ~= listener end)
        assert_bounded(seen)
    end)

    it("is right and whole again after its listening worker was frozen and came back", function()
        local listener, other = b:listener()
        local seen = observe { other }
        servers.run { "kill", "-STOP", listener }
        wait_for(function()
            local about = b:ask({ op = "stats" }, other).value.coherence
            return about.listening and about.coherent
        end, 5, "the other worker to listen")
        servers.run { "kill", "-CONT", listener }
        servers.nap(0.2)
        assert_bounded(seen)
    end)

    it("is right and whole again after its listener's socket was half-open", function()
        local seen = observe()
        local accepted = proxy:ask("state").accepted
        proxy:ask { op = "hold", kind = "listener", dir = "down" }
        wait_for(function() return proxy:ask("state").accepted > accepted end, 5,
            "the listener to be given up")
        proxy:ask { op = "release" }
        assert_bounded(seen)
    end)

    it("is right and whole again after all its sockets were half-open", function()
        local seen = observe()
        proxy:pause()
        servers.nap(2)
        proxy:resume()
        assert_bounded(seen)
    end)

    it("is right and whole again after Redis was restarted", function()
        local seen = observe()
        redis:restart()
        wait_until_written(seen)
        assert_bounded(seen)
    end)

    it("is right and whole again after Redis was frozen for 5 s", function()
        local seen = observe()
        wait_until_written(seen)
        redis:pause()
        servers.nap(5)
        redis:resume()
        local from = servers.now()
        b:listener(5)
        assert.is_true(servers.now() - from < 5)
        assert_bounded(seen)
    end)

    it("is right and whole again after its listener was killed by Redis", function()
        local seen = observe()
        for _ = 1, 3 do -- also while it has only just come back
            wait_for(function()
                return redis:cli("CLIENT KILL TYPE pubsub") ~= "0"
            end, 5, "a listener to kill")
        end
        assert_bounded(seen)
    end)

    it("is right and whole again after all its connections were killed", function()
        local seen = observe()
        redis:cli("CLIENT KILL TYPE pubsub")
        redis:cli("CLIENT KILL TYPE normal")
        assert_bounded(seen)
    end)

    it("is right and whole again after FLUSHALL", function()
        local seen = observe()
        redis:cli("FLUSHALL")
        wait_until_written(seen)
        assert_bounded(seen)
    end)

    it("is right and whole again after one worker has closed its storage", function()
        local listener, other = b:listener()
        local seen = observe { other }
        assert.is_true(b:ask({ op = "close" }, listener).value)
        for _ = 1, 3 do
            assert.equal("closed", b:ask({ op = "resolve", id = seen.id }, listener).code)
        end
        wait_for(function() return b:listener() == other end)
        local worst = seen:finish()
        assert.is_true(worst <= LEASE + TURN, worst)
        assert.is_nil(b:error_log():find("signal 11", 1, true))
        servers.run { "kill", "-TERM", listener } -- for one with an open storage
        wait_for(function() return b:worker_pids()[1] ~= listener
                                   and b:worker_pids()[2] ~= listener
                                   and #b:worker_pids() == 2 end)
    end)

    it("is right and whole again after Redis cut it off as a slow reader", function()
        local c = storage_app.start { url = redis.url, routing = ROUTING, workers = 1, name = "c" }
        finally(function() c:stop() end)
        local id, pid = fresh(), c:listener()
        a:ask { op = "store", id = id, url = "http://old:1" }
        c:wait_for_hit(id, pid)
        redis:cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 32kb 1")
        local losses = c:stats(pid).coherence.losses
        servers.run { "kill", "-STOP", pid }
        redis:cli("EVAL", [[ for i = 1, 30000 do
            redis.call("SET", "mooring:session:" .. string.rep("x", 1000) .. i, "", "PX", 1)
        end ]], "0")
        wait_for(function() -- Redis has a lot to do
            return a:ask({ op = "store", id = id, url = "http://new:1" }).value
        end)
        servers.run { "kill", "-CONT", pid }
        wait_for(function()
            local answer = c:ask({ op = "resolve", id = id }, pid)
            return answer.value == "http://new:1", (answer.value or answer.err)
                   .. " " .. tostring(answer.code)
        end, 2, "the new binding")
        assert.matches("output buffer limits", redis:log(), 1, true)
        c:listener()
        assert.is_true(c:stats(pid).coherence.losses > losses)
        c:wait_for_hit(id, pid)
    end)

    describe("hears what others do with", function()
        local CHANGES = {
            ["DEL"] = { "not_found", "DEL mooring:session:ID" },
            ["UNLINK"] = { "not_found", "UNLINK mooring:session:ID" },
            ["PEXPIRE"] = { "not_found", "PEXPIRE mooring:session:ID 1" },
            ["SET"] = { "http://x:1", 'SET mooring:session:ID {"id":"ID","type":"mcp",'
                .. '"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",'
                .. '"metadata":{"backend_url":"http://x:1"}} PX 100000' },
            ["RENAME"] = { "not_found", "RENAME mooring:session:ID elsewhere" },
            ["FLUSHDB"] = { "not_found", "FLUSHDB" },
            ["FLUSHALL"] = { "not_found", "FLUSHALL" },
        }
        for name, change in pairs(CHANGES) do
            it("redis-cli " .. name, function()
                local id, wanted = fresh(), change[1]
                b:listener()
                a:ask { op = "store", id = id, url = "http://old:1" }
                for _, pid in ipairs(b:worker_pids()) do
                    b:wait_for_hit(id, pid)
                end
                redis:cli((change[2]:gsub("ID", id)))
                local from = servers.now()
                for _, pid in ipairs(b:worker_pids()) do
                    wait_for(function()
                        local answer = b:ask({ op = "resolve", id = id }, pid)
                        return (answer.value or answer.code) == wanted, answer.value
                    end, 2, wanted)
                end
                assert.is_true(servers.now() - from < (LEASE + TURN) / 1000)
            end)
        end
    end)
end)
