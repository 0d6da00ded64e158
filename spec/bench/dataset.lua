-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions to look up, and in which order. The same in every process.
--
-- An order is drawn beforehand, as arrays of ids and of the answers they must
-- get, which are walked through: so nothing but the look-up itself has to reach
-- into memory at random.

local floor = math.floor
local format = string.format
local random = math.random
local sub = string.sub

local _M = {}


-- The arrays of an order are this much longer than the number of sessions, and
-- at least LEAST long, so that what comes next is not in the caches for having
-- been there the last time.
local TIMES, LEAST = 2, 65536

--- Steps of an order are taken in blocks of so many.
_M.BLOCK = 1024

--- Random ids of 36 bytes, as a UUID is written.
-- @param n how many
-- @param seed others for another one
function _M.ids(n, seed)
    math.randomseed(seed)
    local ids = {}
    for i = 1, n do
        ids[i] = format("%08x-%04x-4%03x-%04x-%06x%06x", random(0, 2 ^ 31 - 1), random(0, 65535),
            random(0, 4095), random(32768, 49151), random(0, 2 ^ 24 - 1), random(0, 2 ^ 24 - 1))
    end
    return ids
end

local urls = {}
for i = 0, 15 do
    urls[format("%x", i)] = "http://10.0.0." .. i .. ":8080"
end

--- The backend that a session is bound to: its id tells.
function _M.url(id)
    return urls[sub(id, -1)]
end

-- Functions that draw numbers from 1 to n.
local draw = {}

function draw.uniform(n)
    return function() return random(n) end
end

-- Only even ones, which leaves the others to a writer.
function draw.even(n)
    return function() return 2 * random(floor(n / 2)) end
end

-- Zipf's distribution with the exponent 0.99 of YCSB, after Gray et al.,
-- "Quickly generating billion-record synthetic databases", SIGMOD 1994, 3.2. The
-- sessions of the first ranks are scattered over all of them.
function draw.zipf(n)
    local theta, zeta, ranks = 0.99, 0, {}
    for i = 1, n do
        zeta = zeta + 1 / i ^ theta
        ranks[i] = i
    end
    for i = n, 2, -1 do
        local j = random(i)
        ranks[i], ranks[j] = ranks[j], ranks[i]
    end
    local zeta2 = 1 + 0.5 ^ theta
    local eta = (1 - (2 / n) ^ (1 - theta)) / (1 - zeta2 / zeta)
    return function()
        local u = random()
        local uz = u * zeta
        if uz < 1 then
            return ranks[1]
        elseif uz < zeta2 then
            return ranks[2]
        end
        return ranks[math.min(n, 1 + floor(n * (eta * u - eta + 1) ^ (1 / (1 - theta))))]
    end
end

--- An order of look-ups.
-- @param ids what ids() returned
-- @param pattern "uniform", "zipf" or "even"
-- @param seed others for another one
-- @return { ids = array, urls = array, n = their length, a multiple of BLOCK }
function _M.order(ids, pattern, seed)
    math.randomseed(seed)
    local n = math.max(LEAST, math.ceil(TIMES * #ids / _M.BLOCK) * _M.BLOCK)
    local next_one, order = draw[pattern](#ids), { ids = {}, urls = {}, n = n }
    for i = 1, n do
        local k = next_one()
        order.ids[i], order.urls[i] = ids[k], _M.url(ids[k])
    end
    return order
end

return _M
