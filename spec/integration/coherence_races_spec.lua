-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Interleavings of two replicas, each forced: bytes between replica b and its
-- Redis go through a proxy that holds them back until the other thing has
-- happened.

local servers = require "support.servers"
local storage_app = require "support.storage_app"

local wait_for = servers.wait_for

local OLD, NEW = "http://old:1", "http://new:1"

describe("replica b", function()
    local redis, proxy, a, b
    local names = 0

    setup(function()
        redis = servers.redis()
        proxy = servers.node("spec/fixtures/redis_proxy.mjs", { "--upstream=" .. redis.port })
        a = storage_app.start { url = redis.url }
        b = storage_app.start {
            url = "redis://127.0.0.1:" .. proxy.port,
            redis = "command_timeout = 3, connect_timeout = 1",
        }
    end)

    teardown(function() servers.stop_all() end)

    before_each(function()
        names = names + 1
        b:listener()
    end)

    after_each(function() proxy:ask "release" end)

    -- An id that is bound, that b does not know.
    local function bound(url)
        local id = "race-" .. names .. "-" .. (url or OLD):match("%a+", 8)
        assert.is_true(a:ask({ op = "store", id = id, url = url or OLD }).value)
        return id
    end

    local function hold(rule)
        rule.op = "hold"
        proxy:ask(rule)
    end

    local function wait_until_held(n)
        wait_for(function()
            local state = proxy:ask "state"
            return state.held >= (n or 1), state.held
        end, 5, "bytes to be held")
    end

    -- Invalidated keys that b has heard of so far.
    local function heard()
        local sum = 0
        for _, about in pairs(b:workers()) do
            sum = sum + (about.invalidations or 0)
        end
        return sum
    end

    -- Does something and waits until b has heard of it.
    local function and_hear(fn)
        local before = heard()
        fn()
        wait_for(function() return heard() > before end, 5, "the invalidation")
    end

    -- What both workers of b say.
    local function both(id)
        local answers = {}
        for i, pid in ipairs(b:worker_pids()) do
            local answer = b:ask({ op = "resolve", id = id }, pid)
            answers[i] = answer.value or answer.code
        end
        return answers
    end

    -- A resolve of b whose reply from Redis is on its way.
    local function late_fetch(id, pid)
        hold { kind = "data", dir = "down", text = id }
        local answer = b:begin({ op = "resolve", id = id }, pid)
        wait_until_held()
        return answer
    end

    local function gets()
        return redis:command_counts().get or 0
    end

    describe("with a fetch under way", function()
        it("keeps nothing of a session that is deleted meanwhile", function()
            local id = bound()
            local fetched = late_fetch(id)
            and_hear(function() a:ask { op = "delete", id = id } end)
            proxy:ask "release"
            assert.equal(OLD, fetched().value) -- to who asked before
            assert.same({ "not_found", "not_found" }, both(id))
        end)

        it("keeps nothing of the old binding when a new one is stored", function()
            local id = bound()
            local fetched = late_fetch(id)
            and_hear(function() a:ask { op = "store", id = id, url = NEW } end)
            proxy:ask "release"
            assert.equal(OLD, fetched().value)
            assert.same({ NEW, NEW }, both(id))
        end)

        it("keeps nothing of a session that its own other worker deletes", function()
            local id = bound()
            local one, other = unpack(b:worker_pids())
            local fetched = late_fetch(id, one)
            assert.is_true(b:ask({ op = "delete", id = id }, other).value)
            proxy:ask "release"
            fetched()
            assert.same({ "not_found", "not_found" }, both(id))
        end)

        it("keeps nothing of it after FLUSHALL", function()
            local id = bound()
            local fetched = late_fetch(id)
            local epoch = b:stats()["local"].epoch
            redis:cli("FLUSHALL")
            wait_for(function() return b:stats(b:listener())["local"].epoch > epoch end)
            proxy:ask "release"
            assert.equal(OLD, fetched().value)
            assert.same({ "not_found", "not_found" }, both(id))
        end)

        it("keeps nothing of it after the listener had to connect anew", function()
            local id = bound()
            local fetched = late_fetch(id)
            hold { kind = "listener", dir = "up", text = "TRACKING" }
            proxy:ask { op = "cut", kind = "listener" }
            wait_until_held(2)
            a:ask { op = "delete", id = id } -- and nobody hears
            proxy:ask { op = "release", kind = "listener" }
            wait_for(function()
                local _, n = redis:cli("CLIENT LIST TYPE pubsub"):gsub("name=", "")
                return n == 2, n
            end, 5, "the listeners of a and b")
            proxy:ask "release"
            assert.equal(OLD, fetched().value)
            b:listener()
            assert.same({ "not_found", "not_found" }, both(id))
        end)

        it("lets another request of that worker join it", function()
            local id = bound()
            local pid = b:worker_pids()[1]
            local before = gets()
            local first = late_fetch(id, pid)
            local second = b:begin({ op = "together", id = id, n = 20 }, pid)
            -- Both wait in Lua: the worker goes on serving.
            assert.is_true(b:ask({ op = "check" }, pid).value)
            proxy:ask "release"
            assert.equal(OLD, first().value)
            assert.equal(20, second().counts[OLD])
            assert.equal(before + 1, gets())
        end)

        it("lets no request join it that came after a delete", function()
            local id = bound()
            local pid = b:worker_pids()[1]
            local before = gets()
            local first = late_fetch(id, pid)
            and_hear(function() a:ask { op = "delete", id = id } end)
            local second = b:begin({ op = "resolve", id = id }, pid)
            wait_for(function() return gets() == before + 2 end, 5, "its own GET")
            proxy:ask "release"
            assert.equal(OLD, first().value)
            assert.equal("not_found", second().code)
        end)

        it("answers those that joined it also when its own client has gone", function()
            local id = bound()
            local c = storage_app.start {
                url = "redis://127.0.0.1:" .. proxy.port, workers = 1, name = "impatient",
                redis = "command_timeout = 0.5, connect_timeout = 0.25",
            }
            finally(function() c:stop() end)
            hold { kind = "data", dir = "down", text = id }
            local _, curl = c:begin { op = "resolve", id = id }
            wait_until_held()
            local joined = c:begin { op = "timed", what = { op = "resolve", id = id } }
            local function flight()
                return c:ask { op = "flights" }
            end
            wait_for(function() return flight().value[id] == 1 end, 5, "the second request")
            local connections = flight().connections
            curl:kill()
            wait_for(function() return flight().connections < connections end, 5, "its end")
            proxy:ask "release"
            local answer = joined()
            assert.equal(OLD, answer.value)
            assert.is_true(answer.ms < 2 * 750, answer.ms)
        end)
    end)

    it("disbelieves what it fetched between a reconnect and its SUBSCRIBE", function()
        local id = bound()
        hold { kind = "listener", dir = "up", text = "TRACKING" }
        proxy:ask { op = "cut", kind = "listener" }
        wait_until_held()
        assert.same({ OLD, OLD }, both(id))
        a:ask { op = "delete", id = id } -- and nobody hears
        proxy:ask "release"
        b:listener()
        assert.same({ "not_found", "not_found" }, both(id))
    end)

    it("does not remove with a late delete what was bound again since", function()
        local id = bound()
        hold { kind = "data", dir = "up", text = "EVAL" }
        local removed = b:begin { op = "remove_seen", id = id }
        wait_until_held()
        a:ask { op = "store", id = id, url = NEW }
        proxy:ask "release"
        assert.is_false(removed().value)
        assert.same({ NEW, NEW }, both(id))
        assert.matches("new", redis:cli("GET mooring:session:" .. id), 1, true)
    end)

    it("is done with a delete that came too late, but not with its own binding", function()
        local id = bound()
        assert.is_true(b:ask({ op = "remove_seen", id = id }).value)
        assert.same({ "not_found", "not_found" }, both(id))
        assert.equal("0", redis:cli("EXISTS mooring:session:" .. id))
    end)
end)
