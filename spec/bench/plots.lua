-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The results as pictures, with gnuplot: look-ups and writes by size, requests
-- a second as bars. Bars and whiskers are median, least and most of the rounds.

local hits = require "bench.hits"
local servers = require "support.servers"
local stats = require "bench.stats"

local format = string.format

local _M = {}

local HEAD = [[
set terminal svg size 760,480 dynamic background "white" font "sans-serif,12"
set output "%s"
set title "%s"
set grid lc rgb "#dddddd"
set border lc rgb "#888888"
set key outside right top
]]

local COLOURS = { "#0b5fa5", "#5aa0d8", "#c0392b", "#e59866", "#7d3c98", "#1e8449", "#82c99a",
                  "#d4ac0d", "#888888", "#34495e", "#a04000" }

-- A curve: { title, { { x, median, min, max }, ... }, dash = true }
local function curves(path, title, y_label, list)
    local script = { HEAD:format(path, title), format([[
set logscale xy
set xlabel "entries"
set ylabel "%s"
set format x "%%.0s%%c"
set format y "%%.0s %%cs"
set xrange [*:*] noextend
]], y_label) }
    local plot = {}
    for i, curve in ipairs(list) do
        script[#script + 1] = format("$c%d << EOD", i)
        for _, point in ipairs(curve[2]) do
            script[#script + 1] = table.concat(point, " ")
        end
        script[#script + 1] = "EOD"
        local colour = COLOURS[((curve.colour or i) - 1) % #COLOURS + 1]
        plot[i] = format([[$c%d using 1:2:3:4 with yerrorlines title "%s" lw 2 pt 7 ps 0.5 ]]
            .. [[dt %d lc rgb "%s"]], i, curve[1], curve.dash and 2 or 1, colour)
    end
    script[#script + 1] = "plot " .. table.concat(plot, ", ")
    return table.concat(script, "\n") .. "\n"
end

local function point(size, list, scale)
    local s = stats.summary(list)
    return { size, s.median * scale, s.min * scale, s.max * scale }
end

local function lookup_curves(results, pattern, processes)
    local list = {}
    for _, lookup in ipairs(hits.LOOKUPS) do
        local points = {}
        for _, row in ipairs(results.lookups) do
            if row.contender == lookup[1] and row.get == lookup[2] and row.pattern == pattern
               and row.processes == processes
            then
                points[#points + 1] = point(row.size, row.ns, 1e-9)
            end
        end
        list[#list + 1] = { (lookup[1] .. " " .. lookup[2]):gsub("_", " "), points }
    end
    return list
end

local OPERATIONS = { "hit", "find", "insert", "evict", "delete", "sweep", "expire" }

local function core_curves(core)
    local list = {}
    for i, what in ipairs(OPERATIONS) do
        local means, longest = {}, {}
        for j, entry in ipairs(core[what] or {}) do
            means[j] = point(entry.size, entry.mean_cpu, 1e-9)
            longest[j] = point(entry.size, entry.max_cpu, 1e-9)
        end
        list[#list + 1] = { what .. ", mean", means, colour = i }
        list[#list + 1] = { what .. ", longest", longest, colour = i, dash = true }
    end
    return list
end

local function insert_curves(inserts)
    local by, list = {}, {}
    for _, row in ipairs(inserts) do
        local pair = by[row.contender]
        if not pair then
            pair = { {}, {} }
            by[row.contender] = pair
            local colour = #list / 2 + 1
            local name = row.contender:gsub("_", " ")
            list[#list + 1] = { name .. ", mean", pair[1], colour = colour }
            list[#list + 1] = { name .. ", longest", pair[2], colour = colour, dash = true }
        end
        table.insert(pair[1], point(row.size, row.ns, 1e-9))
        table.insert(pair[2], point(row.size, row.max_ns, 1e-9))
    end
    return list
end

local function bars(path, title, rows)
    local script = { HEAD:format(path, title), [[
set style fill solid 0.8
set boxwidth 0.6
set ylabel "requests a second"
set yrange [0:*]
set xtics nomirror
unset key
$rows << EOD]] }
    for i, row in ipairs(rows) do
        local s = stats.summary(row.rate)
        script[#script + 1] = format([[%d "%s" %f %f %f]], i, row.name:gsub("_", " "), s.median,
            s.min, s.max)
    end
    script[#script + 1] = format("EOD\nset xrange [0.3:%f]", #rows + 0.7)
    script[#script + 1] = format([[plot $rows using 1:3:xtic(2) with boxes lc rgb "%s", ]]
        .. [[$rows using 1:3:4:5 with yerrorbars lc rgb "#333333" pt 0]], COLOURS[1])
    return table.concat(script, "\n") .. "\n"
end

-- name of the file -> script
local function scripts(results, out)
    local list = {}
    local function add(name, make, ...)
        list[#list + 1] = make(out .. "/" .. name .. ".svg", ...)
    end
    if results.hits then
        for processes = 1, 2 do
            for _, pattern in ipairs { "uniform", "zipf" } do
                add("hits-" .. pattern .. "-" .. processes, curves,
                    format("look-up of a session that is there, %s, %d worker%s", pattern,
                        processes, processes > 1 and "s" or ""), "CPU time",
                    lookup_curves(results.hits, pattern, processes))
            end
        end
        add("inserts", curves, "a new session into a full cache, from Lua", "CPU time",
            insert_curves(results.hits.inserts))
    end
    if results.core then
        add("core", curves, "C core (sweep and expire: 2048 slots)", "CPU time",
            core_curves(results.core))
    end
    if results.misses then
        add("misses", bars, "a session from Redis, one worker, 64 connections", results.misses)
    end
    if results.proxying then
        add("calls", bars, "tool calls of known sessions, one worker, 64 connections",
            results.proxying.calls)
        add("initialize", bars, "initialize, one worker, 64 connections",
            results.proxying.initialize)
    end
    return list
end

--- Draws what there is to draw.
-- @param results of all benchmarks
-- @param out directory
-- @return number of pictures; 0 without gnuplot
function _M.draw(results, out)
    if servers.run { "sh", "-c", "command -v gnuplot" }.code ~= 0 then
        return 0
    end
    local list = scripts(results, out)
    for _, script in ipairs(list) do
        local result = servers.run { "gnuplot", stdin = script }
        if result.code ~= 0 then
            error("gnuplot: " .. result.err)
        end
    end
    return #list
end

return _M
