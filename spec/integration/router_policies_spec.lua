-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The built-in policies with the counts a router really has: those of all
-- workers of an nginx, and of two replicas.

local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, built-in policies", function()
    local a, b, c

    setup(function()
        a, b, c = proxy.backend("a"), proxy.backend("b"), proxy.backend("c")
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        for _, backend in ipairs { a, b, c } do
            backend:ask("reset")
        end
    end)

    local function start(policy, backends, storage)
        return proxy.start {
            backends = backends, workers = 4,
            options = ("policy = %s, storage = %q,"):format(policy, storage or "local"),
        }
    end

    -- Opens n sessions, each over a connection of its own, so that any worker
    -- may have it.
    -- @return how many each backend has got, ids of each
    local function open(web, n, headers)
        local count, ids = {}, {}
        for _ = 1, n do
            local id, answer = web:open { headers = headers }
            local name = answer.headers["x-served-by"]
            count[name] = (count[name] or 0) + 1
            ids[name] = ids[name] or {}
            table.insert(ids[name], id)
        end
        assert.is_nil(web:error_log():find("failed in", 1, true))
        return count, ids
    end

    it("least_sessions evens out sessions that all workers have opened", function()
        local web = start('"least_sessions"',
            { a, b, ("{ url = %q, weight = 2 }"):format(c.url) })
        assert.same({ a = 5, b = 5, c = 10 }, (open(web, 20)))
    end)

    it("least_sessions fills a backend that comes, and one that was emptied", function()
        local web = start('"least_sessions"', { a, b })
        local _, ids = open(web, 8)
        web:reload_with { backends = { a, b, c }, options = 'policy = "least_sessions",' }
        assert.same({ c = 4 }, (open(web, 4)))
        for _, id in ipairs(ids.b) do
            assert.equal(200, web:delete(id).status)
        end
        assert.same({ b = 4 }, (open(web, 4)))
    end)

    it("power_of_two avoids the backend that has more in flight", function()
        local web = start('"power_of_two"', { a, b })
        local id = servers.wait_for(function()
            local _, ids = open(web, 1)
            return ids.a and ids.a[1]
        end, 20, "a to get a session")
        local busy = {}
        for i = 1, 3 do
            busy[i] = web:stream { id = id }
            busy[i]:wait_for_head("HTTP/1.1 200")
        end
        assert.same({ b = 8 }, (open(web, 8)))
        for _, stream in ipairs(busy) do
            stream:stop()
        end
        servers.wait_for(function()
            return open(web, 1).a
        end, 20, "a to get sessions again")
    end)

    it("rendezvous sends a tenant to the same backend, also through a replica "
        .. "that knows nothing", function()
        local policy = 'require("resty.mooring.policy.rendezvous").new { header = "X-Tenant" }'
        local one, two = start(policy, { a, b, c }), start(policy, { c, a, b })
        for i = 1, 8 do
            local tenant = { ["X-Tenant"] = "tenant" .. i }
            local count = open(one, 2, tenant)
            local name, n = next(count)
            assert.equal(2, n)
            assert.same({ [name] = 1 }, (open(two, 1, tenant)))
        end
    end)

    it("rendezvous leaves requests without the value to round robin", function()
        local web = proxy.start { backends = { a, b }, options = [[
            policy = require("resty.mooring.policy.rendezvous").new { header = "X-Tenant" }, ]] }
        assert.same({ a = 4, b = 4 }, (open(web, 8)))
    end)

    it("stays as it was when a reload brings a policy that is wrong", function()
        local web = start('"round_robin"', { a, b })
        local id = web:open()
        local wrong = servers.tmpdir() .. "/wrong.lua"
        servers.write_file(wrong, "return {\n  rout = function() end,\n}\n")
        local path = web.dir .. "/nginx.conf"
        local conf, n = servers.read_file(path):gsub('"round_robin"', ("%q"):format(wrong))
        assert.equal(1, n)
        servers.write_file(path, conf)
        local workers = web:worker_pids()
        web:signal("HUP")
        servers.wait_for(function()
            return web:error_log():find(wrong .. ':2: "rout" is not a field', 1, true)
        end, 10, "the mistake in the log")
        assert.equal(200, web:call(id).status)
        assert.is_string((web:open()))
        assert.same(workers, web:worker_pids())
    end)
end)
