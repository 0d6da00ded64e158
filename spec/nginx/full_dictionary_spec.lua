-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The dictionary of http.conf holds what must not be forgotten (drops, what may
-- be dialled, until when a backend has failed) beside what may. When it is full
-- nothing of the router makes room for itself by pushing others out.

local cjson = require "cjson"
local counters = require "resty.mooring.router.counters"
local health = require "resty.mooring.router.health"
local policy = require "resty.mooring.policy"
local refresh = require "resty.mooring.router.refresh"
local replicated = require "resty.mooring.router.states.replicated"
local script_counts = require "resty.mooring.router.script_counts"
local shared = require "resty.mooring.router.states.shared"

describe("A full lua_shared_dict mooring", function()
    local URL = "http://a:80"
    local dict, states, kept

    local function nothing() end

    -- Entries of all sizes, until none fits; what is asked for first was used
    -- longest ago.
    local function fill()
        local n = 0
        for size = 11, 4, -1 do
            repeat
                n = n + 1
            until not dict:safe_add("filling " .. n, ("x"):rep(2 ^ size))
        end
        kept = #dict:get_keys(0)
    end

    before_each(function()
        dict = ngx.shared.mooring
        dict:flush_all()
        dict:flush_expired()
        states = shared.new { dict = dict, prefix = "spec", on_change = nothing }
        assert.is_true(states:change(URL, "drop"))
    end)
    after_each(function()
        dict:flush_all()
        dict:flush_expired()
    end)

    local function assert_whole()
        states:adopt()
        assert.equal(1, states:incarnation(URL))
        assert.is_true(#dict:get_keys(0) >= kept)
    end

    it("forgets nothing for counts of requests", function()
        local counts = counters.new(dict, "spec")
        fill()
        for name in pairs(counts.now) do
            counts:add(name)
        end
        counts:flush()
        assert_whole()
        assert.equal(1, counts:totals().created)
    end)

    it("forgets nothing for counts of policies", function()
        local engine = policy.compile { key = nothing, admit = nothing }
        local counts = script_counts.new(dict, "spec", engine)
        fill()
        engine:key {}
        engine:admit({}, {})
        counts:flush()
        assert_whole()
        assert.equal(1, counts:totals().inline.key.calls)
    end)

    it("forgets nothing for the trial of a backend, which is made all the same", function()
        local one = health.new { dict = dict, prefix = "spec", max_fails = 1,
            fail_timeout = 10, on_change = nothing }
        fill()
        assert.is_true(one:claim_trial(URL))
        assert_whole()
    end)

    it("forgets nothing for who reads the list, which is read all the same", function()
        local read = 0
        local one = refresh.new { dict = dict, prefix = "spec", on_change = nothing,
            on_failure = nothing, allow = { remember = nothing },
            source = { tag = "t", what = "spec", interval = 0.05, read = function()
                read = read + 1
                return nil, "no list"
            end } }
        fill()
        one:start()
        ngx.sleep(0.3)
        one.source.read = function() return nil, "over" end
        assert.is_true(read > 1)
        assert_whole()
    end)

    it("forgets nothing for who reads the states, which are read all the same", function()
        local reads = {}
        local one = replicated.new { dict = dict, prefix = "spec", on_change = nothing,
            is_watched = function() return false end,
            may_concern = function() return true end,
            board = { read_later = function(_, callback)
                reads[#reads + 1] = callback
                return true
            end } }
        one:tick()
        reads[1] { [URL] = cjson.encode { state = "up", incarnation = 1, revision = 1 } }
        fill()
        one:tick()
        assert.equal(2, #reads)
        assert_whole()
    end)
end)
