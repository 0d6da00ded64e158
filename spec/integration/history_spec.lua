-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Two replicas under random faults: nothing outdated is served, and no session
-- gets lost. spec/history/run does the same for longer and with every planted
-- bug. SEED repeats a run.

local driver = require "history.driver"
local report = require "history.report"
local servers = require "support.servers"

local SECONDS = 12
local BUG_SECONDS, BUG_SEEDS = 7, 4

describe("two replicas under faults", function()
    local seed = tonumber(os.getenv("SEED")) or os.time() % 1000000

    teardown(function() servers.stop_all() end)

    it("keep the promise of coherence", function()
        local result, run = driver.run { seconds = SECONDS, seed = seed,
            ttl = 6 }
        assert(#result.violations == 0, "SEED=" .. seed .. "\n"
            .. report.text(result, run.history))

        -- It means something only if there was something to go wrong.
        local stats = result.stats
        assert.is_true(stats.faults >= 4)
        assert.is_true(stats.loads > 2000)
        assert.is_true(stats.hits > stats.loads / 4)
        assert.is_true(stats.stale + stats.failed < stats.loads / 2)
        assert.is_true(stats.barriers >= 1)
    end)

    it("are caught when they forget to bump the epoch", function()
        local found = 0
        for i = 0, BUG_SEEDS - 1 do
            if found == 0 then
                found = #driver.run { seconds = BUG_SECONDS, seed = seed + i,
                    profile = "no_epoch", bug = "no_epoch" }.violations
            end
        end
        assert.is_true(found > 0)
    end)
end)
