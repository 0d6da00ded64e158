-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Timestamps against a slow calendar that counts month by month, and the
-- grammar of RFC 3339, section 5.6, spelled out.

local rfc3339 = require "resty.mooring.rfc3339"

local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

local function days_in(year, month)
    local leap = year % 400 == 0 or year % 4 == 0 and year % 100 ~= 0
    return month == 2 and leap and 29 or DAYS[month]
end

-- Days before each year since 1970.
local days_before = { [1970] = 0 }
for year = 1971, 10000 do
    days_before[year] = days_before[year - 1] + 337 + days_in(year - 1, 2)
end
for year = 1969, 0, -1 do
    days_before[year] = days_before[year + 1] - 337 - days_in(year, 2)
end

local function offset_of(zone)
    if zone == "Z" or zone == "z" then
        return 0
    end
    local sign, hours, minutes = zone:match("^([+-])(%d%d):(%d%d)$")
    if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then
        return nil
    end
    return tonumber(sign .. "1") * (hours * 3600 + minutes * 60)
end

-- Unix seconds, or nil.
local function calendar(text)
    local y, mo, d, h, mi, s, rest = text:match(
        "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$")
    if not y then
        return nil
    end
    local fraction, zone = rest:match("^(%.%d+)(.*)$")
    local offset = offset_of(zone or rest)
    y, mo, d = tonumber(y), tonumber(mo), tonumber(d)
    if not offset or mo < 1 or mo > 12 or d < 1 or d > days_in(y, mo)
            or tonumber(h) > 23 or tonumber(mi) > 59 or tonumber(s) > 60 then
        return nil
    end
    local days = days_before[y] + d - 1
    for month = 1, mo - 1 do
        days = days + days_in(y, month)
    end
    return days * 86400 + h * 3600 + mi * 60 + s - offset
        + tonumber("0" .. (fraction or ""):sub(1, 30))
end

local function check(input)
    local got, want = rfc3339.parse(input), calendar(input)
    assert((got == nil) == (want == nil),
        ("%s, not %s"):format(tostring(got), tostring(want)))
    if not got then
        return
    end
    assert(math.abs(got - want) < 1e-6, got .. ", not " .. want)

    local written = rfc3339.format(got)
    if not written then -- the offset has taken it out of the four-digit years
        assert(got < -62135596800 or got > 253402300799, "cannot be written")
        return
    end
    assert(math.abs(calendar(written) - got) < 1e-6, written)
end

local function make(rng)
    local day = rng:once_in(3) and rng:pick { "02-28", "02-29", "12-31", "01-01" }
        or ("%02d-%02d"):format(rng:below(12), rng:below(31))
    return ("%04d-%s%s%02d:%02d:%02d%s%s"):format(rng:below(10000) - 1, day,
        rng:pick { "T", "t", " " }, rng:below(24) - 1, rng:below(60) - 1,
        rng:below(61) - 1,
        rng:pick { "", "", ".0", ".25", ".999999999", ".1234567890123456789" },
        rng:pick { "Z", "z", "+00:00", "-23:59", "+23:59", "+05:30" })
end

return {
    name = "rfc3339",
    seeds = { "2025-06-30T12:00:00.123456789+02:00", "1970-01-01T00:00:00Z",
              "0000-02-29T23:59:60.5z", "9999-12-31 23:59:59-23:59" },
    words = { "T", "t", "Z", "z", "+02:00", "-00:00", ".5", ".", ":", "-", " ",
              "0", "29", "60", "24", "inf", "nan", "0x1" },
    make = make,
    check = check,
    large = {
        ["a long fraction"] = function(n)
            return "2025-06-30T12:00:00." .. ("1"):rep(n) .. "Z"
        end,
        ["a long zone"] = function(n)
            return "2025-06-30T12:00:00+" .. ("02:"):rep(n / 3)
        end,
        ["no time at all"] = function(n)
            return ("2025-06-30T"):rep(n / 11)
        end,
    },
}
