-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What the counters of an instrumented file say.
--
--     lua_figures(points, counters) -> figures
--
--     figures.lines     { total, hit }: lines that statements begin on; such a
--                       line is hit when all of them have run
--     figures.branches  { total, hit }: outcomes of conditions
--     figures.missed    numbers of the lines that are not hit, sorted
--     figures.gaps      { line =, what =, implied = }, sorted: what has not
--                       happened. `implied` where that follows from another gap:
--                       in a block that was not entered, after a statement that
--                       was not reached, in a condition that was not asked.

local function by_line(a, b)
    return a.line < b.line
end

-- Statements with a gap in them, not counting the functions made there, may be
-- why the next one is not reached.
local function mark_partial(points)
    for _, point in ipairs(points) do
        local around = not point.hit and point.statement
        while around and around.body == point.body do
            around.partial = true
            around = around.statement
        end
    end
end

-- A statement that has not run is a gap of its own only where all before it
-- has: else that, or the condition of the block, is.
local function is_implied(point)
    local statement = point.statement
    if statement and not statement.hit then
        return true
    elseif point.before then
        return not point.before.hit or point.before.partial or false
    end
    return point.first == "other"
end

local function why_not_run(point)
    if point.first == "function" and point.statement then
        return "the function is not called"
    elseif point.first == "for" then
        return "the loop is not entered"
    end
    return "not run"
end

-- Statement gaps, and how often lines are mentioned.
local function statements(points, figures)
    local lines = {}
    for _, point in ipairs(points) do
        if point.kind == "statement" then
            lines[point.line] = lines[point.line] ~= false and point.hit
            if not point.hit then
                table.insert(figures.gaps, {
                    line = point.line, what = why_not_run(point),
                    implied = is_implied(point),
                })
            end
        end
    end
    for line, hit in pairs(lines) do
        figures.lines.total = figures.lines.total + 1
        if hit then
            figures.lines.hit = figures.lines.hit + 1
        else
            table.insert(figures.missed, line)
        end
    end
    table.sort(figures.missed)
end

-- A condition that was not asked, though its statement has run, follows from an
-- earlier one of the same statement that has gone only one way.
local function add_condition(figures, yes, no, one_sided)
    local asked = yes.hit or no.hit
    if yes.hit and no.hit then
        return
    end
    local statement = yes.statement
    table.insert(figures.gaps, {
        line = yes.line,
        what = ("`%s` %s"):format(yes.text, not asked and "is not asked"
            or yes.hit and "is never false" or "is never true"),
        implied = not statement.hit or not asked and one_sided[statement],
    })
    one_sided[statement] = true
end

local function branches(points, figures)
    local one_sided = {}
    for i, point in ipairs(points) do
        if point.kind ~= "statement" then
            figures.branches.total = figures.branches.total + 1
            figures.branches.hit = figures.branches.hit + (point.hit and 1 or 0)
        end
        if point.kind == "true" then
            add_condition(figures, point, points[i + 1], one_sided)
        end
    end
end

---
-- @param points of instrument()
-- @param counters the bytes of the counters
return function(points, counters)
    assert(#points == #counters, "these counters belong to another source")
    for i, point in ipairs(points) do
        point.hit = counters:byte(i) ~= 0
    end
    local figures = {
        lines = { total = 0, hit = 0 }, branches = { total = 0, hit = 0 },
        missed = {}, gaps = {},
    }
    mark_partial(points)
    statements(points, figures)
    branches(points, figures)
    table.sort(figures.gaps, by_line)
    return figures
end
