-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local rfc3339 = require "resty.mooring.rfc3339"

describe("resty.mooring.rfc3339", function()
    describe(".parse", function()
        for text, seconds in pairs {
            ["1970-01-01T00:00:00Z"] = 0,
            ["2000-02-29T12:30:15Z"] = 951827415,
            ["2024-12-31T23:59:60Z"] = 1735689600,
            ["2025-01-01T00:00:00.5Z"] = 1735689600.5,
            ["2025-06-30T12:00:00+02:00"] = 1751277600,
            ["2025-06-30T12:00:00-00:30"] = 1751286600,
            ["0001-01-01T00:00:00Z"] = -62135596800,
            ["2025-06-30t12:00:00z"] = 1751284800,
        } do
            it("reads " .. text, function()
                assert.equal(seconds, rfc3339.parse(text))
            end)
        end

        for _, text in ipairs {
            "", "now", "2025-06-30", "2025-06-30T12:00:00", "2025-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2025-06-31T00:00:00Z",
            "2025-06-30T24:00:00Z", "2025-06-30T12:60:00Z", "2025-06-30T12:00:61Z",
            "2025-06-30T12:00:00.Z", "2025-06-30T12:00:00+2:00",
            "2025-06-30T12:00:00+24:00", "2025-06-30T12:00:00Zjunk",
            "2025-00-10T00:00:00Z", "2025-01-00T00:00:00Z",
            "2025-06-30T12:00:00123Z", "2025-06-30T12:00:00+02:60", "2025-06-30T12:00:0/Z",
        } do
            it("refuses '" .. text .. "'", function()
                assert.is_nil(rfc3339.parse(text))
            end)
        end
    end)

    it("reads a fraction of any length", function()
        for _, digits in ipairs { 1, 100, 2^21 } do
            local text = "1970-01-01T00:00:00." .. ("3"):rep(digits) .. "Z"
            assert.near(1 / 3, rfc3339.parse(text), 0.04)
        end
    end)

    it("reads the usual form as every other form of the same time", function()
        math.randomseed(20260630)
        for _ = 1, 20000 do
            -- also days and hours that are not there
            local text = ("%04d-%02d-%02dT%02d:%02d:%02d"):format(math.random(0, 9999),
                math.random(0, 13), math.random(0, 32), math.random(0, 24), math.random(0, 60),
                math.random(0, 61))
            local digits = math.random(0, 9)
            if digits > 0 then
                text = text .. "." .. ("%09d"):format(math.random(0, 999999999)):sub(1, digits)
            end
            assert.equal(rfc3339.parse(text .. "+00:00"), rfc3339.parse(text .. "Z"), text)
        end
    end)

    it("refuses what differs from the usual form in one byte that matters", function()
        local usual = "2025-06-30T12:00:00.25Z"
        for at = 1, #usual - 1 do
            local text = usual:sub(1, at - 1) .. "x" .. usual:sub(at + 1)
            assert.is_nil(rfc3339.parse(text), text)
        end
    end)

    describe(".format", function()
        it("writes whole seconds without a fraction", function()
            assert.equal("2025-06-30T10:00:00Z", rfc3339.format(1751277600))
        end)

        it("writes years below 1000 with four digits", function()
            assert.equal("0001-01-01T00:00:00Z", rfc3339.format(-62135596800))
        end)

        it("carries a fraction that rounds up to a second", function()
            assert.equal("1970-01-01T00:00:01Z", rfc3339.format(0.9999999999))
        end)

        it("refuses what has no four-digit year", function()
            assert.is_nil(rfc3339.format(1e18))
            assert.is_nil(rfc3339.format(-1e18))
            assert.is_nil(rfc3339.format(0 / 0))
        end)

        it("is undone by parse for times of all ages", function()
            math.randomseed(20250630)
            for _ = 1, 5000 do
                local seconds = math.random(-6e10, 2.5e11) + math.random()
                local again = rfc3339.parse(rfc3339.format(seconds))
                -- nine digits say all that a double holds from 1971 on
                local exact = math.abs(seconds) > 2^25
                assert.is_true(again == seconds
                               or not exact and math.abs(again - seconds) < 1e-9)
            end
        end)
    end)
end)
