-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The command line of `make kills`: many workers of a real nginx are killed.

local cjson = require "cjson"
local kills = require "soak.kills"

local count = tonumber(os.getenv("KILLS") or 200)
local seed = tonumber(os.getenv("SEED") or os.time() % 1000000)


local function say(...)
    io.stdout:write(string.format(...), "\n")
    io.stdout:flush()
end


say("kills: %d workers of two replicas, seed %d", count, seed)
local result = kills.run { kills = count, seed = seed, say = say, think = 150,
                           clients = 24 }
local counts = result.counts
say("kills: %d requests, %d violations, %d failed in flight", counts.requests,
    counts.violated, counts.excused_sum)
say("  excused: %s", cjson.encode(counts.excused))
say("  %d of those that listened; somebody listened again after %.1f s at most",
    result.listeners, result.longest)
say("  %d held the lock, and their region was repaired", result.repairs)
for name, list in pairs(result.wrongs) do
    for _, text in ipairs(list) do
        say("  WRONG %s: %s", name, text)
    end
end
for _, violation in ipairs(counts.violations) do
    say("  violation %s", cjson.encode(violation))
end
say(result.violated == 0 and "kills: ok" or "kills: FAILED (SEED=%d)", seed)
os.exit(result.violated == 0 and 0 or 1)
