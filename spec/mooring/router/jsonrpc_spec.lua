-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local jsonrpc = require "resty.mooring.router.jsonrpc"

describe("resty.mooring.router.jsonrpc", function()
    describe(".is_initialize", function()
        for _, body in ipairs {
            '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}',
            '\n\t {"method" : "initialize"}',
            '{"method":"\\u0069nitialize"}',
            '{"\\u006dethod":"initialize"}',
            '{"method":"ping","method":"initialize"}',
        } do
            it("says yes to " .. body, function()
                assert.is_true(jsonrpc.is_initialize(body))
            end)
        end

        for _, body in ipairs {
            "", "null", '"initialize"', "[]", "initialize",
            '[{"method":"initialize"}]', '{"method":"initialized"}',
            '{"method":["initialize"]}', '{"params":{"method":"initialize"}}',
            '{"method":"initialize"', '{"method":"initialize"}}',
            '{"method":"Initialize"}', '{"method":"initialize\\u0000"}',
            '{"method":"initialize","method":"ping"}',
        } do
            it("says no to " .. body, function()
                assert.is_false(jsonrpc.is_initialize(body))
            end)
        end

        it("says no to no body", function()
            assert.is_false(jsonrpc.is_initialize(nil))
        end)
    end)

    describe(".request_id", function()
        for body, id in pairs {
            ['{"id":1}'] = "1",
            ['{"id" : 1 , "x":2}'] = "1",
            ['{"x":{"id":2},"id":1}'] = "1",
            ['{"x":[{"id":2}],"id":-7}'] = "-7",
            ['{"x":"\\"id\\":2","id":1}'] = "1",
            ['{"x":"\\\\","id":"y"}'] = '"y"',
            ['{"id":"a\\"}b"}'] = '"a\\"}b"',
            ['{"id":"\\u00e9\\/"}'] = '"\\u00e9\\/"',
            ['{"id":9007199254740993}'] = "9007199254740993",
            ['{"id":1.0}'] = "1.0",
            ['{"id":1e3}'] = "1e3",
            ['{"\\u0069d":5}'] = "5",
            ['{"id":1,"id":2}'] = "2",
            ['{"x":"id","id":3}'] = "3",
        } do
            it("is the text of the client in " .. body, function()
                assert.equal(id, jsonrpc.request_id(body))
            end)
        end

        for _, body in ipairs {
            "", "x", "[]", '[{"id":1}]', '{"id":null}', '{"id":true}',
            '{"id":{"a":1}}', '{"id":[1]}', '{"x":{"id":1}}', '{"id":1',
            '{"id":0x1f}', '{"id":nan}', '{"id":00}', '{"id":"a\1b"}', '"id"', "1", '{"id":1} x',
        } do
            it("is nil in " .. body, function()
                assert.is_nil(jsonrpc.request_id(body))
            end)
        end

        it("is nil where there is no body", function()
            assert.is_nil(jsonrpc.request_id(nil))
        end)

        it("is what a decoder finds, in random objects", function()
            local seed = os.time()
            math.randomseed(seed)
            local function value(depth)
                local kind = math.random(depth > 3 and 4 or 6)
                if kind == 1 then return math.random(-1000, 1000)
                elseif kind == 2 then return 'a"\\{}[],:' .. math.random(9)
                elseif kind == 3 then return "id"
                elseif kind == 4 then return cjson.null end
                local t = {}
                for _ = 1, math.random(0, 3) do
                    if kind == 5 then
                        t[#t + 1] = value(depth + 1)
                    else
                        local key = ({ "id", "x", 'i"d', "y" })[math.random(4)]
                        t[key] = value(depth + 1)
                    end
                end
                return t
            end
            for _ = 1, 2000 do
                local object = { x = value(1), y = value(1), id = value(1) }
                local body = cjson.encode(object)
                local found = jsonrpc.request_id(body)
                local id = object.id
                if type(id) == "string" or type(id) == "number" then
                    assert.equal(id, cjson.decode("[" .. found .. "]")[1],
                        "seed " .. seed .. ": " .. body)
                else
                    assert.is_nil(found, "seed " .. seed .. ": " .. body)
                end
            end
        end)
    end)

    describe(".error_body", function()
        it("has the id as it is written", function()
            assert.equal('{"jsonrpc":"2.0","error":{"code":-32001,"message":'
                .. '"Session not found"},"id":"x"}',
                jsonrpc.error_body(-32001, "Session not found", '"x"'))
        end)

        it("has no id where there is none", function()
            assert.equal('{"jsonrpc":"2.0","error":{"code":-32001,"message":'
                .. '"Session not found"}}',
                jsonrpc.error_body(-32001, "Session not found", nil))
        end)
    end)
end)
