-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- One contender in the workers of an nginx of its own. Commands come from a
-- list in Redis and answers go to another one (bench.channel), so that a worker
-- that is not measuring sleeps.
--
--     init_by_lua         require("bench.worker").init(contender, size)
--     init_worker_by_lua  require("bench.worker").start(socket, queue)

local binding = require "resty.mooring.ffi"
local cjson = require "cjson"
local contenders = require "bench.contenders"
local dataset = require "bench.dataset"

local BLOCK = dataset.BLOCK
local clock = binding.C.mr_now -- ms
local ffi = binding.ffi

ffi.cdef [[
int mooring_bench_gettime(int clock, int64_t *spec) __asm__("clock_gettime");
]]

local CLOCK_THREAD_CPUTIME = 3
local timespec = ffi.new("int64_t[2]")

-- Milliseconds this thread has run so far.
local function cpu_clock()
    ffi.C.mooring_bench_gettime(CLOCK_THREAD_CPUTIME, timespec)
    return tonumber(timespec[0]) * 1e3 + tonumber(timespec[1]) / 1e6
end

local _M = {}

local contender, size
local cache, ids
local orders, loops, positions = {}, {}, {}

-- A loop of its own for each function and order: traces are compiled for the
-- one function that is called in them.
local LOOP = [[
    local get, cache, ids, urls = ...
    return function(from, to)
        local wrong = 0
        for i = from, to do
            if get(cache, ids[i]) ~= urls[i] then
                wrong = wrong + 1
            end
        end
        return wrong
    end]]

local function loop_of(get, pattern)
    local name = get .. " " .. pattern
    if not loops[name] then
        local order = orders[pattern] or dataset.order(ids, pattern, 2)
        orders[pattern] = order
        loops[name] = loadstring(LOOP, "=" .. name)(contender.gets[get], cache, order.ids,
            order.urls)
        positions[name] = 1
    end
    return loops[name], name, orders[pattern].n
end

-- The next `count` blocks of look-ups.
-- @return number of wrong answers
local function look_up(get, pattern, count)
    local loop, name, n = loop_of(get, pattern)
    local wrong, at = 0, positions[name]
    for _ = 1, count do
        wrong = wrong + loop(at, at + BLOCK - 1)
        at = at + BLOCK
        if at > n then
            at = 1
        end
    end
    positions[name] = at
    return wrong
end

local function wait_until(start)
    while clock() < start do end
end

------------------------------------------------------------------ commands ---

local commands = {}

-- Repeats fn, which does something `step` times and returns the number of wrong
-- answers, for so many seconds.
-- @return { ns = and cpu_ns = of one time, wrong =, fetched = how often the
--         remote was asked: the lock was not to be had }
local function repeated(c, step, fn)
    wait_until(c.start)
    local fetched = contender.fetched and contender.fetched() or 0
    local ops, wrong, from, cpu_from = 0, 0, clock(), cpu_clock()
    local till, now = from + c.seconds * 1000
    repeat
        wrong = wrong + fn()
        ops = ops + step
        now = clock()
    until now >= till
    return {
        ns = (now - from) * 1e6 / ops,
        cpu_ns = (cpu_clock() - cpu_from) * 1e6 / ops,
        wrong = wrong,
        fetched = contender.fetched and contender.fetched() - fetched or 0,
    }
end

--- How long a look-up takes.
function commands.hits(c)
    look_up(c.get, c.pattern, 1)
    return repeated(c, BLOCK, function() return look_up(c.get, c.pattern, 1) end)
end

-- ids 1, 3, 5, ... or 2, 4, 6, ... are stored again as they are.
function commands.overwrite(c)
    local put, first = contender.put, c.which == "even" and 2 or 1
    local i = first
    return repeated(c, 64, function()
        for _ = 1, 64 do
            put(cache, ids[i], dataset.url(ids[i]))
            i = i + 2
            if i > size then
                i = first
            end
        end
        return 0
    end)
end

function commands.idle()
    return { wrong = 0 }
end

--- Every look-up of an order once, so that what others have written since is
-- known again.
function commands.refresh(c)
    local _, _, n = loop_of(c.get, c.pattern)
    return { wrong = look_up(c.get, c.pattern, n / BLOCK) }
end

-- The rest of a dictionary that evicts only when there is no more memory.
local function fill_up(round)
    local more = dataset.ids(math.ceil(size * 0.2) + 4096, 1000 + round)
    for i = 1, #more do
        local _, _, forced = cache:set(more[i], ("x"):rep(200))
        if forced then
            return
        end
    end
    error("the dictionary does not get full")
end

--- New sessions into a full cache: c.n in bulk for the mean, as many one by one
-- for the maximum.
function commands.insert(c)
    local new, put = dataset.ids(2 * c.n, 100 + c.round), contender.put
    if contender.dict and c.round == 1 then
        fill_up(c.round)
    end
    collectgarbage()
    local from, longest = cpu_clock(), 0
    for i = 1, c.n do
        put(cache, new[i], dataset.url(new[i]))
    end
    local ns = (cpu_clock() - from) * 1e6 / c.n
    for i = c.n + 1, 2 * c.n do
        local before = cpu_clock()
        put(cache, new[i], dataset.url(new[i]))
        longest = math.max(longest, cpu_clock() - before)
    end

    local wrong = 0
    for _, get in pairs(contender.gets) do
        for i = 2 * c.n, 2 * c.n - math.min(size, c.n) / 2, -1 do
            if get(cache, new[i]) ~= dataset.url(new[i]) then
                wrong = wrong + 1
            end
        end
    end
    return { cpu_ns = ns, max_cpu_ns = longest * 1e6, wrong = wrong }
end

-- Aborts after which the compiler tries again from elsewhere in the loop: retry,
-- leaving and inner loop, loop and call unroll limit, down-recursion.
local RETRIED = { [6] = true, [8] = true, [9] = true, [10] = true, [13] = true, [14] = true }

--- Traces that are given up while the loop is compiled anew; then bytes that a
-- look-up allocates.
function commands.compiled(c)
    local aborts = {}
    local function on_trace(what, _, _, _, code, reason)
        if what == "abort" and not RETRIED[code] then
            aborts[#aborts + 1] = code .. " " .. tostring(reason)
        end
    end
    jit.flush()
    jit.attach(on_trace, "trace")
    local wrong = look_up(c.get, c.pattern, 200)
    jit.attach(on_trace)

    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    wrong = wrong + look_up(c.get, c.pattern, c.blocks)
    local grown = collectgarbage("count") - before
    collectgarbage("restart")
    return { aborts = aborts, bytes = grown * 1024 / (c.blocks * BLOCK), wrong = wrong }
end

--- Bytes in use in the heap of this Lua VM.
function commands.heap()
    collectgarbage()
    collectgarbage()
    return { bytes = collectgarbage("count") * 1024, wrong = 0 }
end

local function longest_step()
    local longest, finished = 0
    repeat
        local from = cpu_clock()
        finished = collectgarbage("step", 0)
        longest = math.max(longest, cpu_clock() - from)
    until finished
    return longest
end

--- The longest of the steps the collector takes by itself in a cycle; the median
-- of three cycles, which all do the same. A step is at least one object, and a
-- table is one.
function commands.collect()
    collectgarbage()
    local longest = { longest_step(), longest_step(), longest_step() }
    table.sort(longest)
    return { max_cpu_ns = longest[2] * 1e6, wrong = 0 }
end

------------------------------------------------------------------ the worker ---

-- One worker fills what all share, the others wait for it.
local function fill()
    local flags = ngx.shared.flags
    if contender.shared and ngx.worker.id() ~= 0 then
        while not flags:get("full") do
            ngx.sleep(0.02)
        end
        return
    end
    local put = contender.fill or contender.put
    for i = 1, size do
        put(cache, ids[i], dataset.url(ids[i]))
    end
    flags:set("full", true)
end

local function look_at_all(name)
    local get = contender.gets[name]
    for i = 1, size do
        if get(cache, ids[i]) ~= dataset.url(ids[i]) then
            error(name .. " does not know session " .. i .. " of " .. size)
        end
    end
end

-- The longest step of the collector in a worker that has looked nothing up: how
-- much is in memory that is shared must not matter to it. The ids of the
-- benchmark are one table, which would be the longest step; and the table of all
-- strings gets half as large at a time when these are gone.
local function idle_step()
    ids = nil
    for _ = 1, 20 do
        collectgarbage()
    end
    local step = commands.collect().max_cpu_ns
    ids = dataset.ids(size, 1)
    return step
end

-- While the contents are made the collector has nothing to find.
local PAUSE = 600

local function prepare()
    local usual = collectgarbage("setpause", PAUSE)
    ids = dataset.ids(size, 1)
    cache = contender.new(size)
    local bare = commands.heap().bytes
    fill()
    local idle_ns = contender.shared and idle_step() or nil
    local lean = contender.lean
    if lean then
        look_at_all(lean)
        lean = commands.heap().bytes - bare
    end
    for name in pairs(contender.gets) do
        look_at_all(name)
    end
    collectgarbage("setpause", usual)
    return { wrong = 0, lean = lean, heap = commands.heap().bytes - bare, idle_ns = idle_ns }
end

local function answer(redis, queue, ...)
    local ok, result = pcall(...)
    if not ok then
        result = { error = tostring(result) }
    end
    result.worker = ngx.worker.id() + 1
    assert(redis:rpush(queue .. ":answers", cjson.encode(result)))
    return ok
end

local function serve(premature, socket, queue)
    if premature then
        return
    end
    local redis = require("nginx.redis"):new()
    redis:set_timeout(2 ^ 31 - 1)
    assert(redis:connect("unix:" .. socket))
    if not answer(redis, queue, prepare) then
        return
    end
    while true do
        local message = assert(redis:blpop(queue .. ":" .. ngx.worker.id() + 1, 0))
        local command = cjson.decode(message[2])
        answer(redis, queue, commands[command.what], command)
    end
end

function _M.init(name, n)
    contender, size = contenders[name], n
    if contender.init then
        contender.init(n)
    end
end

function _M.start(socket, queue)
    assert(ngx.timer.at(0, serve, socket, queue))
end

return _M
