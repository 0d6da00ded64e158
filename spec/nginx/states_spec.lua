-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- resty.mooring.router.states.replicated with replies that come when the spec
-- says so, in any order; with real Redis, see router_states_spec.lua and
-- router_drops_spec.lua in spec/integration.

local cjson = require "cjson"
local replicated = require "resty.mooring.router.states.replicated"

local A, B = "http://a:80", "http://b:80"

describe("resty.mooring.router.states.replicated", function()
    local dict, board, watched, told

    local function value(state, incarnation, revision)
        return cjson.encode { state = state, incarnation = incarnation, revision = revision }
    end

    -- A board whose reads are answered by hand, oldest first.
    local function new_board()
        return {
            reads = {}, written = {},
            read_later = function(self, callback)
                if self.refuses then
                    return nil, "not connected", "unavailable"
                end
                self.reads[#self.reads + 1] = callback
                return true
            end,
            run_later = function(self, _, ...)
                self.written[#self.written + 1] = { ... }
                return true
            end,
            run = function(self, _, _, ...)
                self.asked = { ... }
                return unpack(self.answer, 1, 3)
            end,
        }
    end

    local function open(one)
        local states = replicated.new {
            dict = dict, prefix = "spec", board = one or board,
            is_watched = function() return watched end,
            may_concern = function(url) return url == A or url == B end,
            on_change = function() told = told + 1 end,
        }
        states:adopt()
        return states
    end

    local function answer(fields, i)
        table.remove(board.reads, i or 1)(fields)
    end

    local function of(states, url)
        return { states:state(url), states:incarnation(url) }
    end

    before_each(function()
        dict = ngx.shared.mooring
        dict:flush_all()
        board, watched, told = new_board(), true, 0
    end)

    it("is not sure of anything before the first read", function()
        local states = open()
        assert.is_true(states.doubted)
        assert.same({ "up", 0 }, of(states, A))
        states:tick()
        answer { [A] = value("draining", 2, 3) }
        assert.is_false(states.doubted)
        assert.same({ "draining", 2 }, of(states, A))
        assert.equal(1, told)
    end)

    it("reads once for all workers, which take it from the dictionary", function()
        local states, other = open(), open(new_board())
        states:tick()
        answer { [A] = value("down", 1, 2) }
        other:adopt()
        assert.is_false(other.doubted)
        assert.same({ "down", 1 }, of(other, A))
    end)

    it("is in doubt after a message, in every worker, until it is read", function()
        local states, other = open(), open(new_board())
        states:tick()
        answer {}
        other:adopt()
        states:doubt()
        other:adopt()
        assert.is_true(other.doubted)
        answer { [A] = value("up", 1, 1) }
        other:adopt()
        assert.is_false(other.doubted)
        assert.same({ "up", 1 }, of(other, A))
    end)

    it("reads again what was read before the change", function()
        local states = open()
        states:tick()
        states:doubt() -- while that read is under way
        assert.equal(1, #board.reads)
        answer {}
        assert.is_true(states.doubted)
        assert.equal(1, #board.reads)
        answer { [A] = value("up", 1, 1) }
        assert.is_false(states.doubted)
        assert.same({ "up", 1 }, of(states, A))
    end)

    it("never goes back, whatever comes late", function()
        local states = open()
        states:tick()
        answer { [A] = value("draining", 3, 5) }
        for _, old in ipairs { value("up", 2, 4), value("up", 0, 0), value("up", 9, 0),
            "nonsense", false } do
            states:doubt()
            answer { [A] = old or nil }
            assert.equal("draining", states:state(A))
            assert.is_true(states:incarnation(A) >= 3)
        end
        assert.same({ "draining", 9 }, of(states, A))
    end)

    it("writes back what Redis has lost, and nothing else", function()
        local states = open()
        states:tick()
        answer { [A] = value("draining", 3, 5), [B] = value("up", 0, 1) }
        assert.same({}, board.written)
        states:doubt()
        answer { [B] = value("up", 0, 1) }
        assert.equal(1, #board.written)
        assert.same({ A, "" }, { board.written[1][1], board.written[1][2] })
        assert.same({ state = "draining", incarnation = 3, revision = 5 },
            cjson.decode(board.written[1][3]))
    end)

    it("keeps what it knows when a read fails, and reads again later", function()
        local states = open()
        states:tick()
        answer { [A] = value("down", 1, 2) }
        states:doubt()
        answer(nil)
        assert.is_true(states.doubted)
        assert.same({ "down", 1 }, of(states, A))
        states:tick()
        assert.equal(0, #board.reads) -- not at once
        states.failed_at = -1e9
        states:tick()
        answer { [A] = value("up", 1, 3) }
        assert.is_false(states.doubted)
        assert.same({ "up", 1 }, of(states, A))
    end)

    it("is not stopped by a store that takes no command", function()
        board.refuses = true
        local states = open()
        states:tick()
        states:settle()
        assert.is_true(states.doubted)
        assert.same({ "up", 0 }, of(states, A))
    end)

    it("reads on and on while nothing is pushed, one worker at a time", function()
        local states, other = open(), open()
        states:tick()
        answer {}
        watched = false
        states:tick()
        other:tick()
        assert.equal(1, #board.reads)
        answer { [A] = value("up", 1, 1) }
        assert.same({ "up", 1 }, of(states, A))
        watched = true
        ngx.sleep(0.3)
        states:tick()
        assert.equal(0, #board.reads)
    end)

    it("knows its own change at once, and is in doubt of all others", function()
        local states = open()
        states:tick()
        answer { [A] = value("draining", 1, 2) }
        board.answer = { value("draining", 2, 3) }
        assert.is_true(states:change(A, "drop"))
        assert.same({ A, "drop" }, { board.asked[1], board.asked[2] })
        assert.same({ state = "draining", incarnation = 1, revision = 2 },
            cjson.decode(board.asked[3]))
        assert.same({ "draining", 2 }, of(states, A))
        states:adopt()
        assert.is_true(states.doubted)
        -- Not even a server that has lost the change makes it undone.
        states:tick()
        answer { [A] = value("draining", 1, 2) }
        assert.same({ "draining", 2 }, of(states, A))
    end)

    it("changes nothing when the store says no", function()
        local states = open()
        states:tick()
        answer {}
        board.answer = { nil, "could not change the backend: away", "unavailable" }
        local before = told
        assert.same({ nil, "could not change the backend: away", "unavailable" },
            { states:change(A, "drop") })
        assert.same({ "up", 0 }, of(states, A))
        assert.equal(before, told)
        board.answer = { 7 }
        assert.equal("unavailable", select(3, states:change(A, "drop")))
    end)

    it(":look reads again, at most once a second", function()
        local states = open()
        states:tick()
        answer {}
        states:look()
        states:look()
        assert.equal(1, #board.reads)
        answer { [A] = value("up", 5, 5) }
        assert.same({ "up", 5 }, of(states, A))
        states:look()
        assert.equal(0, #board.reads)
        states.looked_at = -1e9
        states:look()
        assert.equal(1, #board.reads)
    end)

    it(":settle waits for a read that covers what was in doubt", function()
        local states = open()
        local settled = 0
        local threads = {}
        for i = 1, 3 do
            threads[i] = ngx.thread.spawn(function()
                states:settle()
                settled = settled + 1
            end)
        end
        assert.same({ 0, 1 }, { settled, #board.reads }) -- joined
        answer { [A] = value("up", 4, 4) }
        for i = 1, 3 do
            ngx.thread.wait(threads[i])
        end
        assert.equal(3, settled)
        assert.same({ "up", 4 }, of(states, A))
        states:settle() -- nothing to wait for
        assert.equal(0, #board.reads)
    end)

    it(":settle does not wait for ever", function()
        local states = open()
        states:settle()
        assert.is_true(states.doubted)
    end)
end)
