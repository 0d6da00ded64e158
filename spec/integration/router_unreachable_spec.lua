-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, when a backend", function()
    local a, b, web

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        web = proxy.start { backends = { a, b }, options = "max_fails = 0," }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    -- A session of backend a.
    local function open_at_a()
        for _ = 1, 2 do
            local id, answer = web:open()
            if answer.headers["x-served-by"] == "a" then
                return id
            end
            web:delete(id)
        end
        error("no session at a")
    end

    -- Requests of a session that a backend has seen.
    local function asked(backend, id)
        local count = 0
        for _, request in ipairs(proxy.seen(backend)) do
            if request.headers["mcp-session-id"] == id then
                count = count + 1
            end
        end
        return count
    end

    local function is_unknown(answer)
        assert.equal(404, answer.status)
        assert.equal(-32001, cjson.decode(answer.body).error.code)
    end

    describe("refuses connections", function()
        after_each(function() a:ask("start") end)

        it("its session is forgotten and answered as unknown", function()
            local id = open_at_a()
            local forgotten = web:stats().results.forgotten
            a:ask("stop")
            local answer = web:call(id)
            is_unknown(answer)
            assert.equal(7, cjson.decode(answer.body).id)
            assert.equal("*", answer.headers["access-control-allow-origin"])
            assert.equal(forgotten + 1, web:stats().results.forgotten)
            assert.equal("unreachable", web:results()[#web:results()])
            -- also once the backend is back
            a:ask("start")
            is_unknown(web:call(id))
            assert.equal(0, asked(b, id))
            a:ask("stop")
        end)

        for _, method in ipairs { "GET", "DELETE" } do
            it("the same goes for " .. method, function()
                local id = open_at_a()
                a:ask("stop")
                is_unknown(assert(web:request { method = method, id = id }))
                assert.equal("not_found", (function()
                    web:call(id)
                    return web:results()[#web:results()]
                end)())
            end)
        end

        it("a request of no session goes to another one", function()
            a:ask("stop")
            for _ = 1, 3 do
                local answer = assert(web:request { body = proxy.CALL })
                assert.same({ 200, "b" },
                    { answer.status, answer.headers["x-served-by"] })
                assert.equal(b.url, web:last_backend())
            end
            for _ = 1, 2 do
                assert.equal(404, assert(web:request { method = "DELETE",
                    id = "x" }).status)
            end
        end)

        it("and no other one is left, that is answered 502", function()
            a:ask("stop")
            b:ask("stop")
            local answer = assert(web:request { body = proxy.CALL })
            b:ask("start")
            assert.equal(502, answer.status)
            assert.equal('{"jsonrpc":"2.0","error":{"code":-32051,'
                .. '"message":"Backend unreachable"},"id":7}', answer.body)
        end)
    end)

    describe("resets the connection after the request", function()
        it("that is a 502 and the session lives on", function()
            local id = open_at_a()
            proxy.rule(a, { action = "reset" })
            local answer = web:call(id)
            assert.equal(502, answer.status)
            assert.equal('{"jsonrpc":"2.0","error":{"code":-32051,'
                .. '"message":"Backend failed"},"id":7}', answer.body)
            assert.equal(200, web:call(id).status)
        end)

        it("a POST is not repeated", function()
            local id = open_at_a()
            proxy.rule(a, { action = "reset" })
            web:call(id)
            assert.equal(1, asked(a, id))
        end)

        -- However many idle connections nginx could still try.
        local function warm_up()
            local clients = {}
            for i = 1, 6 do
                clients[i] = servers.spawn { "curl", "-sS", web.mcp,
                    "-d", "{}", out = "/dev/null" }
            end
            for i = 1, 6 do
                clients[i]:wait(5)
            end
        end

        it("a GET is tried again, once and there", function()
            local id = open_at_a()
            warm_up()
            proxy.rule(a, { method = "GET", action = "reset" })
            proxy.rule(a, { method = "GET", body = "second" })
            local answer = assert(web:request { method = "GET", id = id })
            assert.same({ 200, "second" }, { answer.status, answer.body })
            assert.equal(a.url, web:last_backend())

            proxy.rule(a, { method = "GET", action = "reset", times = 10 })
            assert.equal(502, web:request({ method = "GET", id = id }).status)
            assert.equal(a.url, web:last_backend())
            assert.equal(4, asked(a, id))
            assert.equal(0, asked(b, id))
            assert.equal(200, web:call(id).status)
        end)

        it("a DELETE is tried again, once and there", function()
            local id = open_at_a()
            proxy.rule(a, { method = "DELETE", action = "reset" })
            assert.equal(200, web:delete(id).status)
            assert.equal(2, asked(a, id))

            id = open_at_a()
            warm_up()
            proxy.rule(a, { method = "DELETE", action = "close", times = 10 })
            assert.equal(502, web:delete(id).status)
            assert.equal(2, asked(a, id))
            assert.equal(0, asked(b, id))
            assert.equal(200, web:call(id).status)
        end)

        it("a GET of no session is tried at each backend once", function()
            open_at_a()
            warm_up()
            for _, backend in ipairs { a, b } do
                proxy.rule(backend, { method = "GET", action = "reset",
                    times = 10 })
            end
            assert.equal(502, web:request({ method = "GET" }).status)
            assert.equal(1, #proxy.seen(a, "GET"))
            assert.equal(1, #proxy.seen(b, "GET"))
        end)

        it("half-way through the answer, the session lives on", function()
            local id = open_at_a()
            proxy.rule(a, { action = "cut" })
            local answer, err = web:request { id = id, body = proxy.CALL }
            assert.is_nil(answer)
            assert.matches("curl: %(18%)", err)
            assert.equal(200, web:call(id).status)
        end)
    end)

    it("closes its idle connections, no request notices", function()
        local id = open_at_a()
        for _ = 1, 5 do
            assert.equal(200, web:call(id).status)
            a:ask("close_idle")
            local answer = assert(web:request { method = "POST", id = id,
                body = proxy.CALL })
            assert.equal(200, answer.status)
        end
    end)

    it("answers, its connection is used again", function()
        local id = open_at_a()
        web:call(id)
        local before = a:ask("sockets").accepted
        for _ = 1, 5 do
            web:call(id)
        end
        assert.equal(before, a:ask("sockets").accepted)
    end)

    describe("answers 404", function()
        it("its session is forgotten, the answer passes", function()
            local id = open_at_a()
            a:ask("reset")
            local forgotten = web:stats().results.forgotten
            local answer = web:call(id)
            assert.same({ 404, '{"error":"unknown here"}' },
                { answer.status, answer.body })
            web:wait_for_count("forgotten", forgotten + 1)
            is_unknown(web:call(id))
            assert.equal(1, asked(a, id))
        end)

        it("to many sessions at once, all of them are forgotten", function()
            local out = servers.tmpdir()
            local open = { "curl", "-sS", "-D", out .. "/heads", "-o",
                "/dev/null", "-H", "Content-Type: application/json", "-d",
                proxy.INITIALIZE }
            for _ = 1, 300 do
                open[#open + 1] = web.mcp
            end
            assert.equal(0, servers.run(open).code)
            local forgotten = web:stats().results.forgotten
            a:ask("reset")
            b:ask("reset")
            local calls = { "curl", "-sS", "-Z", "--parallel-immediate" }
            local count = 0
            for id in servers.read_file(out .. "/heads")
                :gmatch("mcp%-session%-id: (%S+)") do
                count = count + 1
                for _, arg in ipairs { "-o", "/dev/null", "-d", "{}", "-H",
                    "MCP-Protocol-Version: x", "-H", "Mcp-Session-Id: " .. id,
                    web.mcp, "--next" } do
                    calls[#calls + 1] = arg
                end
            end
            calls[#calls] = nil -- the last --next
            assert.equal(300, count)
            assert.equal(0, servers.run(calls).code)
            web:wait_for_count("forgotten", forgotten + 300)
            assert.is_nil(web:error_log():find("timers are not enough"))
        end)

        it("on another path than the session's, nothing is forgotten",
           function()
            local id = open_at_a()
            local forgotten = web:stats().results.forgotten
            proxy.rule(a, { status = 404 })
            assert.equal(404, web:call(id, { path = "/mcp/x" }).status)
            -- told from the other kind by one that is forgotten after it
            local other = open_at_a()
            proxy.rule(a, { status = 404 })
            web:call(other)
            web:wait_for_count("forgotten", forgotten + 1)
            assert.equal(200, web:call(id).status)
            assert.equal(forgotten + 1, web:stats().results.forgotten)
        end)

        it("a DELETE of another path than the session's is an ordinary one",
           function()
            local id = open_at_a()
            local answer = assert(web:request { method = "DELETE", id = id,
                path = "/mcp/file" })
            assert.equal(200, answer.status)
            assert.equal(404, web:call(id).status) -- of the backend
            assert.equal(2, asked(a, id))
        end)

        it("to a request of no session, nothing is forgotten", function()
            local forgotten = web:stats().results.forgotten
            proxy.rule(a, { status = 404 })
            proxy.rule(b, { status = 404 })
            for _ = 1, 2 do
                assert.equal(404, web:request({ body = proxy.CALL }).status)
            end
            local id = open_at_a()
            a:ask("reset")
            web:call(id)
            web:wait_for_count("forgotten", forgotten + 1)
            assert.equal(forgotten + 1, web:stats().results.forgotten)
        end)
    end)

    for _, status in ipairs { 502, 503, 504, 500 } do
        it("answers " .. status .. " itself, that passes", function()
            local id = open_at_a()
            proxy.rule(a, { status = status, body = "its own" })
            local answer = web:call(id)
            assert.same({ status, "its own" }, { answer.status, answer.body })
            assert.equal(200, web:call(id).status)
        end)
    end

    it("sends a foreign session id, the client does not see it", function()
        local id = open_at_a()
        local before = web:stats().results.foreign_ids
        for _, header in ipairs { "other", { id, "other" }, id .. "x", "" } do
            proxy.rule(a, { body = "x", headers = {
                ["Mcp-Session-Id"] = header } })
            local answer = web:call(id)
            assert.equal(200, answer.status)
            assert.is_nil(answer.headers["mcp-session-id"])
        end
        proxy.rule(a, { method = "DELETE", status = 500, headers = {
            ["Mcp-Session-Id"] = "other" } })
        assert.is_nil(web:delete(id).headers["mcp-session-id"])
        proxy.rule(a, { headers = { ["Mcp-Session-Id"] = "other" } })
        proxy.rule(b, { headers = { ["Mcp-Session-Id"] = "other" } })
        assert.is_nil(web:request({ body = proxy.CALL })
            .headers["mcp-session-id"])
        web:wait_for_count("foreign_ids", before + 6)
    end)

    it("sends X-Accel-Redirect, it leads nowhere", function()
        local id = open_at_a()
        proxy.rule(a, { body = "own", headers = {
            ["X-Accel-Redirect"] = "/status" } })
        assert.equal("own", web:call(id).body)
    end)
end)

describe("router, when a backend is gone and its session has just been bound anew", function()
    local a, b

    setup(function() a, b = proxy.backend("a"), proxy.backend("b") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("stop")
        b:ask("reset")
        proxy.rule(b, { body = "found" })
    end)

    local function start(options)
        return proxy.start { backends = { a, b }, workers = 1, before = ([[
            -- From the second look on, somebody else has bound it to b.
            local new_session, looks = require("resty.mooring.session").new, 0
            local function done() return true end
            shelf = { store = done, delete = done, delete_expired = done, close = done,
                load = function(_, id)
                    looks = looks + 1
                    return new_session(id, { metadata = {
                        backend_url = looks == 1 and %q or %q } })
                end }
        ]]):format(a.url, b.url), options = "storage = shelf, " .. (options or "") }
    end

    it("that is a 503, and the next request finds it", function()
        local web = start()
        local answer = web:call("moving")
        assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
        assert.equal("found", web:call("moving").body)
        assert.equal(0, web:stats().results.forgotten)
    end)

    it("the request goes there at once with a policy that may have done it", function()
        local web = start('policy = require("resty.mooring.policy.reinitialize").new '
            .. "{ restarts = false },")
        assert.equal("found", web:call("moving").body)
        local results = web:stats().results
        assert.same({ 0, 0 }, { results.forgotten, results.reinitialized })
    end)
end)

describe("router, when a backend does not answer in time", function()
    local a, web

    setup(function()
        a = proxy.backend("a")
        web = proxy.start { backends = { a }, read_timeout = "200ms" }
    end)
    teardown(function() servers.stop_all() end)

    it("that is a 504 and the session lives on", function()
        local id = web:open()
        proxy.rule(a, { method = "POST", action = "hang" })
        local answer = web:call(id)
        assert.equal(504, answer.status)
        assert.equal('{"jsonrpc":"2.0","error":{"code":-32051,'
            .. '"message":"Backend timed out"},"id":7}', answer.body)
        assert.equal(200, web:call(id).status)
    end)

    it("a DELETE is a 504 and the session lives on", function()
        local id = web:open()
        proxy.rule(a, { method = "DELETE", action = "hang" })
        assert.equal(504, web:delete(id).status)
        assert.equal(200, web:call(id).status)
    end)

    it("an initialize is a 504 and no other backend is asked", function()
        proxy.rule(a, { initialize = true, action = "hang" })
        local id, answer = web:open()
        assert.same({ nil, 504 }, { id, answer.status })
    end)
end)


describe("router, when a location answers 502 by itself", function()
    teardown(function() servers.stop_all() end)

    it("that is a 502, of which no backend and no session hears", function()
        local backend = proxy.backend("a")
        local web = proxy.start { backends = { backend }, workers = 1,
                                  location = "if ($http_x_down) { return 502; }" }
        local id = web:open()
        local down = { headers = { ["X-Down"] = "1" }, id = id, body = proxy.CALL }
        for _ = 1, 5 do
            assert.equal(502, web:request(down).status)
        end
        down.id = nil
        assert.equal(502, web:request(down).status)
        assert.is_false(web:stats().backends[1].failed)
        assert.equal(200, web:call(id).status)
        assert.is_nil(web:error_log():find("[error]", 1, true), web:error_log())
    end)
end)
