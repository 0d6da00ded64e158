-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The C core by itself: what c/bench/bench_cache.c measures at each size, a
-- process for each size and round.

local cjson = require "cjson"
local pin = require "bench.pin"
local servers = require "support.servers"

local _M = {}

local PROGRAM = servers.root .. "/build/bench/bench_cache"

local function run_once(size)
    local result = servers.run {
        timeout = 300,
        unpack(pin.command(pin.measured, { PROGRAM, ("%d"):format(size) })),
    }
    assert(result.code == 0, result.err)
    local lines = {}
    for line in result.out:gmatch("[^\n]+") do
        lines[#lines + 1] = cjson.decode(line)
    end
    return lines
end

local function up_to_a_million(sizes)
    local list = {}
    for _, size in ipairs(sizes) do
        list[#list + 1] = size <= 1e6 and size or nil
    end
    return list
end

--- @return { [what] = { { size =, mean =, mean_cpu =, max =, max_cpu = (lists
--          of a number for each round, ns) }, ... by size }, memory = ... }
function _M.run(plan)
    local series, by = {}, {}

    local function entry(line)
        local key = line.what .. " " .. line.size
        if not by[key] then
            by[key] = { size = line.size }
            series[line.what] = series[line.what] or {}
            table.insert(series[line.what], by[key])
        end
        return by[key]
    end

    for round = 1, plan.core_rounds do
        for _, size in ipairs(round == 1 and plan.core_sizes or up_to_a_million(plan.core_sizes)) do
            for _, line in ipairs(run_once(size)) do
                local into = entry(line)
                for name, value in pairs(line) do
                    if name ~= "what" and name ~= "size" then
                        into[name] = into[name] or {}
                        table.insert(into[name], value)
                    end
                end
            end
        end
    end
    return series
end

return _M
