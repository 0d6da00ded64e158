-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Decides whether a recorded history keeps the promise of coherence. A pure
-- program: it reads operations, and touches neither clock nor server.
--
-- Each session id is a register in Redis that holds a value or nothing. A write
-- takes effect at one moment between its begin and its end; every write has a
-- value of its own, so each value is current during one stretch of time, its
-- tenure. A load that began at s and ended at e must return what was current at
-- some moment of [lo, e] with
--
--     lo = the later of   s - lease - slack
--                         the begin of any write of this id that the same
--                         replica had finished before s
--
-- where s is the time nginx' clock showed (one turn of the event loop is read as
-- one moment). The second line says that a replica never lags behind itself;
-- what is flagged stale is bound by it alone. So a history is right if it is
-- that of an atomic register whose loads began at lo, and for registers with
-- distinct values that can be decided exactly and fast (Gibbons and Korach,
-- Testing shared memories, SIAM J. Comput. 26/4, 1997). A value is known to be
-- current
--
--     from `first`, the earliest end of its write and its loads,
--     to   `last`,  the latest begin of its write and its loads,
--
-- all the time in between when first < last (a *forward* zone), else at some
-- moment of [last, first] (a *backward* one). It is a violation (history.rules)
-- when
--
--     two forward zones overlap              two values at once
--     a forward zone holds a backward one    an overwritten value came back
--     a forward zone holds an acknowledged   a deleted session came back
--         delete, or a load that found none  a session was lost for a while
--     a load found none, and no delete, flush or loss can have come after the
--         last write known to precede it     a lost session
--
--     a load returned a value known to be current before its own replica began
--         a write that it had finished before the load
--
-- and likewise for what create and update say about the presence of a session,
-- which they ask Redis itself (no lease). "None" has no distinct value, so the
-- last two are necessary conditions rather than an exact test.
--
-- A write of unknown outcome (a timeout, a process that died) takes effect once
-- or never, at any time after its begin and before the end of the first barrier
-- that began after it was given up: see history.driver. Until it is loaded its
-- value is taken not to have been written.

local rules = require "history.rules"

local _M = {}

local INFINITY = math.huge

-- Slack of the lease in ms: that the two clocks of a process are read apart,
-- nginx' one has whole milliseconds and steps of up to 4.
_M.SLACK = 10

local binary = rules.binary
local complain = rules.complain

local PUTS = { store = true, create = true, update = true, set = true }
local DELETES = { delete = true, del = true, remove_if = true }
local EVERYTHING = { flush = true, restart = true }
local LOADS = { load = true, resolve = true }

-- Results an operation may have, and what each says of its effect.
local EFFECTS = {
    ok = "done", unknown = "maybe", failed = "none",
    already_exists = "none", not_found = "none", changed = "none",
}
local LOAD_CODES = { ok = true, not_found = true, failed = true,
                     unknown = true }


-- ------------------------------------------------------------------ reading --

-- Until when a write of unknown outcome may still take effect.
local function settled(self, op)
    local given_up = op.resp or op.died
    if not given_up then
        return INFINITY
    end
    for _, barrier in ipairs(self.barriers) do
        if barrier.from > given_up then
            return barrier.to
        end
    end
    return INFINITY
end


-- effect: "done", "maybe" or "none"; latest: of the moment it took effect.
local function judge(self, op)
    op.effect = not op.code and "maybe" or EFFECTS[op.code]
    if op.effect == "done" then
        op.latest = op.resp
    elseif op.effect == "maybe" then
        op.latest = settled(self, op)
    elseif not op.effect then
        op.effect = "none"
        complain(self, op.id, "result", "an operation ended with "
                 .. op.code, op)
    end
end


local function session_of(self, id)
    local s = self.sessions[id]
    if not s then
        s = { id = id, values = {}, absents = {}, loads = {}, none = {},
              some = {}, own = {} }
        self.sessions[id] = s
        self.ids[#self.ids + 1] = id
    end
    return s
end


local function add_put(self, s, op)
    if s.values[op.value] then
        complain(self, op.id, "history", "a value was written twice", op)
        return
    end
    s.values[op.value] = { value = op.value, write = op, loads = 0,
                           first = op.latest or INFINITY, first_op = op,
                           last = op.inv, last_op = op }
    if op.kind ~= "create" and op.kind ~= "update" then
        return
    end
    local found_none = op.kind == "create" and op.code == "ok"
                       or op.kind == "update" and op.code == "not_found"
    local found_some = op.kind == "update" and op.code == "ok"
                       or op.kind == "create" and op.code == "already_exists"
    if found_none then
        s.none[#s.none + 1] = { op = op, lo = op.inv, hi = op.resp }
    elseif found_some then
        s.some[#s.some + 1] = { op = op, lo = op.inv, hi = op.resp }
    end
end


local function add_delete(s, op)
    if op.effect ~= "none" then
        s.absents[#s.absents + 1] = op
    end
    if op.kind == "remove_if" and op.code == "ok" then
        s.loads[#s.loads + 1] = { op = op, lo = op.inv, hi = op.resp }
    end
end


-- What a replica has finished itself, for `own_bound`.
local function add_own(s, op)
    if op.replica and op.resp then
        local list = s.own[op.replica] or {}
        s.own[op.replica] = list
        list[#list + 1] = op
    end
end


local function add(self, op)
    if EVERYTHING[op.kind] then
        judge(self, op)
        self.everything[#self.everything + 1] = op
        return
    end
    local s = session_of(self, op.id)
    if LOADS[op.kind] then
        s.asked = s.asked or {}
        s.asked[#s.asked + 1] = op
        return
    end
    judge(self, op)
    add_own(s, op)
    if PUTS[op.kind] then
        add_put(self, s, op)
    elseif DELETES[op.kind] then
        add_delete(s, op)
    else
        error("an operation of unknown kind: " .. tostring(op.kind))
    end
end


-- ------------------------------------------------- the moment a load means --

-- Sorted by end; each with those of the latest begin so far: of all, and of
-- those that certainly took effect.
local function index_own(s)
    for _, list in pairs(s.own) do
        table.sort(list, function(a, b) return a.resp < b.resp end)
        local latest, done
        for i, op in ipairs(list) do
            if not latest or op.inv > latest.inv then
                latest = op
            end
            if op.effect == "done" and (not done or op.inv > done.inv) then
                done = op
            end
            list[i] = { resp = op.resp, latest = latest, done = done }
        end
    end
end


-- What its own replica had finished before a load, or nil.
local function own_before(s, op)
    local list = s.own[op.replica]
    return list and list[binary(list, function(entry)
        return entry.resp < op.inv
    end)]
end


-- One more load of a value: it narrows down when the value was current.
local function witness(cluster, load)
    cluster.loads = cluster.loads + 1
    if load.hi < cluster.first then
        cluster.first, cluster.first_op = load.hi, load.op
    end
    if load.lo > cluster.last then
        cluster.last, cluster.last_op = load.lo, load.op
    end
end


local function attribute(self, s, load)
    local op = load.op
    local cluster = s.values[op.value]
    if not cluster then
        complain(self, s.id, "phantom", "a value that nobody wrote to this id",
                 op)
    elseif cluster.write.effect == "none" then
        complain(self, s.id, "phantom", "the value of a write that failed", op,
                 cluster.write)
    elseif op.resp < cluster.write.inv then
        complain(self, s.id, "phantom", "a value from the future", op,
                 cluster.write)
    else
        witness(cluster, load)
    end
end


local function place_load(self, s, op)
    if not LOAD_CODES[op.code] then
        complain(self, s.id, "result", "a load ended with "
                 .. tostring(op.code), op)
    end
    if op.code ~= "ok" and op.code ~= "not_found" then
        self.stats.failed = self.stats.failed + 1
        return
    end

    local own = own_before(s, op)
    local lo = own and own.latest.inv or -INFINITY
    if op.stale then
        self.stats.stale = self.stats.stale + 1
    else
        lo = math.max(lo, op.turn - self.lease - self.slack)
    end
    local load = { op = op, lo = lo, hi = op.resp, after = own and own.done }
    if op.code == "ok" then
        s.loads[#s.loads + 1] = load
    else
        s.none[#s.none + 1] = load
    end
end


-- ------------------------------------------------------------------ figures --

-- For any write: when the first of those that began after it was over.
local function replacements(s, clusters)
    local list = {}
    for _, cluster in ipairs(clusters) do
        if cluster.write.effect == "done" then
            list[#list + 1] = cluster.write
        end
    end
    for _, op in ipairs(s.absents) do
        if op.effect == "done" then
            list[#list + 1] = op
        end
    end
    table.sort(list, function(a, b) return a.inv < b.inv end)
    local soonest = INFINITY
    for i = #list, 1, -1 do
        soonest = math.min(soonest, list[i].resp)
        list[i] = { inv = list[i].inv, over = soonest }
    end
    return list
end


-- How old was what fresh loads returned, as far as it is known?
local function measure(self, s, clusters)
    local stats, over = self.stats, replacements(s, clusters)
    for _, load in ipairs(s.loads) do
        local op = load.op
        local cluster = s.values[op.value]
        if LOADS[op.kind] and not op.stale and cluster then
            local i = binary(over, function(o)
                return o.inv <= (cluster.write.latest or INFINITY)
            end)
            local age = over[i + 1] and op.turn - over[i + 1].over or 0
            if age > 0 then
                stats.outdated = stats.outdated + 1
            end
            if age > stats.oldest then
                stats.oldest, stats.oldest_load = age, op
            end
        end
    end
end


-- ---------------------------------------------------------------- the check --

local function check_session(self, s)
    for _, op in ipairs(self.everything) do
        if op.effect ~= "none" then
            s.absents[#s.absents + 1] = op
        end
    end
    index_own(s)
    for _, op in ipairs(s.asked or {}) do
        self.stats.loads = self.stats.loads + 1
        place_load(self, s, op)
    end
    for _, load in ipairs(s.loads) do
        attribute(self, s, load)
    end

    measure(self, s, rules.apply(self, s))
end


---
-- Checks a history.
-- @param history { ops = array of operations, barriers = array of { from, to }
--        in order }, times in ms of one clock. An operation is
--            kind     store create update delete remove_if load resolve (by a
--                     replica), set del (by a third party; these two and delete
--                     need no replica), flush restart (all ids)
--            id, value, replica
--            inv, resp, turn  begin, end (nil: it never came), and for loads
--                     the time of nginx' clock at the begin
--            code     ok, unknown, failed (no effect), or an error code
--            stale    boolean
--            died     when the process of an operation without end was dead
-- @param opts { lease = ms, slack = ms (SLACK) }
-- @return { violations = array of { id, rule, text, ops }, stats = { operations,
--         loads, failed, stale, outdated = loads of what was certainly replaced,
--         oldest = ms, oldest_load = operation, margin = ms to the bound } }
function _M.check(history, opts)
    local self = {
        lease = opts.lease,
        slack = opts.slack or _M.SLACK,
        barriers = history.barriers or {},
        violations = {},
        sessions = {}, ids = {}, everything = {},
        stats = { operations = #history.ops, loads = 0, failed = 0, stale = 0,
                  outdated = 0, oldest = 0 },
    }
    for _, op in ipairs(history.ops) do
        add(self, op)
    end
    table.sort(self.ids)
    for _, id in ipairs(self.ids) do
        check_session(self, self.sessions[id])
    end
    self.stats.slack = self.slack
    self.stats.barriers = #self.barriers
    self.stats.margin = self.lease + self.slack - self.stats.oldest
    return { violations = self.violations, stats = self.stats }
end


return _M
