-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The rules of history.checker, for one session. What is known of it:
--
--     values    value -> { write = operation, first, first_op, last, last_op,
--               loads = count }; see the checker for first and last
--     absents   operations that may have taken it away
--     loads     of a value: { op, lo, hi, after = the last write its own replica
--               had finished before it }
--     none      the same, of nothing
--     some      the same, of any value
--
-- Each rule looks for pairs that cannot both be true and complains about them.

local _M = {}

local INFINITY = math.huge

---
-- The last index of a sorted list for which `is_before` holds, or 0.
function _M.binary(list, is_before)
    local low, high = 0, #list
    while low < high do
        local middle = math.floor((low + high + 1) / 2)
        if is_before(list[middle]) then
            low = middle
        else
            high = middle - 1
        end
    end
    return low
end


---
-- Notes a violation.
-- @param self the check, its list is `violations`
-- @param ... the operations it is about; nil and repetitions are left out
function _M.complain(self, id, rule, text, ...)
    local list, seen = {}, {}
    for i = 1, select("#", ...) do
        local op = select(i, ...)
        if op and not seen[op] then
            seen[op] = true
            list[#list + 1] = op
        end
    end
    self.violations[#self.violations + 1] = {
        id = id, rule = rule, text = text, ops = list,
    }
end


local binary = _M.binary
local complain = _M.complain


-- Values that have certainly been written.
local function certain(s)
    local list = {}
    for _, cluster in pairs(s.values) do
        local effect = cluster.write.effect
        if effect == "done" or effect == "maybe" and cluster.loads > 0 then
            list[#list + 1] = cluster
        end
    end
    table.sort(list, function(a, b) return a.first < b.first end)
    return list
end


local function forward_zones(self, s, clusters)
    local list, reach = {}, nil
    for _, cluster in ipairs(clusters) do
        if cluster.first < cluster.last then
            if reach and cluster.first < reach.last then
                complain(self, s.id, "two values", "two values were current at"
                    .. " the same time: a replaced one came back", reach.last_op,
                    reach.write, reach.first_op, cluster.write,
                    cluster.first_op, cluster.last_op)
            end
            if not reach or cluster.last > reach.last then
                reach = cluster
            end
            list[#list + 1] = cluster
        end
    end
    return list
end


-- The forward zone that holds the whole of [from, to] inside it, or nil.
local function holder(zones, from, to)
    local i = binary(zones, function(zone) return zone.first < from end)
    local zone = zones[i]
    return zone and to < zone.last and zone or nil
end


local function against_zone(self, s, zone, rule, text, ...)
    complain(self, s.id, rule, text, zone.last_op, zone.write, zone.first_op,
             ...)
end


local function check_backward(self, s, clusters, zones)
    for _, cluster in ipairs(clusters) do
        if cluster.first >= cluster.last then
            local zone = holder(zones, cluster.last, cluster.first)
            if zone then
                against_zone(self, s, zone, "came back", "a value that had been"
                    .. " replaced came back", cluster.write, cluster.first_op,
                    cluster.last_op)
            end
        end
    end
end


local function check_deletes(self, s, zones)
    for _, op in ipairs(s.absents) do
        local zone = op.effect == "done" and holder(zones, op.inv, op.resp)
        if zone then
            against_zone(self, s, zone, "resurrected", "a session that had been"
                         .. " deleted came back", op)
        end
    end
end


-- A value that was there before a write and is loaded after it was not replaced
-- by it.
local function check_own(self, s)
    for _, load in ipairs(s.loads) do
        local cluster, after = s.values[load.op.value], load.after
        if cluster and after and cluster.write ~= after
           and cluster.first < after.inv
        then
            complain(self, s.id, "behind", "a replica returned what it had"
                     .. " itself replaced or deleted before", load.op,
                     cluster.write, cluster.first_op, after)
        end
    end
end


-- ----------------------------------------------------- presence and absence --

-- For any moment: the latest begin that a value known to be there by then has.
local function last_known(clusters)
    local list, best = {}, nil
    for i, cluster in ipairs(clusters) do
        if not best or cluster.last > best.last then
            best = cluster
        end
        list[i] = { first = cluster.first, best = best }
    end
    return list
end


-- Deletes by begin; each with the longest any so far may have waited.
local function possible_deletes(s)
    local list = {}
    for i, op in ipairs(s.absents) do
        list[i] = op
    end
    table.sort(list, function(a, b) return a.inv < b.inv end)
    local longest = -INFINITY
    for i, op in ipairs(list) do
        longest = math.max(longest, op.latest)
        list[i] = { inv = op.inv, longest = longest, op = op }
    end
    return list
end


-- The value its own replica had written before a load.
local function own_value(s, load)
    local after = load.after
    local cluster = after and after.value and s.values[after.value]
    return cluster and cluster.write == after and cluster
end


local function later(a, b)
    if a and b then
        return a.last > b.last and a or b
    end
    return a or b
end


local function check_absence(self, s, clusters, zones)
    local known, deletes = last_known(clusters), possible_deletes(s)
    for _, load in ipairs(s.none) do
        local zone = holder(zones, load.lo, load.hi)
        if zone then
            against_zone(self, s, zone, "lost", "a session that was there was"
                         .. " not found", load.op)
        end
        local i = binary(known, function(k) return k.first < load.lo end)
        local j = binary(deletes, function(d) return d.inv <= load.hi end)
        local best = later(i > 0 and known[i].best, own_value(s, load))
        local longest = j > 0 and deletes[j].longest or -INFINITY
        if best and longest < best.last then
            complain(self, s.id, "lost", "a session was not found that nobody"
                     .. " had deleted", load.op, best.write, best.first_op,
                     best.last_op, deletes[j] and deletes[j].op)
        end
    end
end


-- The acknowledged delete that began last of those over by `moment`.
local function last_delete(s, moment)
    local best
    for _, op in ipairs(s.absents) do
        if op.effect == "done" and op.resp <= moment
           and (not best or op.inv > best.inv)
        then
            best = op
        end
    end
    return best
end


-- May any value but that of `but` have been current at `hi` or before, and after
-- a delete?
local function may_be_there(s, hi, but, delete)
    for _, cluster in pairs(s.values) do
        local write = cluster.write
        if write ~= but and write.effect ~= "none" and write.inv <= hi
           and (not delete
                or math.max(write.latest, cluster.last) >= delete.inv)
        then
            return true
        end
    end
    return false
end


local function check_presence(self, s)
    for _, look in ipairs(s.some) do
        local delete = last_delete(s, look.lo)
        if not may_be_there(s, look.hi, look.op, delete) then
            complain(self, s.id, "presence", look.op.kind .. " found a session"
                     .. " where there was none", look.op, delete)
        end
    end
end


---
-- Applies all rules to a session.
-- @param self the check
-- @return the values that have certainly been written
function _M.apply(self, s)
    local clusters = certain(s)
    local zones = forward_zones(self, s, clusters)
    check_backward(self, s, clusters, zones)
    check_deletes(self, s, zones)
    check_own(self, s)
    check_absence(self, s, clusters, zones)
    check_presence(self, s)
    return clusters
end


return _M
