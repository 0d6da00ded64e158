-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Instructions an operation of the C core takes, counted by callgrind: a number
-- that is the same on every run and shows a change of a hundredth. None without
-- valgrind.

local servers = require "support.servers"

local _M = {}

local PROGRAM = servers.root .. "/build/bench/count_cache"
local OPERATIONS = { "mr_hit", "find", "put_evicting", "remove" }

local function count(operation, calls)
    local result = servers.run {
        "valgrind", "--tool=callgrind", "--toggle-collect=measured",
        "--callgrind-out-file=/dev/null", PROGRAM, operation, ("%d"):format(calls), timeout = 120,
    }
    local collected = result.err:match("Collected : (%d+)")
    assert(result.code == 0 and collected, result.err)
    return tonumber(collected) / calls
end

--- @return { [operation] = instructions of one call }
function _M.run(plan)
    if servers.run { "sh", "-c", "command -v valgrind" }.code ~= 0 then
        return {}
    end
    local around, counts = count("none", plan.calls), {}
    for _, operation in ipairs(OPERATIONS) do
        counts[operation] = count(operation, plan.calls) - around
    end
    return counts
end

return _M
