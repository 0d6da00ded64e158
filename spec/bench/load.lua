-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Requests from wrk against one worker of an nginx: how many a second, and what
-- one costs the worker. wrk runs on another CPU.

local pin = require "bench.pin"
local servers = require "support.servers"

local _M = {}

local SCRIPT = servers.root .. "/spec/bench/wrk.lua"

--- Has wrk send requests from the other CPU.
-- @param plan    bench.plan
-- @param target  { nginx =, url =, mode = and suffix = for wrk.lua }
-- @param seconds whole ones
-- @return { rate = requests a second, requests = (also none), p99_us =,
--         max_us = }; raises when a single answer was not 2xx
function _M.send(plan, target, seconds)
    local result = servers.run {
        timeout = seconds + 30,
        unpack(pin.command(pin.other, {
            "wrk", "-t1", "-c" .. plan.wrk_connections, "-d" .. seconds .. "s", "--timeout", "20s",
            "-s", SCRIPT, target.url, "--", target.mode or "get", target.suffix or "",
        })),
    }
    local requests, us, p99, longest, failed = result.out:match(
        "RESULT (%d+) (%d+) (%d+) (%d+) (%d+)")
    assert(result.code == 0 and requests, result.out .. result.err)
    requests = tonumber(requests)
    if tonumber(failed) > 0 then
        error(("%s: of %d requests %s failed\n%s\n%s"):format(target.url, requests, failed,
            result.out, target.nginx:error_log():sub(-2000)), 0)
    end
    return { rate = requests / tonumber(us) * 1e6, requests = requests, p99_us = tonumber(p99),
             max_us = tonumber(longest) }
end

--- As send, to an nginx with one worker.
-- @return what send returns, and cpu_ns = of the worker for one request, busy =
--         share of its CPU the worker had
function _M.once(plan, target, seconds)
    local worker = target.nginx:worker_pids()[1]
    local cpu, from = pin.cpu_ns(worker), servers.now()
    local result = _M.send(plan, target, seconds)
    assert(result.requests > 0, target.url .. " has not answered")
    cpu = pin.cpu_ns(worker) - cpu
    result.cpu_ns = cpu / result.requests
    result.busy = cpu / (servers.now() - from) / 1e9
    return result
end

--- Targets take turns. Each is warmed up for a second before.
-- @param targets array of targets, each with a name, and if it wants to check
--        more than the answers, with before() and after(result) of each run
-- @return array of { name =, rate =, cpu_ns =, busy =, p99_us = } (lists of a
--         number for each round)
function _M.compare(plan, targets)
    local rows = {}
    for i, target in ipairs(targets) do
        rows[i] = { name = target.name, rate = {}, cpu_ns = {}, busy = {}, p99_us = {} }
        _M.once(plan, target, 1)
    end
    for round = 1, plan.wrk_rounds do
        for i, target in ipairs(targets) do
            if target.before then
                target.before()
            end
            local result = _M.once(plan, target, plan.wrk_seconds)
            if target.after then
                target.after(result)
            end
            for name, list in pairs(rows[i]) do
                if name ~= "name" then
                    list[round] = result[name]
                end
            end
        end
    end
    return rows
end

--- The row of a name, or nil.
function _M.row(rows, name)
    for _, row in ipairs(rows or {}) do
        if row.name == name then
            return row
        end
    end
end

return _M
