-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Real MCP clients, two replicas that share nothing but Redis, three MCP
-- servers that keep their sessions in their own memory.

local replica = require "support.replica"
local servers = require "support.servers"

local UNKNOWN = "00000000-0000-4000-8000-000000000000"

describe("two replicas", function()
    local backends, redis, a, b, clients
    local names = 0

    setup(function()
        redis = servers.redis()
        backends = replica.backends(3)
        a = replica.start { backends = backends, storage = redis.url }
        b = replica.start { backends = backends, storage = redis.url }
        clients = replica.clients()
    end)

    teardown(function() servers.stop_all() end)

    -- Opens a session, or joins one; returns the driver's name for it.
    local function open(urls, session, bare)
        names = names + 1
        local name = "s" .. names
        local answer = clients:expect {
            op = "open", as = name, urls = urls, session = session, bare = bare,
        }
        return name, answer.session
    end

    local function call(name, tool, args)
        return clients:expect {
            op = "call", as = name, tool = tool or "counter", args = args,
        }.value
    end

    local function call_fails(name)
        local answer = clients:ask { op = "call", as = name, tool = "counter" }
        assert.is_false(answer.ok)
        return answer.error
    end

    local function backend_of(session)
        for _, backend in ipairs(backends) do
            for _, id in ipairs(replica.inside(backend).sessions) do
                if id == session then
                    return backend
                end
            end
        end
    end

    -- How many requests of each method reached each server so far.
    local function requests()
        local counts = {}
        for _, backend in ipairs(backends) do
            counts[backend.ready.name] = replica.inside(backend).requests
        end
        return counts
    end

    it("serve a session through either, whichever opened it", function()
        for _, first in ipairs { a, b } do
            local opener, session = open { first.mcp }
            local other = open({ (first == a and b or a).mcp }, session)
            local server = call(opener).server
            assert.same({ count = 2, server = server }, call(other))
            assert.same({ count = 3, server = server }, call(opener))
        end
    end)

    it("count one by one when every request takes the other replica", function()
        local name = open { a.mcp, b.mcp }
        local server = call(name).server
        for count = 2, 21 do
            assert.same({ count = count, server = server }, call(name))
        end
    end)

    it("serve clients that do not send MCP-Protocol-Version", function()
        local opener, session = open { a.mcp }
        local bare = open({ b.mcp }, session, true)
        assert.equal(1, call(bare).count)
        assert.equal(2, call(opener).count)
    end)

    it("spread new sessions over all servers", function()
        local seen = {}
        for i = 1, 12 do
            seen[call((open { i % 2 == 0 and a.mcp or b.mcp })).server] = true
        end
        assert.same({ b1 = true, b2 = true, b3 = true }, seen)
    end)

    it("end a session everywhere when one is asked to", function()
        local through_a, session = open { a.mcp }
        local through_b = open({ b.mcp }, session)
        local third = open({ b.mcp }, session)
        call(through_a)
        call(through_b)
        clients:expect { op = "end", as = third }
        assert.is_nil(backend_of(session))
        for _, name in ipairs { through_a, through_b } do
            servers.wait_for(function()
                local answer = clients:ask {
                    op = "call", as = name, tool = "counter",
                }
                return not answer.ok and answer.error.code == 404
            end, 2.5, "404 from " .. name)
        end
        assert.equal("0", redis:cli("EXISTS mooring:session:" .. session))
    end)

    it("answer 404 to an unknown session, without asking a server", function()
        local before = requests()
        for _, each in ipairs { a, b } do
            local failure = call_fails((open({ each.mcp }, UNKNOWN)))
            assert.equal("StreamableHTTPError", failure.name)
            assert.equal(404, failure.code)
            assert.matches("Session not found", failure.message, 1, true)
        end
        assert.same(before, requests())
    end)

    it("pass on events of an answer while it is made", function()
        for _, each in ipairs { a, b } do
            local _, session = open { a.mcp }
            local answer = clients:expect {
                op = "call", as = open({ each.mcp }, session), tool = "stream",
                args = { events = 4, interval = 150 },
            }
            assert.equal(4, #answer.progress)
            -- The first is here before the third is made.
            assert.is_true(answer.progress[1] < 300, answer.progress[1])
            assert.is_true(answer.progress[4] >= 450, answer.progress[4])
        end
    end)

    it("carry what a server sends on the GET stream of another", function()
        local listener, session = open { a.mcp }
        local caller = open({ b.mcp }, session)
        local heard
        servers.wait_for(function() -- the client opens its stream in its time
            call(caller, "notify", { text = "ahoy" })
            heard = clients:expect { op = "received", as = listener }
            return #heard.notifications > 0
        end, 5, "a notification")
        assert.equal("ahoy", heard.notifications[1])
        assert.same({}, heard.errors)
    end)

    it("bring a client's answer to the server that asked", function()
        local name = open { a.mcp, b.mcp }
        assert.same({ "file:///harbour" }, call(name, "ask").roots)
        assert.same({ "file:///harbour" }, call(name, "ask").roots)
    end)

    it("send every request of a session to its server only", function()
        local _, session = open { a.mcp }
        local backend = assert(backend_of(session))
        local joined = open({ a.mcp, b.mcp }, session)
        local before = requests()
        for _ = 1, 10 do
            call(joined)
        end
        local posts = before[backend.ready.name]
        posts.POST = posts.POST + 10
        assert.same(before, requests())
    end)
end)
