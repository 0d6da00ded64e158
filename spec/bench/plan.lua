-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- How much is measured: all of it, or with QUICK=1 about a minute of it.

local quick = (os.getenv("QUICK") or "") ~= ""

-- SIZES=1000,10000
local function chosen_sizes()
    local list = {}
    for size in (os.getenv("SIZES") or ""):gmatch("[^,%s]+") do
        list[#list + 1] = assert(tonumber(size), "SIZES must be numbers")
    end
    return list[1] and list
end

return {
    quick = quick,
    sizes = chosen_sizes() or quick and { 1000, 10000, 100000 }
        or { 1000, 10000, 100000, 1000000 },
    core_sizes = chosen_sizes() or quick and { 1000, 10000, 100000, 1000000 }
        or { 1000, 10000, 100000, 1000000, 4000000 },
    core_rounds = quick and 1 or 3,     -- processes of c/bench/bench_cache.c, one above 1 M
    launches = quick and 1 or 3,        -- of the processes of each size below 1 M
    large_launches = 1,                 -- and at 1 M, where it takes a minute
    hit_rounds = quick and 2 or 6,      -- in all of these launches together
    hit_seconds = quick and 0.03 or 0.06,
    inserts = quick and 5000 or 20000,  -- in a round, in bulk; then singly
    calls = quick and 2000 or 5000,     -- under callgrind
    sharing_size = quick and 10000 or 100000,
    sharing_rounds = quick and 2 or 5,
    wrk_rounds = quick and 2 or 5,
    wrk_seconds = quick and 1 or 2,     -- wrk takes whole seconds
    counted_requests = quick and 1000 or 2000, -- under callgrind
    wrk_connections = 64,
    churn_sessions = { 10000, 100000 },
    churn_seconds = quick and 5 or 60,
    records = quick and 20000 or 100000, -- in Redis, for misses
    idle_seconds = quick and 3 or 10,    -- for beacons
}
