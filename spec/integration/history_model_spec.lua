-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The checker of histories on random ones, of a model that keeps the promise of
-- coherence: whatever that may answer must pass, and nothing else.

local checker = require "history.checker"
local schedule = require "history.schedule"

local function rules_of(ops)
    local rules = {}
    for i, violation in ipairs(checker.check({ ops = ops },
        { lease = 1000, slack = 0 }).violations)
    do
        rules[i] = violation.rule
    end
    return rules
end

-- Random histories of a register that keeps the promise, and not a hair better:
-- a load returns what was current at any moment it may mean.
local Model = {}
Model.__index = Model

local function a_model(seed)
    return setmetatable({ random = schedule.random(seed), writes = {},
        ops = {}, own = { r1 = {}, r2 = {} }, time = 0,
        written = 0 }, Model)
end

function Model:value_at(moment)
    local value = false
    for _, write in ipairs(self.writes) do
        if write.at <= moment then
            value = write.value
        end
    end
    return value
end

-- A write takes effect between its begin and its end, or in doubt later or
-- never.
function Model:write(op)
    local random = self.random
    op.inv, op.id = self.time, "a"
    local at = op.inv + random:between(0, 30)
    op.resp = at + random:between(0, 30)
    if random:next() < 0.1 then
        op.resp, op.code = op.inv + 20, "unknown"
        at = op.inv + random:between(0, 3000)
    end
    if op.code ~= "unknown" or random:next() < 0.7 then
        table.insert(self.writes, { at = at, op = op })
    else
        self:note_own(op, op.inv)
    end
    table.insert(self.ops, op)
end

-- What the server says to each write, in the order it sees them.
function Model:serve()
    local value = false
    table.sort(self.writes, function(a, b) return a.at < b.at end)
    for _, write in ipairs(self.writes) do
        local op = write.op
        local refused = op.kind == "create" and value and "already_exists"
            or op.kind == "update" and not value and "not_found"
        value = not refused and (op.value or false) or refused and value
        write.value = value
        op.code = op.code or refused or "ok"
        self:note_own(op, op.code == "ok" and write.at or op.inv)
    end
end

-- A replica drops its copy before it asks, and again when that has failed.
function Model:note_own(op, at)
    table.insert(self.own[op.replica], { at = at, resp = op.resp })
end

-- Loads are answered once all changes are known.
function Model:load(op)
    op.inv, op.id, op.turn = self.time, "a", self.time
    op.resp = op.inv + self.random:between(0, 20)
    op.stale = false
    table.insert(self.ops, op)
end

function Model:answer(op, age)
    local from = op.inv - age
    for _, write in ipairs(self.own[op.replica]) do
        from = write.resp < op.inv and math.max(from, write.at) or from
    end
    op.value = self:value_at(self.random:between(from, op.resp))
    op.code = op.value and "ok" or "not_found"
    op.value = op.value or nil
end

function Model:run(count)
    local random = self.random
    for _ = 1, count do
        self.time = self.time + random:between(0, 100)
        local replica = random:next() < 0.5 and "r1" or "r2"
        local draw = random:next()
        if draw < 0.6 then
            self:load { kind = "load", replica = replica }
        elseif draw < 0.7 then
            self:write { kind = "delete", replica = replica }
        else
            self.written = self.written + 1
            local kinds = { "store", "create", "update" }
            self:write { kind = kinds[random:one_of(3)], replica = replica,
                value = "v" .. self.written }
        end
    end
    self:serve()
    for _, op in ipairs(self.ops) do
        if op.kind == "load" then
            self:answer(op, 1000)
        end
    end
    return self.ops
end

-- A value that was certainly replaced more than a lease before `op`.
local function outdated(ops, op)
    for _, put_op in ipairs(ops) do
        for _, next_op in ipairs(put_op.value and ops or {}) do
            if put_op.code == "ok" and next_op.code == "ok"
                and put_op.kind ~= "load" and next_op.kind ~= "load"
                and next_op.inv > put_op.resp
                and next_op.resp < op.inv - 1000
            then
                return put_op.value
            end
        end
    end
end

describe("history.checker on random histories", function()
    it("passes whatever a store that keeps the promise may answer", function()
        for seed = 1, 150 do
            local rules = rules_of(a_model(seed):run(120))
            assert.same({}, rules, "seed " .. seed)
        end
    end)

    it("finds a single outdated answer in it", function()
        local tried = 0
        for seed = 1, 60 do
            local ops = a_model(seed):run(120)
            local op = ops[#ops]
            local value = op.kind == "load" and outdated(ops, op)
            if value then
                tried = tried + 1
                op.value, op.code = value, "ok"
                assert.is_true(#rules_of(ops) > 0, "seed " .. seed)
            end
        end
        assert.is_true(tried > 10)
    end)
end)
