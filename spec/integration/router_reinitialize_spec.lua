-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The policy "reinitialize": another backend takes over, the client keeps its
-- id.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

-- A storage of five methods in a worker's own table, which may be away.
local SHELF = [[
    local record = require "resty.mooring.record"
    local sessions, away = {}, false
    shelf = {
        store = function(_, s) sessions[s.id] = record.encode(s) return true end,
        load = function(_, id)
            if away then return nil, "away", "unavailable" end
            if sessions[id] then return record.decode(sessions[id], id) end
            return nil, "session not found", "not_found"
        end,
        delete = function(_, id) sessions[id] = nil return true end,
        delete_expired = function() return 0 end,
        close = function() return true end,
    }
]]

describe("router, re-initialisation", function()
    local a, b, redis, one, two
    local list = {}

    local function start(policy, more)
        local web = proxy.start {
            backends = { a, b }, workers = 2,
            listen = "listen 127.0.0.1:$port2 http2;",
            options = ("storage = %q, policy = %s, max_fails = 0, %s"):format(
                redis.url, policy or '"reinitialize"', more or ""),
        }
        list[#list + 1] = web
        return web
    end

    setup(function()
        a, b, redis = proxy.backend("a"), proxy.backend("b"), servers.redis()
        one, two = start(), start()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        for _, backend in ipairs { a, b } do
            backend:ask("start")
            backend:ask("reset")
        end
    end)

    -- A session and its backend, and the other one.
    local function open(web, headers, path)
        local id, answer = web:open { headers = headers, path = path }
        assert.is_string(id)
        local name = answer.headers["x-served-by"]
        local mine = name == "a" and a or b
        return id, mine, mine == a and b or a
    end

    local function called(answer, backend)
        assert.equal(200, answer.status, answer.body)
        assert.equal(backend.name, answer.headers["x-served-by"])
        return cjson.decode(answer.body).count
    end

    local function reference(id)
        local text = redis:cli("GET", "mooring:session:" .. id)
        return text ~= "" and cjson.decode(text).metadata.backend_url or nil
    end

    it("moves a session whose backend is gone", function()
        local id, mine, other = open(one, { Authorization = "old" })
        assert.equal(1, called(one:call(id), mine))
        mine:ask("stop")
        local answer = one:call(id, { headers = { Authorization = "new" } })
        assert.equal(1, called(answer, other)) -- what it had counted is lost
        assert.equal(id, answer.headers["mcp-session-id"])

        local seen = proxy.seen(other)
        assert.equal(3, #seen)
        local first, second, third = seen[1], seen[2], seen[3]
        assert.equal(proxy.INITIALIZE, first.body)
        assert.is_nil(first.headers["mcp-session-id"])
        assert.is_nil(first.headers["mcp-protocol-version"])
        assert.equal("application/json, text/event-stream",
            first.headers.accept)
        assert.matches("notifications/initialized", second.body, 1, true)
        assert.equal(proxy.VERSION, second.headers["mcp-protocol-version"])
        local there = second.headers["mcp-session-id"]
        assert.is_not.equal(id, there)
        assert.equal(proxy.CALL, third.body)
        assert.equal(there, third.headers["mcp-session-id"])
        for _, each in ipairs(seen) do
            assert.equal("new", each.headers.authorization)
            assert.equal("POST", each.method)
            assert.equal("/mcp", each.url)
        end
        assert.equal(other.url .. "#;" .. there, reference(id))
    end)

    it("asks the other backend with the query of the request", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        assert.equal(1, called(one:call(id, { path = "/mcp?tenant=1&x" }), other))
        for _, each in ipairs(proxy.seen(other)) do
            assert.equal("/mcp?tenant=1&x", each.url)
        end
    end)

    it("works with a storage of five methods", function()
        local web = proxy.start {
            backends = { a, b }, workers = 1,
            options = 'storage = shelf, policy = "reinitialize", max_fails = 0,',
            before = SHELF,
        }
        local id, mine, other = open(web)
        mine:ask("stop")
        for n = 1, 3 do
            local answer = web:call(id)
            assert.equal(n, called(answer, other))
            assert.equal(id, answer.headers["mcp-session-id"])
        end
        mine:ask("start")
        other:ask("stop")
        assert.equal(1, called(web:call(id), mine))
    end)

    it("goes on with both ids, on any replica, to the end", function()
        local id, mine, other = open(two)
        mine:ask("stop")
        for n = 1, 6 do
            local answer = (n % 2 == 0 and one or two):call(id)
            assert.equal(n, called(answer, other))
            assert.equal(id, answer.headers["mcp-session-id"])
        end
        local before = #proxy.seen(other)
        local ended = one:delete(id)
        assert.equal(200, ended.status)
        local seen = proxy.seen(other)
        assert.equal(before + 1, #seen)
        assert.equal("DELETE", seen[#seen].method)
        assert.is_not.equal(id, seen[#seen].headers["mcp-session-id"])
        assert.is_nil(reference(id))
        assert.equal(404, two:call(id).status)
        -- No id that is not the client's has reached a client or a log.
        for _, web in ipairs(list) do
            local log = servers.read_file(web.dir .. "/requests.log")
            assert.is_nil(log:find("#;", 1, true))
        end
    end)

    it("does it once for requests that notice at once", function()
        for _ = 1, 3 do
            local id, mine, other = open(one)
            one:call(id)
            two:call(id)
            mine:ask("stop")
            local calls = {}
            for n = 1, 12 do
                local web = n % 2 == 0 and one or two
                local out = servers.tmpdir() .. "/out"
                calls[n] = { out = out, process = servers.spawn { "curl", "-sS", "-H",
                    "Mcp-Session-Id: " .. id, "-H",
                    "MCP-Protocol-Version: " .. proxy.VERSION, "-H",
                    "Content-Type: application/json", "-d", proxy.CALL,
                    web.mcp, out = out } }
            end
            local counts = {}
            for _, call in ipairs(calls) do
                call.process:wait(20)
                local body = cjson.decode(servers.read_file(call.out))
                assert.equal(other.name, body.server)
                counts[#counts + 1] = body.count
            end
            -- One session has seen all of them.
            table.sort(counts)
            assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, counts)
            local opened = 0
            for _, each in ipairs(proxy.seen(other, "POST")) do
                opened = opened + (each.body == proxy.INITIALIZE and 1 or 0)
            end
            -- Those that lost have ended theirs.
            servers.wait_for(function()
                return #proxy.seen(other, "DELETE") == opened - 1
            end, 10, "the end of what was opened in vain")
            mine:ask("start")
            a:ask("reset")
            b:ask("reset")
        end
    end)

    it("moves a session its backend does not know any more", function()
        local id, mine = open(one)
        called(one:call(id), mine)
        mine:ask("reset") -- as a restart
        local answer = two:call(id)
        assert.equal(200, answer.status)
        assert.equal(id, answer.headers["mcp-session-id"])
        assert.equal(1, cjson.decode(answer.body).count)
        assert.equal(2, cjson.decode(one:call(id).body).count)
    end)

    it("brings a large body along", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        local body = proxy.CALL:gsub("{}", '{"x":"' .. ("y"):rep(600000)
            .. '"}')
        called(one:call(id, { body = body }), other)
        local seen = proxy.seen(other, "POST")
        assert.equal(#body, seen[#seen].body)
    end)

    it("does so over HTTP/2", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        for n = 1, 2 do
            local answer = assert(servers.http("http://127.0.0.1:" .. one.port2
                .. "/mcp", { method = "POST", body = proxy.CALL,
                flags = { "--http2-prior-knowledge" }, headers = {
                    ["Mcp-Session-Id"] = id,
                    ["MCP-Protocol-Version"] = proxy.VERSION,
                } }))
            assert.equal("2", answer.version)
            assert.equal(n, called(answer, other))
            assert.equal(id, answer.headers["mcp-session-id"])
        end
    end)

    it("goes on when the client does not wait", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        proxy.rule(other, { initialize = true, action = "hang" })
        local impatient, why = one:request { id = id, body = proxy.CALL,
            timeout = 1 }
        assert.is_nil(impatient)
        assert.matches("timed out", why)
        -- The replacement is given ten seconds, then the next one is tried.
        local answer = one:request { id = id, body = proxy.CALL, timeout = 25 }
        assert.is_true(answer.status == 503 or answer.status == 200)
        called(one:call(id), other)
    end)

    it("moves it for a stream, too", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        local stream = one:stream { id = id }
        stream:wait_for_head("HTTP/1.1 200")
        assert.equal(1, other:ask({ op = "event", data = "here" }).streams)
        stream:wait_for_body("data: here")
        -- It ends there when the client goes.
        stream:stop()
        servers.wait_for(function()
            return other:ask({ op = "event", data = "x" }).streams == 0
        end, 10, "the backend to notice")
        servers.wait_for(function() return one:stats().streams == 0 end, 10,
            "the end of the stream")
    end)

    it("ends it for a DELETE, which is no reason to open another", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        assert.equal(404, one:delete(id).status)
        assert.is_nil(reference(id))
        for _, each in ipairs(proxy.seen(other)) do
            assert.is_not.equal(proxy.INITIALIZE, each.body)
        end
    end)

    it("keeps the session while there is no other backend", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        other:ask("stop")
        local answer = one:call(id)
        assert.equal(503, answer.status)
        assert.equal("1", answer.headers["retry-after"])
        assert.equal(mine.url, reference(id))
        other:ask("start")
        called(one:call(id), other)
    end)

    it("forgets it when the other backend refuses", function()
        for _, rule in ipairs {
            { status = 400 },
            { status = 200, body = "{}" }, -- no session
            { headers = { ["mcp-session-id"] = "x-1" }, body = "{}" },
            { headers = { ["mcp-session-id"] = "x-2" }, body =
                '{"result":{"protocolVersion":"1999-01-01"}}' },
            { headers = { ["mcp-session-id"] = "x-3",
                ["content-type"] = "text/event-stream" }, body =
                'data: {"error":{"code":1},"id":1}\n\n' },
        } do
            local id, mine, other = open(one)
            mine:ask("stop")
            rule.initialize = true
            proxy.rule(other, rule)
            assert.equal(404, one:call(id).status)
            assert.is_nil(reference(id))
            mine:ask("start")
        end
    end)

    it("reads the result from an event stream that stays open", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        proxy.rule(other, { initialize = true, action = "stream",
            headers = { ["mcp-session-id"] = "from-a-stream" },
            body = ': hello\n\nevent: message\ndata: {"jsonrpc":"2.0","id":1,'
                .. '"result":{"protocolVersion":"' .. proxy.VERSION
                .. '"}}\n\n' })
        proxy.rule(other, { times = 2, status = 202,
            headers = { ["mcp-session-id"] = "from-a-stream" } })
        local answer = one:call(id)
        assert.equal(202, answer.status)
        assert.equal(id, answer.headers["mcp-session-id"])
    end)

    it("does not touch a session it cannot open anew", function()
        local web = start('require("resty.mooring.policy.reinitialize").new '
            .. "{ max_body = 10 }")
        local id, mine = open(web)
        mine:ask("stop")
        assert.equal(404, web:call(id).status)
        assert.is_nil(reference(id))
    end)

    it("forgets it where a policy asks for what nobody has kept the means for", function()
        local web = start('{ on_unreachable = function() return "reinitialize" end }')
        local id, mine, other = open(web)
        mine:ask("stop")
        assert.equal(404, web:call(id).status)
        assert.is_nil(reference(id))
        for _, each in ipairs(proxy.seen(other)) do
            assert.is_not.equal(proxy.INITIALIZE, each.body)
        end
    end)

    it("answers 504, and keeps the session, when the backend takes too long", function()
        local web = proxy.start { backends = { a, b }, read_timeout = "300ms",
            options = 'storage = "local", policy = "reinitialize",' }
        local id, mine = open(web)
        proxy.rule(mine, { action = "hang" })
        assert.equal(504, web:call(id).status)
        called(web:call(id), mine)
        web:stop()
    end)

    it("answers 404 for a session whose backend was dropped", function()
        local web = proxy.start { backends = { a, b },
            options = 'storage = "local", policy = "reinitialize",',
            server = "location = /admin { content_by_lua_block { router:admin() } }" }
        local id, mine = open(web)
        called(web:call(id), mine)
        assert.equal(200, servers.http(web.url .. "/admin?do=drop&backend=" .. mine.url,
            { method = "POST" }).status)
        assert.equal(404, web:call(id).status)
        web:stop()
    end)

    it("repeats nothing but an initialize, whatever the store says", function()
        local id, mine, other = open(one)
        local key = "mooring:session:" .. id
        local session = cjson.decode(redis:cli("GET", key))
        session.data.initialize = proxy.CALL
        redis:cli("SET", key, cjson.encode(session))
        mine:ask("stop")
        assert.equal(404, one:call(id).status)
        assert.equal(0, #proxy.seen(other))
    end)

    it("forgets it when the other backend does not take the client's part", function()
        local id, mine, other = open(one)
        mine:ask("stop")
        proxy.rule(other, { initialize = true, headers = { ["mcp-session-id"] = "x-4" },
            body = '{"result":{"protocolVersion":"' .. proxy.VERSION .. '"}}' })
        proxy.rule(other, { method = "POST", status = 500 }) -- to notifications/initialized
        assert.equal(404, one:call(id).status)
        assert.is_nil(reference(id))
        local ended = proxy.seen(other, "DELETE")
        assert.equal("x-4", ended[1].headers["mcp-session-id"])
    end)

    it("passes a 404 on that is none of the session's", function()
        local id, mine = open(one)
        proxy.rule(mine, { status = 404, body = "no such file" })
        local answer = one:call(id, { path = "/mcp/elsewhere" })
        assert.same({ 404, "no such file" }, { answer.status, answer.body })
        assert.equal(mine.url, reference(id))
        called(one:call(id), mine)
    end)

    it("answers 502, and keeps the session, when the backend breaks off", function()
        local id, mine = open(one)
        proxy.rule(mine, { action = "reset", times = 2 })
        assert.equal(502, one:call(id).status)
        mine:ask("reset")
        assert.equal(mine.url, reference(id))
    end)

    it("shows no session id that is not the client's, nor one that is there twice", function()
        local id, mine = open(one)
        for _, there in ipairs { "another", { id, id } } do
            proxy.rule(mine, { body = "{}", headers = { ["mcp-session-id"] = there } })
            local answer = one:call(id)
            assert.equal(200, answer.status)
            assert.is_nil(answer.headers["mcp-session-id"])
        end
        one:wait_for_count("foreign_ids", 2)
    end)

    it("carries other methods as they are", function()
        local id, mine = open(one)
        proxy.rule(mine, { method = "PUT", body = "put" })
        local answer = one:request { method = "PUT", id = id, body = "x" }
        assert.same({ 200, "put" }, { answer.status, answer.body })
    end)

    it("serves what is known here while Redis does not answer", function()
        local own = servers.redis()
        local web = proxy.start { backends = { a, b },
            options = ('storage = %q, policy = "reinitialize",'):format(own.url) }
        local id, mine = open(web)
        called(web:call(id), mine)
        own:pause()
        servers.wait_for(function()
            called(web:call(id), mine)
            return web:stats().results.stale > 0
        end, 15, "a stale answer")
        own:resume()
        web:stop()
    end)

    it("leaves 404s alone where it is told to", function()
        local web = start('require("resty.mooring.policy.reinitialize").new '
            .. "{ restarts = false }")
        local id, mine, other = open(web)
        mine:ask("stop")
        called(web:call(id), other)
        other:ask("reset")
        assert.equal(404, web:call(id).status)
        servers.wait_for(function() return not reference(id) end, 5,
            "the session to be forgotten")
    end)

    it("is off unless it is asked for", function()
        local web = start('"round_robin"')
        local id, mine = open(web)
        mine:ask("stop")
        assert.equal(404, web:call(id).status)
    end)

    it("works in the replica's own memory, beside other policies", function()
        local web = start([[{ "least_sessions", "reinitialize", {
            on_bind = function(s, req) s.metadata.owner = req.headers.X_Owner end,
            admit = function(s, req)
                return s.metadata.owner == req.headers.X_Owner
            end,
        } }]], 'storage = "local",')
        local headers = { ["X-Owner"] = "me" }
        local id, mine, other = open(web, headers)
        mine:ask("stop")
        for n = 1, 4 do
            assert.equal(n, called(web:call(id, { headers = headers }), other))
        end
        assert.equal(404, web:call(id).status)
    end)

    it("gives up after the third backend in a row that is gone, too", function()
        local web = proxy.start { backends = { a },
            options = 'storage = "local", policy = "reinitialize",' }
        local id = web:open()
        for _ = 1, 2 do
            proxy.rule(a, { initialize = false, status = 404 })
            proxy.rule(a, { initialize = false, status = 202 }) -- notifications/initialized
        end
        proxy.rule(a, { initialize = false, status = 404 })
        local answer = web:call(id)
        assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
        assert.equal(3, web:stats().results.reinitialized)
        called(web:call(id), a)
        web:stop()
    end)

    it("opens a session with a path that is not stored at the path of the request", function()
        local id, mine, other = open(one, nil, "/mcp/caf%C3%A9")
        mine:ask("stop")
        called(one:call(id, { path = "/mcp/caf%C3%A9?x=1" }), other)
        for _, each in ipairs(proxy.seen(other)) do
            assert.equal("/mcp/caf%C3%A9?x=1", each.url)
        end
    end)

    it("does what another policy says of a 404", function()
        for _, case in ipairs {
            { policy = '{ { on_unreachable = function() return "keep" end }, "reinitialize" }',
              stays = true },
            { policy = '{ { on_unreachable = function() return "forget" end }, "reinitialize" }',
              stays = false },
        } do
            local web = start(case.policy)
            local id, mine = open(web)
            proxy.rule(mine, { status = 404, body = "its own" })
            local answer = web:call(id)
            assert.same({ 404, "its own" }, { answer.status, answer.body })
            assert.equal(case.stays and mine.url or nil, reference(id))
            web:stop()
        end
    end)

    -- A request whose answer is awaited elsewhere.
    local function begin(web, id)
        return web:stream { method = "POST", id = id, body = proxy.CALL }
    end

    local function await_seen(backend, count, method)
        servers.wait_for(function() return #proxy.seen(backend, method) == count end, 5,
            count .. " requests at " .. backend.name)
    end

    it("leaves it at a 404 for a session that ends meanwhile", function()
        local id, mine = open(one)
        mine:ask("reset")
        proxy.rule(mine, { method = "POST", action = "hang" })
        proxy.rule(mine, { method = "DELETE" })
        local call = begin(one, id)
        await_seen(mine, 1)
        assert.equal(200, one:delete(id).status)
        mine:ask { op = "answer", status = 404, body = "gone" }
        call:wait_for_head("HTTP/1.1 404")
        call:wait_for_body("gone")
        assert.is_nil(reference(id))
    end)

    it("sends a request after a session that was moved meanwhile", function()
        local id, mine, other = open(one)
        mine:ask("reset")
        other:ask("reset")
        proxy.rule(mine, { method = "POST", action = "hang" })
        local call = begin(one, id)
        await_seen(mine, 1)
        assert.equal(1, cjson.decode(one:call(id).body).count) -- in its new place
        mine:ask { op = "answer", status = 404, body = "gone" }
        call:wait_for_body('"count":2')
        local opened = 0
        for _, backend in ipairs { a, b } do
            for _, each in ipairs(proxy.seen(backend, "POST")) do
                opened = opened + (each.body == proxy.INITIALIZE and 1 or 0)
            end
        end
        assert.equal(1, opened)
    end)

    it("loses no session that its policy does not admit in its new place", function()
        local web = start([[{
            require("resty.mooring.policy.reinitialize").new { restarts = false },
            { admit = function(s) return not s.metadata.backend_url:find("#", 1, true) end },
        }]])
        local id, mine, other = open(web)
        mine:ask("stop")
        assert.equal(404, web:call(id).status)
        assert.matches("^" .. other.url .. "#;", reference(id))
        -- Told from one that is forgotten by one that is, behind it.
        local second = open(web)
        other:ask("reset")
        assert.equal(404, web:call(second).status)
        servers.wait_for(function() return not reference(second) end, 5,
            "the session to be forgotten")
        assert.matches("^" .. other.url .. "#;", reference(id))
        web:stop()
    end)

    -- What happens while a backend takes its time over the initialize.
    describe("in the middle of it", function()
        local MEDDLING = [[
            function change(args)
                away = args.away == "1"
                local s = args.id and record.decode(sessions[args.id], args.id)
                if s and args.url then
                    s:set_metadata("backend_url", args.url)
                    shelf:store(s)
                end
                return s and s.metadata.backend_url
            end
            -- The time and the patience of resty.mooring.router.reinitialize.
            local ffi, semaphore = require "resty.mooring.ffi", require "ngx.semaphore"
            local now, new, ahead, patience = ffi.now, semaphore.new, 0, nil
            ffi.now = function() return now() + ahead end
            require "resty.mooring.router.reinitialize"
            ffi.now = now
            function spend(seconds) ahead = ahead + seconds * 1000 end
            function lose_patience() patience = 0.001 end
            semaphore.new = function(n)
                local real = new(n)
                return { post = function(_, m) return real:post(m) end,
                         wait = function(_, s) return real:wait(patience or s) end,
                         count = function() return real:count() end }
            end
        ]]
        local CHANGE = [[
            location = /change { content_by_lua_block {
                ngx.print(change(ngx.req.get_uri_args()) or "none")
            } }
            location = /spend { content_by_lua_block { spend(31) } }
            location = /lose-patience { content_by_lua_block { lose_patience() } }
        ]]
        local web, id, mine, other, call

        before_each(function()
            web = proxy.start {
                backends = { a, b }, workers = 1, before = SHELF .. MEDDLING,
                server = CHANGE,
                options = "storage = shelf, max_fails = 0, policy = "
                    .. 'require("resty.mooring.policy.reinitialize").new { restarts = false },',
            }
            id, mine, other = open(web)
            mine:ask("stop")
            proxy.rule(other, { initialize = true, action = "hang" })
            call = begin(web, id)
            await_seen(other, 1)
        end)
        after_each(function() web:stop() end)

        local function change(query)
            return assert(servers.http(web.url .. "/change?" .. query)).body
        end

        local function bind_elsewhere()
            assert.equal(mine.url .. "#;x", change("id=" .. id .. "&url=" .. mine.url .. "%23;x"))
        end

        -- @param rule for the request behind the handshake
        local function go_on(rule)
            proxy.rule(other, { method = "POST", status = 202 }) -- notifications/initialized
            if rule then
                proxy.rule(other, rule)
            end
            other:ask { op = "answer", headers = { ["mcp-session-id"] = "late" },
                body = '{"result":{"protocolVersion":"' .. proxy.VERSION .. '"}}' }
        end

        -- What was opened in vain is told so.
        local function await_end_of_late()
            await_seen(other, 1, "DELETE")
            local ended = proxy.seen(other, "DELETE")[1]
            assert.equal("late", ended.headers["mcp-session-id"])
            assert.same({ 1, 0 }, { web:stats().results.orphans,
                                    web:stats().results.reinitialized })
        end

        it("a session that ends stays ended", function()
            assert.equal(404, web:delete(id).status)
            go_on()
            call:wait_for_head("HTTP/1.1 404")
            await_end_of_late()
            assert.equal("none", change(""))
        end)

        it("a session that is bound elsewhere stays there", function()
            mine:ask("start")
            proxy.rule(mine, { method = "POST", body = "here" })
            bind_elsewhere()
            go_on()
            call:wait_for_body("here")
            await_end_of_late()
            assert.equal(mine.url .. "#;x", change("id=" .. id))
        end)

        it("a store that goes away leaves the binding", function()
            change("away=1")
            go_on()
            call:wait_for_head("HTTP/1.1 503")
            await_end_of_late()
            assert.equal(mine.url, change("id=" .. id))
        end)

        it("a store that goes away forgets nothing", function()
            change("away=1")
            other:ask { op = "answer", status = 400 }
            call:wait_for_head("HTTP/1.1 503")
            assert.equal(mine.url, change("id=" .. id))
        end)

        it("a session that is bound elsewhere is not forgotten", function()
            bind_elsewhere()
            other:ask { op = "answer", status = 400 }
            call:wait_for_head("HTTP/1.1 503")
            assert.equal(mine.url .. "#;x", change("id=" .. id))
        end)

        it("other requests wait no longer than they have to", function()
            servers.http(web.url .. "/lose-patience")
            local answer = web:call(id)
            assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
            go_on { method = "POST", body = "at last" }
            call:wait_for_body("at last")
            assert.equal(other.url .. "#;late", change("id=" .. id))
        end)

        it("one of them takes over when it takes too long", function()
            servers.http(web.url .. "/spend")
            assert.equal(1, called(web:call(id), other))
            local now = change("id=" .. id)
            go_on()
            call:wait_for_body('"count":2')
            await_seen(other, 1, "DELETE")
            assert.equal(now, change("id=" .. id))
            assert.equal(1, web:stats().results.reinitialized)
        end)
    end)
end)
