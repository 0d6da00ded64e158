-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The HTTP+SSE transport (MCP 2024-11-05) with the SDK's own client and server:
-- streams through one replica, POSTs through another, and Streamable HTTP beside
-- them, as the SDK's backwards compatible servers have it.

local replica = require "support.replica"
local servers = require "support.servers"

local SSE = ([[
    include %s/lua/resty/mooring/nginx/location.conf;
    include %s/lua/resty/mooring/nginx/sse.conf;
]]):format(servers.root, servers.root)

describe("HTTP+SSE through two replicas", function()
    local backends, redis, a, b, clients
    local names, opened = 0, {}

    local function start()
        return replica.start {
            backends = backends, storage = redis.url,
            server = "location = /sse {" .. SSE .. "} location = /messages {"
                .. SSE .. "}",
        }
    end

    setup(function()
        redis = servers.redis()
        backends = replica.backends(3)
        a, b = start(), start()
        clients = replica.clients()
    end)
    teardown(function() servers.stop_all() end)

    -- A client whose stream has ended opens another one again and again.
    after_each(function()
        for name in pairs(opened) do
            clients:ask { op = "close", as = name }
        end
        opened = {}
    end)

    -- Opens a session whose stream comes through one replica and whose POSTs
    -- take turns between others.
    local function begin(stream, posts)
        names = names + 1
        local name, urls = "legacy" .. names, {}
        for i, each in ipairs(posts) do
            urls[i] = each.url
        end
        opened[name] = true
        return name, clients:begin { op = "open", as = name,
            sse = stream.url .. "/sse", urls = urls }
    end

    local function open(stream, posts)
        local name, wait = begin(stream, posts)
        local answer = wait()
        assert.is_true(answer.ok, answer.error and answer.error.message)
        return name, answer.session
    end

    local function call(name, tool, args)
        return clients:expect { op = "call", as = name, tool = tool or "counter",
            args = args }.value
    end

    local function backend_of(session)
        for _, backend in ipairs(backends) do
            for _, id in ipairs(replica.inside(backend).legacy) do
                if id == session then
                    return backend
                end
            end
        end
    end

    it("keeps a session on one server", function()
        local name, session = open(a, { b })
        local server = backend_of(session).ready.name
        for n = 1, 5 do
            assert.same({ count = n, server = server }, call(name))
        end
    end)

    it("carries what a server asks and tells on the stream", function()
        local name = open(b, { a, b })
        assert.same({ "file:///harbour" }, call(name, "ask").roots)
        call(name, "notify", { text = "ahoy" })
        local heard = clients:expect { op = "received", as = name }
        assert.same({ "ahoy" }, heard.notifications)
        assert.same({}, heard.errors)
        assert.equal(3, call(name, "stream", { events = 3, interval = 1 }).events)
    end)

    it("keeps many sessions apart that open at once", function()
        local sessions = {}
        for n = 1, 60 do
            local stream, posts = n % 2 == 0 and a or b, n % 2 == 0 and b or a
            local name, wait = begin(stream, { posts, stream })
            sessions[n] = { name = name, wait = wait }
        end
        local used = {}
        for _, each in ipairs(sessions) do
            local answer = each.wait()
            assert.is_true(answer.ok, answer.error and answer.error.message)
        end
        for n = 1, 3 do
            for _, each in ipairs(sessions) do
                local value = call(each.name)
                assert.equal(n, value.count)
                assert.equal(each.server or value.server, value.server)
                each.server = value.server
                used[value.server] = true
            end
        end
        assert.same({ b1 = true, b2 = true, b3 = true }, used)
    end)

    it("removes the sessions that have ended", function()
        local ids = {}
        for n = 1, 20 do
            local name, id = open(n % 2 == 0 and a or b, { a, b })
            ids[n] = "mooring:session:" .. id
            call(name)
            clients:expect { op = "close", as = name }
            opened[name] = nil
        end
        servers.wait_for(function()
            return redis:cli("EXISTS", unpack(ids)) == "0"
        end, 15, "the sessions to be removed")
    end)

    it("serves Streamable HTTP beside it", function()
        local old = open(a, { b })
        local new = "streamable"
        clients:expect { op = "open", as = new, urls = { a.mcp, b.mcp } }
        for n = 1, 4 do
            assert.equal(n, call(old).count)
            assert.equal(n, call(new).count)
        end
        clients:expect { op = "end", as = new }
    end)

    it("goes on while Redis does not answer", function()
        local name = open(a, { a, b })
        for n = 1, 4 do -- known to the workers of both
            assert.equal(n, call(name).count)
        end
        redis:pause()
        for n = 5, 8 do
            assert.equal(n, call(name).count)
        end
        redis:resume()
        for n = 9, 12 do
            assert.equal(n, call(name).count)
        end
    end)

    it("goes on through a reload", function()
        local name = open(a, { a, b })
        assert.equal(1, call(name).count)
        a:reload()
        for n = 2, 6 do
            assert.equal(n, call(name).count)
        end
        call(name, "notify", { text = "still here" })
        assert.same({ "still here" }, clients:expect { op = "received",
            as = name }.notifications)
        clients:expect { op = "close", as = name }
        opened[name] = nil
        servers.wait_for(function() return #a:worker_pids(true) == 0 end, 15,
            "the old workers to leave")
    end)

    it("loses the sessions of a server that is killed, no others", function()
        local sessions = {}
        for n = 1, 9 do
            local name, id = open(n % 2 == 0 and a or b, { a, b })
            sessions[n] = { name = name, id = id, backend = backend_of(id) }
            call(name)
        end
        local victim = sessions[1].backend
        victim:kill()
        for _, each in ipairs(sessions) do
            local key = "mooring:session:" .. each.id
            if each.backend == victim then
                servers.wait_for(function()
                    return redis:cli("EXISTS", key) == "0"
                end, 15, "the session to be forgotten")
            else
                assert.equal(2, call(each.name).count)
            end
        end
        -- A new one finds a server that lives.
        for _ = 1, 4 do
            assert.equal(1, call((open(a, { b }))).count)
        end
        for i, backend in ipairs(backends) do
            if backend == victim then
                backends[i] = servers.node("spec/fixtures/mcp/server.mjs",
                    { "--name=" .. victim.ready.name, "--port=" .. victim.port })
            end
        end
    end)
end)
