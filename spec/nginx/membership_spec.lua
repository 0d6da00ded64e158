-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a worker decides between the message that something has changed and the
-- reading of it; with real Redis, see spec/integration/router_drops_spec.lua.

local cjson = require "cjson"
local loads = require "resty.mooring.router.load"
local membership = require "resty.mooring.router.membership"
local sources = require "resty.mooring.router.sources"

local A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"

describe("resty.mooring.router.membership", function()
    local load, reads, push, set

    before_each(function()
        ngx.shared.mooring:flush_all()
        load, reads = loads.open("spec membership"), {}
        set = membership.new {
            name = "spec", dict = ngx.shared.mooring, load = load,
            source = sources.open({ A, B }, 5), max_fails = 3, fail_timeout = 10,
            storage = {
                board = function(_, _, on_change)
                    push = on_change
                    return { read_later = function(_, callback)
                        reads[#reads + 1] = callback
                        return true
                    end }
                end,
                is_coherent = function() return true end,
            },
        }
        set.states:tick()
    end)

    local function answer(fields)
        table.remove(reads, 1)(fields)
    end

    local function dropped(times)
        return { [A] = cjson.encode { state = "up", incarnation = times, revision = times } }
    end

    -- As the hot path of the router has it: the binding is known, and nothing
    -- has changed.
    local function takes_the_short_way()
        local peer = set.peers.known[A]
        return peer ~= nil and load:version() == set.version
    end

    for what, look in pairs {
        ["its timer"] = function()
            set.states:tick()
            if load:version() ~= set.version then
                set:adopt()
            end
        end,
        ["a request of no session"] = function() set:candidates() end,
        ["a look at the status"] = function() set:stats() end,
    } do
        it("does not take a binding for good that may have been dropped, after " .. what,
            function()
                answer {}
                set:sync()
                assert.is_true(takes_the_short_way())
                push()
                look()
                assert.is_false(takes_the_short_way())
                answer(dropped(1))
                set:sync()
                assert.is_nil(set.peers.known[A])
                assert.same({ nil, "dropped" }, { set.peers:find(A) })
            end)
    end

    it("does so before the first reading", function()
        set:adopt()
        assert.is_false(takes_the_short_way())
        answer(dropped(2))
        set:sync()
        assert.is_nil(set.peers.known[A])
    end)

    it("goes on with what it knows while nothing can be read", function()
        answer {}
        set:sync()
        push()
        answer(nil)
        set:sync()
        assert.is_true(takes_the_short_way())
        set:candidates()
        assert.is_true(takes_the_short_way())
    end)

    describe("where no label is left", function()
        local C = "http://10.0.0.3:80"
        local views, all

        setup(function()
            all = loads.open "spec membership, full"
            local labels = { all:label(A), all:label(B) }
            for i = 1, 1021 do
                all:label("http://taken:" .. i)
            end
            for i, n in ipairs { 4, 8 } do
                for _ = 1, n do
                    all:begin(labels[i])
                end
            end
        end)
        before_each(function()
            views = membership.new { name = "spec", load = all, storage = {},
                source = sources.open({ A, B, { url = C, weight = 2 } }, 5),
                max_fails = 0, fail_timeout = 10 }:candidates()
        end)

        it("shows a backend that is not counted as busy as the others", function()
            assert.same({ 4, 8, 12 }, { views[1].inflight, views[2].inflight,
                views[3].inflight })
            assert.equal(0, views[3].sessions)
            assert.is_nil(views[3].other)
        end)
    end)

    it("waits once, not with each request, while no answer comes", function()
        answer {}
        set:sync()
        push()
        local began = ngx.now()
        set:sync()
        ngx.update_time()
        assert.is_true(ngx.now() - began >= 0.9)
        assert.is_true(takes_the_short_way())
        began = ngx.now()
        set:sync()
        ngx.update_time()
        assert.is_true(ngx.now() - began < 0.5)
    end)
end)
