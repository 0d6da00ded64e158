-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- `make bench`: how fast mooring is, beside what one would use instead, and
-- whether that is what DESIGN promises.
--
--   QUICK=1        about a minute, with shorter runs, fewer of them and no
--                  million of entries
--   ONLY=a,b       only these of BENCHMARKS below
--   SIZES=1000     only these numbers of entries
--
-- Rules for everything in this directory:
--
--   * Contenders take turns, round by round, so that whatever else happens on
--     the machine happens to all of them. What is compared is the ratio of one
--     round; reported are its median, minimum and maximum over the rounds.
--   * Every answer is checked while it is measured. A wrong one ends the run.
--   * Each size, and each contender at it, has processes of its own, pinned to
--     a CPU; those that make the load are pinned to another one.
--   * Times are as they were measured: no overhead of ours is subtracted.
--
-- Prints tables; writes build/bench/results.json, table.md and *.svg, which
-- spec/bench/publish puts into the README. Exits
-- with 1 when something could not be measured or was answered wrongly; a missed
-- goal is a result like any other.

local cjson = require "cjson"
local machine = require "bench.machine"
local plan = require "bench.plan"
local plots = require "bench.plots"
local report = require "bench.report"
local servers = require "support.servers"

local BENCHMARKS = { "core", "instructions", "counting", "hits", "sharing", "misses", "proxying",
                     "commands", "churn" }
local OUT = servers.root .. "/build/bench"

local function chosen()
    local only = os.getenv("ONLY")
    if not only or only == "" then
        return BENCHMARKS
    end
    local list = {}
    for name in only:gmatch("[^,%s]+") do
        list[#list + 1] = name
    end
    return list
end

-- Runs one; what goes wrong in it is told and does not end the others.
local function run(name, results)
    local from = servers.now()
    local ok, err = xpcall(function()
        results[name] = require("bench." .. name).run(plan)
    end, debug.traceback)
    servers.stop_all()
    if not ok then
        io.stderr:write("\n", name, " FAILED: ", err, "\n")
    end
    report.say("  %-13s %4.0f s%s", name, servers.now() - from, ok and "" or "  FAILED")
    return ok
end

local function main()
    local results = { machine = machine.describe(), plan = plan }
    report.machine(results.machine)
    report.say("\nmeasuring%s", plan.quick and " (QUICK: shorter, and less sure)" or "")

    local complete = true
    for _, name in ipairs(chosen()) do
        complete = run(name, results) and complete
    end
    results.machine.load_after = machine.load()
    results.complete = complete
    results.goals = report.all(results)

    os.execute("mkdir -p '" .. OUT .. "'")
    servers.write_file(OUT .. "/results.json", cjson.encode(results) .. "\n")
    servers.write_file(OUT .. "/table.md", report.markdown(results))
    local drawn = plots.draw(results, OUT)
    report.say("\nbuild/bench/results.json%s", drawn > 0
        and (" and %d plots, build/bench/*.svg"):format(drawn) or "")
    return complete
end

os.exit(main() and 0 or 1)
