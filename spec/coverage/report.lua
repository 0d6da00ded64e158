-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Prints what the specs and the C tests reach, file by file, and what they do
-- not reach and spec/coverage/justified.lua does not explain. The whole list is
-- written into a file.
--
--     luajit spec/coverage/report.lua COUNTS GCOVR.json GAPS.txt
--
-- Fails when something is not listed there, or a justification is out of date.

local cjson = require "cjson"

local c_figures = require "coverage.c_figures"
local instrument = require "coverage.instrument"
local justify = require "coverage.justify"
local lua_figures = require "coverage.lua_figures"
local tree = require "coverage.tree"

local justified = require "coverage.justified"

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

local function lines_of(text)
    local lines = {}
    for line in text:gmatch("([^\n]*)\n") do
        lines[#lines + 1] = line
    end
    return lines
end

-- "12-14 20"
local function ranges(numbers)
    local parts, i = {}, 1
    while i <= #numbers do
        local from = numbers[i]
        while numbers[i + 1] and numbers[i + 1] <= numbers[i] + 1 do
            i = i + 1
        end
        parts[#parts + 1] = from == numbers[i] and from or from .. "-" .. numbers[i]
        i = i + 1
    end
    return table.concat(parts, " ")
end

local function percent(figure)
    return figure.total == 0 and 100 or 100 * figure.hit / figure.total
end

local ROW = "%-46s %6s %6s %6s  %8s %6s %6s  %s"

local function row(name, figures)
    local lines, branches = figures.lines, figures.branches
    print(ROW:format(name, lines.total, lines.hit, ("%.1f"):format(percent(lines)),
        branches.total, branches.hit, ("%.1f"):format(percent(branches)),
        ranges(figures.missed)))
end

local function new_report(gaps_path)
    return { gaps = assert(io.open(gaps_path, "w")), new = {}, open = {}, reasons = 0,
             wrong = {}, seen = {} }
end

-- Prints the row of a file and files its gaps.
local function add(self, name, figures, texts)
    row(name, figures)
    self.seen[name] = true
    for _, what in ipairs(justify(figures.gaps, texts, justified[name])) do
        table.insert(self.wrong, name .. ": " .. what)
    end
    for _, gap in ipairs(figures.gaps) do
        local line = ("%s:%d: %s\n    %s"):format(name, gap.line, gap.what,
            texts[gap.line]:match("^%s*(.*)"))
        if not gap.implied then
            self.gaps:write(line, "\n    ", gap.reason or "NOT JUSTIFIED", "\n")
            if not gap.reason then
                table.insert(self.new, line)
            elseif gap.open then
                table.insert(self.open, line)
            else
                self.reasons = self.reasons + 1
            end
        end
    end
end

local function total_of(all)
    local total = {
        lines = { total = 0, hit = 0 }, branches = { total = 0, hit = 0 }, missed = {},
    }
    for _, figures in ipairs(all) do
        for _, kind in ipairs { "lines", "branches" } do
            total[kind].total = total[kind].total + figures[kind].total
            total[kind].hit = total[kind].hit + figures[kind].hit
        end
    end
    return total
end

local function heading(language)
    print(ROW:format(language, "lines", "run", "%", "branches", "taken", "%", "lines not run"))
end

local function report_c(self, json)
    local all = {}
    heading("C")
    for _, file in ipairs(cjson.decode(read(json)).files) do
        local texts = lines_of(read(file.file))
        local figures = c_figures(file, texts)
        add(self, file.file, figures, texts)
        table.insert(all, figures)
    end
    row("all of c/", total_of(all))
end

local function report_lua(self, counts)
    local all = {}
    heading("Lua")
    for _, name in ipairs(tree.sources(".")) do
        local text = read(name)
        local _, points = instrument(text)
        local figures = lua_figures(points, read(tree.counters(counts, name)))
        add(self, name, figures, lines_of(text))
        table.insert(all, figures)
    end
    row("all of lua/", total_of(all))
end

local function list(title, lines)
    if #lines > 0 then
        print(("\n%s (%d):"):format(title, #lines))
        print(table.concat(lines, "\n"))
    end
end

local function main(counts, json, gaps_path)
    local self = new_report(gaps_path)
    report_c(self, json)
    print()
    report_lua(self, counts)
    self.gaps:close()
    for name in pairs(justified) do
        if not self.seen[name] then
            table.insert(self.wrong, name .. ": there is no such file")
        end
    end
    list("no spec goes there yet", self.open)
    list("not covered, not justified", self.new)
    list("justifications that do not hold", self.wrong)
    print(("\ngaps: %d with a reason, %d open, %d not justified; %d justifications "
        .. "out of date; all gaps: %s"):format(self.reasons, #self.open, #self.new,
        #self.wrong, gaps_path))
    os.exit(#self.new + #self.wrong == 0)
end

main(arg[1], arg[2], arg[3])
