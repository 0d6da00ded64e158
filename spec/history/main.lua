-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The command line of spec/history/run: one run of the code as it is, then each
-- planted bug, which has to be found within a few seeds.

local bugs = require "history.bugs"
local driver = require "history.driver"
local report = require "history.report"

local seconds = tonumber(os.getenv("SECONDS_TO_RUN") or 60)
local seed = tonumber(os.getenv("SEED") or os.time() % 1000000)
local lease = tonumber(os.getenv("LEASE") or 1)
local planted = os.getenv("BUGS") or table.concat(bugs.names(), " ")

local BUG_SECONDS, BUG_SEEDS, BUG_TTL = 8, 5, 3


local function say(...)
    io.stdout:write(string.format(...), "\n")
    io.stdout:flush()
end


local function show(line)
    say("  %s", line)
end


local function check_code()
    say("history: %g s, seed %d, lease %g s: 2 replicas, 2 workers each; faults:",
        seconds, seed, lease)
    local opts = { seconds = seconds, seed = seed, lease = lease, say = show }
    local result, run = driver.run(opts)
    report.counts(result, run.opts, show)
    report.violations(result, run.history, show)
    return #result.violations == 0
end


-- Is the planted bug found?
local function check_bug(name)
    for i = 0, BUG_SEEDS - 1 do
        local result, run = driver.run { seconds = BUG_SECONDS,
            seed = seed + i, profile = name, bug = name,
            ttl = name == "no_renewal" and BUG_TTL or nil }
        if #result.violations > 0 then
            say("  %-12s found with seed %d: %d violations, the first: %s", name,
                seed + i, #result.violations, result.violations[1].text)
            return true
        end
        say("  %-12s not found with seed %d: %d loads, the oldest by %.0f ms",
            name, run.opts.seed, result.stats.loads, result.stats.oldest)
    end
    return false
end


local ok = check_code()
if planted:find("%S") then
    say("history: planted bugs, %d s each:", BUG_SECONDS)
    for name in planted:gmatch("%S+") do
        ok = check_bug(name) and ok
    end
end
say(ok and "history: ok" or "history: FAILED (SEED=%d)", seed)
os.exit(ok and 0 or 1)
