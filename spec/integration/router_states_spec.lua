-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What operators say of backends, on one replica and on two.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

local wait_for = servers.wait_for

local ADMIN = "location = /admin { content_by_lua_block { router:admin() } }"

local function admin(web, method, query, headers)
    local answer = assert(servers.http(web.url .. "/admin" .. (query or ""),
        { method = method, headers = headers }))
    return answer.status, cjson.decode(answer.body), answer
end

local function ask(web, backend, what)
    local status, body = admin(web, "POST", "?do=" .. what .. "&backend="
        .. (type(backend) == "string" and backend or backend.url))
    return status, body
end

local function must(web, backend, what)
    local status, body = ask(web, backend, what)
    assert.equal(200, status, body.error)
    return body.backend
end

local function state_of(web, backend)
    for _, each in ipairs(web:stats().backends) do
        if each.url == backend.url then
            return each
        end
    end
end

-- Opens sessions through a router until each of these backends has one.
local function open_on(web, ...)
    local ids = {}
    for _, backend in ipairs { ... } do
        wait_for(function()
            local id, answer = web:open()
            assert(id, answer.status)
            ids[answer.headers["x-served-by"]] = id
            return ids[backend.name]
        end, 10, "a session at " .. backend.name)
    end
    return ids
end

local function served_by(answer)
    return answer.headers["x-served-by"]
end

describe("router, states of backends", function()
    local a, b

    setup(function() a, b = proxy.backend("a"), proxy.backend("b") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    for name, storage in pairs {
        ["without Redis"] = function() return "local" end,
        ["with Redis"] = function() return servers.redis().url end,
    } do
        describe(name, function()
            local web, options

            before_each(function()
                options = ("storage = %q,"):format(storage())
                web = proxy.start { backends = { a, b }, workers = 2,
                    server = ADMIN, options = options }
            end)

            for what, state in pairs { drain = "draining", down = "down" } do
                it("a backend that is " .. state .. " keeps its sessions and "
                    .. "gets no new ones", function()
                    local ids = open_on(web, a, b)
                    local backend = must(web, a, what)
                    assert.same({ state, 0 },
                        { backend.state, backend.incarnation })
                    for _ = 1, 4 do
                        assert.equal("b", served_by(select(2, web:open())))
                        assert.equal("b", served_by(web:request {
                            body = proxy.CALL }))
                    end
                    assert.equal("a", served_by(web:call(ids.a)))
                    assert.equal("up", must(web, a, "undrain").state)
                    open_on(web, a, b)
                end)
            end

            it("a backend that is dropped has no session any more, and takes "
                .. "new ones", function()
                local ids = open_on(web, a, b)
                assert.equal(1, must(web, a, "drop").incarnation)
                local answer = web:call(ids.a)
                assert.same({ 404, -32001, 7 }, { answer.status,
                    cjson.decode(answer.body).error.code,
                    cjson.decode(answer.body).id })
                assert.equal(404, web:delete(ids.a).status)
                assert.equal(404, web:request({ method = "GET", id = ids.a })
                    .status)
                assert.equal(0, #proxy.seen(a, "DELETE"))
                assert.equal("b", served_by(web:call(ids.b)))
                local later = open_on(web, a)
                assert.equal("a", served_by(web:call(later.a)))
                assert.equal(2, must(web, a, "drop").incarnation)
                assert.equal(404, web:call(later.a).status)
                assert.equal("b", served_by(web:call(ids.b)))
            end)

            it("an initialize with the id of a dropped session opens one",
               function()
                local ids = open_on(web, a)
                must(web, a, "drop")
                for _, version in ipairs { proxy.VERSION, false } do
                    local answer = assert(web:request { id = ids.a,
                        body = proxy.INITIALIZE, version = version })
                    assert.equal(200, answer.status)
                    assert.not_equal(ids.a, answer.headers["mcp-session-id"])
                end
            end)

            it("a backend that is dropped counts as empty: the next sessions "
                .. "are its own", function()
                local function share(n)
                    local of = { a = {}, b = {} }
                    for _ = 1, n do
                        local id, answer = web:open()
                        table.insert(of[served_by(answer)], id)
                    end
                    return of
                end
                local function sessions()
                    return { state_of(web, a).sessions,
                        state_of(web, b).sessions }
                end

                web:reload_with { backends = { a, b }, workers = 2,
                    server = ADMIN,
                    options = options .. 'policy = "least_sessions",' }
                local void = share(10).a
                assert.same({ 5, 5 }, sessions())
                must(web, a, "drop")
                assert.same({ 0, 5 }, sessions())
                assert.equal(5, #share(5).a)
                assert.same({ 5, 5 }, sessions())
                assert.equal(404, web:call(void[1]).status)
                assert.same({ 5, 5 }, sessions())
                web:reload()
                assert.same({ 5, 5 }, sessions())
                must(web, a, "drop")
                must(web, b, "drop")
                assert.same({ 0, 0 }, sessions())
                web:reload()
                assert.same({ 0, 0 }, sessions())
                local anew = share(4)
                assert.same({ 2, 2 }, { #anew.a, #anew.b })
                assert.same({ 2, 2 }, sessions())
            end)

            it("outlive a reload", function()
                local ids = open_on(web, a, b)
                must(web, a, "drain")
                must(web, b, "drop")
                web:reload()
                local now = web:stats().backends
                assert.same({ "draining", 0, "up", 1 }, { now[1].state,
                    now[1].incarnation, now[2].state, now[2].incarnation })
                assert.equal("a", served_by(web:call(ids.a)))
                assert.equal(404, web:call(ids.b).status)
            end)

            it("of one that was never configured are an error, and touch "
                .. "nothing", function()
                local status, body = ask(web, "http://10.9.9.9:1", "drop")
                assert.same({ 404, "not_found" }, { status, body.code })
                assert.matches("`backend`", body.error)
                status, body = ask(web, "10.9.9.9:1", "drop")
                assert.same({ 400, "invalid" }, { status, body.code })
                assert.matches("`backend`: the backend must begin with http://",
                    body.error, 1, true)
            end)

            it("of one that has left the list can be changed", function()
                local ids = open_on(web, a, b)
                web:reload_with { backends = { b }, workers = 2,
                    server = ADMIN, options = ("storage = %q,"):format(
                        web:stats().storage.remote
                        and web.nginx.opts.conf:match('storage = "(.-)"')
                        or "local") }
                assert.equal("a", served_by(web:call(ids.a)))
                local status, body = ask(web, a, "drop")
                assert.same({ 200, a.url }, { status, body.url })
                assert.equal(404, web:call(ids.a).status)
                assert.equal("b", served_by(web:call(ids.b)))
            end)
        end)
    end

    it("can only be more restrictive than the configuration says", function()
        local web = proxy.start { backends = { a,
            ('{ url = %q, state = "draining" }'):format(b.url) },
            server = ADMIN }
        assert.equal("draining", must(web, b, "undrain").state)
        assert.equal("down", must(web, b, "down").state)
        assert.equal("draining", must(web, b, "drain").state)
    end)

    it("of all being draining leaves new sessions none: 503, Retry-After",
       function()
        local web = proxy.start { backends = { a, b }, server = ADMIN }
        local ids = open_on(web, a)
        must(web, a, "drain")
        must(web, b, "down")
        local _, answer = web:open()
        assert.same({ 503, "1" },
            { answer.status, answer.headers["retry-after"] })
        assert.equal("a", served_by(web:call(ids.a)))
    end)

    it("drop keys, which are bound anew", function()
        local web = proxy.start { backends = { a, b }, server = ADMIN,
            workers = 2, options = 'key = { header = "X-Tenant" },' }
        local function tenant(name)
            return assert(web:request { body = "x",
                headers = { ["X-Tenant"] = name } })
        end
        local name = served_by(tenant("t"))
        must(web, name == "a" and a or b, "drain")
        assert.equal(name, served_by(tenant("t")))
        must(web, name == "a" and a or b, "drop")
        local answer = tenant("t")
        assert.same({ 200, name == "a" and "b" or "a" },
            { answer.status, served_by(answer) })
        assert.equal(served_by(answer), served_by(tenant("t")))
    end)

    describe("at the admin location", function()
        local web

        setup(function()
            web = proxy.start { backends = { a, b }, server = ADMIN }
        end)

        it("are listed", function()
            local status, body, answer = admin(web, "GET")
            assert.equal(200, status)
            assert.equal("application/json", answer.headers["content-type"])
            assert.same({ url = a.url, weight = 1, state = "up", inflight = 0,
                sessions = 0, incarnation = 0, failed = false },
                body.backends[1])
        end)

        for query, text in pairs {
            [""] = "the argument `backend` is missing",
            ["?do=drain"] = "the argument `backend` is missing",
            ["?backend=http://x"] = "the argument `do` is missing",
            ["?backend=http://x&do=stop"] = "the argument `do` must be one of "
                .. "down, drain, drop, undrain",
            ["?backend&do=drain"] = "the argument `backend` is missing",
            ["?backend=&do=drain"] = "the argument `backend` is missing",
            ["?backend=a&backend=b&do=drain"] = "the argument `backend` is "
                .. "there several times",
            ["?backend=http://x&do=drop&really=1"] = "there is no argument "
                .. "`really`",
        } do
            it("are not changed by POST " .. query, function()
                local status, body = admin(web, "POST", query)
                assert.same({ 400, text, "invalid" },
                    { status, body.error, body.code })
            end)
        end

        it("are told by HEAD to be there, without a body", function()
            local answer = assert(servers.http(web.url .. "/admin",
                { flags = { "--head" } }))
            assert.equal(200, answer.status)
            assert.not_matches("{", answer.body, 1, true) -- what curl prints is the head
        end)

        it("are not changed by GET, by other methods and by web pages",
           function()
            local query = "?do=down&backend=" .. a.url
            assert.equal(405, (admin(web, "GET", query)))
            assert.equal(405, (admin(web, "PUT", query)))
            assert.equal(405, (admin(web, "PUT")))
            assert.equal(403, (admin(web, "POST", query,
                { Origin = "http://evil.example" })))
            assert.equal("up", state_of(web, a).state)
        end)
    end)
end)

describe("router, states of backends on two replicas", function()
    local a, b, redis, one, two

    local function start(more)
        return proxy.start { backends = { a, b }, workers = 2, server = ADMIN,
            options = ("storage = %q, %s"):format(redis.url, more or "") }
    end

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        redis = servers.redis()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
        redis:cli("FLUSHALL")
        one, two = start(), start()
        for _, web in ipairs { one, two } do
            wait_for(function()
                return web:stats().storage.coherence.coherent
            end, 5, "coherence")
        end
    end)
    after_each(function()
        one:stop()
        two:stop()
    end)

    local function eventually(web, backend, field, value)
        wait_for(function()
            return state_of(web, backend)[field] == value
        end, 5, ("%s = %s"):format(field, tostring(value)))
    end

    it("are the same, whichever was told", function()
        must(one, a, "drain")
        eventually(two, a, "state", "draining")
        must(two, b, "down")
        eventually(one, b, "state", "down")
        must(two, a, "undrain")
        eventually(one, a, "state", "up")
    end)

    it("take effect in all workers of the other one by the push", function()
        local ids = open_on(one, a)
        for _ = 1, 8 do -- each worker of the other has it in its memory
            assert.equal(200, two:call(ids.a).status)
        end
        must(one, a, "drop")
        wait_for(function() return two:call(ids.a).status == 404 end, 5,
            "a 404")
        for _ = 1, 8 do
            assert.equal(404, two:call(ids.a).status)
        end
    end)

    it("leave a dropped backend empty on both, which count what they have of "
        .. "it since", function()
        local old = open_on(one, a).a
        assert.equal(200, two:call(old).status)
        local before = { state_of(one, a).sessions, state_of(two, a).sessions }
        assert.is_true(before[1] >= 1 and before[2] == 1)
        must(one, a, "drop")
        assert.equal(0, state_of(one, a).sessions)
        eventually(two, a, "incarnation", 1)
        assert.equal(0, state_of(two, a).sessions)
        local id = open_on(two, a).a
        local count = state_of(two, a).sessions
        assert.equal("a", served_by(one:call(id)))
        assert.equal(1, state_of(one, a).sessions)
        assert.equal(404, one:call(old).status)
        assert.same({ 1, count }, { state_of(one, a).sessions,
            state_of(two, a).sessions })
    end)

    it("are in Redis beside the sessions", function()
        must(one, a, "drop")
        must(one, a, "drain")
        assert.same({ state = "draining", incarnation = 1, revision = 2 },
            cjson.decode(redis:cli("HGET", "mooring:backends", a.url)))
    end)

    it("are those said before a backend was one of this replica's", function()
        local list = servers.tmpdir() .. "/list.lua"
        servers.write_file(list, ("return { %q }"):format(a.url))
        local late = proxy.start {
            workers = 2,
            before = ("function listed() return dofile(%q) end"):format(list),
            backends_lua = "listed",
            options = ("backends_interval = 0.2, storage = %q,"):format(redis.url),
        }
        wait_for(function()
            return late:stats().storage.coherence.coherent
        end, 5, "coherence")
        local id = open_on(one, b).b
        must(one, b, "drop")
        must(one, b, "drain")
        -- It has been told, and has no use for it.
        eventually(two, b, "state", "draining")
        servers.write_file(list, ("return { %q, %q }"):format(a.url, b.url))
        wait_for(function() return state_of(late, b) end, 10, "the backend")
        for _ = 1, 6 do
            assert.equal("a", served_by(select(2, late:open())))
        end
        assert.equal(404, late:call(id).status)
        eventually(late, b, "incarnation", 1)
        late:stop()
    end)

    it("add up when two operators drop at once", function()
        local asked = {}
        for i = 1, 20 do
            local web = i % 2 == 0 and one or two
            asked[i] = servers.spawn { "curl", "-sS", "-X", "POST", "-o",
                "/dev/null", web.url .. "/admin?do=drop&backend=" .. a.url }
        end
        for i = 1, 20 do
            asked[i]:wait(10)
        end
        eventually(one, a, "incarnation", 20)
        eventually(two, a, "incarnation", 20)
    end)

    it("are not changed while Redis is away", function()
        must(one, a, "drop")
        eventually(two, a, "incarnation", 1)
        local ids = open_on(one, a)
        redis:stop()
        finally(function() redis:start() end)
        local status, body
        wait_for(function()
            status, body = ask(one, a, "drop")
            return body.code == "unavailable", body.code
        end, 5, "unavailable")
        assert.equal(503, status)
        assert.equal(1, state_of(one, a).incarnation)
        assert.equal("a", served_by(one:call(ids.a)))
    end)

    it("remain while Redis loses everything, and are written again", function()
        must(one, a, "drop")
        must(one, a, "drop")
        must(one, b, "drain")
        eventually(two, b, "state", "draining")
        redis:cli("FLUSHALL")
        wait_for(function()
            return redis:cli("HLEN", "mooring:backends") == "2"
        end, 5, "the states to be written again")
        for _, web in ipairs { one, two } do
            assert.equal(2, state_of(web, a).incarnation)
            assert.equal("draining", state_of(web, b).state)
        end
        local ids = open_on(one, a)
        assert.matches("#2", redis:cli("GET", "mooring:session:" .. ids.a), 1,
            true)
        assert.equal(3, must(two, a, "drop").incarnation)
    end)

    it("never go back when Redis returns with an older snapshot", function()
        must(one, a, "drop")
        local old = redis:cli("HGET", "mooring:backends", a.url)
        must(one, a, "drop")
        must(one, a, "drain")
        eventually(two, a, "state", "draining")
        redis:cli("HSET", "mooring:backends", a.url, old)
        wait_for(function()
            return redis:cli("HGET", "mooring:backends", a.url):find(
                '"incarnation":2', 1, true)
        end, 5, "the newer state to be written again")
        for _, web in ipairs { one, two } do
            assert.same({ 2, "draining" }, { state_of(web, a).incarnation,
                state_of(web, a).state })
        end
    end)

    it("survive nonsense in Redis", function()
        must(one, a, "drop")
        redis:cli("HSET", "mooring:backends", b.url, "nonsense")
        redis:cli("HSET", "mooring:backends", "not a url", '{"state":7}')
        wait_for(function() return state_of(two, a).incarnation == 1 end, 5,
            "the drop")
        assert.equal("up", state_of(two, b).state)
        assert.equal("draining", must(two, b, "drain").state)
        redis:cli("DEL", "mooring:backends")
        redis:cli("SET", "mooring:backends", "no hash")
        wait_for(function()
            return one:error_log():find("could not read the states", 1, true)
        end, 5, "a message")
        assert.equal("draining", state_of(two, b).state)
        local status, body = ask(one, a, "drop")
        assert.equal(400, status)
        assert.equal("invalid", body.code)
        assert.equal(200, one:request({ body = proxy.CALL }).status)
    end)

    it("are those of the configuration where they could never be read",
       function()
        redis:cli("SET", "mooring:backends", "no hash")
        local web = start()
        assert.is_string((web:open()))
        assert.same({ "up", 0 }, { state_of(web, a).state,
            state_of(web, a).incarnation })
        wait_for(function()
            return web:error_log():find("those of the configuration are used",
                1, true)
        end, 5, "a message")
        web:stop()
    end)

    it("a session that was being opened while its backend was dropped is "
        .. "void everywhere", function()
        -- The backend has seen the initialize and takes its time.
        a:ask { op = "rule", rule = { initialize = true, action = "hang" } }
        must(one, b, "drain")
        local opening = one:stream { method = "POST", body = proxy.INITIALIZE }
        wait_for(function() return #proxy.seen(a, "POST") == 1 end, 5,
            "the initialize at the backend")
        must(two, a, "drop")
        eventually(one, a, "incarnation", 1)
        a:ask { op = "answer", headers = { ["mcp-session-id"] = "late" } }
        opening:wait()
        assert.equal("1", redis:cli("EXISTS", "mooring:session:late"))
        for _, web in ipairs { one, two } do
            assert.equal(404, web:call("late").status)
        end
        wait_for(function()
            return redis:cli("EXISTS", "mooring:session:late") == "0"
        end, 5, "the binding to go")
    end)

    it("a binding of a newer incarnation than a replica knows is honoured",
       function()
        redis:cli("SET", "mooring:session:newer", cjson.encode {
            id = "newer", type = "mcp", created_at = "2026-01-01T00:00:00Z",
            updated_at = "2026-01-01T00:00:00Z",
            metadata = { backend_url = a.url .. "#5" },
        }, "PX", "1000000")
        proxy.rule(a, { body = "hello" })
        assert.equal("hello", one:call("newer").body)
    end)
end)
