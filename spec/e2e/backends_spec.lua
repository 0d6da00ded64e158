-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- MCP servers that are drained, dropped, added and killed, under real MCP
-- clients and two replicas that share nothing but Redis.

local cjson = require "cjson"
local replica = require "support.replica"
local servers = require "support.servers"

local wait_for = servers.wait_for

local ADMIN = "location = /admin { content_by_lua_block { router:admin() } }"

describe("two replicas, when a server", function()
    local backends, redis, a, b, clients
    local names = 0

    setup(function()
        redis = servers.redis()
        clients = replica.clients()
    end)
    teardown(function() servers.stop_all() end)
    after_each(function()
        a:stop()
        b:stop()
        for _, backend in ipairs(backends) do
            backend:stop()
        end
        redis:cli("FLUSHALL")
    end)

    local function start(n, list, options)
        backends = replica.backends(n)
        local function one()
            return replica.start { backends = list or backends,
                storage = redis.url, server = ADMIN, options = options }
        end
        a, b = one(), one()
    end

    local function open(urls, session)
        names = names + 1
        local name = "s" .. names
        return name, clients:expect { op = "open", as = name, urls = urls,
            session = session }.session
    end

    local function call(name)
        return clients:expect { op = "call", as = name, tool = "counter" }.value
    end

    local function call_fails(name)
        local answer = clients:ask { op = "call", as = name, tool = "counter" }
        assert.is_false(answer.ok)
        return answer.error.code
    end

    local function ask(web, backend, what)
        local answer = assert(servers.http(web.url .. "/admin?do=" .. what
            .. "&backend=" .. backend.url, { method = "POST" }))
        assert.equal(200, answer.status, answer.body)
    end

    local function about(web, backend)
        for _, each in ipairs(web:status().backends) do
            if each.url == backend.url then
                return each
            end
        end
    end

    local function both_know(backend, field, value)
        for _, web in ipairs { a, b } do
            wait_for(function()
                return (about(web, backend) or {})[field] == value
            end, 5, ("%s = %s"):format(field, tostring(value)))
        end
    end

    -- n sessions, through both replicas in turn; the names by server.
    local function open_many(n)
        local by_server = { b1 = {}, b2 = {}, b3 = {}, b4 = {} }
        for i = 1, n do
            local name = open { (i % 2 == 0 and a or b).mcp,
                (i % 2 == 0 and b or a).mcp }
            local list = by_server[call(name).server]
            list[#list + 1] = name
        end
        return by_server
    end

    it("is drained through one, its sessions go on through both, and no new "
        .. "one comes to it", function()
        start(2)
        local before = open_many(8)
        assert.is_true(#before.b1 > 0)
        ask(a, backends[1], "drain")
        both_know(backends[1], "state", "draining")
        assert.equal(0, #open_many(8).b1)
        for _, name in ipairs(before.b1) do
            assert.equal("b1", call(name).server)
            assert.equal("b1", call(name).server)
            clients:expect { op = "end", as = name }
        end
        both_know(backends[1], "sessions", 0) -- it can go
        backends[1]:stop()
        ask(b, backends[1], "undrain")
        both_know(backends[1], "state", "up")
        -- It is gone, which costs nobody a session.
        assert.equal(6, #open_many(6).b2)
    end)

    it("is dropped through one, all its clients open new sessions, and the "
        .. "others notice nothing", function()
        start(2)
        local before = open_many(12)
        assert.is_true(#before.b1 > 0 and #before.b2 > 0)
        ask(b, backends[1], "drop")
        both_know(backends[1], "incarnation", 1)
        for _, name in ipairs(before.b1) do
            assert.equal(404, call_fails(name))
        end
        for _, name in ipairs(before.b2) do
            assert.same({ count = 2, server = "b2" }, call(name))
        end
        local after = open_many(8)
        assert.is_true(#after.b1 > 0)
        for _, name in ipairs(after.b1) do
            assert.same({ count = 2, server = "b1" }, call(name))
        end
    end)

    it("gets company, no session moves, and the new ones take their share "
        .. "within an interval", function()
        local file = servers.tmpdir() .. "/list.lua"
        local function list(n)
            local urls = {}
            for i = 1, n do
                urls[i] = ("%q"):format(backends[i].url)
            end
            servers.write_file(file .. ".new", "return { "
                .. table.concat(urls, ", ") .. " }")
            os.rename(file .. ".new", file)
        end
        backends = replica.backends(4)
        list(2)
        local opts = { backends = ("function() return dofile(%q) end"):format(
            file), storage = redis.url, options = "backends_interval = 1," }
        a, b = replica.start(opts), replica.start(opts)
        for i = 1, 2 do
            both_know(backends[i], "state", "up")
        end
        local before = open_many(8)
        assert.equal(8, #before.b1 + #before.b2)
        local busy = {}
        for _, server in ipairs { "b1", "b2" } do
            for i = 1, 2 do
                busy[#busy + 1] = before[server][i]
            end
        end
        clients:expect { op = "traffic_start", names = busy }
        list(4)
        local since = servers.now()
        for i = 3, 4 do
            both_know(backends[i], "state", "up")
        end
        local took = servers.now() - since
        local after = open_many(24)
        local calls = clients:expect { op = "traffic_stop" }
        for server, sessions in pairs(before) do
            for _, name in ipairs(sessions) do
                assert.equal(server, call(name).server)
            end
        end
        assert.same({}, calls.failures) -- a session that moved is one
        assert.is_true(calls.calls > 100, calls.calls)
        for _, server in ipairs { "b1", "b2", "b3", "b4" } do
            assert.is_true(#after[server] >= 3, server .. " has got "
                .. #after[server] .. " of 24")
        end
        -- An interval, and what a busy machine adds to it.
        assert.is_true(took < 1 + 2, took)
    end)

    it("with 100 live sessions is killed, every client goes on after one new "
        .. "initialize", function()
        start(2)
        ask(a, backends[2], "drain")
        both_know(backends[2], "state", "draining")
        local mine = open_many(100).b1
        assert.equal(100, #mine)
        ask(a, backends[2], "undrain")
        both_know(backends[2], "state", "up")
        backends[1]:kill()
        for i, name in ipairs(mine) do
            assert.equal(404, call_fails(name))
            local again = open { (i % 2 == 0 and a or b).mcp,
                (i % 2 == 0 and b or a).mcp }
            assert.same({ count = 1, server = "b2" }, call(again))
            assert.same({ count = 2, server = "b2" }, call(again))
            clients:expect { op = "close", as = again }
        end
        assert.equal("100", redis:cli("EVAL",
            "return #redis.call('KEYS', 'mooring:session:*')", "0"))
        local record = cjson.decode(redis:cli("GET", redis:cli("EVAL",
            "return redis.call('KEYS', 'mooring:session:*')[1]", "0")))
        assert.equal(backends[2].url, record.metadata.backend_url)
    end)
end)
