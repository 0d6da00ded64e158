-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Many sessions that come and go, through a router over Redis with one worker:
-- of a hundred requests one opens a session, one ends one, and the others are
-- calls of any of those that are there. Every answer has to be a success: a
-- session that is called is known, and bound.

local farms = require "bench.farm"
local load = require "bench.load"
local servers = require "support.servers"

local _M = {}

-- Bytes in the heap of the worker's VM: before and after a full collection.
local function heap(nginx)
    local body = assert(servers.http(nginx.url .. "/heap")).body
    local before, after = body:match("^(%S+) (%S+)")
    return tonumber(before), tonumber(after)
end

local function measure(plan, sessions)
    local nginx = farms.with_sessions(sessions)
    local target = { nginx = nginx, url = nginx.url .. "/mcp", mode = "churn", suffix = sessions }
    local worker = nginx:worker_pids()[1]
    local _, bare = heap(nginx)
    local result = load.once(plan, target, plan.churn_seconds)
    local peak, after = heap(nginx)
    assert(nginx:worker_pids()[1] == worker, "the worker has died")
    servers.stop_all()
    return { sessions = sessions, seconds = plan.churn_seconds, rate = result.rate,
             requests = result.requests, cpu_ns = result.cpu_ns, busy = result.busy,
             p99_us = result.p99_us, max_us = result.max_us, heap_before = bare,
             heap_peak = peak, heap_after = after }
end

--- @return array of { sessions =, seconds =, requests =, rate =, cpu_ns = and
--          busy = of the worker, p99_us =, max_us =, heap_before =, heap_peak =,
--          heap_after = bytes of its Lua heap }
function _M.run(plan)
    local rows = {}
    for i, sessions in ipairs(plan.churn_sessions) do
        rows[i] = measure(plan, sessions)
    end
    return rows
end

return _M
