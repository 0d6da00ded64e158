-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A run in words: the schedule, the counts, and for each violation the part of
-- the history that it is about.

local _M = {}

local MOST = 5        -- violations shown
local LINES = 40      -- of the history for each
local AROUND = 100    -- ms of it before and after


-- Times are shown in ms since the first operation of the history.
local function origin_of(history)
    local origin = math.huge
    for _, op in ipairs(history.ops) do
        origin = math.min(origin, op.inv)
    end
    return origin
end


local function describe(op, origin)
    return ("%10.3f %10s  %-10s %-9s %-4s %s%s%s"):format(op.inv - origin,
        op.resp and ("%.3f"):format(op.resp - origin) or "?",
        op.file or op.replica or "-", op.kind, op.id or "all",
        op.value or "", op.code and " -> " .. op.code or " -> nothing",
        op.stale and " (stale)" or "")
end


local function involved(violation)
    local ops, values, replicas = {}, {}, {}
    local from, to = math.huge, -math.huge
    for _, op in ipairs(violation.ops) do
        ops[op] = true
        if op.value then
            values[op.value] = true
        end
        if op.replica then
            replicas[op.replica] = true
        end
        from = math.min(from, op.inv)
        to = math.max(to, op.resp or op.inv)
    end
    return { ops = ops, values = values, replicas = replicas,
             from = from - AROUND, to = to + AROUND }
end


-- All writes of the time, and loads of the values concerned.
local function concerns(violation, part, op)
    if op.id ~= nil and op.id ~= violation.id or op.inv > part.to
       or (op.resp or op.inv) < part.from
    then
        return false
    end
    local is_load = op.kind == "load" or op.kind == "resolve"
    return part.ops[op] or not is_load
           or op.value and part.values[op.value]
           or op.code ~= "ok" and part.replicas[op.replica]
end


local function select_ops(history, violation, part)
    local list = {}
    for _, op in ipairs(history.ops) do
        if concerns(violation, part, op) then
            list[#list + 1] = { time = op.inv, op = op }
        end
    end
    for _, fault in ipairs(history.faults or {}) do
        if fault.time >= part.from - 2000 and fault.time <= part.to then
            list[#list + 1] = { time = fault.time, text = fault.text }
        end
    end
    table.sort(list, function(a, b) return a.time < b.time end)
    return list
end


-- Of a long part the lines that matter, and others while there is room, those
-- near the end first.
local function shorten(list, part)
    local keep, room = {}, LINES
    local function take(wanted)
        for i = #list, 1, -1 do
            if room > 0 and not keep[i] and wanted(list[i]) then
                keep[i], room = true, room - 1
            end
        end
    end
    take(function(item) return part.ops[item.op] end)
    take(function(item) return item.text end)
    take(function() return true end)
    return keep
end


local function show_part(history, violation, out)
    local origin, part = origin_of(history), involved(violation)
    local list = select_ops(history, violation, part)
    local keep, skipped = shorten(list, part), false
    for i, item in ipairs(list) do
        if keep[i] and item.text then
            out(("  %10.3f             fault: %s"):format(item.time - origin,
                item.text))
        elseif keep[i] then
            out((part.ops[item.op] and "* " or "  ")
                .. describe(item.op, origin))
        elseif not skipped then
            out("             ...")
        end
        skipped = not keep[i]
    end
end


---
-- Prints the violations of a check.
-- @param out function(line)
function _M.violations(result, history, out)
    local list = result.violations
    for i = 1, math.min(#list, MOST) do
        local violation = list[i]
        out(("violation %d (%s), id %s: %s"):format(i, violation.rule,
            violation.id or "all", violation.text))
        if #violation.ops > 0 then
            out("       begin        end  process    what      id   value")
            show_part(history, violation, out)
        end
    end
    if #list > MOST then
        out(("... and %d more"):format(#list - MOST))
    end
end


---
-- An action of a schedule: what, to whom where that matters, and for how long.
function _M.action(action)
    local what = action.what
    local words = { what }
    if what:find("worker") then
        words[#words + 1] = ("%d of"):format(action.worker)
    end
    if what:find("worker") or what == "reload" then
        words[#words + 1] = ("replica %d"):format(action.replica)
    end
    if what == action.fault.begin and action.seconds > 0 then
        words[#words + 1] = ("for %.2f s"):format(action.seconds)
    end
    return table.concat(words, " ")
end


---
-- The schedule, one action a line.
function _M.schedule(actions, out)
    for _, action in ipairs(actions) do
        out(("%7.2f s  %s"):format(action.at, _M.action(action)))
    end
end


---
-- The counts of a run.
function _M.counts(result, opts, out)
    local s = result.stats
    out(("operations %d, loads %d (%d stale, %d failed), hits %d, faults %d, "
         .. "epochs %d, barriers %d"):format(s.operations, s.loads, s.stale,
         s.failed, s.hits, s.faults, s.epochs, s.barriers))
    out(("outdated loads %d, the oldest by %.1f ms; bound %.0f ms + slack %.0f"
         .. " ms: nearest distance %.1f ms"):format(s.outdated, s.oldest,
         opts.lease * 1000, s.slack, s.margin))
end


---
-- All violations as one text, for a spec.
function _M.text(result, history)
    local lines = {}
    _M.violations(result, history, function(line)
        lines[#lines + 1] = line
    end)
    return table.concat(lines, "\n")
end


return _M
