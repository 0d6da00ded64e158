-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Timestamps of RFC 3339 ("2025-06-30T12:00:00.123456789+02:00") to unix
-- seconds and back.
--
-- Unix seconds are doubles: near the present they resolve a quarter of a
-- microsecond, so a record keeps the text it came with beside the number (see
-- resty.mooring.session) and loses no nanosecond on the way through.

local byte = string.byte
local date = os.date
local floor = math.floor
local format = string.format
local gsub = string.gsub
local match = string.match
local sub = string.sub
local tonumber = tonumber

local _M = {}

local DAYS_IN_MONTH = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
local PATTERN = "^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)"
                .. "(%.?%d*)([Zz%+%-][%d:]*)$"


local function is_leap(year)
    return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end


local function days_in(year, month)
    if month == 2 and is_leap(year) then
        return 29
    end
    return DAYS_IN_MONTH[month]
end


-- Days from 1970-01-01 in the proleptic Gregorian calendar: years are counted
-- from March, so that the leap day is the last of its year.
local function days_from_civil(year, month, day)
    if month <= 2 then
        year, month = year - 1, month + 12
    end
    return 365 * year + floor(year / 4) - floor(year / 100)
           + floor(year / 400) + floor((153 * (month - 3) + 2) / 5)
           + day - 1 - 719468
end


-- Seconds east of Greenwich of "Z" or "+hh:mm".
local function parse_offset(zone)
    if zone == "Z" or zone == "z" then
        return 0
    end
    local sign, hours, minutes = match(zone, "^([%+%-])(%d%d):(%d%d)$")
    hours, minutes = tonumber(hours), tonumber(minutes)
    if not sign or hours > 23 or minutes > 59 then
        return nil
    end
    local seconds = hours * 3600 + minutes * 60
    return sign == "-" and -seconds or seconds
end


-- ".5" to seconds; nil for what is neither empty nor a fraction. Digits beyond
-- those of a double change nothing, and too many of them are no number.
local function parse_fraction(text)
    if text == "" then
        return 0
    end
    local digits = match(text, "^%.(%d+)$")
    return digits and tonumber("0." .. sub(digits, 1, 20))
end


local function in_range(year, month, day, hour, minute, second)
    return month >= 1 and month <= 12
           and day >= 1 and day <= days_in(year, month)
           and hour <= 23 and minute <= 59 and second <= 60
end


-- ------------------------------------------------- the usual form, by bytes --

-- "YYYY-MM-DDThh:mm:ssZ", with up to nine digits of a fraction: what Go and we
-- write. Patterns are not compiled, and are half of the time a record takes.

local ZERO, DOT, DASH, COLON, UPPER_T, UPPER_Z = 48, 46, 45, 58, 84, 90
local SHORTEST, LONGEST = 20, 30 -- ...:ssZ, ...:ss.123456789Z
local SCALE = { 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9 }


-- The number that bytes i to j write; NaN when one of them is no digit.
local function digits(text, i, j)
    local value = 0
    for at = i, j do
        local digit = byte(text, at) - ZERO
        if digit < 0 or digit > 9 then
            return 0 / 0
        end
        value = value * 10 + digit
    end
    return value
end


local function has_usual_marks(text, length)
    return byte(text, 5) == DASH and byte(text, 8) == DASH
           and byte(text, 11) == UPPER_T and byte(text, 14) == COLON
           and byte(text, 17) == COLON and byte(text, length) == UPPER_Z
           and (length == SHORTEST
                or length > SHORTEST + 1 and byte(text, 20) == DOT)
end


-- Unix seconds; nil when the form is another one, or it is no time. (One
-- division of two exact numbers rounds as tonumber does.)
local function parse_usual(text)
    local length = #text
    if length < SHORTEST or length > LONGEST
       or not has_usual_marks(text, length)
    then
        return nil
    end
    local year, month, day = digits(text, 1, 4), digits(text, 6, 7),
                             digits(text, 9, 10)
    local hour, minute, second = digits(text, 12, 13), digits(text, 15, 16),
                                 digits(text, 18, 19)
    local fraction = 0
    if length > SHORTEST then
        fraction = digits(text, 21, length - 1) / SCALE[length - 21]
    end
    if not in_range(year, month, day, hour, minute, second)
       or year ~= year or fraction ~= fraction
    then
        return nil
    end
    return days_from_civil(year, month, day) * 86400
           + hour * 3600 + minute * 60 + second + fraction
end


-- ----------------------------------------------------------- parse, format --

local function parse_any(text)
    local year, month, day, hour, minute, second, fraction, zone =
        match(text, PATTERN)
    if not year then
        return nil
    end

    year, month, day = tonumber(year), tonumber(month), tonumber(day)
    hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
    local offset = parse_offset(zone)
    fraction = parse_fraction(fraction)
    if not offset or not fraction
       or not in_range(year, month, day, hour, minute, second) then
        return nil
    end

    return days_from_civil(year, month, day) * 86400
           + hour * 3600 + minute * 60 + second - offset + fraction
end


---
-- @param text string
-- @return unix seconds with their fraction, or nil when text is no timestamp
function _M.parse(text)
    return parse_usual(text) or parse_any(text)
end


-- 9999-12-31T23:59:59Z and 0001-01-01T00:00:00Z: four-digit years.
local LAST, FIRST = 253402300799, -62135596800


---
-- @param seconds unix seconds, fractions kept as far as a double does
-- @return string in UTC with up to nine digits of fraction, the way Go writes
--         it; or nil when the year does not have four digits
function _M.format(seconds)
    if not (seconds >= FIRST and seconds <= LAST) then
        return nil
    end

    local whole = floor(seconds)
    local fraction = format("%.9f", seconds - whole)
    if fraction == "1.000000000" then
        whole, fraction = whole + 1, "0.000000000"
    end
    fraction = gsub(gsub(fraction, "^0", ""), "%.?0+$", "")

    local t = date("!*t", whole)
    return format("%04d-%02d-%02dT%02d:%02d:%02d%sZ", t.year, t.month, t.day,
                  t.hour, t.min, t.sec, fraction)
end


return _M
