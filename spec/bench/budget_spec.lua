-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Budgets: how many user instructions the hot paths may take, so that none gets
-- slower unnoticed. Counted by callgrind, since time says little on a machine
-- that others use; requests as a ratio to what the same nginx takes beside it.
-- Each has a twelfth to spare, for another compiler and other versions. What
-- `make bench` has measured last is in the README.

local counting = require "bench.counting"
local instructions = require "bench.instructions"
local servers = require "support.servers"

local PLAN = { calls = 2000, counted_requests = 1000, wrk_connections = 64, records = 20000 }

describe("instruction budgets:", function()
    teardown(function() servers.stop_all() end)

    local counts

    local function count(operation)
        counts = counts or instructions.run(PLAN)
        return assert(counts[operation], "no valgrind?")
    end

    local function of_request(kind, names)
        local by_name = {}
        for _, row in ipairs(counting.some(PLAN, kind, names)) do
            by_name[row.name] = row.instructions
        end
        return by_name
    end

    local function within(budget, taken)
        assert(taken <= budget, ("%.2f, the budget is %.2f"):format(taken, budget))
    end

    it("a hit in the core", function() within(70, count "mr_hit") end)
    it("a look under the lock, with the record", function() within(1050, count "find") end)
    it("an insert that evicts", function() within(2800, count "put_evicting") end)
    it("a removal", function() within(1640, count "remove") end)

    it("a request of a known session, of what a plain proxy_pass takes", function()
        local taken = of_request("calls", { "plain", "router_local", "router_redis" })
        within(1.58, taken.router_local / taken.plain)
        within(1.6, taken.router_redis / taken.plain)
    end)

    it("a miss, of an empty location and of nginx.redis", function()
        local taken = of_request("misses", { "nothing", "mooring", "nginx_redis" })
        within(2.4, taken.mooring / taken.nothing)
        within(0.52, taken.mooring / taken.nginx_redis)
    end)
end)
