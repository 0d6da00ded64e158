-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local bit = require "bit"
local hash = require "resty.mooring.hash"

describe("resty.mooring.hash", function()
    -- Were these to change, an upgrade would send all tenants elsewhere.
    it("never changes", function()
        local golden = {}
        for _, text in ipairs { "", "a", "b", "tenant-1", "tenant-2", ("x"):rep(1000) } do
            golden[#golden + 1] = bit.tohex(hash.text(text))
        end
        golden[#golden + 1] = bit.tohex(hash.text("a", 0xdeadbeef))
        golden[#golden + 1] = bit.tohex(hash.mix(1))
        assert.same({ "00000000", "3474098b", "3273a5c4", "141e45ec", "b284b8b9", "eb36b154",
            "643f32da", "688990c0" }, golden)
    end)

    -- Pearson's statistic for n texts in 256 equally likely buckets: 255
    -- degrees of freedom, so above 341 once in 5,000 times.
    local function chi_square(n, text_of, shift)
        local counts = {}
        for i = 0, 255 do
            counts[i] = 0
        end
        for i = 1, n do
            local bucket = bit.band(bit.rshift(hash.text(text_of(i)), shift), 255)
            counts[bucket] = counts[bucket] + 1
        end
        local sum = 0
        for i = 0, 255 do
            sum = sum + (counts[i] - n / 256) ^ 2 / (n / 256)
        end
        return sum
    end

    for name, text_of in pairs {
        ["numbered names"] = function(i) return "tenant-" .. i end,
        ["addresses"] = function(i)
            return "10.0." .. math.floor(i / 256) .. "." .. i % 256
        end,
        ["short binary texts"] = function(i)
            return string.char(i % 256, math.floor(i / 256) % 256, math.floor(i / 65536))
        end,
        ["texts that differ in their first byte"] = function(i)
            return string.char(32 + i % 90) .. math.floor(i / 90) .. ("-"):rep(40)
        end,
    } do
        for _, shift in ipairs { 0, 8, 16, 24 } do
            it(("spreads %s over its bits from %d"):format(name, shift), function()
                local statistic = chi_square(20000, text_of, shift)
                assert.is_true(statistic < 341, "chi square is " .. statistic)
                -- Too even is not random either.
                assert.is_true(statistic > 179, "chi square is " .. statistic)
            end)
        end
    end

    it("turns over half of the bits for each bit of the input", function()
        for place = 0, 31 do
            local turned, n = 0, 2000
            for i = 1, n do
                local x = i * 7919
                local neighbour = bit.bxor(x, bit.lshift(1, place))
                local difference = bit.bxor(hash.mix(x), hash.mix(neighbour))
                for at = 0, 31 do
                    turned = turned + bit.band(bit.rshift(difference, at), 1)
                end
            end
            local share = turned / n / 32
            assert.is_true(share > 0.48 and share < 0.52, place .. ": " .. share)
        end
    end)

    it("is another function for each seed", function()
        local same = 0
        for i = 1, 1000 do
            for j = 1, 10 do
                if hash.text("k" .. i, j) == hash.text("k" .. i, j + 1) then
                    same = same + 1
                end
            end
        end
        assert.equal(0, same)
    end)

    it("makes numbers between 0 and 1", function()
        for _, extreme in ipairs { 0, -1, 2^31 - 1, -2^31 } do
            local u = hash.unit(extreme)
            assert.is_true(u > 0 and u < 1)
        end
        assert.is_true(hash.unit(-1) > 0.999999999)
        assert.is_true(hash.unit(0) < 0.000000001)
    end)

    it("draws random numbers that are even, and others for each seed", function()
        local one, other, sum, equal = hash.random(1), hash.random(2), 0, 0
        local buckets = {}
        for _ = 1, 100000 do
            local u = one()
            assert(u > 0 and u < 1)
            local bucket = math.floor(u * 100)
            buckets[bucket] = (buckets[bucket] or 0) + 1
            sum = sum + u
            equal = equal + (u == other() and 1 or 0)
        end
        assert.is_true(math.abs(sum / 100000 - 0.5) < 0.005)
        for bucket = 0, 99 do
            assert.is_true(math.abs(buckets[bucket] - 1000) < 160)
        end
        assert.is_true(equal < 5)
        assert.equal(hash.random(7)(), hash.random(7)())
    end)
end)
