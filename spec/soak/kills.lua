-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Workers of two real replicas are killed at random under traffic, half of them
-- anywhere and half within a change of the region, with its lock; their masters
-- start others. After each death: the region is sound, its hits are counted on,
-- somebody listens again, and clients saw nothing but what was in flight in the
-- dead worker.

local farms = require "soak.farm"
local samples = require "soak.samples"
local servers = require "support.servers"
local verdict = require "soak.verdict"

local format = string.format
local random = math.random

local _M = {}

local DEADLINE = 30 -- seconds for what takes one or two
local PASSING = 2   -- seconds to pass a point of c/fault.h in
local POINTS = 26   -- of changes of entries: all but those of the repair


-- Asks until another worker than before has the lease and the subscription.
local function wait_for_listener(web)
    return servers.wait_for(function()
        local inside = web:inside()
        return inside.coherent and inside.listening and inside.worker,
               inside.coherent and "nobody asked listens" or "no lease"
    end, DEADLINE, "a worker that listens")
end


local function wait_for_workers(web, dead)
    servers.wait_for(function()
        local pids = web:worker_pids()
        return #pids == 2 and pids[1] ~= dead and pids[2] ~= dead
    end, DEADLINE, "a new worker")
end


local function wait_for_traffic(farm, requests)
    servers.wait_for(function()
        return farm:counts().requests > requests + 20
    end, DEADLINE, "the traffic to go on")
end


-- Hits are counted on by those that live.
local function wait_for_hits(web, hits)
    servers.wait_for(function() return web:inside().hits > hits end, DEADLINE,
        "hits to be counted")
end


local function kill_one(farm, watch, tally)
    local i = random(2)
    local web = farm.webs[i]
    local listener = wait_for_listener(web)
    local before = web:inside()
    local pid = web:worker_pids()[random(2)]
    if random(2) == 1 then
        farm:kill_within(i, pid, random(POINTS), PASSING)
    else
        servers.nap(random() * 0.5)
        farm:kill_worker(i, pid)
    end
    local at = servers.now()
    tally.listeners = tally.listeners + (pid == listener and 1 or 0)
    wait_for_workers(web, pid)
    watch:take() -- looks whether both regions are sound
    local now_listens = wait_for_listener(web)
    assert(now_listens ~= pid)
    if pid == listener then
        tally.longest = math.max(tally.longest, servers.now() - at)
    end
    wait_for_hits(web, before.hits)
    wait_for_traffic(farm, farm:counts().requests)
end


-- The library with the points of c/fault.h, and their number for Lua to set.
local function build_library()
    local dir = servers.root .. "/build/faults"
    local made = servers.run { "make", "-C", servers.root, "BUILD=" .. dir,
        "CFLAGS=-O2 -g -DMR_TESTING -fvisibility=default", dir .. "/libmooring.so",
        timeout = 240 }
    assert(made.code == 0, made.err)
    return dir
end


---
-- Kills workers, every other one within a change of the region.
-- @param opts { kills =, say = function(text), seed =, and those of soak.farm }
-- @return result { wrongs = { name -> list of texts }, violated = how many,
--         counts =, listeners = killed while they listened, longest = seconds
--         until somebody listened again, repairs =, left = sessions }
function _M.run(opts)
    opts.say = opts.say or function() end
    math.randomseed(opts.seed or os.time())
    opts.library = build_library()
    local farm = farms.new(opts)
    local watch = samples.new(farm.webs)
    local tally = { listeners = 0, longest = 0 }
    for n = 1, opts.kills do
        kill_one(farm, watch, tally)
        if n % 20 == 0 then
            local counts = farm:counts()
            opts.say(format("%4d kills, %d of listeners; %d requests, %d violations",
                n, tally.listeners, counts.requests, counts.violated))
        end
    end
    tally.counts = farm:stop_traffic()
    tally.repairs = farm.webs[1]:inside().repairs + farm.webs[2]:inside().repairs
    tally.wrongs = { traffic = verdict.answers(tally.counts),
                     regions = verdict.regions(watch.regions), logs = {} }
    for _, web in ipairs(farm.webs) do
        for _, line in ipairs(verdict.log(web:error_log(), "exited on signal 9")) do
            table.insert(tally.wrongs.logs, line)
        end
    end
    farm:stop()
    tally.violated = 0
    for _, list in pairs(tally.wrongs) do
        tally.violated = tally.violated + #list
    end
    return tally
end


return _M
