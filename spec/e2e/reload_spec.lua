-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What an operator does to a replica with SIGHUP while clients use it.

local replica = require "support.replica"
local servers = require "support.servers"

-- A client must not reuse a connection that the old worker is just closing.
local NO_REUSE = "keepalive_timeout 0;"

describe("a reload", function()
    local backends, redis, a, b, clients
    local names = 0

    setup(function()
        redis = servers.redis()
        backends = replica.backends(3)
        clients = replica.clients()
    end)

    before_each(function()
        a = replica.start {
            backends = backends, storage = redis.url, http = NO_REUSE,
        }
        b = replica.start {
            backends = backends, storage = redis.url, http = NO_REUSE,
        }
    end)

    after_each(function()
        a:stop()
        b:stop()
    end)

    teardown(function() servers.stop_all() end)

    local function open(...)
        names = names + 1
        local name = "s" .. names
        clients:expect { op = "open", as = name, urls = { ... } }
        return name
    end

    local function call(name)
        return clients:expect { op = "call", as = name, tool = "counter" }.value
    end

    it("loses no call under traffic", function()
        local list = {}
        for i = 1, 6 do
            list[i] = open(a.mcp, b.mcp)
        end
        clients:expect { op = "traffic_start", names = list }
        local function calls()
            return clients:expect { op = "traffic_calls" }.calls
        end
        for _ = 1, 3 do
            local before = calls()
            a:reload()
            servers.wait_for(function() return calls() > before + 30 end, 10,
                "traffic to go on")
        end
        local result = clients:expect { op = "traffic_stop" }
        assert.same({}, result.failures)
        assert.is_true(result.calls > 90)
    end)

    it("keeps open streams until their end", function()
        local name = open(a.mcp)
        local server = call(name).server
        local finish = clients:begin {
            op = "call", as = name, tool = "stream",
            args = { events = 15, interval = 100 },
        }
        a:reload()
        assert.equal(2, #a:worker_pids())
        local answer = finish()
        assert.is_true(answer.ok)
        assert.equal(15, #answer.progress)
        assert.equal(server, answer.value.server)
    end)

    it("lets old workers go when they have nothing left to do", function()
        -- A client of its own, whose end closes all its connections.
        local client = replica.clients()
        client:expect { op = "open", as = "leaver", urls = { a.mcp } }
        client:expect { op = "call", as = "leaver", tool = "counter" }
        client:stop()
        local old = a:worker_pids()
        a:reload()
        assert.not_same(old, a:worker_pids())
        servers.wait_for(function() return #a:worker_pids(true) == 0 end, 2,
            "the old workers to exit")
    end)

    it("keeps sessions that are in the replica's memory only", function()
        local alone = replica.start {
            backends = backends, storage = "local", http = NO_REUSE,
        }
        finally(function() alone:stop() end)
        local name = open(alone.mcp)
        local server = call(name).server
        for count = 2, 4 do
            alone:reload()
            assert.same({ count = count, server = server }, call(name))
        end
    end)

    it("keeps the local tier warm", function()
        local name = open(a.mcp)
        -- The tier believes a copy for local_ttl only, so a slow run may have
        -- to read again; a cold tier reads again every time.
        local reads
        servers.wait_for(function()
            call(name)
            local before = redis:command_counts().get or 0
            a:reload()
            call(name)
            reads = (redis:command_counts().get or 0) - before
            return reads == 0
        end, 10, "a call after a reload that reads nothing from Redis")
        assert.equal(0, reads)
    end)

    it("costs no session when a server leaves the list", function()
        local held, where = {}, {}
        for i = 1, 6 do
            held[i] = open(a.mcp, b.mcp)
            where[i] = call(held[i]).server
        end
        a:change { backends = { backends[1], backends[2] } }
        for round = 2, 3 do
            for i, name in ipairs(held) do
                assert.same({ count = round, server = where[i] }, call(name))
            end
        end
        for _ = 1, 6 do
            assert.not_equal("b3", call(open(a.mcp)).server)
        end
    end)

    it("brings new servers into use", function()
        a:change { backends = { backends[1] } }
        local fresh = replica.backends(1)[1]
        local old = open(a.mcp)
        assert.equal("b1", call(old).server)
        a:change { backends = { fresh } }
        assert.equal(2, call(old).count)
        local name = open(a.mcp)
        call(name)
        assert.equal(1, #replica.inside(fresh).sessions)
    end)
end)
