-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The Redis of a replica becomes another one: a failover, an address that
-- moves, a configuration that names another; or it does not let us listen.

local observation = require "support.observation"
local servers = require "support.servers"
local storage_app = require "support.storage_app"

local wait_for = servers.wait_for

local LEASE, TURN = 500, 250 -- ms
local ROUTING = "coherence_lease = 0.5"
local OLD, NEW = "http://old:1", "http://new:1"

describe("a replica whose Redis", function()
    local one, two, proxy, b

    before_each(function()
        one = servers.redis { "--repl-diskless-sync-delay", 0 }
        two = servers.redis { "--repl-diskless-sync-delay", 0 }
        proxy = servers.node("spec/fixtures/redis_proxy.mjs", { "--upstream=" .. one.port })
    end)

    after_each(function() servers.stop_all() end)
    teardown(function() servers.stop_all() end)

    local function start(opts)
        opts.routing = opts.routing or ROUTING
        local app = storage_app.start(opts)
        return app
    end

    local function start_b(user, routing)
        b = start { url = ("redis://%s127.0.0.1:%d"):format(user or "", proxy.port),
                    routing = routing }
        return b
    end

    -- A replica that talks to a server directly.
    local function start_a(redis)
        return start { url = redis.url, workers = 1, listening = false }
    end

    local function ask(app, op, id, url, pid)
        local answer = app:ask({ op = op, id = id, url = url }, pid)
        return answer.value or answer.code
    end

    local function in_all_workers(app, id)
        local answers = {}
        for i, pid in ipairs(app:worker_pids()) do
            answers[i] = ask(app, "resolve", id, nil, pid)
        end
        return answers
    end

    local function is_hit_everywhere(app, id)
        for _, pid in ipairs(app:worker_pids()) do
            app:wait_for_hit(id, pid)
        end
    end

    local function listens_at(redis)
        return redis:cli("CLIENT LIST TYPE pubsub"):find("addr=", 1, true) ~= nil
    end

    -- `two` becomes a copy of `one`.
    local function replicate()
        two:cli("REPLICAOF 127.0.0.1 " .. one.port)
        wait_for(function()
            return two:cli("INFO replication"):find("master_link_status:up", 1, true)
        end, 10, "the replication")
    end

    -- `two` is the master, and `one` its replica, or a replica of nobody.
    local function fail_over(cut_off)
        two:cli("REPLICAOF NO ONE")
        one:cli("REPLICAOF 127.0.0.1 " .. (cut_off and servers.free_port() or two.port))
        proxy:ask { op = "upstream", port = two.port }
    end

    local function assert_bounded(seen)
        local worst, _, version = seen:finish()
        assert.is_true(worst <= LEASE + TURN, "wrong for " .. worst .. " ms")
        b:listener(10)
        is_hit_everywhere(b, seen.id)
        for _, answer in ipairs(in_all_workers(b, seen.id)) do
            assert.equal("http://v:" .. version, answer)
        end
    end

    describe("was demoted and still answers PONG", function()
        -- The listener stays at `one`, the data go to `two`.
        local function split(cut_off)
            replicate()
            fail_over(cut_off)
            proxy:ask { op = "cut", kind = "data" }
            local a = start_a(two)
            local observers = {}
            for i, pid in ipairs(b:worker_pids()) do
                observers[i] = { b, pid }
            end
            assert.matches("PONG", one:cli("PING"), 1, true)
            return observation.begin(a, "k", observers)
        end

        it("follows its data to the new master", function()
            start_b()
            local seen = split(true)
            wait_for(function() return listens_at(two) and not listens_at(one) end, 5)
            servers.nap(0.2)
            assert_bounded(seen)
        end)

        it("finds the new master by silence where INFO is forbidden", function()
            for _, redis in ipairs { one, two } do
                redis:cli("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info")
            end
            start_b("app:pw@")
            replicate()
            fail_over(true)
            proxy:ask { op = "cut", kind = "data" }
            two:cli("SET", "mooring:session:k", "{}") -- written where nobody listens
            wait_for(function() return listens_at(two) end, 10, "the listener to give up")
            local a = start_a(two)
            ask(a, "store", "k", NEW)
            b:listener()
            is_hit_everywhere(b, "k")
            assert.same({ NEW, NEW }, in_all_workers(b, "k"))
        end)

        it("is right while it listens to a replica of the new master", function()
            for _, redis in ipairs { one, two } do
                redis:cli("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info")
            end
            start_b("app:pw@")
            local seen = split(false)
            servers.nap(1)
            assert.is_true(listens_at(one))
            assert_bounded(seen)
        end)

        it("does not believe a worker's connection that was left behind", function()
            start_b("", "coherence_lease = 4") -- it notices half a second later
            local _, other = b:listener()
            replicate()
            ask(b, "store", "k", OLD)
            is_hit_everywhere(b, "k")
            local stays = b:ask({ op = "redis", command = { "CLIENT", "ID" } }, other).value
            fail_over(true)
            two:cli("DEL mooring:session:k")
            -- `one` still has it, and still tells the other worker, which asks
            -- all the time, also while everything else moves to `two`.
            assert.matches("old", one:cli("GET mooring:session:k"), 1, true)
            local asked = b:begin({ op = "observe", id = "k", seconds = 20, pause = 0.001 }, other)
            one:cli("CLIENT KILL TYPE pubsub")
            for id in one:cli("CLIENT LIST TYPE normal"):gmatch("id=(%d+)") do
                if tonumber(id) ~= stays then
                    one:cli("CLIENT KILL ID " .. id)
                end
            end
            wait_for(function() return listens_at(two) end, 5, "the listener to move")
            b:listener()
            wait_for(function()
                local answers = in_all_workers(b, "k")
                return answers[1] == "not_found" and answers[2] == "not_found"
            end, 4 + TURN / 1000, "not found in both workers")
            b:ask { op = "stop", id = "k" }
            assert.is_true((asked().counts.not_found or 0) > 0)
            assert.same({ "not_found", "not_found" }, in_all_workers(b, "k"))
        end)

        it("writes to the new master after the first refusal", function()
            start_b()
            replicate()
            fail_over(true)
            -- No connection breaks: only -READONLY tells.
            wait_for(function() return ask(b, "store", "k", NEW) == true end, 5, "a write")
            assert.matches("new", two:cli("GET mooring:session:k"), 1, true)
            b:listener(10)
            assert.is_true(listens_at(two))
        end)
    end)

    it("was replaced by an empty one finds nothing, and goes on", function()
        start_b()
        ask(b, "store", "k", OLD)
        is_hit_everywhere(b, "k")
        one:kill()
        proxy:ask { op = "upstream", port = two.port }
        wait_for(function()
            local answers = in_all_workers(b, "k")
            return answers[1] == "not_found" and answers[2] == "not_found"
        end, 5, "not found")
        b:listener(10)
        assert.is_true(ask(b, "store", "k", NEW))
        is_hit_everywhere(b, "k")
        assert.same({ NEW, NEW }, in_all_workers(b, "k"))
    end)

    describe("is another one after a reload", function()
        it("gives the other one's sessions at once", function()
            local app = start { url = one.url }
            local other = start { url = two.url }
            ask(app, "store", "k", OLD)
            ask(other, "store", "k", NEW)
            is_hit_everywhere(app, "k")
            local lingering = app:begin { op = "linger", seconds = 1.5,
                                          what = { op = "resolve", id = "k" } }
            wait_for(function() return app:ask({ op = "lingering" }).value == 1 end, 5)
            app:reload_with { url = two.url, routing = ROUTING }
            assert.same({ NEW, NEW }, in_all_workers(app, "k"))
            app:listener()
            is_hit_everywhere(app, "k")
            -- A request that began before is answered as it would have been.
            local answer = lingering()
            assert.is_true(answer.exiting)
            assert.equal(OLD, answer.value)
            assert.same({ NEW, NEW }, in_all_workers(app, "k"))
        end)

        it("or another prefix, gives only those", function()
            local app = start { url = one.url }
            ask(app, "store", "k", OLD)
            is_hit_everywhere(app, "k")
            app:reload_with { url = one.url, routing = ROUTING,
                              redis = 'key_prefix = "another:session:"' }
            assert.same({ "not_found", "not_found" }, in_all_workers(app, "k"))
            ask(app, "store", "k", NEW)
            is_hit_everywhere(app, "k")
            one:cli("DEL another:session:k")
            wait_for(function() return ask(app, "resolve", "k") == "not_found" end, 1)
        end)
    end)

    describe("does not let it listen", function()
        local function start_limited(...)
            one:cli("ACL", "SETUSER", "app", "on", ">pw", ...)
            return start { url = ("redis://app:pw@127.0.0.1:%d"):format(one.port),
                           routing = ROUTING .. ", local_ttl = 0.4", listening = false }
        end

        local function assert_told(app, right)
            wait_for(function() return app:error_log():find("[error]", 1, true) end, 5)
            local log = app:error_log()
            assert.matches(right, log, 1, true)
            local _, n = log:gsub("%[error%]", "")
            assert.equal(1, n, log)
            for _, pid in ipairs(app:worker_pids()) do
                assert.is_false(app:stats(pid).coherence.coherent)
            end
        end

        local function assert_local_ttl(app)
            local a = start_a(one)
            ask(a, "store", "k", OLD)
            is_hit_everywhere(app, "k")
            ask(a, "store", "k", NEW)
            local from = servers.now()
            wait_for(function()
                local answers = in_all_workers(app, "k")
                return answers[1] == NEW and answers[2] == NEW
            end, 2, "the new binding")
            assert.is_true(servers.now() - from < 0.4 + 2 * TURN / 1000)
        end

        it("says which right is missing, once, and believes for local_ttl", function()
            local app = start_limited("~*", "+@all", "resetchannels")
            assert_told(app, "&__redis__:invalidate")
            assert_local_ttl(app)
            -- The operator grants it.
            one:cli("ACL", "SETUSER", "app", "&__redis__:invalidate")
            app:reload()
            app:listener(5)
            is_hit_everywhere(app, "k")
        end)

        it("says so when the beacons are forbidden", function()
            local app = start_limited("~mooring:session:*", "+@all", "&*")
            assert_told(app, "~mooring:beacon:*")
            assert_local_ttl(app)
        end)

        it("says so when it does not know the command", function()
            one:stop()
            one = servers.redis { "--rename-command", "CLIENT", "", port = one.port }
            local app = start { url = one.url, routing = ROUTING .. ", local_ttl = 0.4",
                                listening = false }
            assert_told(app, "version 6")
            assert_local_ttl(app)
        end)

        it("gets along with no more than the rights it names", function()
            one:cli("ACL", "SETUSER", "app", "on", ">pw", "~mooring:*", "&__redis__:invalidate",
                "+client|id", "+client|tracking", "+subscribe", "+set", "+get", "+pttl", "+del",
                "+pexpire", "+eval", "+ping", "+select")
            local app = start { url = ("redis://app:pw@127.0.0.1:%d"):format(one.port) }
            ask(app, "store", "k", OLD)
            is_hit_everywhere(app, "k")
            one:cli("DEL mooring:session:k")
            wait_for(function() return ask(app, "resolve", "k") == "not_found" end, 1)
        end)
    end)
end)
