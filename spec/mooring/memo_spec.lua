-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local memo = require "resty.mooring.memo"

describe("resty.mooring.memo", function()
    -- The keys from 1 to n that are known, without making any of them young.
    local function known(size, steps, n)
        local keys = {}
        for key = 1, n do
            local get, set = memo.new(size)
            steps(get, set)
            keys[#keys + 1] = get(key) and key
        end
        return table.concat(keys, " ")
    end

    it("knows what was set, false too, and nothing else", function()
        local get, set = memo.new(2)
        set("a", 1)
        set("b", false)
        assert.equal(1, get "a")
        assert.is_false(get "b")
        assert.is_nil(get "c")
        set("a", 2)
        assert.equal(2, get "a")
    end)

    it("forgets the oldest generation", function()
        for sets, golden in pairs {
            [2] = "1 2", [4] = "1 2 3 4", [5] = "3 4 5", [6] = "3 4 5 6", [7] = "5 6 7",
        } do
            assert.equal(golden, known(2, function(_, set)
                for key = 1, sets do
                    set(key, true)
                end
            end, 9))
        end
    end)

    it("keeps what is asked for", function()
        assert.equal("1 8 9", known(2, function(get, set)
            for key = 1, 9 do
                set(key, true)
                assert(get(1))
            end
        end, 9))
    end)

    it("makes no room for a key that it knows", function()
        assert.equal("1 2 3 4", known(2, function(_, set)
            for key = 1, 4 do
                set(key, true)
            end
            for _ = 1, 10 do
                set(4, true)
            end
        end, 9))
    end)
end)
