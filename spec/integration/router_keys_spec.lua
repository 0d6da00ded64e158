-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, key", function()
    local a, b, redis

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        redis = servers.redis()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        for _, backend in ipairs { a, b } do
            backend:ask("reset")
            proxy.rule(backend, { body = "ok", times = 10000 })
        end
    end)

    local function start(options, workers)
        return proxy.start { backends = { a, b }, options = options,
            workers = workers }
    end

    local function served_by(web, opts)
        opts.method = opts.method or "GET"
        local answer = assert(web:request(opts))
        return answer.headers["x-served-by"], answer
    end

    -- The same key always meets one backend, and both have some keys.
    local function is_sticky(web, with)
        local count = { a = 0, b = 0 }
        for n = 1, 4 do
            local name = served_by(web, with("user" .. n))
            count[name] = count[name] + 1
            for _ = 1, 3 do
                assert.equal(name, (served_by(web, with("user" .. n))))
            end
        end
        assert.same({ a = 2, b = 2 }, count)
    end

    it("can be a header", function()
        is_sticky(start('key = { header = "X-User" },'), function(user)
            return { headers = { ["x-user"] = user } }
        end)
    end)

    it("can be a cookie", function()
        is_sticky(start('key = { cookie = "sid" },'), function(user)
            return { headers = { Cookie = "other=1; sid=" .. user } }
        end)
    end)

    it("can be an argument", function()
        is_sticky(start('key = { arg = "user" },'), function(user)
            return { path = "/mcp?x=1&user=" .. user }
        end)
    end)

    it("that a request lacks leaves it unpinned", function()
        local web = start('key = { header = "X-User" },')
        local names = {}
        for _ = 1, 2 do
            names[served_by(web, {})] = true
        end
        assert.same({ a = true, b = true }, names)
    end)

    it("that is empty leaves it unpinned", function()
        local web = start('key = { arg = "user" },')
        local names = {}
        for _ = 1, 2 do
            names[served_by(web, { path = "/mcp?user=" })] = true
        end
        assert.same({ a = true, b = true }, names)
    end)

    it("that is new is answered 503 while no backend takes sessions", function()
        local web = proxy.start { options = 'key = { header = "X-User" },',
            backends_lua = ('{ { url = %q, state = "draining" } }'):format(a.url) }
        local _, answer = served_by(web, { headers = { ["X-User"] = "u" } })
        assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
    end)

    it("that is new is answered 503 where there is no room for it", function()
        local web = start('key = { header = "X-User" }, max_local_sessions = 1,')
        local one = { headers = { ["X-User"] = "one" } }
        local name = served_by(web, one)
        local _, answer = served_by(web, { headers = { ["X-User"] = "two" } })
        assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
        assert.equal(name, (served_by(web, one)))
    end)

    it("whose backend was dropped is unknown with unknown = reject", function()
        redis:cli("FLUSHALL")
        local options = ('key = { header = "X-User" }, storage = %q,'):format(redis.url)
        local binding = start(options)
        local rejecting = proxy.start { backends = { a, b }, options = options
            .. ' unknown = "reject",', server = "location = /admin { "
            .. "content_by_lua_block { router:admin() } }" }
        local user = { headers = { ["X-User"] = "u" } }
        local name = served_by(binding, user)
        assert.equal(name, (served_by(rejecting, user)))
        local dropped = assert(servers.http(rejecting.url .. "/admin?do=drop&backend="
            .. (name == "a" and a or b).url, { method = "POST" }))
        assert.equal(200, dropped.status)
        assert.equal(404, select(2, served_by(rejecting, user)).status)
    end)

    it("that is new is answered 404 with unknown = reject", function()
        local web = start('key = { header = "X-User" }, unknown = "reject",')
        local _, answer = served_by(web, { headers = { ["X-User"] = "u" } })
        assert.equal(404, answer.status)
        assert.equal(0, #proxy.seen(a) + #proxy.seen(b))
    end)

    it("that cannot be an id is answered 400", function()
        local web = start('key = { header = "X-User" },')
        local _, answer = served_by(web,
            { headers = { ["X-User"] = "two words" } })
        assert.equal(400, answer.status)
    end)

    it("follows no rules of MCP: a 404 or DELETE forgets nothing", function()
        local web = start('key = { header = "X-User" },')
        local user = { headers = { ["X-User"] = "u" } }
        local name = served_by(web, user)
        local owner = name == "a" and a or b
        owner:ask("reset")
        proxy.rule(owner, { status = 404,
            headers = { ["Mcp-Session-Id"] = "kept" } })
        local _, answer = served_by(web, user)
        assert.same({ 404, "kept" },
            { answer.status, answer.headers["mcp-session-id"] })
        proxy.rule(owner, { method = "DELETE" })
        user.method = "DELETE"
        assert.equal(200, select(2, served_by(web, user)).status)
        user.method = "GET"
        proxy.rule(owner, { body = "ok", times = 1000 })
        assert.equal(name, (served_by(web, user)))
        assert.equal(0, web:stats().results.forgotten)
    end)

    it("whose backend refuses connections is bound anew", function()
        local web = start('key = { header = "X-User" },')
        local user = { headers = { ["X-User"] = "u" } }
        local name = served_by(web, user)
        local owner = name == "a" and a or b
        owner:ask("stop")
        local _, answer = served_by(web, user)
        assert.same({ 503, "1" },
            { answer.status, answer.headers["retry-after"] })
        -- The next one may be bound to the backend that is still away.
        local again
        servers.wait_for(function()
            again = served_by(web, user)
            return again ~= nil
        end, 5, "another backend")
        owner:ask("start")
        assert.not_equal(name, again)
        assert.equal(again, (served_by(web, user)))
    end)

    -- A storage that creates in this way.
    local function creating(body)
        return proxy.start {
            backends = { a, b }, workers = 1,
            before = ([[
                local session = require "resty.mooring.session"
                storage = require("resty.mooring.local_storage").new { name = "spec" }
                local create = storage.create
                function storage:create(s) %s end
            ]]):format(body),
            options = 'key = { header = "X-User" }, storage = storage,',
        }
    end

    it("goes where somebody else has bound it at the same time", function()
        local web = creating(([[
            create(self, session.new(s.id, { metadata = { backend_url = %q } }))
            return create(self, s)]]):format(b.url))
        for _, user in ipairs { "u1", "u2", "u3", "u1" } do
            assert.equal("b", (served_by(web, { headers = { ["X-User"] = user } })))
        end
        assert.equal(0, web:stats().results.created)
    end)

    it("that is bound and gone again each time is a 503", function()
        local web = creating('return nil, "session already exists", "already_exists"')
        local _, answer = served_by(web, { headers = { ["X-User"] = "u1" } })
        assert.equal(503, answer.status)
        assert.truthy(web:error_log():find("it comes and goes", 1, true))
    end)

    it("is bound once though many first requests come at once, through two "
        .. "replicas with two workers", function()
        local options = ('key = { header = "X-User" }, storage = %q,'):format(
            redis.url)
        local webs = { start(options, 2), start(options, 2) }
        for round = 1, 3 do
            local out = servers.tmpdir()
            local clients = {}
            for i = 1, 16 do
                clients[i] = servers.spawn { "curl", "-sS", "-D",
                    out .. "/" .. i, "-o", "/dev/null", "-H",
                    "X-User: crowd" .. round, webs[i % 2 + 1].mcp }
            end
            local names = {}
            for i = 1, 16 do
                clients[i]:wait(10)
                local head = servers.read_file(out .. "/" .. i)
                assert.matches("^HTTP/1.1 200", head)
                names[head:match("x%-served%-by: (%w)")] = true
            end
            assert.equal(1, (names.a and 1 or 0) + (names.b and 1 or 0))
        end
    end)
end)
