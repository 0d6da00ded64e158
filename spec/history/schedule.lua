-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which fault happens when: drawn from a seed, before anything runs, so that it
-- can be printed and repeated. A fault that lasts is two actions: its begin and
-- its end.

local _M = {}

-- ------------------------------------------------------------------- chance --

local Random = {}
Random.__index = Random


---
-- The "minimal standard" generator of Park and Miller, which is the same in
-- every interpreter and disturbed by nobody.
function _M.random(seed)
    return setmetatable({ state = seed % 2147483646 + 1 }, Random)
end


--- A number of [0, 1).
function Random:next()
    self.state = self.state * 48271 % 2147483647
    return (self.state - 1) / 2147483646
end


function Random:between(low, high)
    return low + (high - low) * self:next()
end


--- An integer of 1..n.
function Random:one_of(n)
    return 1 + math.floor(self:next() * n)
end


-- ------------------------------------------------------------------- faults --

-- The name of a fault in history.faults, that of its end if it lasts, and for
-- how many seconds.
local function fault(begin, finish, low, high)
    return function(random)
        return { begin = begin, finish = finish, replica = random:one_of(2),
                 worker = random:one_of(2),
                 seconds = finish and random:between(low, high) or 0 }
    end
end

local kill_worker = fault("kill_worker")
local freeze_worker = fault("freeze_worker", "thaw_worker", 0.05, 1.5)
local kill_pubsub = fault("kill_pubsub")
local kill_data = fault("kill_data")
local freeze_redis = fault("freeze_redis", "thaw_redis", 0.5, 3)
local sleep_redis = fault("sleep_redis", "woken_redis", 0.1, 1)
local restart_redis = fault("restart_redis")
local flush = fault("flush")
local many_keys = fault("many_keys")
local reload = fault("reload")
local hold = fault("hold_pushes", "release_pushes", 0.1, 3)
local cut = fault("hold_pushes", "cut_pushes", 0.1, 3)
local late = fault("late_replies", "prompt_replies", 0.5, 2)

-- A new listener whose handshake takes long: what is filled meanwhile was not
-- subscribed to.
local function slow_handshake(random)
    local f = fault("hold_pushes", "release_pushes", 0.3, 0.7)(random)
    f.also = "kill_pubsub"
    return f
end

-- Lanes go on side by side: workers fail while Redis or the wire does. Each has
-- its faults and the seconds between the end of one and the next.
local SERVERS = {
    pause = { 0.2, 1.5 },
    kill_pubsub, kill_pubsub, kill_data, freeze_redis, sleep_redis,
    restart_redis, flush, many_keys, hold, cut, late, slow_handshake,
}
local WORKERS = {
    pause = { 0.5, 2.5 },
    kill_worker, kill_worker, freeze_worker, freeze_worker, reload,
}

local PROFILES = {
    all = { SERVERS, WORKERS },
    none = {},
    -- What brings the planted bugs to light, see history.bugs. In those of the
    -- epoch there is time between the faults, since each loss of the lease
    -- repairs what an earlier one has left behind.
    tokens = { { pause = { 0.1, 0.2 }, late } },
    no_epoch = { { pause = { 1.3, 1.5 }, kill_pubsub } },
    early_epoch = { { pause = { 1.3, 1.5 }, slow_handshake } },
    no_lease = { { pause = { 0.3, 0.6 },
                   fault("hold_pushes", "release_pushes", 2.5, 2.9) } },
    no_renewal = {},
}


-- Every fault of a lane comes once before any comes again.
local function deck(random, faults)
    local cards = {}
    return function()
        if #cards == 0 then
            for i = 1, #faults do
                table.insert(cards, random:one_of(i), faults[i])
            end
        end
        return table.remove(cards)
    end
end


local function put(list, at, what, f)
    if what then
        list[#list + 1] = { at = at, what = what, replica = f.replica,
                            worker = f.worker, seconds = f.seconds, fault = f }
    end
end


-- Puts the faults of a lane into the list; returns how many they are.
local function fill(list, random, lane, seconds)
    local draw, count = deck(random, lane), 0
    local at = random:between(0.6, 1)
    while at < seconds - 1 do
        local f = draw()(random)
        f.seconds = math.min(f.seconds, seconds - 1 - at)
        put(list, at, f.begin, f)
        put(list, at, f.also, f)
        put(list, at + f.seconds, f.finish, f)
        count = count + 1
        at = at + f.seconds + random:between(lane.pause[1], lane.pause[2])
    end
    return count
end


---
-- Draws a schedule.
-- @param seed integer
-- @param seconds of the whole run; the last one is left in peace
-- @param profile name, see PROFILES
-- @return array of { at = s from the start, what = name in history.faults,
--         replica = 1 or 2, worker = 1 or 2, seconds = duration, fault = the
--         same table for begin and end }, and how many faults these are
function _M.draw(seed, seconds, profile)
    local lanes = PROFILES[profile] or error("no such profile: " .. profile)
    local list, count = {}, 0
    for i, lane in ipairs(lanes) do
        count = count + fill(list, _M.random(seed * 16 + i), lane, seconds)
    end
    for i, action in ipairs(list) do
        action.order = i -- of what is due at the same time
    end
    table.sort(list, function(a, b)
        return a.at < b.at or a.at == b.at and a.order < b.order
    end)
    return list, count
end


return _M
