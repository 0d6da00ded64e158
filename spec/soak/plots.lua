-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a soak has recorded as pictures, with gnuplot: memory and descriptors of
-- each process, the regions, and how long old workers stayed.

local servers = require "support.servers"

local format = string.format

local _M = {}

local HEAD = [[
set terminal svg size 900,420 dynamic background "white" font "sans-serif,12"
set output "%s"
set title "%s"
set xlabel "seconds"
set ylabel "%s"
set yrange [0:*]
set grid lc rgb "#dddddd"
set border lc rgb "#888888"
set key outside right top
]]

local COLOURS = { master = { "#7d3c98", "#d4ac0d" }, worker = { "#0b5fa5", "#c0392b" } }


-- blocks: { { title or nil, colour, { { x, y }, ... }, style = } }
local function script(path, title, y_label, blocks)
    local lines = { HEAD:format(path, title, y_label) }
    local plot = {}
    for i, block in ipairs(blocks) do
        lines[#lines + 1] = format("$b%d << EOD", i)
        for _, p in ipairs(block[3]) do
            lines[#lines + 1] = format("%.2f %.3f", p[1], p[2])
        end
        lines[#lines + 1] = "EOD"
        plot[i] = format([[$b%d using 1:2 with %s lw 1.5 lc rgb "%s" %s]], i,
            block.style or "lines", block[2],
            block[1] and format([[title "%s"]], block[1]) or "notitle")
    end
    lines[#lines + 1] = "plot " .. table.concat(plot, ", ")
    return table.concat(lines, "\n") .. "\n"
end


-- One line for each process, one title for each role of each replica.
local function processes(list, field, scale)
    local by, order, titled = {}, {}, {}
    for _, sample in ipairs(list) do
        local key = sample.role .. sample.pid
        if not by[key] then
            local title = format("%s, replica %d", sample.role, sample.web)
            by[key] = { not titled[title] and title or nil,
                        COLOURS[sample.role][sample.web], {} }
            titled[title] = true
            order[#order + 1] = by[key]
        end
        if sample[field] then
            table.insert(by[key][3], { sample.t, sample[field] * scale })
        end
    end
    local kept = {}
    for _, block in ipairs(order) do
        if #block[3] > 0 then
            kept[#kept + 1] = block
        end
    end
    return kept
end


local function regions(list, field, scale)
    local blocks = {}
    for web = 1, 2 do
        local points = {}
        for _, r in ipairs(list) do
            if r.web == web then
                points[#points + 1] = { r.t, r[field] * scale }
            end
        end
        blocks[web] = { "replica " .. web, COLOURS.worker[web], points }
    end
    return blocks
end


local function leavers(left, started)
    local points = {}
    for i, leaver in ipairs(left) do
        points[i] = { leaver.seen - started,
                      math.max(0, leaver.seen - math.max(leaver.since, leaver.last or 0)) }
    end
    return { { "an old worker", COLOURS.worker[1], points, style = "points pt 7 ps 0.6" } }
end


---
-- Draws what there is to draw.
-- @param samples of soak.samples
-- @param started unix time of its beginning
-- @param out directory
-- @return names of the pictures; none without gnuplot
function _M.draw(samples, started, out)
    if servers.run { "sh", "-c", "command -v gnuplot" }.code ~= 0 then
        return {}
    end
    local names = {}
    local function draw(name, title, y_label, blocks)
        if not blocks[1] or #blocks[1][3] == 0 then
            return
        end
        local path = out .. "/" .. name .. ".svg"
        local result = servers.run { "gnuplot",
            stdin = script(path, title, y_label, blocks) }
        if result.code ~= 0 then
            error("gnuplot: " .. result.err)
        end
        names[#names + 1] = path
    end
    draw("memory", "memory of each process that is its own", "MiB",
        processes(samples.list, "private", 1 / 1024))
    draw("pss", "memory of each process, its share of the common one", "MiB",
        processes(samples.list, "pss", 1 / 1024))
    draw("descriptors", "descriptors of each process", "open",
        processes(samples.list, "fds", 1))
    draw("entries", "entries of the local tier", "entries",
        regions(samples.regions, "entries", 1))
    draw("region", "bytes used of the region", "KiB",
        regions(samples.regions, "bytes_used", 1 / 1024))
    draw("leaving", "old workers: from their last request to their end", "seconds",
        leavers(samples.left, started))
    return names
end


return _M
