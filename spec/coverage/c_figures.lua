-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What gcovr says about a C file, as figures like those of lua_figures.
--
--     c_figures(file, texts) -> figures
--
-- Branches are those of the compiler, which makes two of each operand of && and
-- ||, of ?:, of a loop and of an assert, and one of each case of a switch: gcc
-- says how often each was taken, not which is which. What is implied is told by
-- the indentation: a line is when it is below a line with a gap and further to
-- the right, or next to one that has not run.

local function indentation(text)
    return #text:match("^%s*")
end

local function what_is_missing(line)
    if line.count == 0 then
        return "not run"
    end
    local taken = 0
    for _, branch in ipairs(line.branches) do
        taken = taken + (branch.count > 0 and 1 or 0)
    end
    if taken < #line.branches then
        return ("%d of %d branches not taken"):format(#line.branches - taken, #line.branches)
    end
end

-- Lines that can run are in order; gaps[i] belongs to lines[i].
local function is_implied(i, lines, gaps, texts)
    if gaps[i].what ~= "not run" then
        return false
    end
    local column = indentation(texts[lines[i].line_number])
    for above = i - 1, 1, -1 do
        local at = indentation(texts[lines[above].line_number])
        if at < column then
            return gaps[above] ~= nil and at > 0 or gaps[above] ~= nil
                and gaps[above].what == "not run"
        elseif at == column and gaps[above] and gaps[above].what == "not run" then
            return true
        end
    end
    return false
end

local function count(figures, line)
    figures.lines.total = figures.lines.total + 1
    if line.count > 0 then
        figures.lines.hit = figures.lines.hit + 1
    else
        table.insert(figures.missed, line.line_number)
    end
    for _, branch in ipairs(line.branches) do
        figures.branches.total = figures.branches.total + 1
        figures.branches.hit = figures.branches.hit + (branch.count > 0 and 1 or 0)
    end
end

---
-- @param file of "files" in gcovr's JSON
-- @param texts lines of the source
return function(file, texts)
    local figures = {
        lines = { total = 0, hit = 0 }, branches = { total = 0, hit = 0 },
        missed = {}, gaps = {},
    }
    local lines, gaps = {}, {}
    for _, line in ipairs(file.lines) do
        if not line["gcovr/noncode"] then
            local i, what = #lines + 1, what_is_missing(line)
            lines[i] = line
            gaps[i] = what and { line = line.line_number, what = what }
            count(figures, line)
        end
    end
    for i = 1, #lines do
        if gaps[i] then
            gaps[i].implied = is_implied(i, lines, gaps, texts)
            table.insert(figures.gaps, gaps[i])
        end
    end
    return figures
end
