-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- User instructions that a request takes of nginx, counted by callgrind: what
-- does not depend on who else uses the machine (to some hundredths: what is
-- compiled, and how many requests are served in one turn of the event loop,
-- differ). The system calls of a request are the larger part of its time and
-- are not in these numbers. None without valgrind.

local farms = require "bench.farm"
local load = require "bench.load"
local misses = require "bench.misses"
local proxying = require "bench.proxying"
local servers = require "support.servers"

local _M = {}

local UNDER = { "valgrind", "--tool=callgrind", "--instr-atstart=no",
                "--callgrind-out-file=/dev/null" }

local SECONDS = 2 -- of a run of wrk

-- Runs wrk until there were `plan.counted_requests`, and returns how many.
local function send_all(plan, target)
    local requests, runs = 0, 0
    while requests < plan.counted_requests do
        requests = requests + load.send(plan, target, SECONDS).requests
        runs = runs + 1
        assert(runs < 60, target.url .. " does not answer")
    end
    return requests
end

local function control(nginx, how)
    local result = servers.run { "callgrind_control", "-i", how, nginx.pid, timeout = 60 }
    assert(result.code == 0, result.out .. result.err)
end

-- What will be compiled is compiled in the first requests, which are not counted.
local function count(plan, target)
    send_all(plan, target)
    control(target.nginx, "on")
    local requests = send_all(plan, target)
    control(target.nginx, "off") -- before the Lua VM is taken down
    target.nginx:stop("TERM", 60)
    local collected = target.nginx:error_log():match("Collected : (%d+)")
    assert(collected, target.nginx:error_log())
    return { name = target.name, requests = requests,
             instructions = tonumber(collected) / requests }
end

local KINDS = {
    calls = function(_, names) return proxying.calls(farms.start(UNDER, names)) end,
    initialize = function(_, names) return proxying.openings(farms.start(UNDER, names)) end,
    misses = function(plan, names) return misses.start(plan, UNDER, names) end,
}

--- Requests of one kind.
-- @param kind  of KINDS
-- @param names array of those to measure, or nil: all
-- @return { { name =, instructions = of a request, requests = counted }, ... }
function _M.some(plan, kind, names)
    local rows = {}
    for i, target in ipairs(KINDS[kind](plan, names)) do
        rows[i] = count(plan, target)
    end
    servers.stop_all()
    return rows
end

--- @return { calls =, initialize =, misses = }, each as `some` returns it
function _M.run(plan)
    if servers.run { "sh", "-c", "command -v valgrind" }.code ~= 0 then
        return {}
    end
    local result = {}
    for kind in pairs(KINDS) do
        result[kind] = _M.some(plan, kind)
    end
    return result
end

return _M
