-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The listener passes from the old workers of an nginx to the new ones.

local observation = require "support.observation"
local servers = require "support.servers"
local storage_app = require "support.storage_app"

local wait_for = servers.wait_for

local TURN = 250 -- ms

describe("a reload", function()
    local redis, a, b

    setup(function() redis = servers.redis() end)

    before_each(function()
        a = storage_app.start { url = redis.url, workers = 1 }
        b = storage_app.start { url = redis.url }
    end)

    after_each(function()
        a:stop()
        b:stop()
    end)

    teardown(function() servers.stop_all() end)

    local function gets()
        return redis:command_counts().get or 0
    end

    local function wait_for_old(seconds)
        wait_for(function()
            return #b:worker_pids(true) == 0
        end, seconds, "the old workers to leave")
    end

    local function epoch()
        return b:stats()["local"].epoch
    end

    it("keeps what is known: no epoch, no read from Redis, under traffic", function()
        a:ask { op = "fill", prefix = "s", n = 100 }
        for _, pid in ipairs(b:worker_pids()) do
            assert.is_true(b:ask({ op = "warm", prefix = "s", n = 100 }, pid).value)
        end
        -- What a reload under traffic costs: epochs, reads from Redis.
        local function reload()
            local epochs, reads, traffic = epoch(), gets(), {}
            local function use()
                for _, pid in ipairs(b:worker_pids()) do
                    traffic[#traffic + 1] = b:begin({ op = "use", prefix = "s", of = 100,
                                                      n = 300, pause = 0.001 }, pid)
                end
            end
            use()
            b:reload()
            use()
            wait_for_old(4)
            use()
            for _, wait in ipairs(traffic) do
                assert.equal(300, wait().counts.ok)
            end
            b:listener(5)
            return epoch() - epochs, gets() - reads
        end

        -- On a machine so busy that a worker does not get to hand over in time
        -- everything is read again; that may happen, but not always.
        local warm, seen = 0, {}
        for try = 1, 6 do
            local epochs, reads = reload()
            seen[try] = epochs .. " epochs and " .. reads .. " reads"
            warm = warm + ((epochs == 0 and reads == 0) and 1 or 0)
            if warm == 2 then
                break
            end
        end
        assert.equal(2, warm, table.concat(seen, ", "))
    end)

    it("ends old workers within 2 s, when nothing keeps them", function()
        for _ = 1, 2 do
            b:reload()
            wait_for_old(2)
        end
    end)

    it("ends old workers within 2 s of their last request", function()
        local done = {}
        for i, pid in ipairs(b:worker_pids()) do
            done[i] = b:begin({ op = "linger", seconds = 4, what = { op = "resolve", id = "x" } },
                              pid)
        end
        wait_for(function() return b:ask({ op = "lingering" }).value == 2 end, 10)
        b:reload()
        for _, wait in ipairs(done) do
            assert.equal("not_found", wait().code)
        end
        wait_for_old(2)
    end)

    it("ends old workers within 2 s also when Redis is away", function()
        finally(function()
            if redis:alive() then
                redis:resume()
            else
                redis:start()
            end
        end)
        redis:pause()
        b:reload()
        wait_for_old(2)
        redis:resume()
        b:listener(10)
        redis:kill()
        b:reload()
        wait_for_old(2)
        redis:start()
        b:listener(10)
    end)

    it("misses no change of a session", function()
        local seen = observation.begin(a, "k", { { b, b:worker_pids()[1] },
                                                 { b, b:worker_pids()[2] } })
        for _ = 1, 3 do
            b:reload()
            for _, pid in ipairs(b:worker_pids()) do
                seen:add(b, pid)
            end
            b:listener(5)
        end
        local worst, _, version = seen:finish()
        assert.is_true(worst <= 2000 + TURN, worst)
        wait_for(function()
            return b:ask({ op = "resolve", id = "k" }).value == "http://v:" .. version
        end, 2 + TURN / 1000, "the last version")
    end)

    -- The new listener is there, and what was pushed to the old one before that is
    -- not read.
    for how, signal in pairs { ["dies"] = "KILL", ["has to give up"] = "CONT" } do
        it("forgets all when the old listener " .. how .. " with messages unread", function()
            local proxy = servers.node("spec/fixtures/redis_proxy.mjs",
                                       { "--upstream=" .. redis.port })
            local c = storage_app.start { url = "redis://127.0.0.1:" .. proxy.port, name = "c" }
            finally(function()
                c:stop()
                proxy:stop()
            end)
            local listener = c:listener()
            a:ask { op = "store", id = "u", url = "http://old:1" }
            c:wait_for_hit("u", listener)
            local before = c:stats(listener)["local"].epoch
            proxy:ask { op = "hold", kind = "listener", dir = "down", only = "now" }
            a:ask { op = "store", id = "u", url = "http://new:1" }
            local changed = servers.now()
            c:reload()
            wait_for(function() -- those of a, b, and the two of c
                local _, n = redis:cli("CLIENT LIST TYPE pubsub"):gsub("name=", "")
                return n == 4, n
            end, 5, "the new listener")
            servers.run { "kill", "-" .. signal, listener }
            for _, pid in ipairs(c:worker_pids()) do
                wait_for(function()
                    return c:ask({ op = "resolve", id = "u" }, pid).value == "http://new:1"
                end, 2 + TURN / 1000, "the new binding")
            end
            assert.is_true(servers.now() - changed < 2 + 2 * TURN / 1000)
            c:listener(5)
            assert.equal("http://new:1", c:ask({ op = "resolve", id = "u" }).value)
            assert.is_true(c:stats()["local"].epoch > before)
        end)
    end

    it("is survived by the coherence when the old listener cannot hand over", function()
        for _, signal in ipairs { "STOP", "KILL" } do
            local listener, other = b:listener()
            local seen = observation.begin(a, "k", { { b, other } })
            servers.run { "kill", "-STOP", listener }
            b:signal("HUP")
            servers.run { "kill", "-" .. signal, listener }
            wait_for(function()
                local fresh = 0
                for _, pid in ipairs(b:worker_pids()) do
                    fresh = fresh + ((pid ~= listener and pid ~= other) and 1 or 0)
                end
                return fresh >= 2
            end, 10, "the new workers")
            b:listener(10)
            servers.run { "kill", "-CONT", listener }
            local worst, _, version = seen:finish()
            assert.is_true(worst <= 2000 + TURN, worst)
            wait_for(function()
                return b:ask({ op = "resolve", id = "k" }).value == "http://v:" .. version
            end, 2 + TURN / 1000, "the last version")
            wait_for_old(3)
            b:listener(10)
        end
    end)
end)
