-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Backends that fail, and how busy each is.

local proxy = require "support.proxy"
local servers = require "support.servers"

local wait_for = servers.wait_for

local function served_by(answer)
    return answer.headers["x-served-by"]
end

local function about(web, backend)
    for _, each in ipairs(web:stats().backends) do
        if each.url == backend.url then
            return each
        end
    end
end

describe("router, passive health:", function()
    local a, b, web

    setup(function() a, b = proxy.backend("a"), proxy.backend("b") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        for _, backend in ipairs { a, b } do
            backend:ask("start")
            backend:ask("reset")
        end
    end)
    after_each(function()
        a:ask("start")
        b:ask("start")
    end)

    local function start(options, backends)
        web = proxy.start { backends = backends or { a, b }, workers = 2,
            options = options }
    end

    local function call()
        return assert(web:request { body = proxy.CALL })
    end

    -- Requests of no session until a backend has failed.
    local function fail(backend)
        backend:ask("stop")
        wait_for(function()
            assert.equal(200, call().status)
            return about(web, backend).failed
        end, 10, "the backend to fail")
    end

    -- How many of n requests found nobody at their first backend.
    local function retries(n)
        local before = #servers.read_file(web.dir .. "/error.log")
        for _ = 1, n do
            assert.equal(200, call().status)
        end
        local log = servers.read_file(web.dir .. "/error.log"):sub(before)
        return select(2, log:gsub("%(111: ", ""))
    end

    it("a backend that refuses connections is not asked any more, by any "
        .. "worker", function()
        start "max_fails = 3, fail_timeout = 60,"
        fail(a)
        assert.equal(0, retries(20))
        for _ = 1, 6 do
            assert.equal("b", served_by(select(2, web:open())))
        end
    end)

    it("so many failures have to come within fail_timeout", function()
        start "max_fails = 3, fail_timeout = 0.2,"
        a:ask("stop")
        for _ = 1, 2 do
            local found
            wait_for(function()
                found = found or retries(1) > 0
                return found
            end, 10, "a failure")
            assert.is_false(about(web, a).failed)
            servers.nap(0.3) -- the window, not luck: it has to be over
        end
    end)

    it("after fail_timeout one request tries it", function()
        start "max_fails = 1, fail_timeout = 3,"
        fail(a)
        wait_for(function() return retries(4) > 0 end, 20, "a trial")
        -- It has failed: the others wait for fail_timeout again.
        local from = servers.now()
        local more = retries(5)
        assert.is_true(more <= math.floor((servers.now() - from) / 3), more .. " more")
        assert.is_true(about(web, a).failed)
    end)

    it("one that answers the trial takes its share again", function()
        start "max_fails = 1, fail_timeout = 0.5,"
        fail(a)
        a:ask("start")
        wait_for(function()
            call()
            return not about(web, a).failed
        end, 10, "the backend to be healthy")
        local seen = {}
        for _ = 1, 8 do
            local name = served_by(call())
            seen[name] = (seen[name] or 0) + 1
        end
        assert.is_true(seen.a >= 2)
    end)

    it("an answer to a session of its own makes it healthy", function()
        start "max_fails = 1, fail_timeout = 600,"
        local id
        wait_for(function()
            local answer
            id, answer = web:open()
            return served_by(answer) == "a"
        end, 10, "a session at a")
        fail(a)
        a:ask("start")
        -- (the session as the first one was forgotten by nobody: no request
        -- of it has come)
        wait_for(function()
            assert.equal("a", served_by(web:call(id)))
            return not about(web, a).failed
        end, 10, "the backend to be healthy")
    end)

    it("the failure of a session's request counts, and the session goes",
       function()
        start "max_fails = 1, fail_timeout = 600,"
        local ids = {}
        wait_for(function()
            local id, answer = web:open()
            ids[served_by(answer)] = id
            return ids.a and ids.b
        end, 10, "sessions at both")
        a:ask("stop")
        assert.equal(404, web:call(ids.a).status)
        assert.is_true(about(web, a).failed)
        assert.equal("b", served_by(web:call(ids.b)))
    end)

    it("an initialize without an answer counts, a 502 of the backend does not",
       function()
        start("max_fails = 2, fail_timeout = 600,", { a })
        proxy.rule(a, { initialize = true, status = 502, times = 5 })
        for _ = 1, 5 do
            assert.equal(502, select(2, web:open()).status)
        end
        assert.is_false(about(web, a).failed)
        proxy.rule(a, { initialize = true, action = "reset", times = 2 })
        for _ = 1, 2 do
            assert.equal(502, select(2, web:open()).status)
        end
        assert.is_true(about(web, a).failed)
        -- It is all there is.
        assert.equal(200, select(2, web:open()).status)
        assert.is_false(about(web, a).failed)
    end)

    it("an idle connection that has closed is no failure", function()
        start "max_fails = 1, fail_timeout = 600,"
        for _ = 1, 4 do
            call()
        end
        a:ask("close_idle")
        b:ask("close_idle")
        for _ = 1, 4 do
            assert.equal(200, call().status)
        end
        assert.is_false(about(web, a).failed)
        assert.is_false(about(web, b).failed)
    end)

    it("if all have failed, all are tried", function()
        start "max_fails = 1, fail_timeout = 600,"
        a:ask("stop")
        b:ask("stop")
        wait_for(function()
            assert.equal(502, call().status)
            return about(web, a).failed and about(web, b).failed
        end, 10, "both to fail")
        assert.equal(502, select(2, web:open()).status)
        b:ask("start")
        local name
        wait_for(function()
            local _, answer = web:open()
            name = served_by(answer)
            return answer.status == 200
        end, 5, "a session")
        assert.equal("b", name)
        assert.is_false(about(web, b).failed)
        assert.is_true(about(web, a).failed)
    end)

    it("max_fails = 0 turns it off", function()
        start "max_fails = 0,"
        a:ask("stop")
        assert.is_true(retries(12) >= 4)
        assert.is_false(about(web, a).failed)
    end)
end)

describe("router, the load of each backend:", function()
    local a, b, web

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        -- One of these stops a backend: it is to have new sessions again soon.
        web = proxy.start { backends = { a, b }, workers = 2,
            read_timeout = "2s", options = "fail_timeout = 1," }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    local function inflight(a_count, b_count)
        wait_for(function()
            local now_a, now_b = about(web, a).inflight, about(web, b).inflight
            return now_a == a_count and now_b == b_count,
                now_a .. " and " .. now_b
        end, 10, ("%d and %d requests under way"):format(a_count, b_count))
    end

    local function open_at(backend)
        local id
        wait_for(function()
            local answer
            id, answer = web:open()
            return served_by(answer) == backend.name
        end, 10, "a session")
        return id
    end

    it("requests under way are counted over all workers", function()
        local id, streams = open_at(a), {}
        inflight(0, 0)
        for i = 1, 6 do
            streams[i] = web:stream { id = id }
        end
        inflight(6, 0)
        for i = 1, 3 do
            streams[i]:stop()
        end
        inflight(3, 0)
        a:ask("end_streams")
        inflight(0, 0)
    end)

    it("so is an initialize, and a DELETE", function()
        local id = open_at(a)
        proxy.rule(a, { method = "DELETE", action = "hang" })
        local ending = web:stream { method = "DELETE", id = id }
        inflight(1, 0)
        a:ask { op = "answer" }
        ending:wait()
        inflight(0, 0)
        proxy.rule(a, { initialize = true, action = "hang", times = 2 })
        proxy.rule(b, { initialize = true, action = "hang", times = 2 })
        local opening = { web:stream { method = "POST",
            body = proxy.INITIALIZE }, web:stream { method = "POST",
            body = proxy.INITIALIZE } }
        wait_for(function()
            return about(web, a).inflight + about(web, b).inflight == 2
        end, 10, "two requests under way")
        opening[1]:stop()
        opening[2]:stop()
        inflight(0, 0)
    end)

    it("nothing remains of requests that end early, in whatever way",
       function()
        local id = open_at(a)
        local ways = {
            reset = 502, close = 502, cut = 200, hang = 504,
        }
        for action, status in pairs(ways) do
            proxy.rule(a, { action = action, times = 2 })
            local answer, _, cut_off = web:request { id = id,
                body = proxy.CALL }
            assert.equal(status, answer and answer.status or cut_off)
            a:ask("reset")
            id = open_at(a)
        end
        proxy.rule(a, { status = 404 })
        assert.equal(404, web:call(id).status)
        id = open_at(a)
        a:ask("stop")
        assert.equal(404, web:call(id).status)
        for _ = 1, 6 do -- some find nobody there, and go to the other
            assert.equal(200, web:request({ body = proxy.CALL }).status)
        end
        assert.equal(404, web:call("nobody-knows").status)
        a:ask("start")
        inflight(0, 0)
    end)

    it("a worker that is killed leaves nothing behind", function()
        local id = open_at(b)
        for _ = 1, 8 do
            web:stream { id = id }
        end
        inflight(0, 8)
        for _, pid in ipairs(web:worker_pids()) do
            servers.run { "kill", "-9", tostring(pid) }
        end
        inflight(0, 0)
    end)

    it("sessions are counted as this nginx knows them", function()
        local before = { about(web, a).sessions, about(web, b).sessions }
        local ids = { open_at(a), open_at(b), open_at(b) }
        local function sessions(more_a, more_b)
            wait_for(function()
                return about(web, a).sessions >= before[1] + more_a
                   and about(web, b).sessions >= before[2] + more_b
            end, 5, "the sessions")
        end
        sessions(1, 2)
        local now = about(web, b).sessions
        assert.equal(200, web:delete(ids[3]).status)
        wait_for(function() return about(web, b).sessions == now - 1 end, 5,
            "one less")
    end)
end)
