-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- With a dictionary of a few lines; with nginx' own, and several workers, see
-- spec/integration/router_states_spec.lua.

local shared = require "resty.mooring.router.states.shared"

local A, B = "http://a:80", "http://b:80"

local function dictionary()
    local values = {}
    return {
        full = false,
        get = function(_, key) return values[key] end,
        safe_set = function(self, key, value)
            if self.full then
                return nil, "no memory"
            end
            values[key] = value
            return true
        end,
        safe_add = function(self, key, value)
            if values[key] then
                return false, "exists"
            end
            return self:safe_set(key, value)
        end,
        incr = function(_, key, by)
            values[key] = values[key] + by
            return values[key]
        end,
    }
end

describe("resty.mooring.router.states.shared", function()
    local dict, told, one, other

    local function open()
        return shared.new {
            dict = dict, prefix = "spec", on_change = function() told = told + 1 end,
        }
    end

    before_each(function()
        dict, told = dictionary(), 0
        one, other = open(), open()
    end)

    local function of(states, url)
        return { states:state(url), states:incarnation(url) }
    end

    it("has nothing to say of a backend at first", function()
        assert.same({ "up", 0 }, of(one, A))
        assert.is_false(one.doubted)
    end)

    it("is shared, and looked at anew when told to", function()
        assert.same({ "up", 0 }, of(other, A))
        assert.is_true(one:change(A, "draining"))
        assert.is_true(one:change(A, "drop"))
        assert.equal(2, told)
        assert.same({ "up", 0 }, of(other, A))
        other:adopt()
        assert.same({ "draining", 1 }, of(other, A))
        assert.same({ "up", 0 }, of(other, B))
    end)

    it("adds up the drops of all, and has the last state", function()
        one:change(A, "drop")
        other:change(A, "drop")
        one:change(A, "down")
        other:change(A, "up")
        one:adopt()
        assert.same({ "up", 2 }, of(one, A))
    end)

    it("changes nothing when there is no room, and says so", function()
        one:change(A, "drop")
        dict.full = true
        for _, change in ipairs { "drop", "down" } do
            local ok, err, code = one:change(B, change)
            assert.same({ nil, "could not change the backend: no memory", "unavailable" },
                { ok, err, code })
        end
        assert.is_true(one:change(A, "drop")) -- there is room for that one
        one:adopt()
        assert.same({ "up", 2 }, of(one, A))
        assert.same({ "up", 0 }, of(one, B))
    end)

    it("cannot be changed without a dictionary", function()
        dict = nil
        local states = open()
        assert.same({ "up", 0 }, of(states, A))
        assert.equal("unavailable", select(3, states:change(A, "drop")))
    end)
end)
