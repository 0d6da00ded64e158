-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Kinds of MCP servers, and what happens to sessions when servers misbehave.

local replica = require "support.replica"
local servers = require "support.servers"

describe("a replica", function()
    local clients, redis

    setup(function()
        redis = servers.redis()
        clients = replica.clients()
    end)

    teardown(function() servers.stop_all() end)

    before_each(function() redis:cli("FLUSHALL") end)

    local function start(backends, options)
        return replica.start {
            backends = backends, storage = redis.url, options = options,
        }
    end

    local function open(name, ...)
        return clients:expect { op = "open", as = name, urls = { ... } }.session
    end

    local function call(name)
        return clients:ask { op = "call", as = name, tool = "counter" }
    end

    describe("in front of servers that answer with JSON", function()
        it("keeps sessions to their server", function()
            local web = start(replica.backends(2, "--json"))
            open("json", web.mcp)
            local first = call("json").value
            assert.same({ count = 2, server = first.server }, call("json").value)
        end)
    end)

    describe("in front of servers without sessions", function()
        it("lets requests through unpinned, and binds nothing", function()
            local web = start(replica.backends(2, "--stateless"))
            assert.is_nil(open("free", web.mcp))
            assert.equal(1, call("free").value.count)
            assert.equal(1, call("free").value.count)
            assert.equal("", redis:cli("KEYS mooring:session:*"))
        end)
    end)

    describe("in front of a server that does not support DELETE", function()
        it("passes its 405 on and keeps the session", function()
            local web = start(replica.backends(1, "--no-delete"))
            local session = open("lasting", web.mcp)
            local answer = assert(servers.http(web.mcp, {
                method = "DELETE", headers = { ["Mcp-Session-Id"] = session },
            }))
            assert.equal(405, answer.status)
            assert.equal(1, call("lasting").value.count)
        end)
    end)

    describe("when a server has lost its sessions", function()
        it("passes the 404 on and forgets the binding", function()
            local backends = replica.backends(1)
            local web = start(backends)
            local session = open("lost", web.mcp)
            assert.equal("1", redis:cli("EXISTS mooring:session:" .. session))
            assert(servers.http(backends[1].url .. "/admin/forget",
                { method = "POST" }))
            assert.equal(404, call("lost").error.code)
            servers.wait_for(function()
                return redis:cli("EXISTS mooring:session:" .. session) == "0"
            end, 2, "the binding to be forgotten")
            assert.equal(404, call("lost").error.code)
        end)
    end)

    describe("when a server is gone", function()
        it("tells its clients to start anew, and they can", function()
            local backends = replica.backends(2)
            local web = start(backends)
            local session = open("orphan", web.mcp)
            local server = call("orphan").value.server
            backends[server == "b1" and 1 or 2]:kill()
            assert.equal(404, call("orphan").error.code)
            assert.equal("0", redis:cli("EXISTS mooring:session:" .. session))
            for i = 1, 4 do
                open("again" .. i, web.mcp)
                assert.not_equal(server, call("again" .. i).value.server)
            end
        end)
    end)

    describe("when a server closes idle connections early", function()
        it("loses no session", function()
            local backends = replica.backends(2, "--keep-alive-timeout=100")
            local web = start(backends)
            open("patient", web.mcp)
            open("hasty", web.mcp)
            local count = 0
            -- Around the time at which the server closes, where a request may
            -- meet a connection that is being closed: that one may fail (a
            -- POST is not repeated), but never with 404.
            for pause = 90, 120, 2 do
                servers.nap(pause / 1000)
                local answer = call("patient")
                if answer.ok then
                    assert.is_true(answer.value.count > count)
                    count = answer.value.count
                else
                    assert.equal(502, answer.error.code)
                end
            end
            assert.is_true(count >= 8)
            servers.nap(0.2)
            assert.equal(1, call("hasty").value.count)
        end)
    end)

    describe("when Redis is gone", function()
        it("refuses new sessions before it asks a server", function()
            local backends = replica.backends(1)
            local web = start(backends)
            open("early", web.mcp)
            redis:stop()
            finally(function() redis:start() end)
            local before = replica.inside(backends[1])
            local answer = clients:ask {
                op = "open", as = "late", urls = { web.mcp },
            }
            assert.equal(503, answer.error.code)
            assert.same(before, replica.inside(backends[1]))
        end)
    end)

    describe("when Redis is frozen", function()
        it("refuses new sessions and leaves none behind", function()
            local backends = replica.backends(1)
            local web = start(backends)
            local session = open("early", web.mcp)
            redis:pause()
            finally(function() redis:resume() end)
            local answer = clients:ask {
                op = "open", as = "late", urls = { web.mcp },
            }
            assert.equal(503, answer.error.code)
            servers.wait_for(function()
                local sessions = replica.inside(backends[1]).sessions
                return #sessions == 1 and sessions[1] == session
            end, 5, "the session that could not be bound to be ended")
        end)
    end)
end)
