-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Records as Redis may hand them out: what is decoded is a session that is
-- written again without loss, or `invalid`; and the decoder of the usual form
-- says nothing that the one for all of JSON does not say.

local cjson = require "cjson"
local record = require "resty.mooring.record"

local rep = string.rep

local SEEDS = {}
for line in io.lines("spec/fixtures/records/toolhive.json") do
    SEEDS[#SEEDS + 1] = line
end

local HEAD = '{"id":"a","created_at":"2025-06-30T12:00:00Z",'
    .. '"updated_at":"2025-06-30T12:00:00Z"'

SEEDS[#SEEDS + 1] = HEAD .. ',"data":[],"metadata":{}}'
SEEDS[#SEEDS + 1] = HEAD .. ',"data":{"":null,"a":[null,false,-1.5e-3]}}'
SEEDS[#SEEDS + 1] = HEAD .. ',"data":null,"metadata":null,"type":null}'

local function same(a, b)
    if type(a) ~= "table" or type(b) ~= "table" then
        return a == b
    end
    for key, value in pairs(a) do
        if not same(value, b[key]) then
            return false
        end
    end
    for key in pairs(b) do
        if a[key] == nil then
            return false
        end
    end
    return true
end

local function check_session(s)
    assert(type(s.id) == "string", "id")
    assert(type(s.type) == "string", "type")
    for _, name in ipairs { "created_at", "updated_at" } do
        local value = s[name]
        assert(type(value) == "number" and value == value
            and math.abs(value) < 1e12, name)
    end
    for key, value in pairs(s.metadata) do
        assert(type(key) == "string" and type(value) == "string", "metadata")
    end
end

local function check_same(s, again)
    for _, name in ipairs { "id", "type", "created_at", "updated_at", "data",
                            "metadata" } do
        assert(same(s[name], again[name]), name .. " is another one")
    end
end

-- What is written is what was read, in the form of this module.
local function check_written(input, s)
    local text = assert(record.encode(s))
    local again = assert(record.decode(text, s.id))
    check_same(s, again)
    assert(record.encode(again) == text, "written twice, it differs")
    assert(record.encode(record.copy(s)) == text, "its copy differs")

    local raw, written = cjson.decode(input), cjson.decode(text)
    assert(raw.created_at == written.created_at
        and raw.updated_at == written.updated_at, "the text of a time")
end

local function refused(input, id)
    local s, err, code = record.decode(input, id)
    assert(s == nil and code == "invalid", "not refused")
    assert(err:find("^invalid session record: "), err)
end

local function check_both_ways(input, id)
    local s, err, code = record.decode(input, id)
    local other, other_err, other_code = record.decode_any(input, id)
    assert(same(s, other) and err == other_err and code == other_code,
        "another answer from the other decoder")
end

local function check(input)
    local s, err, code = record.decode(input)
    check_both_ways(input)
    check_both_ways(input, s and s.id or "a")
    if not s then
        assert(type(err) == "string" and code == "invalid", tostring(code))
        return
    end
    check_session(s)
    check_written(input, s)
    refused(input, s.id .. "x")
end

---------------------------------------------------------------- random ---

local function random_value(rng, depth)
    local kind = rng:below(depth < 5 and 8 or 6)
    if kind == 1 then
        return cjson.encode(rng:text(20, 'abc "\\\n{}[],:'))
    elseif kind == 2 then
        return rng:pick { "0", "-1", "1e5", "0.1", "9007199254740993", "1E+2" }
    elseif kind <= 6 then
        return rng:pick { "null", "true", "false", "[]", "{}", '""' }
    end
    local items = {}
    for i = 1, rng:below(4) do
        items[i] = (kind == 7 and cjson.encode(rng:text(6, "abc")) .. ": " or "")
            .. random_value(rng, depth + 1)
    end
    local text = table.concat(items, rng:pick { ",", " , ", ",\n" })
    return kind == 7 and "{" .. text .. "}" or "[" .. text .. "]"
end

local function usual_time(rng)
    local digits = ("%09d"):format(rng:below(999999999))
    return ("%04d-%02d-%02dT%02d:%02d:%02d%sZ"):format(rng:below(9999),
        rng:below(12), rng:below(29), rng:below(24) - 1, rng:below(60) - 1,
        rng:below(61) - 1,
        rng:once_in(3) and "" or "." .. digits:sub(1, rng:below(9)))
end

-- What the core reads by itself; with or without the escape of slashes.
local function usual(rng)
    local function text(n)
        local slash = rng:pick { "/", "\\/" }
        return '"' .. rng:text(n, "abcXYZ0189-_.: ~/"):gsub("/", slash) .. '"'
    end
    local metadata = {}
    for i = 1, rng:below(10) - 1 do
        metadata[i] = text(8) .. ":" .. text(40)
    end
    return '{"id":' .. text(40) .. ',"type":' .. text(5) .. ',"created_at":"'
        .. usual_time(rng) .. '","updated_at":"' .. usual_time(rng) .. '"'
        .. (metadata[1] and ',"metadata":{' .. table.concat(metadata, ",")
            .. "}" or "") .. "}"
end

local function random_time(rng)
    return ("%04d-%02d-%02dT%02d:%02d:%02d%s%s"):format(rng:below(9999),
        rng:below(12), rng:below(28), rng:below(24) - 1, rng:below(60) - 1,
        rng:below(60) - 1, rng:pick { "", ".5", ".123456789", ".000000001" },
        rng:pick { "Z", "z", "+02:00", "-08:00", "+00:00" })
end

-- Now and then what is no metadata.
local function random_metadata(rng)
    local items = {}
    for i = 1, rng:below(4) do
        items[i] = cjson.encode(rng:text(8)) .. ":"
            .. (rng:once_in(10) and random_value(rng, 4)
                or cjson.encode(rng:text(30)))
    end
    return rng:once_in(20) and random_value(rng, 3)
        or "{" .. table.concat(items, ",") .. "}"
end

local function make(rng)
    if rng:once_in(2) then
        return usual(rng)
    end
    local members = {
        '"id":' .. cjson.encode(rng:text(40, "abcdef0123456789-")),
        '"type":' .. cjson.encode(rng:pick { "mcp", "sse", "", "x y" }),
        '"created_at":"' .. random_time(rng) .. '"',
        '"updated_at":"' .. random_time(rng) .. '"',
        '"data":' .. random_value(rng, 1),
        '"metadata":' .. random_metadata(rng),
        '"more":' .. random_value(rng, 1),
    }
    for i = #members, 2, -1 do
        local j = rng:below(i)
        members[i], members[j] = members[j], members[i]
    end
    return "{" .. table.concat(members, rng:pick { ",", " ,\n " }) .. "}"
end

----------------------------------------------------------------- large ---

local function with_data(data)
    return HEAD .. ',"data":' .. data .. ',"metadata":{"k":"v"}}'
end

local LARGE = {
    ["many metadata"] = function(n)
        local items = {}
        for i = 1, n / 20 do
            items[i] = ('"key%d":"value"'):format(i)
        end
        return HEAD .. ',"data":1,"metadata":{' .. table.concat(items, ",")
            .. "}}"
    end,
    ["a long metadata value"] = function(n)
        return HEAD .. ',"data":1,"metadata":{"k":"' .. rep("v", n) .. '"}}'
    end,
    ["backslashes in metadata"] = function(n)
        return HEAD .. ',"metadata":{"k":"' .. rep("\\\\", n / 2)
            .. 'x"},"data":1}'
    end,
    ["quotes in data"] = function(n)
        return with_data('"' .. rep('\\"', n / 2) .. '"')
    end,
    ["backslashes in data"] = function(n)
        return with_data('"' .. rep("\\\\", n / 2) .. 'x"')
    end,
    ["spaces in data"] = function(n)
        return with_data("[1," .. rep(" ", n) .. "2]")
    end,
    ["spaces behind data"] = function(n)
        return with_data("1" .. rep(" \n", n / 2))
    end,
    ["a long array"] = function(n)
        return with_data("[" .. rep("1,", n / 2) .. "1]")
    end,
    ["many small objects"] = function(n)
        return with_data("[" .. rep('{"a":[]},', n / 9) .. "0]")
    end,
    ["nesting"] = function(n)
        return with_data(rep("[", n / 2) .. rep("]", n / 2))
    end,
    ["nesting without end"] = function(n)
        return HEAD .. ',"data":' .. rep('{"a":', n / 5)
    end,
    ["many members"] = function(n)
        return HEAD .. rep(',"data":1', n / 9) .. "}"
    end,
    ["a long key"] = function(n)
        return HEAD .. ',"' .. rep("\\\\", n / 2) .. '":1,"data":2}'
    end,
}

return {
    name = "record",
    seeds = SEEDS,
    words = { '"id"', '"type"', '"created_at"', '"updated_at"', '"data"',
              '"metadata"', ":", ",", "{", "}", "[", "]", "null", "true",
              "NaN", "Infinity", "-inf", "nan", "1e999", "-0", "1e-400",
              '"\\u0000"', '"\\ud800"', '"\\\\"', "[]", "{}", '{"a":1}',
              ',"data":', ',"metadata":{"k":"v"}',
              '"2025-06-30T12:00:00Z"', " ", "\n" },
    make = make,
    check = check,
    large = LARGE,
}
