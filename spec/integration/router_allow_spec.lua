-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, what may be dialled:", function()
    local a, b, c, redis

    setup(function()
        a, b, c = proxy.backend("a"), proxy.backend("b"), proxy.backend("c")
        redis = servers.redis()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        for _, backend in ipairs { a, b, c } do
            backend:ask("reset")
        end
        redis:cli("FLUSHALL")
    end)

    local function options(backends, more)
        return { backends = backends, workers = 2,
            options = ("storage = %q, %s"):format(redis.url, more or "") }
    end

    -- A binding as anybody who can write to the store could make it.
    local function bind(id, url)
        redis:cli("SET", "mooring:session:" .. id, cjson.encode {
            id = id, type = "mcp", created_at = "2026-01-01T00:00:00Z",
            updated_at = "2026-01-01T00:00:00Z",
            metadata = { backend_url = url },
        }, "PX", "1000000")
    end

    local function is_bound(id)
        return redis:cli("EXISTS", "mooring:session:" .. id) == "1"
    end

    it("backends taken out of the list keep their sessions, over reloads",
       function()
        local web = proxy.start(options { a, b })
        local ids = {}
        for i = 1, 4 do
            ids[i] = web:open()
        end
        web:reload_with(options { b, c })
        for i = 1, 4 do
            assert.equal(200, web:call(ids[i]).status)
        end
        for _ = 1, 4 do
            local _, answer = web:open()
            assert.not_equal("a", answer.headers["x-served-by"])
        end
        web:reload_with(options { c })
        for i = 1, 4 do
            assert.equal(200, web:call(ids[i]).status)
            assert.equal(200, web:delete(ids[i]).status)
        end
    end)

    it("a rolling change through two replicas costs no session", function()
        local one = proxy.start(options { a, b })
        local two = proxy.start(options({ a, b },
            ("allow = { %q },"):format(c.url)))
        local ids = {}
        for i = 1, 4 do
            ids[i] = (i % 2 == 0 and one or two):open()
        end
        one:reload_with(options { b, c })
        ids[5], ids[6] = one:open(), one:open()
        for _, web in ipairs { one, two } do
            for i = 1, 6 do
                assert.equal(200, web:call(ids[i]).status)
            end
        end
    end)

    it("draining backends keep their sessions and get no new ones", function()
        local web = proxy.start(options { a, b })
        local ids = {}
        for i = 1, 4 do
            ids[i] = web:open()
        end
        web:reload_with(options { ('{ url = %q, state = "draining" }'):format(
            a.url), b })
        for i = 1, 4 do
            assert.equal(200, web:call(ids[i]).status)
            assert.equal("b", select(2, web:open()).headers["x-served-by"])
            assert.equal("b", web:request({ body = proxy.CALL })
                .headers["x-served-by"])
        end
    end)

    it("without any active backend requests without session are answered 503",
       function()
        local web = proxy.start(options { ('{ url = %q, state = "draining" }')
            :format(a.url) })
        assert.equal(503, select(2, web:open()).status)
        assert.equal(503, web:request({ body = proxy.CALL }).status)
    end)

    describe("a binding to something else", function()
        local web

        setup(function() web = proxy.start(options { a }) end)

        it("is answered 503, logged without the id, and kept", function()
            bind("poisoned-session-id", c.url)
            for _, method in ipairs { "POST", "GET", "DELETE" } do
                local answer = assert(web:request { method = method,
                    id = "poisoned-session-id" })
                assert.same({ 503, "1" },
                    { answer.status, answer.headers["retry-after"] })
            end
            assert.equal(0, #proxy.seen(c))
            assert.is_true(is_bound("poisoned-session-id"))
            local log = web:error_log()
            -- (what URL is in the log depends on which spec was first: one line
            -- a second)
            assert.is_truthy(log:find("is neither a backend nor allowed", 1,
                true))
            assert.is_nil(log:find("poisoned-session-id", 1, true))
        end)

        local bad = {
            "", "x", "http://", "file:///etc/passwd", "http://a b/",
            "http://127.0.0.1:1\r\nX: y", "http://127.0.0.1:99999",
            "unix:/var/run/docker.sock", "http://unix:/x:/", "gopher://x",
            "http://user:pw@127.0.0.1:80", "http://169.254.169.254",
            "http://mooring", "http://[::1", ("http://%s.x"):format(
                ("x"):rep(5000)), "http://0x7f.1:80", "http://0177.0.0.1",
        }
        for i, url in ipairs(bad) do
            it("is answered 503 whatever it is: " .. url:sub(1, 30), function()
                local id = "bad-" .. i
                bind(id, url)
                for _, method in ipairs { "POST", "GET", "DELETE" } do
                    assert.equal(503, assert(web:request { method = method,
                        id = id }).status)
                end
                assert.is_true(is_bound(id))
            end)
        end

        for i, fragment in ipairs { "", "0", "x", "1;", "1 ;a" } do
            it(("is answered 503 with the fragment %q"):format(fragment),
               function()
                bind("fragment-" .. i, a.url .. "#" .. fragment)
                assert.equal(503, web:call("fragment-" .. i).status)
                assert.is_true(is_bound("fragment-" .. i))
            end)
        end

        it("is the same backend when it is only written otherwise", function()
            bind("shouted", (a.url:gsub("^http", "HTTP")))
            proxy.rule(a, { body = "hello" })
            assert.equal("hello", web:call("shouted").body)
        end)
    end)

    it("a fragment of a binding is sent to nobody and not logged", function()
        local web = proxy.start(options { a })
        bind("with-fragment", a.url .. "#;another-id")
        proxy.rule(a, { body = "hello" })
        assert.equal("hello", web:call("with-fragment").body)
        bind("secret-fragment", "http://10.255.255.1:1#;another-id")
        assert.equal(503, web:call("secret-fragment").status)
        local log = servers.read_file(web.dir .. "/requests.log")
        assert.is_truthy(log:find(" bound " .. a.url .. "\n", 1, true))
        assert.is_nil((log .. web:error_log()):find("another-id", 1, true))
    end)

    it("a binding with a fragment is forgotten as any other", function()
        local web = proxy.start(options { a })
        bind("unknown-there", a.url .. "#3")
        assert.equal(404, web:call("unknown-there").status)
        servers.wait_for(function() return not is_bound("unknown-there") end, 5,
            "the binding to go")
        bind("gone", a.url .. "#3")
        a:ask("stop")
        local status = web:call("gone").status
        a:ask("start")
        assert.equal(404, status)
        assert.is_false(is_bound("gone"))
    end)

    it("the option `allow` may be a list", function()
        local web = proxy.start(options({ a }, ("allow = { %q },"):format(
            c.url)))
        for _, backend in ipairs { a, b, c } do
            proxy.rule(backend, { body = "ok", times = 10 })
            bind("at-" .. backend.name, backend.url)
        end
        assert.equal(200, web:call("at-a").status)
        assert.equal(503, web:call("at-b").status)
        assert.equal(200, web:call("at-c").status)
    end)

    it("the option `allow` may be a function, which may fail", function()
        local web = proxy.start(options({ a }, ([[allow = function(url)
            if url == %q then error("broken") end
            return url == %q
        end,]]):format(b.url, c.url)))
        for _, backend in ipairs { a, b, c } do
            proxy.rule(backend, { body = "ok", times = 10 })
            bind("at-" .. backend.name, backend.url)
        end
        assert.equal(200, web:call("at-a").status)
        assert.equal(503, web:call("at-b").status)
        assert.equal(200, web:call("at-c").status)
        assert.equal(200, web:call("at-c").status)
        assert.matches("function `allow` failed.-broken", web:error_log())
    end)
end)
