-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, policy", function()
    local a, b, web, running

    setup(function() a, b = proxy.backend("a"), proxy.backend("b") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        running = {}
        a:ask("start")
        b:ask("start")
        a:ask("reset")
        b:ask("reset")
    end)
    after_each(function()
        for _, nginx in ipairs(running) do
            nginx:stop()
        end
    end)

    local function start(policy, opts)
        opts = opts or {}
        opts.backends = opts.backends or { a, b }
        opts.options = "policy = " .. policy .. ", " .. (opts.options or "")
        web = proxy.start(opts)
        running[#running + 1] = web
        return web
    end

    local function owner(id) return id:find("^a%-") and a or b end

    -- For policies that note something in the dictionary `notes`.
    local function with_notes()
        return {
            http = "lua_shared_dict notes 1m;",
            server = [[location = /notes { content_by_lua_block {
                local notes = {}
                for _, name in ipairs(ngx.shared.notes:get_keys(0)) do
                    notes[name] = ngx.shared.notes:get(name)
                end
                ngx.say(require("cjson").encode(notes))
            } }]],
        }
    end

    local function notes()
        return cjson.decode(assert(servers.http(web.url .. "/notes")).body)
    end

    local function metadata_of(id)
        return cjson.decode(assert(servers.http(web.url .. "/session?id=" .. id)).body)
    end

    local SESSION = [[location = /session { content_by_lua_block {
        local s = router.storage:load(ngx.var.arg_id)
        ngx.say(require("cjson").encode(s.metadata))
    } }]]

    -- ----------------------------------------------------------- mistakes --

    describe("with a mistake stops the start", function()
        -- The error log of an nginx that did not start.
        local function failing(policy)
            local ok, err = pcall(start, policy)
            assert.is_false(ok)
            return err
        end

        it("with file and line of what is wrong in a file", function()
            local path = servers.tmpdir() .. "/policy.lua"
            servers.write_file(path, "return {\n  admit = function() end,\n\n  rout = 1,\n}")
            local log = failing(("%q"):format(path))
            assert.truthy(log:find("opts.policy is wrong: " .. path .. ':4: "rout" is not a '
                .. "field of a policy", 1, true), log)
            assert.matches("init_by_lua", log)

            servers.write_file(path, "return {\n  admit = functoin() end,\n}")
            log = failing(("%q"):format(path))
            assert.truthy(log:find(path .. ":2: ", 1, true), log)
        end)

        it("with the line of nginx.conf for a table in there", function()
            assert.matches('opts.policy is wrong: init_by_lua%(nginx.conf:%d+%):%d+: "rout" is '
                .. "not a field", failing "{ rout = function() end }")
            assert.matches("opts.policy must be the name of a built%-in policy",
                failing '"random"')
        end)
    end)

    it("files are found from the prefix of nginx", function()
        local dir = servers.tmpdir()
        servers.write_file(dir .. "/mine.lua",
            "return { route = function(_, backends) return backends[2] end }")
        start('"mine.lua"', { dir = dir })
        for _ = 1, 4 do
            assert.equal(b, owner((web:open())))
        end
        assert.equal(4, web:stats().policies["mine.lua"].route.calls)
    end)

    -- ---------------------------------------------------------- isolation --

    -- What a client sees of everything that can happen to a session.
    local function a_life(of)
        local seen = {}
        local function see(answer)
            seen[#seen + 1] = answer.status
            return answer
        end
        local id, opened = of:open()
        see(opened)
        see(of:call(id))
        see(of:request { body = proxy.CALL })
        see(of:call("nobody"))
        see(of:delete(id))
        see(of:call(id))
        id = of:open()
        owner(id):ask("reset") -- it answers 404 from now on
        see(of:call(id))
        of:wait_for_count("forgotten", 1)
        see(of:call(id))
        id = of:open()
        local gone = owner(id)
        gone:ask("stop")
        see(of:call(id))
        see(of:call(id))
        gone:ask("start")
        return seen
    end

    local EXPECTED = { 200, 200, 200, 404, 200, 404, 404, 404, 404, 404 }
    local ALL = { "key", "admit", "route", "on_bind", "on_evict", "on_unreachable" }
    local MCP = 'key = { header = "Mcp-Session-Id" },'

    local function policy_of(body, names)
        local fields = {}
        for i, name in ipairs(names or ALL) do
            fields[i] = name .. " = function(p, q) " .. body .. " end,"
        end
        return "{\n" .. table.concat(fields, "\n") .. "\n}"
    end

    it("that has no opinion changes nothing", function()
        assert.same(EXPECTED, a_life(start '"round_robin"'))
        assert.same(EXPECTED, a_life(start(policy_of("return nil"), { options = MCP })))
    end)

    for what, body in pairs {
        ["throws"] = 'error("oops")',
        ["throws no text"] = "error({})",
        ["indexes nil"] = "local x return x.y",
        ["answers a number"] = "return 42",
        ["answers a table"] = "return {}",
        ["spoils the request it is given"] = [[
            for _, x in ipairs { p, q } do
                if type(x) == "table" and x.headers then
                    x.session_id, x.headers, x.rpc_method = {}, 5, {}
                end
            end]],
        ["makes its request throw"] = [[
            for _, x in ipairs { p, q } do
                if type(x) == "table" and x.headers then
                    x.session_id, x.body = nil, nil
                    setmetatable(x, { __index = error, __newindex = error })
                end
            end]],
        ["waits"] = "ngx.sleep(0.001)",
        ["yields"] = "coroutine.yield()",
        ["waits for ever in a semaphore, where it cannot"] =
            'require("ngx.semaphore").new(0):wait(0.001)',
    } do
        it("whose every function " .. what .. " fails no request", function()
            start(policy_of(body), { options = MCP })
            assert.same(EXPECTED, a_life(web))
            local policies = web:stats().policies.inline
            for _, name in ipairs(ALL) do
                assert.is_true(policies[name].calls > 0, name)
            end
        end)
    end

    -- How often a sticky request makes a request object, or a copy of its session.
    local COUNTED = [[
        local request = require "resty.mooring.request"
        local storage = require "resty.mooring.local_storage"
        local function counted(module, name, note)
            local fn = module[name]
            module[name] = function(...)
                ngx.shared.notes:incr(note, 1, 0)
                return fn(...)
            end
        end
        counted(request, "current", "requests")
        counted(storage, "load", "loads")
    ]]

    local function cost_of_calls(policy)
        local opts = with_notes()
        opts.before = COUNTED
        start(policy, opts)
        local id = web:open()
        local before = notes()
        for _ = 1, 5 do
            assert.equal(200, web:call(id).status)
        end
        local after = notes()
        return (after.requests or 0) - (before.requests or 0),
            (after.loads or 0) - (before.loads or 0)
    end

    it("without key and admit is not in the way of a sticky request", function()
        assert.same({ 0, 0 }, { cost_of_calls '"round_robin"' })
        assert.same({ 0, 0 }, { cost_of_calls [[{ route = function() end,
            on_bind = function() end, on_evict = function() end,
            on_unreachable = function() end }]] })
        assert.same({ 5, 5 }, { cost_of_calls "{ admit = function() end }" })
    end)

    it("that fails is counted and logged, with nginx.conf's line, in each function", function()
        start(policy_of 'error("oops")', { options = MCP })
        a_life(web)
        local counts, log = web:stats().policies.inline, web:error_log()
        for _, name in ipairs(ALL) do
            assert.equal(counts[name].calls, counts[name].errors, name)
            assert.is_true(counts[name].errors > 0, name)
            assert.matches('%[error%].-the policy "inline" failed in ' .. name
                .. " %(the default is used%): init_by_lua%(nginx.conf:%d+%):%d+: oops", log)
        end
    end)

    it("that fails is logged at most once a second and worker", function()
        start(policy_of('error("oops")', { "admit" }), { workers = 1 })
        local id = web:open()
        local began = os.time()
        for _ = 1, 30 do
            web:call(id)
        end
        local seconds = os.time() - began + 2
        local _, lines = web:error_log():gsub("failed in admit", "")
        assert.is_true(lines >= 1 and lines <= seconds, lines .. " lines")
        assert.equal(30, web:stats().policies.inline.admit.errors)
    end)

    it("has the time its functions take counted", function()
        -- (timers go by nginx' clock of whole milliseconds)
        start([[{ admit = function() ngx.sleep(0.02) end }]])
        local id = web:open()
        for _ = 1, 5 do
            assert.equal(200, web:call(id).status)
        end
        local admit = web:stats().policies.inline.admit
        assert.equal(5, admit.calls)
        assert.is_true(admit.seconds >= 0.09, admit.seconds)
    end)

    -- --------------------------------------------------------------- key --

    describe("key", function()
        local KEY = [[{ key = function(req)
            local user = req.headers["X-User"] or req.args.user or req.cookies.user
            return user and "user-" .. user
        end }]]

        it("finds the session of requests that are not MCP's", function()
            start(KEY)
            for _, backend in ipairs { a, b } do
                proxy.rule(backend, { body = "ok", times = 1000 })
            end
            local function served_by(opts)
                opts.method = "GET"
                return assert(web:request(opts)).headers["x-served-by"]
            end
            for _, user in ipairs { "ann", "bob" } do
                local name = served_by { headers = { ["X-User"] = user } }
                assert.equal(name, served_by { path = "/mcp?user=" .. user })
                assert.equal(name, served_by { headers = { Cookie = "x=1; user=" .. user } })
            end
            assert.equal(2, web:stats().results.created)
            local names = {}
            for _ = 1, 2 do
                names[served_by {}] = true
            end
            assert.same({ a = true, b = true }, names) -- unpinned
        end)

        it("is used to forget a binding whose backend is gone", function()
            start(KEY)
            for _, backend in ipairs { a, b } do
                proxy.rule(backend, { body = "ok", times = 1000 })
            end
            local opts = { method = "GET", headers = { ["X-User"] = "ann" } }
            local name = assert(web:request(opts)).headers["x-served-by"]
            local gone = name == "a" and a or b
            gone:ask("stop")
            assert.equal(503, assert(web:request(opts)).status)
            local answer = assert(web:request(opts))
            assert.equal(200, answer.status)
            assert.not_equal(name, answer.headers["x-served-by"])
        end)

        it("finds the session of an MCP client that sends its id elsewhere", function()
            start('{ key = function(req) return req.args.session end }', { options = MCP })
            local id = web:open()
            local path = "/mcp?session=" .. id
            local answer = assert(web:request { path = path, body = proxy.CALL })
            assert.same({ 200, 1 }, { answer.status, cjson.decode(answer.body).count })
            assert.equal(2, cjson.decode(web:call(id).body).count)
            local seen = proxy.seen(owner(id), "POST")
            assert.equal(id, seen[#seen].headers["mcp-session-id"])
            assert.equal(200, assert(web:request { path = path, method = "DELETE" }).status)
            assert.equal(404, web:call(id).status)
            assert.equal(404, assert(web:request { path = path, body = proxy.CALL }).status)
        end)
    end)

    -- ------------------------------------------------------------- admit --

    describe("admit", function()
        local ADMIT = [[{
            on_bind = function(session, req)
                session.metadata.owner = req.headers["X-User"]
            end,
            admit = function(session, req)
                return session.metadata.owner == req.headers["X-User"]
            end,
        }]]

        local function as(user, opts)
            opts.headers = { ["X-User"] = user }
            return assert(web:request(opts))
        end
        it("refuses every kind of request, as if there were no such session", function()
            start(ADMIT)
            local id = web:open { headers = { ["X-User"] = "ann" } }
            for _, opts in ipairs {
                { body = proxy.CALL }, { body = proxy.CALL, version = false },
                { method = "GET" }, { method = "DELETE" }, { method = "PUT", body = "x" },
            } do
                opts.id = id
                local refused = as("bob", opts)
                opts.id = "nobody"
                local unknown = as("bob", opts)
                unknown.headers.date, refused.headers.date = nil, nil
                assert.equal(404, refused.status)
                assert.same({ unknown.status, unknown.headers, unknown.body },
                    { refused.status, refused.headers, refused.body })
            end
            assert.equal(0, #proxy.seen(owner(id), "GET"))
            assert.equal(0, #proxy.seen(owner(id), "DELETE"))
            assert.equal(5, web:stats().results.refused)
            local answer = as("ann", { id = id, body = proxy.CALL })
            assert.same({ 200, 1 }, { answer.status, cjson.decode(answer.body).count })
            assert.equal(200, as("ann", { id = id, method = "DELETE" }).status)
        end)

        it("lets an initialize that carries another's id open a session", function()
            start(ADMIT)
            local id = web:open { headers = { ["X-User"] = "ann" } }
            for _, version in ipairs { false, proxy.VERSION } do
                local answer = as("bob", { id = id, body = proxy.INITIALIZE,
                    version = version })
                assert.equal(200, answer.status)
                local own = answer.headers["mcp-session-id"]
                assert.not_equal(id, own)
                assert.equal(200, as("bob", { id = own, body = proxy.CALL }).status)
            end
            assert.equal(200, as("ann", { id = id, body = proxy.CALL }).status)
        end)

        it("lets nobody through to a session whose record names no backend", function()
            start(ADMIT, { options = "storage = shelf,", before = [[
                local sessions = {
                    empty = require("resty.mooring.session").new("empty"),
                    bare = { id = "bare", type = "mcp", created_at = 0, updated_at = 0 },
                }
                local function done() return true end
                shelf = { store = done, delete = done, delete_expired = done, close = done,
                          load = function(_, id) return sessions[id] end }
            ]] })
            for _, id in ipairs { "empty", "bare" } do
                local answer = as(nil, { id = id, body = proxy.CALL })
                assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
            end
            assert.matches("the session has no backend_url", web:error_log(), 1, true)
            assert.equal(0, #proxy.seen(a) + #proxy.seen(b))
        end)

        it("refuses a key that somebody else has bound, and does not bind it", function()
            start(ADMIT, { options = 'key = { header = "X-Room" },' })
            for _, backend in ipairs { a, b } do
                proxy.rule(backend, { body = "ok", times = 1000 })
            end
            local function call(user)
                return assert(web:request { method = "GET", headers = {
                    ["X-User"] = user, ["X-Room"] = "r" } }).status
            end
            assert.same({ 200, 404, 200 }, { call("ann"), call("bob"), call("ann") })
            assert.equal(1, web:stats().results.created)
        end)
    end)

    -- ----------------------------------------------------------- on_bind --

    describe("on_bind", function()
        it("adds to a session before the client knows of it", function()
            start([[{ on_bind = function(session, req)
                session.metadata.method = req.rpc_method
                session.metadata.length = tostring(#req.body)
                session.metadata.given = tostring(req.session_id)
            end }]], { server = SESSION })
            local metadata = metadata_of((web:open()))
            assert.same({ "initialize", tostring(#proxy.INITIALIZE), "nil", "/mcp" },
                { metadata.method, metadata.length, metadata.given, metadata.endpoint })
        end)

        for what, body in pairs {
            ["metadata that is no string"] = "session.metadata.n = 5",
            ["another backend"] = 'session.metadata.backend_url = "http://127.0.0.1:9"',
            ["a record that is too large"] = 'session.data = ("x"):rep(100000)',
        } do
            it("cannot do harm with " .. what, function()
                start("{ on_bind = function(session) session.metadata.k = 'v' " .. body
                    .. " end }", { server = SESSION })
                local id, answer = web:open()
                assert.equal(200, answer.status)
                assert.equal(200, web:call(id).status)
                local metadata = metadata_of(id)
                assert.same({ owner(id).url, nil }, { metadata.backend_url, metadata.k })
                assert.equal(1, web:stats().policies.inline.on_bind.errors)
            end)
        end

        it("is not to blame for an id that is bound already", function()
            start "{ on_bind = function(session) session.metadata.k = 'v' end }"
            for _, backend in ipairs { a, b } do
                proxy.rule(backend, { initialize = true, body = "{}",
                    headers = { ["Mcp-Session-Id"] = "same" } })
            end
            assert.equal(200, select(2, web:open()).status)
            assert.equal(502, select(2, web:open()).status)
            local on_bind = web:stats().policies.inline.on_bind
            assert.same({ 2, 0 }, { on_bind.calls, on_bind.errors })
        end)
    end)

    -- -------------------------------------------------------------- route --

    describe("route", function()
        it("sees the request of a new session, and its backends", function()
            start([[{ route = function(req, backends)
                ngx.shared.notes:set("seen", require("cjson").encode {
                    req.method, req.path, req.headers["x-tenant"], req.args.a,
                    req.cookies.c, req.remote_addr, req.rpc_method, #req.body,
                    #backends, backends[1].weight })
                return backends[2]
            end }]], with_notes())
            for _ = 1, 2 do
                assert.equal(b, owner((web:open { path = "/mcp/x%2Dy?a=1%202&b",
                    headers = { ["X-Tenant"] = "t", Cookie = "b=0; c=1" } })))
            end
            assert.same({ "POST", "/mcp/x-y", "t", "1 2", "1", "127.0.0.1", "initialize",
                #proxy.INITIALIZE, 2, 1 }, cjson.decode(notes().seen))
        end)

        it("sees requests that belong to no session, without reading their body", function()
            start([[{ route = function(req, backends)
                ngx.shared.notes:set(req.method .. " body", tostring(req.body))
                ngx.shared.notes:set(req.method .. " rpc", tostring(req.rpc_method))
                return backends[2]
            end }]], with_notes())
            for _, opts in ipairs { { body = proxy.CALL }, { method = "PUT", body = "x" } } do
                assert.equal("b", assert(web:request(opts)).headers["x-served-by"])
            end
            assert.same({ ["POST body"] = proxy.CALL, ["POST rpc"] = "tools/call",
                ["PUT body"] = "nil", ["PUT rpc"] = "nil" }, notes())
        end)

        it("is asked again, without it, for a backend that refuses connections", function()
            start([[{ route = function(req, backends)
                ngx.shared.notes:set(#backends .. "", #req.body)
                return backends[1]
            end }]], with_notes())
            a:ask("stop")
            assert.equal(b, owner((web:open())))
            assert.same({ ["1"] = #proxy.INITIALIZE, ["2"] = #proxy.INITIALIZE }, notes())
        end)
    end)

    -- ------------------------------------------------------ on_unreachable --

    describe("on_unreachable", function()
        local KEEP = [[{ on_unreachable = function(session, req)
            ngx.shared.notes:set("seen", require("cjson").encode {
                session.id, req.method, req.path, req.headers["x-user"], req.session_id })
            return "keep"
        end }]]

        it("keeps a session while its backend cannot be connected to", function()
            start(KEEP, with_notes())
            local id = web:open()
            owner(id):ask("stop")
            for _, method in ipairs { "POST", "GET", "DELETE" } do
                local answer = assert(web:request { id = id, method = method,
                    body = method == "POST" and proxy.CALL or nil,
                    headers = { ["X-User"] = "ann" } })
                assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
                assert.same({ id, method, "/mcp", "ann", id }, cjson.decode(notes().seen))
            end
            owner(id):ask("start")
            servers.wait_for(function() return web:call(id).status == 200 end, 30,
                "the backend to be asked again")
        end)

        it("keeps a session that its backend does not know", function()
            start(KEEP, with_notes())
            local id = web:open()
            proxy.rule(owner(id), { status = 404 })
            -- The first of several headers counts.
            assert.equal(404, web:call(id, { headers = { ["X-User"] = { "ann", "bob" } } }).status)
            servers.wait_for(function() return notes().seen end, 5, "the call")
            assert.same({ id, "POST", "/mcp", "ann", id }, cjson.decode(notes().seen))
            assert.equal(200, web:call(id).status)
            assert.equal(0, web:stats().results.forgotten)
        end)
    end)

    it("of several parts is asked in their order", function()
        start([[{ "round_robin",
            { name = "owner", on_bind = function(s) s.metadata.owner = "x" end },
            { name = "second", on_bind = function(s) s.metadata.seen = s.metadata.owner end,
              admit = function(s) return s.metadata.seen == "x" end },
        }]])
        local id = web:open()
        assert.equal(200, web:call(id).status)
        local policies = web:stats().policies
        assert.equal(1, policies.owner.on_bind.calls)
        assert.equal(1, policies.second.admit.calls)
        assert.equal(1, policies.round_robin.route.calls)
    end)
end)
