-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Drops that meet a replica at a bad moment. The second replica reaches Redis
-- through a proxy that holds bytes back or cuts connections.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

local wait_for = servers.wait_for

local LEASE = 1 -- seconds
local SLACK = 2 -- seconds, of a busy machine

local ADMIN = "location = /admin { content_by_lua_block { router:admin() } }"

describe("router, a backend is dropped", function()
    local a, redis, wire, one, two

    local function start(url, options, timeout)
        return proxy.start { backends = { a }, workers = 2, server = ADMIN,
            options = ([[storage = require("resty.mooring").routing_storage.new {
                name = "spec", max_local_entries = 100, coherence_lease = %g,
                remote = require("resty.mooring").redis_storage.new {
                    url = %q, connect_timeout = 0.2, command_timeout = %g },
                %s },]]):format(LEASE, url, timeout or 0.3, options or "") }
    end

    before_each(function()
        a = proxy.backend("a")
        redis = servers.redis()
        wire = servers.node("spec/fixtures/redis_proxy.mjs",
            { "--upstream=" .. redis.port })
        one = start(redis.url)
    end)
    after_each(function() servers.stop_all() end)

    local function coherent(web)
        wait_for(function() return web:stats().storage.coherence.coherent end,
            5, "coherence")
    end

    local function start_two(...)
        two = start("redis://127.0.0.1:" .. wire.port, ...)
        coherent(two)
    end

    -- A session that all workers of the second replica have in memory.
    local function warm_session()
        local id = one:open()
        for _ = 1, 10 do
            assert.equal(200, two:call(id).status)
        end
        return id
    end

    local function drop(web)
        local answer = assert(servers.http(web.url .. "/admin?do=drop&backend="
            .. a.url, { method = "POST" }))
        assert.equal(200, answer.status, answer.body)
        return cjson.decode(answer.body).backend.incarnation
    end

    -- From now on for a while: is every answer one of these?
    local function only(web, id, seconds, ...)
        local allowed = {}
        for _, status in ipairs { ... } do
            allowed[status] = true
        end
        local till = servers.now() + seconds
        while servers.now() < till do
            local status = web:call(id).status
            assert.is_true(allowed[status], status)
        end
    end

    local function eventually(web, id, status, seconds)
        local last
        wait_for(function()
            last = web:call(id).status
            return last == status, last
        end, seconds, "the status " .. status)
    end

    it("while a fetch of an old binding is under way", function()
        start_two("", 10)
        local id = one:open()
        wire:ask { op = "hold", kind = "data", dir = "down", text = id }
        local late = two:stream { method = "POST", id = id, body = proxy.CALL }
        wait_for(function() return wire:ask("state").held > 0 end, 5,
            "the reply to be held")
        drop(one)
        wire:ask { op = "release" }
        late:wait_for_head("HTTP/1.1 404")
        only(two, id, 0.3, 404)
        assert.equal(0, #proxy.seen(a, "POST") - 1) -- the initialize
    end)

    it("on a replica that is not told, which finds out when its lease is over",
       function()
        start_two()
        local id = warm_session()
        wire:ask { op = "hold", kind = "listener", dir = "down" }
        drop(one)
        only(one, id, 0.1, 404)
        eventually(two, id, 404, LEASE + 1 + SLACK)
        only(two, id, LEASE, 404)
    end)

    it("on a replica whose listener is cut off and comes back", function()
        start_two()
        local id = warm_session()
        wire:ask { op = "cut", kind = "listener" }
        drop(one)
        eventually(two, id, 404, LEASE + 1 + SLACK)
        only(two, id, LEASE, 404)
    end)

    it("on a replica that reaches nothing: stale, if it may, until it does",
       function()
        start_two()
        local id = warm_session()
        wire:ask { op = "hold", dir = "up" }
        wire:ask { op = "hold", dir = "down" }
        drop(one)
        wait_for(function()
            two:call(id)
            return two:stats().results.stale > 0
        end, LEASE + SLACK + 3, "a stale answer")
        wire:ask { op = "release" }
        eventually(two, id, 404, LEASE + 1 + SLACK + 5)
        only(two, id, LEASE, 404)
    end)

    it("on a replica that reaches nothing and may not serve stale: 503 when "
        .. "its lease is over", function()
        start_two("serve_stale = false,")
        local id = warm_session()
        wire:ask { op = "hold", dir = "up" }
        wire:ask { op = "hold", dir = "down" }
        drop(one)
        eventually(two, id, 503, LEASE + SLACK)
        only(two, id, LEASE, 503)
        wire:ask { op = "release" }
        eventually(two, id, 404, LEASE + 1 + SLACK + 5)
    end)

    it("through a replica that has not heard of an earlier drop", function()
        start_two()
        warm_session()
        wire:ask { op = "hold", kind = "listener", dir = "down" }
        assert.equal(1, drop(one))
        assert.equal(2, drop(two))
        wait_for(function()
            return one:stats().backends[1].incarnation == 2
        end, 5, "the second drop")
    end)

    it("while nothing is ever pushed (Redis without tracking)", function()
        redis:stop()
        redis = servers.redis { port = redis.port, "--rename-command",
            "SUBSCRIBE", "NOT-FOR-YOU" }
        two = start(redis.url)
        local id
        wait_for(function()
            id = one:open()
            return id
        end, 10, "a session")
        for _ = 1, 10 do
            assert.equal(200, two:call(id).status)
        end
        drop(one)
        eventually(two, id, 404, 1 + SLACK)
        only(two, id, 0.5, 404)
    end)

    it("and the worker that listens is killed", function()
        start_two()
        local id = warm_session()
        for _, pid in ipairs(two:worker_pids()) do
            servers.run { "kill", "-9", tostring(pid) }
        end
        drop(one)
        eventually(two, id, 404, LEASE + 1 + SLACK)
        only(two, id, 0.5, 404)
        assert.equal(1, two:stats().backends[1].incarnation)
    end)
end)
