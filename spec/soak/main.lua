-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The command line of spec/soak/run: one soak, its report and its pictures.

local cjson = require "cjson"
local plots = require "soak.plots"
local servers = require "support.servers"
local soak = require "soak.soak"

local seconds = 60 * tonumber(os.getenv("MINUTES") or 20)
local out = os.getenv("OUT") or servers.root .. "/build/soak"
local report = {}


local function say(...)
    local line = string.format(...)
    report[#report + 1] = line
    io.stdout:write(line, "\n")
    io.stdout:flush()
end


local function sorted(map)
    local names = {}
    for name in pairs(map) do
        names[#names + 1] = name
    end
    table.sort(names)
    return names
end


local function list_counts(title, map)
    local parts = {}
    for i, name in ipairs(sorted(map)) do
        parts[i] = name .. " " .. map[name]
    end
    say("  %-12s %s", title, table.concat(parts, ", "))
end


local function save_samples(watch)
    local rows = { "t,replica,role,pid,rss_kib,pss_kib,private_kib,fds" }
    for _, s in ipairs(watch.list) do
        rows[#rows + 1] = table.concat({ ("%.1f"):format(s.t), s.web, s.role,
            s.pid, s.rss, s.pss, s.private, s.fds or "" }, ",")
    end
    servers.write_file(out .. "/processes.csv", table.concat(rows, "\n") .. "\n")
end


local function tell(result)
    local counts, watch = result.counts, result.watch
    say("soak: %d requests in %d s, %d violations", counts.requests, seconds,
        counts.violated)
    list_counts("requests", counts.kinds)
    list_counts("excused", counts.excused)
    local actions = {}
    for _, action in ipairs(result.actions) do
        actions[action.what] = (actions[action.what] or 0) + 1
    end
    list_counts("done", actions)
    for _, line in ipairs(result.lines) do
        say("  memory       %s of replica %d, %.0f s: %.1f MiB, at the end %.1f MiB",
            line.role, line.web, line.seconds, line.from / 1024, line.to / 1024)
    end
    say("  generations  %d, old workers stayed %.2f s at most after their last request (%d)",
        result.generations, result.longest_stay, #watch.left)
    list_counts("descriptors", result.descriptors)
    say("  region       at most %d entries", result.most_entries)
    for _, name in ipairs(sorted(result.wrongs)) do
        for _, text in ipairs(result.wrongs[name]) do
            say("  WRONG        %s: %s", name, text)
        end
    end
    for _, v in ipairs(counts.violations) do
        say("  violation    %s", cjson.encode(v))
    end
end


servers.run { "mkdir", "-p", out }
say("soak: %d s, two replicas of two workers; pictures and samples in %s",
    seconds, out)
local opts = { seconds = seconds, say = say }
if os.getenv("LEAK") == "1" then -- to see that it is noticed
    opts.location = [[
        body_filter_by_lua_block {
            router.leak = router.leak or {}
            table.insert(router.leak, ("x"):rep(2000) .. #router.leak)
        }
    ]]
end
local result = soak.run(opts)
for i, text in ipairs(result.logs) do
    servers.write_file(out .. "/error-" .. i .. ".log", text)
end
tell(result)
save_samples(result.watch)
for _, path in ipairs(plots.draw(result.watch, result.started, out)) do
    say("  picture      %s", path)
end
say(result.violated == 0 and "soak: ok" or "soak: FAILED")
servers.write_file(out .. "/report.txt", table.concat(report, "\n") .. "\n")
os.exit(result.violated == 0 and 0 or 1)
