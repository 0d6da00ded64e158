-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Do several runs of `make bench` say the same? spec/bench/run calls it with
-- RUNS=3, on the results of each run, in their order:
--
--     luajit spec/bench/agree.lua 1.json 2.json 3.json > agree.md
--
-- Two runs agree on a number when the ranges of their rounds, [least .. most],
-- overlap, or their medians are within a twentieth of each other; on one that is
-- the extreme of a whole run, and so has no rounds, when both meet the goal or
-- neither does. All of them agree when each two do. A row for each number that
-- was measured: the medians, and "yes" or "NO".

local cjson = require "cjson"

local format = string.format

local CLOSE = 0.05

local function read(path)
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    return cjson.decode(text)
end

local function same(first, second)
    local a, b = first.value, second.value
    if a.min == a.max and b.min == b.max then
        return first.met == second.met
    elseif a.min <= b.max and b.min <= a.max then
        return true
    end
    return math.abs(a.median - b.median) <= CLOSE * math.max(math.abs(a.median), math.abs(b.median))
end

local function all_agree(rows)
    for i = 1, #rows do
        for j = i + 1, #rows do
            if not same(rows[i], rows[j]) then
                return false
            end
        end
    end
    return true
end

-- "0.72" of "0.72  [0.71 .. 0.73]".
local function median_of(row)
    return row.measured:match("^%S+")
end

local function compare(runs)
    local lines, disagreed = {}, 0
    for i, first in ipairs(runs[1].goals) do
        local rows, medians = {}, {}
        for n, run in ipairs(runs) do
            local row = run.goals[i]
            assert(row.what == first.what, "runs of different benchmarks")
            rows[#rows + 1] = row.value and row
            medians[n] = row.value and median_of(row) or "?"
        end
        if rows[1] then
            local agreed = #rows == #runs and all_agree(rows)
            disagreed = disagreed + (agreed and 0 or 1)
            lines[#lines + 1] = format("| %s | %s | %s | %s |", first.what, first.goal,
                table.concat(medians, ", "), agreed and "yes" or "NO")
        end
    end
    return lines, disagreed
end

local function main(paths)
    local runs = {}
    for i, path in ipairs(paths) do
        runs[i] = read(path)
    end
    assert(runs[2], "results of at least two runs are needed")
    local lines, disagreed = compare(runs)
    print(format("%d runs, one after the other, of which the last is above; %d of %d numbers agree "
        .. "within their spread:", #runs, #lines - disagreed, #lines))
    print("\n| what | goal | medians of the runs | agree |\n|---|---|---|---|")
    print(table.concat(lines, "\n"))
end

main(arg)
