-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Two workers on one region: what a look-up costs one of them while the other
-- one does nothing, looks up as well, or writes as fast as it can: other
-- sessions, or the very ones that are looked up (each of which then has to be
-- found and decoded again).

local channels = require "bench.channel"
local contenders = require "bench.contenders"

local _M = {}

local LOOKUPS = { mooring = "resolve", shdict = "get_decode" }
local NAMES = { "mooring", "shdict" }

-- What the other worker does.
local OTHERS = {
    { name = "is idle", what = "idle" },
    { name = "looks up", what = "hits" },
    { name = "writes others", what = "overwrite", which = "odd" },
    { name = "writes the same", what = "overwrite", which = "even" },
}

local function measure_once(plan, server, get, other)
    local seconds = plan.hit_seconds
    local refresh = { what = "refresh", get = get, pattern = "even" }
    server:ask { refresh, refresh }
    return server:ask {
        { what = "hits", get = get, pattern = "even", seconds = seconds },
        { what = other.what, which = other.which, get = get, pattern = "even",
          seconds = seconds },
    }
end

--- @return array of { contender =, size =, other =, ns = of a look-up, a number
--          for each round, other_ns = of what the other worker did, fetched =
--          times that the lock was not to be had within 10 ms }
function _M.run(plan)
    local channel, all = channels.open(), {}
    local size = plan.sharing_size
    for _, name in ipairs(NAMES) do
        local dict = contenders[name].dict
        all[name] = channels.contender(channel, name, size, dict and dict(size))
    end
    local rows = {}
    for _, name in ipairs(NAMES) do
        all[name]:await()
        for _, other in ipairs(OTHERS) do
            rows[#rows + 1] = { contender = name, size = size, other = other.name, ns = {},
                                other_ns = {}, fetched = 0, how = other }
        end
    end
    for round = 0, plan.sharing_rounds do
        for _, row in ipairs(rows) do
            local answers = measure_once(plan, all[row.contender], LOOKUPS[row.contender], row.how)
            row.ns[round], row.other_ns[round] = answers[1].ns, answers[2].ns
            row.fetched = row.fetched + answers[1].fetched
        end
    end
    for _, row in ipairs(rows) do
        row.ns[0], row.other_ns[0], row.how = nil, nil, nil
    end
    return rows
end

return _M
