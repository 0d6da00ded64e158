-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A soak: the farm, under traffic, while replicas are reloaded, Redis and the
-- backends restarted; then the verdict on what clients saw and on what the
-- processes held.
--
--     0              half                 end
--     | replica 1: a reload every 30 s    |
--     | replica 2: too   | none any more  |     so that one generation lives long
--     | Redis: a restart every 90 s, every third one without its data
--     | backends: one after the other, a restart every 60 s

local binding = require "resty.mooring.ffi"
local farms = require "soak.farm"
local samples = require "soak.samples"
local servers = require "support.servers"
local verdict = require "soak.verdict"

local format = string.format

local _M = {}

local LOOK = 0.1   -- seconds between two looks at old workers
local SAMPLE = 2   -- between two samples

-- The periods of a long run, and of one of a minute; in seconds.
local LONG = { reload = 30, redis = 90, backend = 60 }
local SHORT = { reload = 12, redis = 20, backend = 25 }

local LONG_FROM = 300


local function periods(seconds)
    return seconds >= LONG_FROM and LONG or SHORT
end


---
-- What is done when: { { at =, what =, args... } }, in order.
function _M.schedule(seconds)
    local list, every = {}, periods(seconds)
    local function add(at, what, arg)
        if at < seconds - 5 then
            list[#list + 1] = { at = at, what = what, arg = arg, order = #list }
        end
    end
    for at = every.reload / 2, seconds, every.reload do
        add(at, "reload", 1)
        if at < seconds / 2 then
            add(at + every.reload / 2, "reload", 2)
        end
    end
    local n = 0
    for at = every.redis / 2 + 1, seconds, every.redis do
        n = n + 1
        add(at, "restart_redis", n % 3 == 0)
    end
    n = 0
    for at = every.backend / 2 + 7, seconds, every.backend do
        add(at, "restart_backend", n % 3 + 1)
        n = n + 1
    end
    table.sort(list, function(a, b)
        return a.at < b.at or a.at == b.at and a.order < b.order
    end)
    return list
end


local function drive(farm, watch, opts)
    local list, at = _M.schedule(opts.seconds), 1
    local next_sample, next_word = 0, 30
    while watch:now() < opts.seconds do
        local t = watch:now()
        local action = list[at]
        if action and t >= action.at then
            farm[action.what](farm, action.arg, function() watch:watch() end)
            at = at + 1
        end
        watch:watch()
        if t >= next_sample then
            watch:take()
            next_sample = t + SAMPLE
        end
        if t >= next_word then
            local counts = farm:counts()
            opts.say(format("%5.0f s: %d requests, %d violations, %d old workers leaving",
                t, counts.requests, counts.violated, watch:count_leaving()))
            next_word = t + 30
        end
        servers.nap(LOOK)
    end
    return list
end


-- All that is left to leave has the time that it may take.
local function let_leave(watch)
    pcall(servers.wait_for, function()
        watch:watch()
        return watch:count_leaving() == 0
    end, verdict.STAY + 1)
end


---
-- Runs a soak.
-- @param opts { seconds =, say = function(text), and those of soak.farm }
-- @return result { wrongs = { name -> list of texts }, counts =, lines =, ... }
function _M.run(opts)
    opts.say = opts.say or function() end
    local farm = farms.new(opts)
    local started = binding.C.mr_time()
    local watch = samples.new(farm.webs)
    local actions = drive(farm, watch, opts)
    local counts = farm:stop_traffic()
    let_leave(watch)
    watch:read_logs()
    local result = { counts = counts, watch = watch, started = started,
                     actions = actions, wrongs = {} }
    local wrongs = result.wrongs
    wrongs.traffic = verdict.traffic(counts, opts.seconds * (opts.least or 10))
    -- A third of the run is as long as anybody of a short run lives.
    wrongs.memory, result.lines = verdict.memory(watch.list, opts.seconds / 3)
    wrongs.generations, result.generations = verdict.generations(watch.list)
    wrongs.descriptors, result.descriptors = verdict.descriptors(watch.list)
    wrongs.leavers, result.longest_stay =
        verdict.leavers(watch.left, watch:count_leaving())
    wrongs.regions, result.most_entries = verdict.regions(watch.regions)
    wrongs.logs = {}
    result.logs = {}
    for i, web in ipairs(farm.webs) do
        result.logs[i] = web:error_log()
        for _, line in ipairs(verdict.log(result.logs[i])) do
            table.insert(wrongs.logs, line)
        end
    end
    farm:stop()
    result.violated = 0
    for _, list in pairs(wrongs) do
        result.violated = result.violated + #list
    end
    return result
end


return _M
