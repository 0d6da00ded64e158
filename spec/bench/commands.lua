-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What Redis is asked for while sessions are in use: its own counts of commands
-- (INFO commandstats) during requests of warm sessions, and during as long a
-- time without any, which are the beacons of the one instance.

local farms = require "bench.farm"
local load = require "bench.load"
local servers = require "support.servers"

local _M = {}

-- Ours, not the router's.
local OWN = { info = true, ping = true }

local function count(redis)
    local total = 0
    for name, calls in pairs(redis:command_counts()) do
        if not OWN[name] then
            total = total + calls
        end
    end
    return total
end

-- Runs fn and returns commands and seconds it took, and what fn returned.
local function during(redis, fn)
    local before, from = count(redis), servers.now()
    local result = fn()
    return count(redis) - before, servers.now() - from, result
end

--- @return { idle_rate = commands a second without requests, busy_rate = with
--          requests, requests =, per_request = commands beyond the idle ones }
function _M.run(plan)
    local farm = farms.start()
    local target = { nginx = farm.router_redis, url = farm.router_redis.url .. "/mcp",
                     mode = "call", suffix = "ab" }
    load.once(plan, target, 1)
    local idle, idle_seconds = during(farm.redis, function() servers.nap(plan.idle_seconds) end)
    local busy, busy_seconds, result = during(farm.redis, function()
        return load.once(plan, target, plan.idle_seconds)
    end)
    local extra = busy - idle / idle_seconds * busy_seconds
    return {
        -- One fewer: what comes at even distances may be at both ends.
        idle_rate = (idle - 1) / idle_seconds,
        busy_rate = busy / busy_seconds,
        requests = result.requests,
        per_request = math.max(0, extra) / result.requests,
    }
end

return _M
