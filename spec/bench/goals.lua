-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The numbers DESIGN (section 10) wants, one row each: what was measured of it,
-- and whether that is enough. What was not measured stays in the table.

local hits = require "bench.hits"
local load = require "bench.load"
local stats = require "bench.stats"

local format = string.format

local _M = {}

local RESOLVE = { "mooring", "resolve" }
local LRUCACHE = { "lrucache_ttl", "get" }
local SHDICT = { "shdict", "get_decode" }
local SMALL, MILLION = { 1000, 10000, 100000 }, 1000000
local FLAT = 65536 -- bytes a heap may differ by after millions of look-ups

--- 1000 as "1 k".
function _M.size(n)
    return n >= 1e6 and format("%g M", n / 1e6) or format("%g k", n / 1e3)
end

-- What was measured against a bound.
-- @param value { median =, min =, max = }, or nil: not measured
-- @param compare "<=" or ">="
-- @param shown format of a number
-- @param judged the one of value's fields that counts; default "median"
local function row(what, compare, bound, value, shown, judged)
    local made = { what = what, goal = compare .. " " .. format(shown, bound) }
    if not value then
        made.measured, made.verdict = "not measured", "?"
        return made
    end
    local function holds(number)
        if compare == "<=" then
            return number <= bound
        end
        return number >= bound
    end
    made.value = value
    made.measured = format(shown, value.median)
    if value.min ~= value.max then
        made.measured = made.measured .. format("  [" .. shown .. " .. " .. shown .. "]",
            value.min, value.max)
    end
    made.met = holds(value[judged or "median"])
    made.verdict = made.met and "met" or "MISSED"
    if not judged and holds(value.min) ~= holds(value.max) then
        made.verdict = made.verdict .. " ~"
    end
    return made
end

local function one(number)
    return number and { median = number, min = number, max = number }
end

------------------------------------------------------------------- look-ups ---

local function hit_rows(rows, results)
    for processes = 1, 2 do
        for _, size in ipairs(SMALL) do
            rows[#rows + 1] = row(format("hit: time / lrucache with ttl, %s, %d process%s",
                _M.size(size), processes, processes > 1 and "es" or ""), "<=", 0.8,
                hits.ratio(results, RESOLVE, LRUCACHE, size, "uniform", processes), "%.2f")
        end
    end
    for _, size in ipairs { 1000, 10000, 100000, MILLION } do
        rows[#rows + 1] = row(format("hit: times as fast as shared.DICT get + decode, %s",
            _M.size(size)), ">=", 20,
            hits.ratio(results, SHDICT, RESOLVE, size, "uniform", 1), "%.0f")
    end
end

-- The worst of all sizes.
local function worst(list, contender, get, value)
    local most
    for _, entry in ipairs(list or {}) do
        if entry.contender == contender and entry.get == get then
            most = math.max(most or value(entry), value(entry))
        end
    end
    return one(most)
end

local function compiled_rows(rows, results)
    local compiled, heap = results and results.compiled, results and results.heap
    rows[#rows + 1] = row("hit: bytes allocated", "<=", 0,
        worst(compiled, "mooring", "resolve", function(entry)
            return math.floor(stats.summary(entry.bytes).max * 10 + 0.5) / 10
        end), "%g")
    rows[#rows + 1] = row("hit: trace aborts", "<=", 0,
        worst(compiled, "mooring", "resolve", function(entry) return #entry.aborts end), "%d")
    rows[#rows + 1] = row("hit: bytes the Lua heap grows by in all look-ups", "<=", FLAT,
        worst(heap, "mooring", nil, function(entry)
            return stats.summary(entry.grown).max
        end), "%d")
    rows[#rows + 1] = row("a step of the Lua collector, empty memo: longest, us of CPU", "<=", 1000,
        worst(heap, "mooring", nil, function(entry)
            return stats.summary(entry.idle_step_ns).max / 1000
        end), "%.0f")
end

-- How much slower a million makes a hit, of that of the other contender: as a
-- factor, which says more against who is quicker at the start, and in time.
local function growth(results, pattern)
    local function of(contender, size)
        return hits.ns(results, contender[1], contender[2], size, pattern, 1)
    end
    local a, b = of(RESOLVE, 1000), of(RESOLVE, MILLION)
    local c, d = of(LRUCACHE, 1000), of(LRUCACHE, MILLION)
    if not (a and b and c and d) then
        return nil
    end
    local factors, added = {}, {}
    for i = 1, #a do
        factors[i] = (b[i] / a[i]) / (d[i] / c[i])
        added[i] = (b[i] - a[i]) / (d[i] - c[i])
    end
    return stats.summary(factors), stats.summary(added)
end

------------------------------------------------------------------- requests ---

local function rates(rows, name, other)
    local a, b = load.row(rows, name), load.row(rows, other)
    return a and b and stats.ratio(a.rate, b.rate)
end

-- The same ratio of requests a worker could serve in a second of CPU time: what
-- the first one would be if nothing but the worker were ever waited for.
local function by_cpu(made, rows, name, other)
    local a, b = load.row(rows, name), load.row(rows, other)
    if a and b then
        made.by_cpu = stats.ratio(b.cpu_ns, a.cpu_ns)
        made.measured = made.measured .. format("  by CPU %.2f", made.by_cpu.median)
    end
    return made
end

local function rate_row(what, bound, list, name, other)
    return by_cpu(row(what, ">=", bound, rates(list, name, other), "%.2f"), list, name, other)
end

local function request_rows(rows, results)
    local misses, proxying = results.misses, results.proxying and results.proxying.calls
    rows[#rows + 1] = rate_row("miss: requests/s / nginx.redis with keepalive", 2, misses,
        "mooring", "nginx_redis")
    rows[#rows + 1] = rate_row("miss: requests/s / a location that does nothing", 0.6, misses,
        "mooring", "nothing")
    for _, storage in ipairs { "redis", "local" } do
        rows[#rows + 1] = rate_row("sticky request, " .. storage
            .. ": requests/s / plain proxy_pass", 0.9, proxying, "router_" .. storage, "plain")
    end
    local commands = results.commands
    rows[#rows + 1] = row("Redis commands per sticky request", "<=", 0,
        one(commands and math.floor(commands.per_request * 1000 + 0.5) / 1000), "%g")
    rows[#rows + 1] = row("Redis commands a second of an idle instance", "<=", 2,
        one(commands and math.floor(commands.idle_rate * 10 + 0.5) / 10), "%g")
end

----------------------------------------------------------------------- core ---

local function core_entry(core, what, size)
    for _, entry in ipairs(core and core[what] or {}) do
        if entry.size == size then
            return entry
        end
    end
end

-- The longest of several kinds, round by round, in us of CPU.
local function longest_of(core, size, kinds)
    local list = {}
    for _, kind in ipairs(kinds) do
        local entry = core_entry(core, kind, size)
        for i, ns in ipairs(entry and entry.max_cpu or {}) do
            list[i] = math.max(list[i] or 0, ns / 1000)
        end
    end
    return stats.summary(list)
end

local function core_rows(rows, core)
    local memory = core_entry(core, "memory", MILLION)
    rows[#rows + 1] = row("bytes an entry takes, id 36 + record 150, 1 M", "<=", 320,
        memory and stats.ratio(memory.resident, memory.entries), "%.1f")
    local evict = core_entry(core, "evict", MILLION)
    rows[#rows + 1] = row("insert with eviction at 1 M: mean, us of CPU", "<=", 3,
        evict and stats.ratio(evict.mean_cpu, { 1000, 1000, 1000, 1000, 1000 }), "%.2f")
    for _, size in ipairs { MILLION, 4 * MILLION } do
        rows[#rows + 1] = row("insert with eviction at " .. _M.size(size) .. ": longest, us of CPU",
            "<=", 1000, longest_of(core, size, { "evict", "evict_first_after_touch",
            "evict_after_touch" }), "%.0f", "max")
        rows[#rows + 1] = row("a step of a sweep at " .. _M.size(size) .. ": longest, us of CPU",
            "<=", 1000, longest_of(core, size, { "sweep", "sweep_after_touch", "expire" }),
            "%.0f", "max")
    end
end

--- @param results of all benchmarks
-- @return array of { what =, goal =, measured =, verdict = (all text),
--         met = boolean, value = { median =, min =, max = } }
function _M.rows(results)
    local rows = {}
    hit_rows(rows, results.hits)
    compiled_rows(rows, results.hits)
    for _, pattern in ipairs { "uniform", "zipf" } do
        local factor, added = growth(results.hits, pattern)
        rows[#rows + 1] = row("hit: ns that 1 k to 1 M adds / that of lrucache, " .. pattern, "<=",
            1, added, "%.2f")
        rows[#rows + 1] = row("hit: factor 1 k to 1 M / that of lrucache, " .. pattern, "<=", 1,
            factor, "%.2f")
    end
    request_rows(rows, results)
    core_rows(rows, results.core)
    return rows
end

_M.core_entry = core_entry

return _M
