-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The checker of recorded histories, on small ones written by hand: what is
-- right must pass, and each kind of wrong must be found. Times are ms; the lease
-- is 1000 and there is no slack unless a spec says so.

local checker = require "history.checker"

local INFINITY = math.huge

-- A history is written with one method for each kind of operation, which takes
-- the process ("r1", "r2" or false for a third party), value, begin and end.
local Builder = {}
Builder.__index = Builder

local function add(self, op)
    self.ops[#self.ops + 1] = op
    return self
end

local function put(kind)
    return function(self, who, value, inv, resp, code)
        return add(self, { kind = kind, id = "a", value = value, inv = inv,
            resp = resp, code = code or resp and "ok", replica = who or nil })
    end
end

local function load(kind, stale)
    return function(self, who, value, inv, resp, turn)
        return add(self, { kind = kind, id = "a", value = value or nil,
            inv = inv, resp = resp, turn = turn or inv, stale = stale,
            code = value and "ok" or "not_found", replica = who })
    end
end

Builder.store, Builder.create = put "store", put "create"
Builder.update, Builder.set = put "update", put "set"
Builder.remove_if, Builder.flush = put "remove_if", put "flush"
Builder.load, Builder.resolve = load("load", false), load("resolve", false)
Builder.stale = load("load", true)

function Builder:delete(who, inv, resp, code)
    return put("delete")(self, who, nil, inv, resp, code)
end

-- The last operation has no end: its process was dead at `moment`.
function Builder:died(moment)
    local op = self.ops[#self.ops]
    op.resp, op.code, op.died = nil, nil, moment
    return self
end

function Builder:barrier(from, to)
    self.barriers[#self.barriers + 1] = { from = from, to = to }
    return self
end

local function a_history()
    return setmetatable({ ops = {}, barriers = {} }, Builder)
end

local function rules_of(built, slack)
    local rules = {}
    for i, violation in ipairs(checker.check(built,
        { lease = 1000, slack = slack or 0 }).violations)
    do
        rules[i] = violation.rule
    end
    table.sort(rules)
    return rules
end

local function is_right(built, slack)
    assert.same({}, rules_of(built, slack))
end

local function is_wrong(rule, built, slack)
    local rules = rules_of(built, slack)
    for _, found in ipairs(rules) do
        if found == rule then
            return
        end
    end
    error(("expected %s, found: %s"):format(rule, table.concat(rules, ", ")), 2)
end

describe("history.checker", function()
    local h
    before_each(function() h = a_history() end)

    describe("for a load", function()
        it("allows the current value", function()
            is_right(h:store("r1", "v1", 0, 1):load("r2", "v1", 5000, 5001))
        end)

        it("allows a replaced value within the lease", function()
            is_right(h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 11)
                :load("r2", "v1", 1010, 1011))
        end)

        it("finds a replaced value after the lease", function()
            is_wrong("came back", h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 11):load("r2", "v1", 1012, 1013))
        end)

        it("counts from nginx' clock of that turn", function()
            is_right(h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 11)
                :load("r2", "v1", 1500, 1501, 1010))
        end)

        it("allows for the slack", function()
            h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 11)
                :load("r2", "v1", 1015, 1016)
            is_right(h, 10)
            is_wrong("came back", h, 3)
        end)

        it("allows either value while a write is under way", function()
            is_right(h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 5000)
                :load("r2", "v1", 4000, 4001):load("r3", "v2", 3500, 3501)
                :load("r2", "v2", 6000, 6001))
        end)

        it("allows either of two concurrent writes to have been last", function()
            is_right(h:store("r1", "v1", 0, 10):store("r2", "v2", 0, 10)
                :load("r3", "v1", 5000, 5001):load("r1", "v1", 5000, 5001))
            is_right(a_history():store("r1", "v1", 0, 10)
                :store("r2", "v2", 0, 10):load("r3", "v2", 5000, 5001))
        end)

        it("finds replicas that disagree about the last of two writes for ever",
            function()
                is_wrong("two values", h:store("r1", "v1", 0, 10)
                    :store("r2", "v2", 0, 10):load("r1", "v1", 5000, 5001)
                    :load("r2", "v2", 5000, 5001))
            end)

        it("finds a value that comes back", function()
            is_wrong("two values", h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 11):load("r2", "v2", 3000, 3001)
                :load("r2", "v1", 6000, 6001))
        end)

        it("finds a value that nobody wrote", function()
            is_wrong("phantom", h:store("r1", "v1", 0, 1)
                :load("r2", "v9", 5, 6))
        end)

        it("finds a value of another id", function()
            h:store("r1", "v1", 0, 1)
            h.ops[1].id = "b"
            is_wrong("phantom", h:load("r2", "v1", 5, 6))
        end)

        it("finds a value from the future", function()
            is_wrong("phantom", h:load("r2", "v1", 0, 1)
                :store("r1", "v1", 5, 6))
        end)

        it("finds the value of a write that was refused", function()
            is_wrong("phantom", h:store("r1", "v1", 0, 1, "failed")
                :load("r2", "v1", 5, 6))
        end)

        it("finds a result that loads do not have", function()
            h:load("r1", false, 0, 1)
            h.ops[1].code = "invalid"
            is_wrong("result", h)
        end)

        it("treats resolve in the same way", function()
            is_wrong("came back", h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 11):resolve("r2", "v1", 2000, 2001))
        end)

        it("says how near the bound the oldest answer was", function()
            h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 11)
                :load("r2", "v1", 611, 612):load("r2", "v2", 700, 701)
            local stats = checker.check(h, { lease = 1000, slack = 10 }).stats
            assert.equal(600, stats.oldest)
            assert.equal(410, stats.margin)
            assert.equal(1, stats.outdated)
            assert.equal(2, stats.loads)
        end)
    end)

    describe("for a load on the replica that wrote", function()
        it("finds any value replaced before", function()
            is_wrong("behind", h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 11):load("r1", "v1", 12, 13))
        end)

        it("finds a session deleted before", function()
            is_wrong("behind", h:store("r2", "v1", 0, 1)
                :delete("r1", 10, 11):load("r1", "v1", 12, 13))
        end)

        it("finds that its own session is missing", function()
            is_wrong("lost", h:store("r1", "v1", 0, 1)
                :load("r1", false, 2, 3))
        end)

        it("finds a copy from before a write of its own that was refused",
            function()
                is_wrong("came back", h:store("r2", "v1", 0, 1)
                    :store("r2", "v2", 10, 11)
                    :create("r1", "v3", 20, 21, "already_exists")
                    :load("r1", "v1", 30, 31))
            end)

        it("allows what another replica writes meanwhile", function()
            is_right(h:store("r1", "v1", 0, 1):store("r2", "v2", 2, 3)
                :load("r1", "v1", 500, 501):load("r2", "v2", 4, 5))
        end)

        it("allows what is written concurrently to have come later", function()
            is_right(h:store("r2", "v1", 5, 20):store("r1", "v2", 10, 15)
                :load("r1", "v1", 500, 501):load("r2", "v1", 500, 501))
        end)

        it("allows its own session to be deleted concurrently", function()
            is_right(h:delete("r2", 0, 20):store("r1", "v1", 5, 15)
                :load("r1", false, 500, 501))
        end)

        it("does not take a write under way for done", function()
            is_right(h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 20)
                :load("r1", "v1", 15, 16))
        end)

        it("binds what is marked stale, too", function()
            is_wrong("behind", h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 11):stale("r1", "v1", 12, 13))
        end)
    end)

    describe("for a load marked stale", function()
        it("allows any age", function()
            is_right(h:store("r1", "v1", 0, 1):store("r1", "v2", 10, 11)
                :stale("r2", "v1", 90000, 90001))
        end)

        it("still finds a value that nobody wrote", function()
            is_wrong("phantom", h:stale("r2", "v1", 0, 1))
        end)
    end)

    describe("for a deleted session", function()
        it("allows it within the lease", function()
            is_right(h:store("r1", "v1", 0, 1):delete("r1", 10, 11)
                :load("r2", "v1", 1010, 1011):load("r1", false, 12, 13))
        end)

        it("finds it after the lease", function()
            is_wrong("resurrected", h:store("r1", "v1", 0, 1)
                :delete("r1", 10, 11):load("r2", "v1", 1012, 1013))
        end)

        it("allows it once it has been written anew", function()
            is_right(h:store("r1", "v1", 0, 1):delete("r1", 10, 11)
                :create("r2", "v2", 20, 21):load("r1", "v2", 9000, 9001))
        end)

        it("finds it after a flush", function()
            h:store("r1", "v1", 0, 1):flush(false, nil, 10, 11)
                :load("r2", "v1", 2000, 2001)
            h.ops[2].id = nil
            is_wrong("resurrected", h)
        end)

        it("finds one that was removed while it was as it had been seen",
            function()
                is_wrong("resurrected", h:store("r1", "v1", 0, 1)
                    :remove_if("r1", "v1", 10, 11)
                    :load("r2", "v1", 2000, 2001))
            end)

        it("finds the removal of what had been replaced", function()
            is_wrong("came back", h:store("r1", "v1", 0, 1)
                :store("r2", "v2", 10, 11):remove_if("r1", "v1", 20, 21))
        end)
    end)

    describe("for a session that is not found", function()
        it("allows that before it was written", function()
            is_right(h:load("r1", false, 0, 1):create("r1", "v1", 10, 11))
        end)

        it("allows that within the lease of its first write", function()
            is_right(h:create("r1", "v1", 10, 11):load("r2", false, 1010, 1011))
        end)

        it("finds that after the lease", function()
            is_wrong("lost", h:create("r1", "v1", 10, 11)
                :load("r2", false, 1012, 1013))
        end)

        it("allows that after a delete or a flush", function()
            is_right(h:store("r1", "v1", 0, 1):delete("r1", 10, 11)
                :load("r2", false, 5000, 5001))
            h = a_history():store("r1", "v1", 0, 1)
                :flush(false, nil, 10, 11):load("r2", false, 5000, 5001)
            h.ops[2].id = nil
            is_right(h)
        end)

        it("finds that when it was written again after the delete", function()
            is_wrong("lost", h:store("r1", "v1", 0, 1):delete("r1", 10, 11)
                :store("r1", "v2", 20, 21):load("r2", false, 5000, 5001))
        end)

        it("finds that between two loads of it", function()
            is_wrong("lost", h:store("r1", "v1", 0, 1):delete("r1", 2, 5000)
                :load("r2", "v1", 4000, 4001)
                :load("r2", false, 2500, 2501))
        end)

        it("allows that while a delete is under way", function()
            is_right(h:store("r1", "v1", 0, 1):delete("r1", 2, 5000)
                :load("r2", false, 4000, 4001)
                :load("r2", "v1", 4990, 4991))
        end)
    end)

    describe("for a write of unknown outcome", function()
        it("allows that it never happened", function()
            is_right(h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 260, "unknown")
                :load("r2", "v1", 9000, 9001))
        end)

        it("allows that it happened late", function()
            is_right(h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, 260, "unknown")
                :load("r2", "v1", 9000, 9001):load("r2", "v2", 9500, 9501))
        end)

        it("finds that it happened twice", function()
            is_wrong("two values", h:store("r1", "v2", 10, 260, "unknown")
                :load("r2", "v2", 3000, 3001):store("r1", "v3", 4000, 4001)
                :load("r2", "v3", 6000, 6001):load("r2", "v2", 9000, 9001))
        end)

        it("takes a late delete for the reason of a missing session", function()
            is_right(h:store("r1", "v1", 0, 1)
                :delete("r1", 10, 260, "unknown")
                :store("r1", "v2", 300, 301):load("r2", false, 5000, 5001))
        end)

        it("does not take one that was over before a barrier for it", function()
            is_wrong("lost", h:store("r1", "v1", 0, 1)
                :delete("r1", 10, 260, "unknown"):barrier(300, 1500)
                :store("r1", "v2", 2000, 2001):load("r2", false, 5000, 5001))
        end)

        it("takes one that was not over before the barrier for it", function()
            is_right(h:store("r1", "v1", 0, 1)
                :delete("r1", 10, 310, "unknown"):barrier(300, 1500)
                :store("r1", "v2", 2000, 2001):load("r2", false, 5000, 5001))
        end)

        it("may still happen after the death of its process", function()
            is_right(h:store("r1", "v2", 10):died(20)
                :load("r2", "v2", 9000, 9001))
        end)

        it("may not happen after a barrier after that death", function()
            is_wrong("resurrected", h:store("r1", "v1", 10):died(20)
                :barrier(30, 1500):delete("r2", 2000, 2001)
                :load("r2", "v1", 9000, 9001))
        end)

        it("does not bind the values of others while it is unseen", function()
            is_right(h:store("r1", "v1", 0, 1)
                :store("r1", "v2", 10, INFINITY, "unknown")
                :load("r2", "v1", 9000, 9001):load("r1", "v1", 9000, 9001))
        end)
    end)

    describe("for create and update", function()
        it("allows what an atomic server answers", function()
            is_right(h:update("r1", "v0", 0, 1, "not_found")
                :create("r1", "v1", 2, 3)
                :create("r2", "v2", 4, 5, "already_exists")
                :update("r2", "v3", 6, 7):delete("r1", 8, 9)
                :update("r2", "v4", 10, 11, "not_found")
                :create("r2", "v5", 12, 13))
        end)

        it("finds a create where there was a session", function()
            is_wrong("lost", h:store("r1", "v1", 0, 1)
                :create("r2", "v2", 2, 3))
        end)

        it("finds a create refused where there was none", function()
            is_wrong("presence", h:create("r1", "v1", 0, 1, "already_exists"))
            is_wrong("presence", a_history():store("r1", "v1", 0, 1)
                :delete("r1", 2, 3)
                :create("r2", "v2", 4, 5, "already_exists"))
        end)

        it("finds an update of a session that had been deleted", function()
            is_wrong("presence", h:store("r1", "v1", 0, 1)
                :delete("r1", 2, 3):update("r2", "v2", 4, 5))
        end)

        it("finds an update refused where there was a session", function()
            is_wrong("lost", h:store("r1", "v1", 0, 1)
                :update("r2", "v2", 2, 3, "not_found"))
        end)

        it("allows either while others write", function()
            is_right(h:store("r1", "v1", 0, 10)
                :create("r2", "v2", 5, 6, "already_exists")
                :delete("r1", 20, 30):update("r2", "v3", 25, 26)
                :update("r2", "v4", 27, 28, "not_found"))
        end)

        it("takes a write of unknown outcome for the reason", function()
            is_right(h:store("r1", "v1", 0, 1):delete("r1", 2, 3)
                :store("r1", "v2", 4, 254, "unknown")
                :update("r2", "v3", 9000, 9001))
        end)
    end)
end)
