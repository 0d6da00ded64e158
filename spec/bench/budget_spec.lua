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

    -- What a worker does each second is shared by the fewer requests, the busier
    -- the machine is: that only ever adds, so the least of three counts tells.
    local function within_once(budgets, kind, names)
        local over
        for _ = 1, 3 do
            local taken = of_request(kind, names)
            over = nil
            for _, budget in ipairs(budgets) do
                local most, name, other = budget[1], budget[2], budget[3]
                local ratio = taken[name] / taken[other]
                if ratio > most then
                    over = ("%s / %s: %.2f, the budget is %.2f"):format(name, other, ratio, most)
                end
            end
            if not over then
                return
            end
        end
        error(over, 0)
    end

    it("a hit in the core", function() within(70, count "mr_hit") end)
    it("a look under the lock, with the record", function() within(1050, count "find") end)
    it("an insert that evicts", function() within(2800, count "put_evicting") end)
    it("a removal", function() within(1640, count "remove") end)

    it("a request of a known session, of what a plain proxy_pass takes", function()
        within_once({ { 1.6, "router_local", "plain" }, { 1.62, "router_redis", "plain" } },
            "calls", { "plain", "router_local", "router_redis" })
    end)

    it("a miss, of an empty location and of nginx.redis", function()
        within_once({ { 2.4, "mooring", "nothing" }, { 0.52, "mooring", "nginx_redis" } },
            "misses", { "nothing", "mooring", "nginx_redis" })
    end)
end)
