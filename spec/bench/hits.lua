-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Look-ups of sessions that are there, and inserts into what is full, by size,
-- for every contender, in real nginx workers: one of them, and two at once on
-- two CPUs.

local channels = require "bench.channel"
local contenders = require "bench.contenders"
local stats = require "bench.stats"

local _M = {}

-- contender, name of its function
local LOOKUPS = {
    { "mooring", "resolve" },
    { "mooring", "load" },
    { "lrucache_ttl", "get" },
    { "lrucache", "get" },
    { "lrucache_sessions", "get_copy" },
    { "pureffi_ttl", "get" },
    { "pureffi", "get" },
    { "shdict", "get_decode" },
    { "table", "index" },
}
local INSERTS = { "mooring", "lrucache_ttl", "pureffi_ttl", "shdict" }
local PATTERNS = { "uniform", "zipf" }
local BLOCKS = 256 -- of look-ups, for what they allocate

-- Those whose modules are there (OpenResty before 1.11 had no pureffi).
local function is_there(lookup)
    local module = contenders[lookup[1]].module
    return not module or package.searchpath(module, package.path) ~= nil
end

local function those_there(list)
    local there = {}
    for _, lookup in ipairs(list) do
        if is_there(lookup) then
            there[#there + 1] = lookup
        else
            io.stderr:write(lookup[1], ": ", contenders[lookup[1]].module, " is not installed\n")
        end
    end
    return there
end

local function start_all(channel, size)
    local all = {}
    for _, lookup in ipairs(LOOKUPS) do
        local name = lookup[1]
        if not all[name] then
            local dict = contenders[name].dict
            all[name] = channels.contender(channel, name, size, dict and dict(size))
        end
    end
    for _, server in pairs(all) do
        server.answers = server:await()
    end
    return all
end

-- CPU and wall time of one look-up in ns, means of the workers that take part.
local function measure_once(plan, server, get, pattern, processes)
    local commands = {}
    for i = 1, processes do
        commands[i] = { what = "hits", get = get, pattern = pattern, seconds = plan.hit_seconds }
    end
    local answers, cpu, wall, fetched = server:ask(commands), 0, 0, 0
    for i = 1, processes do
        cpu, wall = cpu + answers[i].cpu_ns, wall + answers[i].ns
        fetched = fetched + answers[i].fetched
    end
    return cpu / processes, wall / processes, fetched
end

-- The row of a table in results that has these fields; made when there is none.
local function row_of(list, fields, lists)
    for _, row in ipairs(list) do
        local same = true
        for name, value in pairs(fields) do
            same = same and row[name] == value
        end
        if same then
            return row
        end
    end
    for _, name in ipairs(lists) do
        fields[name] = {}
    end
    list[#list + 1] = fields
    return fields
end

local function add(list, value)
    list[#list + 1] = value
end

local function lookup_rows(results, size, pattern, processes)
    local rows = {}
    for i, lookup in ipairs(LOOKUPS) do
        rows[i] = row_of(results.lookups, { contender = lookup[1], get = lookup[2], size = size,
            pattern = pattern, processes = processes }, { "ns", "wall_ns", "fetched" })
    end
    return rows
end

local function measure_lookups(plan, all, size, rounds, results)
    for processes = 1, 2 do
        for _, pattern in ipairs(PATTERNS) do
            local rows = lookup_rows(results, size, pattern, processes)
            for round = 0, rounds do -- round 0 warms up
                for _, row in ipairs(rows) do
                    local cpu, wall, fetched = measure_once(plan, all[row.contender], row.get,
                        pattern, processes)
                    if round > 0 then
                        add(row.ns, cpu)
                        add(row.wall_ns, wall)
                        add(row.fetched, fetched)
                    end
                end
            end
        end
    end
end

local function measure_compiled(all, size, results)
    for _, lookup in ipairs(LOOKUPS) do
        local answer = all[lookup[1]]:ask({ { what = "compiled", get = lookup[2],
            pattern = "uniform", blocks = BLOCKS } })[1]
        local row = row_of(results.compiled, { contender = lookup[1], get = lookup[2],
            size = size }, { "aborts", "bytes" })
        add(row.bytes, answer.bytes)
        for _, reason in ipairs(answer.aborts) do
            add(row.aborts, reason)
        end
    end
end

local function heap_now(server)
    return server:ask({ { what = "heap" } })[1].bytes
end

-- What the contents take of the heap of a worker, and what all of the look-ups
-- have added to it.
local function note_heaps(all, before, size, results)
    for name, server in pairs(all) do
        local row = row_of(results.heap, { contender = name, size = size },
            { "per_entry", "lean", "grown", "step_ns", "idle_step_ns" })
        add(row.per_entry, server.answers[1].heap / size)
        add(row.lean, (server.answers[1].lean or server.answers[1].heap) / size)
        add(row.grown, heap_now(server) - before[name])
        add(row.step_ns, server:ask({ { what = "collect" } })[1].max_cpu_ns)
        add(row.idle_step_ns, server.answers[1].idle_ns)
    end
end

local function measure_inserts(plan, all, size, rounds, results)
    for round = 1, rounds do
        for _, name in ipairs(INSERTS) do
            if all[name] then
                local answer = all[name]:ask({ { what = "insert", n = plan.inserts,
                    round = round } })[1]
                local row = row_of(results.inserts, { contender = name, size = size },
                    { "ns", "max_ns" })
                add(row.ns, answer.cpu_ns)
                add(row.max_ns, answer.max_cpu_ns)
            end
        end
    end
end

-- The orders and loops have to be there before the heap is looked at.
local function warm_up(plan, all)
    local before = {}
    for _, lookup in ipairs(LOOKUPS) do
        for _, pattern in ipairs(PATTERNS) do
            measure_once(plan, all[lookup[1]], lookup[2], pattern, 1)
        end
    end
    for name, server in pairs(all) do
        before[name] = heap_now(server)
    end
    return before
end

-- One set of processes. What the JIT compiler makes of the same code differs
-- from one process to the next, so there are several.
local function launch(plan, channel, size, rounds, results)
    local all = start_all(channel, size)
    local before = warm_up(plan, all)
    measure_lookups(plan, all, size, rounds, results)
    note_heaps(all, before, size, results)
    measure_compiled(all, size, results)
    measure_inserts(plan, all, size, rounds, results)
    for _, server in pairs(all) do
        server:stop()
    end
end

--- @return { lookups = { { contender =, get =, size =, pattern =, processes =,
--          ns = CPU time, wall_ns =, fetched = from the remote although they are
--          there }, ... },
--          inserts = { { contender =, size =, ns =, max_ns = }, ... },
--          compiled = { { contender =, get =, size =, aborts = reasons, bytes = a
--          look-up allocates }, ... },
--          heap = { { contender =, size =, per_entry = bytes, lean = the same where only
--          the leanest look-up was used, grown = bytes that
--          all of the look-ups have added, step_ns = longest step of the Lua GC,
--          idle_step_ns = the same before anything was looked up, where workers
--          share their contents },
--          ... } }; lists of a number for each
--          round of each launch
function _M.run(plan)
    LOOKUPS = those_there(LOOKUPS)
    _M.LOOKUPS = LOOKUPS
    local channel = channels.open()
    local results = { lookups = {}, inserts = {}, compiled = {}, heap = {} }
    for _, size in ipairs(plan.sizes) do
        local launches = size < 1e6 and plan.launches or plan.large_launches
        local rounds = plan.hit_rounds / launches
        for _ = 1, launches do
            launch(plan, channel, size, rounds, results)
        end
    end
    return results
end

--- The rounds of one row of lookups; nil: it was not measured.
function _M.ns(results, contender, get, size, pattern, processes)
    for _, row in ipairs(results and results.lookups or {}) do
        if row.contender == contender and row.get == get and row.size == size
           and row.pattern == pattern and row.processes == processes
        then
            return row.ns
        end
    end
end

--- The summary of a ratio of two contenders { name, get }; nil: not measured.
function _M.ratio(results, a, b, size, pattern, processes)
    local first = _M.ns(results, a[1], a[2], size, pattern, processes)
    local second = _M.ns(results, b[1], b[2], size, pattern, processes)
    return first and second and stats.ratio(first, second)
end

_M.LOOKUPS = LOOKUPS

return _M
