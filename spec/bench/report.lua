-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The tables that `make bench` prints.

local goals = require "bench.goals"
local hits = require "bench.hits"
local stats = require "bench.stats"

local format = string.format

local _M = {}

function _M.say(...)
    io.write(format(...), "\n")
    io.flush()
end

local say = _M.say

local function sorted_keys(t)
    local keys = {}
    for key in pairs(t) do
        keys[#keys + 1] = key
    end
    table.sort(keys)
    return keys
end

--- Where the numbers come from.
function _M.machine(m)
    say("%s%s, %d cores, %d GiB, %s, load %.2f", m.cpu, m.virtual and " (virtual)" or "", m.cores,
        m.memory_gib, m.kernel, m.load_before)
    local versions = {}
    for i, name in ipairs(sorted_keys(m.versions)) do
        versions[i] = name .. " " .. m.versions[name]
    end
    say("%s", table.concat(versions, ", "))
end

-- Nanoseconds with three digits.
local function ns(value)
    if value < 1e4 then
        return format(value < 100 and "%.1f ns" or "%.0f ns", value)
    elseif value < 1e6 then
        return format("%.1f us", value / 1e3)
    end
    return format("%.2f ms", value / 1e6)
end

local function spread(list, shown)
    local s = stats.summary(list)
    return format("%s [%s-%s]", shown(s.median), (shown(s.min):gsub(" %a+$", "")),
        (shown(s.max):gsub(" %a+$", "")))
end

local function sizes_of(list)
    local seen, sizes = {}, {}
    for _, entry in ipairs(list) do
        if not seen[entry.size] then
            seen[entry.size] = true
            sizes[#sizes + 1] = entry.size
        end
    end
    table.sort(sizes)
    return sizes
end

-- A table with a column for each size.
-- @param names array of row names
-- @param cell function(name, size) -> text or nil
local function by_size(title, sizes, names, cell)
    local line = format("\n%-38s", title)
    for _, size in ipairs(sizes) do
        line = line .. format("%24s", goals.size(size))
    end
    say("%s", line)
    for _, name in ipairs(names) do
        line = format("  %-36s", name)
        for _, size in ipairs(sizes) do
            line = line .. format("%24s", cell(name, size) or "-")
        end
        say("%s", line)
    end
end

local function lookups(results)
    local sizes, names, parts = sizes_of(results.lookups), {}, {}
    for i, lookup in ipairs(hits.LOOKUPS) do
        names[i] = lookup[1] .. " " .. lookup[2]
        parts[names[i]] = lookup
    end
    for processes = 1, 2 do
        for _, pattern in ipairs { "uniform", "zipf" } do
            by_size(format("look-up, %s, %s", pattern,
                processes == 1 and "one process" or "two processes"), sizes, names,
                function(name, size)
                    local list = hits.ns(results, parts[name][1], parts[name][2], size, pattern,
                        processes)
                    return list and spread(list, ns)
                end)
        end
    end
end

local function inserts(results)
    local names, by = {}, {}
    for _, entry in ipairs(results.inserts) do
        for _, kind in ipairs { "mean", "longest" } do
            local name = entry.contender .. ", " .. kind
            if not by[name] then
                by[name] = {}
                names[#names + 1] = name
            end
            by[name][entry.size] = kind == "mean" and entry.ns or entry.max_ns
        end
    end
    by_size("a new session into a full cache, Lua", sizes_of(results.inserts), names,
        function(name, size)
            return by[name][size] and spread(by[name][size], ns)
        end)
end

local function heaps(results)
    local names, by = {}, {}
    for _, entry in ipairs(results.heap) do
        if not by[entry.contender] then
            by[entry.contender] = {}
            names[#names + 1] = entry.contender
        end
        by[entry.contender][entry.size] = entry
    end
    table.sort(names)
    local sizes = sizes_of(results.heap)
    by_size("bytes of Lua heap an entry, a worker", sizes, names, function(name, size)
        local entry = by[name][size]
        if entry then
            local all, lean = stats.median(entry.per_entry), stats.median(entry.lean)
            return lean < all and format("%.0f (resolve: %.0f)", all, lean) or format("%.0f", all)
        end
    end)
    by_size("longest step of the Lua collector, CPU", sizes, names, function(name, size)
        return by[name][size] and spread(by[name][size].step_ns, ns)
    end)
    by_size("  the same in a worker yet unused", sizes, { "mooring", "shdict" },
        function(name, size)
            local entry = by[name] and by[name][size]
            return entry and spread(entry.idle_step_ns, ns)
        end)
end

local CORE = { "open", "insert", "hit", "find", "delete", "evict", "evict_first_after_touch",
               "evict_after_touch", "sweep", "sweep_after_touch", "expire" }

local function core(results)
    local names, kinds = {}, {}
    for _, what in ipairs(CORE) do
        for _, kind in ipairs { "mean_cpu", "max_cpu" } do
            local name = what .. (kind == "mean_cpu" and ", mean" or ", longest")
            names[#names + 1] = name
            kinds[name] = { what, kind }
        end
    end
    by_size("C core, CPU time", sizes_of(results.insert), names, function(name, size)
        local entry = goals.core_entry(results, kinds[name][1], size)
        return entry and spread(entry[kinds[name][2]], ns)
    end)
    say("  (sweep and expire: a step of up to 2048 slots)")
end

local function requests(title, rows)
    say("\n%-28s%28s%26s%12s%12s", title, "requests/s", "CPU of the worker", "had a CPU", "p99")
    for _, row in ipairs(rows) do
        say("  %-26s%28s%26s%10.0f %%%9.1f ms", row.name,
            spread(row.rate, function(v) return format("%.0f", v) end), spread(row.cpu_ns, ns),
            stats.median(row.busy) * 100, stats.median(row.p99_us) / 1000)
    end
end

local function churn(rows)
    say("\n%-28s%12s%14s%12s%12s%14s%30s", "sessions with churn", "requests/s", "CPU of worker",
        "had a CPU", "p99", "longest", "Lua heap: before, peak, after")
    for _, row in ipairs(rows) do
        say("  %-26s%12.0f%14s%10.0f %%%9.1f ms%11.1f ms%30s", format("%s, %d s",
            goals.size(row.sessions), row.seconds), row.rate, ns(row.cpu_ns), row.busy * 100,
            row.p99_us / 1000, row.max_us / 1000, format("%.1f, %.1f, %.1f MB",
            row.heap_before / 1e6, row.heap_peak / 1e6, row.heap_after / 1e6))
    end
end

local function sharing(rows)
    say("\n%-28s%28s%30s", "two workers, " .. goals.size(rows[1].size) .. ", wall time",
        "a look-up of the one", "of what the other one does")
    for _, row in ipairs(rows) do
        say("  %-10s %-15s%28s%30s", row.contender, row.other, spread(row.ns, ns),
            #row.other_ns > 0 and spread(row.other_ns, ns) or "-")
    end
end

local function instructions(counts)
    say("\ninstructions of a call (callgrind, 10 k entries)")
    for _, name in ipairs(sorted_keys(counts)) do
        say("  %-16s%8.0f", name, counts[name])
    end
end

local function counting(results)
    say("\nuser instructions of a request (callgrind)")
    for _, kind in ipairs { "calls", "initialize", "misses" } do
        for _, row in ipairs(results[kind] or {}) do
            say("  %-12s%-16s%10.0f", kind, row.name, row.instructions)
        end
    end
end

local function goal_table(rows)
    say("\n%-62s%10s  %-40s", "goal (DESIGN, section 10)", "", "measured")
    for _, row in ipairs(rows) do
        say("  %-60s%10s  %-40s%s", row.what, row.goal, row.measured, row.verdict)
    end
    say("  (~: the rounds do not agree on it. Median [least .. most] of the rounds.)")
end

--- The goals as a table for the README, with where the numbers come from.
-- @return Markdown
function _M.markdown(results)
    local m = results.machine
    local lines = {
        format("`make bench`%s, %s, commit %s: %s%s, %d cores, %d GiB, %s; load %.2f before, %.2f "
            .. "after.", results.plan.quick and " QUICK=1" or "", m.date, m.commit, m.cpu,
            m.virtual and " (virtual)" or "", m.cores, m.memory_gib, m.kernel, m.load_before,
            m.load_after),
        "",
        "| what | goal | median [least .. most] of the rounds | |",
        "|---|---|---|---|",
    }
    for _, row in ipairs(results.goals) do
        lines[#lines + 1] = format("| %s | %s | %s | %s |", row.what, row.goal, row.measured,
            row.verdict)
    end
    return table.concat(lines, "\n") .. "\n"
end

--- Prints everything there is.
-- @return the rows of bench.goals
function _M.all(results)
    if results.hits then
        lookups(results.hits)
        inserts(results.hits)
        heaps(results.hits)
    end
    if results.sharing then
        sharing(results.sharing)
    end
    if results.core then
        core(results.core)
    end
    if results.instructions and next(results.instructions) then
        instructions(results.instructions)
    end
    if results.counting and results.counting.calls then
        counting(results.counting)
    end
    if results.misses then
        requests("miss, 64 connections", results.misses)
    end
    if results.proxying then
        requests("tool call of a session", results.proxying.calls)
        requests("initialize", results.proxying.initialize)
    end
    if results.churn then
        churn(results.churn)
    end
    local rows = goals.rows(results)
    goal_table(rows)
    return rows
end

return _M
