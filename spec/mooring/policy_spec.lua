-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local policy = require "resty.mooring.policy"

describe("resty.mooring.policy", function()
    local A = { url = "a", weight = 1, state = "active" }
    local B = { url = "b", weight = 1, state = "active" }
    local D = { url = "d", weight = 9, state = "draining" }

    it("knows the built-in policies by name only", function()
        assert.is_true((policy.check("round_robin")))
        for _, wrong in ipairs { "random", 1, {}, function() end } do
            local ok, must = policy.check(wrong)
            assert.is_false(ok)
            assert.equal('must be "round_robin"', must)
        end
    end)

    describe(":pick", function()
        it("returns none that is draining", function()
            local p = policy.new("round_robin", { A, D, B })
            for _ = 1, 3 do
                assert.equal(A, p:pick())
                assert.equal(B, p:pick())
            end
        end)

        it("returns none that was tried", function()
            local p = policy.new("round_robin", { A, B })
            for _ = 1, 3 do
                assert.equal(B, p:pick({ a = true }))
            end
            assert.is_nil(p:pick({ a = true, b = true }))
        end)

        it("returns nil when there is no active backend", function()
            assert.is_nil(policy.new("round_robin", { D }):pick())
        end)
    end)

    it("staggers workers over the active backends", function()
        local counts = {}
        for worker = 0, 5 do
            local p = policy.new("round_robin", { A, D, B })
            p:stagger(worker)
            local url = p:pick().url
            counts[url] = (counts[url] or 0) + 1
        end
        assert.same({ a = 3, b = 3 }, counts)
        assert.is_nil(policy.new("round_robin", { D }):stagger(3))
    end)
end)
