-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Bodies of requests, against what cjson makes of them: is it `initialize`, and
-- is the id that is echoed the id, and JSON.

local cjson = require "cjson.safe"
local jsonrpc = require "resty.mooring.router.jsonrpc"

local rep = string.rep

-- RFC 8259: stricter than cjson, which reads 0x10 and NaN, too.
local function is_json_number(text)
    local int, rest = text:match("^%-?(%d+)(.*)$")
    if not int or #int > 1 and int:sub(1, 1) == "0" then
        return false
    end
    rest = rest:gsub("^%.%d+", "")
    return rest == "" or rest:find("^[eE][+-]?%d+$") ~= nil
end

local function is_json_scalar(text)
    if text:sub(1, 1) == '"' then
        return not text:find("[%z\1-\31]") and cjson.decode("[" .. text .. "]")
    end
    return is_json_number(text)
end

local function object_of(body)
    local message = body:find("^%s*{") and cjson.decode(body)
    return type(message) == "table" and message or nil
end

-- Is there a member that looks right to the eye?
local function is_found(body)
    local text = body:match('^%s*{"id":("[^"\\%c]*")[,}]')
        or body:match('^%s*{"id":([^"%s,}]+)[,}]')
    return text ~= nil and is_json_scalar(text)
        and not body:find('"id".*"id"') and not body:find("\\u", 1, true)
end

local function check_id(body, message)
    local text = jsonrpc.request_id(body)
    local id = message and message.id
    if type(id) ~= "string" and type(id) ~= "number" then
        assert(text == nil, "an id where there is none")
        return
    end
    if text == nil then -- only what cjson takes for a scalar and JSON does not
        assert(not is_found(body), "the id is not found")
        return
    end
    assert(is_json_scalar(text), "echoed, but no JSON: " .. text)
    local echoed = cjson.decode("[" .. text .. "]")[1]
    assert(echoed == id, "another id: " .. text)
end

local function check_answer(body, rng)
    local message = rng:text(20)
    local text = jsonrpc.error_body(-32001, message, jsonrpc.request_id(body))
    local answer = assert(cjson.decode(text))
    assert(answer.jsonrpc == "2.0" and answer.error.code == -32001, "error")
    assert(answer.error.message == message, "message")
end

local function check(body, rng)
    local message = object_of(body)
    local initialize = message ~= nil and message.method == "initialize"
    assert(jsonrpc.is_initialize(body) == initialize,
        "initialize: " .. tostring(initialize))
    check_id(body, message)
    check_answer(body, rng)
end

---------------------------------------------------------------- random ---

local function quoted(rng, text)
    text = cjson.encode(text):gsub("\\/", "/")
    if rng:once_in(4) then -- an escape that changes nothing
        text = text:gsub("([a-z])", function(c)
            return rng:once_in(3) and ("\\u%04x"):format(c:byte()) or c
        end)
    end
    return text
end

local function random_value(rng, depth)
    local kind = rng:below(depth < 4 and 8 or 5)
    if kind <= 2 then
        return quoted(rng, rng:pick { "id", "initialize", 'a"b', "\\", "{", "" })
    elseif kind <= 5 then
        return rng:pick { "1", "-0.0", "1.50", "1e3", "9007199254740993",
                          "null", "true", "{}", "[]" }
    end
    local items = {}
    for i = 1, rng:below(4) do
        items[i] = (kind == 6 and "" or quoted(rng,
            rng:pick { "id", "method", "params", "x" }) .. ":")
            .. random_value(rng, depth + 1)
    end
    local text = table.concat(items, rng:pick { ",", " , ", "\t,\n" })
    return kind == 6 and "[" .. text .. "]" or "{" .. text .. "}"
end

local function make(rng)
    local members = {}
    for i = 1, rng:below(6) do
        local name = rng:pick { "jsonrpc", "id", "id", "method", "method",
                                "params", "x" }
        local value = name == "method" and quoted(rng, rng:pick {
            "initialize", "initialized", "tools/list" })
            or random_value(rng, 1)
        members[i] = quoted(rng, name) .. rng:pick { ":", " : ", "\n:" } .. value
    end
    return rng:pick { "", " ", "\r\n" } .. "{"
        .. table.concat(members, rng:pick { ",", " ,\n" }) .. "}"
end

local function call(more)
    return '{"jsonrpc":"2.0","id":1,"method":"initialize","params":' .. more
        .. "}"
end

return {
    name = "jsonrpc",
    seeds = {
        call '{"protocolVersion":"2025-06-18","capabilities":{}}',
        '{"jsonrpc":"2.0","id":"a\\"b","method":"tools/call","params":{"id":2}}',
        '{"method":"notifications/initialized"}',
        '[{"id":1,"method":"initialize"}]',
        '{"id":9007199254740993,"method":"\\u0069nitialize"}',
        '{"x":{"id":1},"\\u0069d":1.0,"y":["id",":"]}',
    },
    words = { '"id"', '"method"', '"initialize"', '"\\u0069d"', ":", ",", "{",
              "}", "[", "]", '"', "\\", "\\u", "\\ud800", "null", "true",
              "NaN", "Infinity", "0x10", "01", "1.", ".5", "+1", "1e5", "-",
              "\0", " ", '"id":1', '"id":"x"', ',"id":null' },
    make = make,
    check = check,
    large = {
        ["deep nesting"] = function(n)
            return call(rep("[", n / 2) .. rep("]", n / 2))
        end,
        ["nesting without end"] = function(n) return call(rep("[", n)) end,
        ["a long string"] = function(n)
            return call('"' .. rep("x", n) .. '"')
        end,
        ["many quotes"] = function(n)
            return call('"' .. rep('\\"', n / 2) .. '"')
        end,
        ["many backslashes"] = function(n)
            return call('"' .. rep("\\\\", n / 2) .. '"')
        end,
        ["many spaces"] = function(n) return rep(" ", n) .. call("1") end,
        ["spaces around the id"] = function(n)
            return '{"id":' .. rep(" ", n) .. '1,"method":"initialize"}'
        end,
        ["a long number"] = function(n)
            return '{"id":' .. rep("1", n) .. ',"method":"initialize"}'
        end,
        ["many ids"] = function(n)
            return "{" .. rep('"id":1,', n / 7) .. '"method":"initialize"}'
        end,
        ["no end"] = function(n) return '{"method":"initialize' .. rep("x", n) end,
    },
}
