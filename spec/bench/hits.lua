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

local function measure_lookups(plan, all, size, results)
    for processes = 1, 2 do
        for _, pattern in ipairs(PATTERNS) do
            local rows = {}
            for i, lookup in ipairs(LOOKUPS) do
                rows[i] = { contender = lookup[1], get = lookup[2], size = size,
                            pattern = pattern, processes = processes, ns = {}, wall_ns = {},
                            fetched = 0 }
                results.lookups[#results.lookups + 1] = rows[i]
            end
            for round = 0, plan.hit_rounds do -- round 0 warms up
                for _, row in ipairs(rows) do
                    local cpu, wall, fetched = measure_once(plan, all[row.contender], row.get,
                        pattern, processes)
                    row.ns[round], row.wall_ns[round] = cpu, wall
                    row.fetched = row.fetched + fetched
                end
            end
            for _, row in ipairs(rows) do
                row.ns[0], row.wall_ns[0] = nil, nil
            end
        end
    end
end

local function measure_compiled(all, size, results)
    for _, lookup in ipairs(LOOKUPS) do
        local answer = all[lookup[1]]:ask({ { what = "compiled", get = lookup[2],
            pattern = "uniform", blocks = BLOCKS } })[1]
        results.compiled[#results.compiled + 1] = {
            contender = lookup[1], get = lookup[2], size = size,
            aborts = answer.aborts, bytes = answer.bytes,
        }
    end
end

-- What the contents take of the heap of a worker, before and after all of the
-- look-ups.
local function measure_heap(all, size, results)
    for name, server in pairs(all) do
        results.heap[#results.heap + 1] = {
            contender = name, size = size,
            per_entry = server.answers[1].heap / size, flat = server.flat,
        }
    end
end

local function heap_growth(server, before)
    return server:ask({ { what = "heap" } })[1].bytes - before
end

local function measure_inserts(plan, all, size, results)
    local rows = {}
    for i, name in ipairs(INSERTS) do
        rows[i] = { contender = name, size = size, ns = {}, max_ns = {} }
        results.inserts[#results.inserts + 1] = rows[i]
    end
    for round = 1, plan.hit_rounds do
        for _, row in ipairs(rows) do
            local answer = all[row.contender]:ask({ { what = "insert", n = plan.inserts,
                round = round } })[1]
            row.ns[round], row.max_ns[round] = answer.cpu_ns, answer.max_cpu_ns
        end
    end
end

local function run_size(plan, channel, size, results)
    local all = start_all(channel, size)
    -- The orders and loops have to be there before the heap is looked at.
    for _, lookup in ipairs(LOOKUPS) do
        for _, pattern in ipairs(PATTERNS) do
            measure_once(plan, all[lookup[1]], lookup[2], pattern, 1)
        end
    end
    local before = {}
    for name, server in pairs(all) do
        before[name] = server:ask({ { what = "heap" } })[1].bytes
    end
    measure_lookups(plan, all, size, results)
    for name, server in pairs(all) do
        server.flat = heap_growth(server, before[name])
    end
    measure_heap(all, size, results)
    measure_compiled(all, size, results)
    measure_inserts(plan, all, size, results)
    for _, server in pairs(all) do
        server:stop()
    end
end

--- @return { lookups = { { contender =, get =, size =, pattern =, processes =,
--          ns = a number for each round, wall_ns =, fetched = from the remote
--          although they are there }, ... },
--          inserts = { { contender =, size =, ns =, max_ns = }, ... },
--          compiled = { { contender =, get =, size =, aborts = array of
--          reasons, bytes = a look-up allocates }, ... },
--          heap = { { contender =, size =, per_entry = bytes, flat = bytes that
--          all of the look-ups have added }, ... } }
function _M.run(plan)
    local channel = channels.open()
    local results = { lookups = {}, inserts = {}, compiled = {}, heap = {} }
    for _, size in ipairs(plan.sizes) do
        run_size(plan, channel, size, results)
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
