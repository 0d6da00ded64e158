-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local record = require "resty.mooring.record"
local session = require "resty.mooring.session"

local TIMES = '"created_at":"2025-06-30T12:00:00Z","updated_at":"2025-06-30T12:00:00Z"'

local function toolhive_records()
    return io.lines("spec/fixtures/records/toolhive.json")
end

describe("resty.mooring.record", function()
    describe("of a record written by ToolHive", function()
        it("reads nanoseconds and zone offsets", function()
            local s = record.decode(toolhive_records()())
            assert.equal("mcp", s.type)
            assert.is_true(math.abs(s.created_at - 1751277600.123456789) < 1e-6)
            assert.equal("http://10.42.0.17:8080", s.metadata.backend_url)
            assert.equal("weather-0", s:get_metadata("backend_pod"))
        end)

        it("writes back every value it has not been told to change", function()
            for text in toolhive_records() do
                local s = assert(record.decode(text))
                local again = record.encode(s)
                assert.same(cjson.decode(text), cjson.decode(again))
                for _, exact in ipairs { '"created_at":"[^"]*"', '"updated_at":"[^"]*"',
                                         '"data":{.*}},"metadata"' } do
                    assert.equal(text:match(exact), again:match(exact))
                end
            end
        end)

        it("writes back the data of a copy, whatever the order of its keys", function()
            for n = 1, 50 do
                local members = {}
                for i = 1, n do members[i] = ('"k%d":[],"n%d":9007199254740993'):format(i, i) end
                local text = '{"id":"a",' .. TIMES .. ',"data":{' .. table.concat(members, ",")
                             .. "}}"
                local written = record.encode(record.copy(assert(record.decode(text))))
                assert.equal(text:match('"data":.*'), written:match('"data":.*'))
            end
        end)

        it("writes back a number that no double holds", function()
            local text = '{"id":"a",' .. TIMES .. ',"data":[-1e999,0.10000000000000000001]}'
            assert.matches('"data":[-1e999,0.10000000000000000001]',
                           record.encode(assert(record.decode(text))), 1, true)
        end)

        it("writes data anew once it was changed", function()
            local s
            for text in toolhive_records() do s = record.decode(text) end
            s.data.seq = 1
            assert.matches('"seq":1[,}]', record.encode(s))
        end)

        for what, change in pairs {
            ["a member has come"] = function(data) data.new = 1 end,
            ["a member has gone"] = function(data) data[next(data)] = nil end,
            ["an object has become a text"] = function(data) data.object = "text" end,
        } do
            it("writes data anew once " .. what, function()
                local s = assert(record.decode('{"id":"a",' .. TIMES
                    .. ',"data":{"object":{"n":1}}}', "a"))
                change(s.data)
                local again = assert(record.decode(record.encode(s), "a"))
                assert.same(s.data, again.data)
            end)
        end

        it("writes a time anew once it was changed", function()
            local s = record.decode(toolhive_records()())
            s.updated_at = 1751277601
            assert.matches('"updated_at":"2025-06-30T10:00:01Z"', record.encode(s), 1, true)
        end)
    end)

    describe(".encode", function()
        it("leaves out nil data and empty metadata", function()
            local s = session.new("a", { created_at = 0, updated_at = 0.5 })
            assert.equal('{"id":"a","type":"mcp","created_at":"1970-01-01T00:00:00Z",'
                         .. '"updated_at":"1970-01-01T00:00:00.5Z"}', record.encode(s))
        end)

        it("writes equal sessions as equal texts", function()
            local metadata = {}
            for i = 1, 20 do metadata["key" .. i] = "v" end
            local one = session.new("a", { created_at = 0, metadata = metadata })
            local other = session.new("a", { created_at = 0, metadata = {} })
            for i = 20, 1, -1 do other:set_metadata("key" .. i, "v") end
            assert.equal(record.encode(one), record.encode(other))
        end)

        for what, change in pairs {
            ["a number in metadata"] = function(s) s.metadata.k = 1 end,
            ["metadata that is no table"] = function(s) s.metadata = "x" end,
            ["a type that is no string"] = function(s) s.type = nil end,
            ["a time that is no number"] = function(s) s.updated_at = "now" end,
            ["a time out of range"] = function(s) s.created_at = math.huge end,
            ["data with a function in it"] = function(s) s.data = { print } end,
            ["data that contains itself"] = function(s) s.data = {}; s.data.me = s.data end,
        } do
            it("answers invalid to " .. what, function()
                local s = session.new("a")
                change(s)
                local text, err, code = record.encode(s)
                assert.is_nil(text)
                assert.matches("^invalid session record: ", err)
                assert.equal("invalid", code)
            end)
        end
    end)

    describe(".decode", function()
        for what, text in pairs {
            ["what is not JSON"] = "hello",
            ["an empty text"] = "",
            ["a number"] = "1",
            ["an array"] = "[]",
            ["a missing id"] = "{" .. TIMES .. "}",
            ["a numeric id"] = '{"id":1,' .. TIMES .. "}",
            ["another id than its key"] = '{"id":"b",' .. TIMES .. "}",
            ["a missing time"] = '{"id":"a","created_at":"2025-06-30T12:00:00Z"}',
            ["a numeric time"] = '{"id":"a","created_at":1,"updated_at":2}',
            ["nested metadata"] = '{"id":"a",' .. TIMES .. ',"metadata":{"k":{}}}',
            ["metadata that is a list"] = '{"id":"a",' .. TIMES .. ',"metadata":["x"]}',
            ["metadata that is a string"] = '{"id":"a",' .. TIMES .. ',"metadata":"x"}',
            ["a type that is no string"] = '{"id":"a","type":1,' .. TIMES .. "}",
            ["nesting without end"] = '{"id":"a","data":' .. ("["):rep(100000),
        } do
            it("answers invalid to " .. what, function()
                local s, err, code = record.decode(text, "a")
                assert.is_nil(s)
                assert.matches("^invalid session record: ", err)
                assert.equal("invalid", code)
            end)
        end

        -- 20 KB took seconds, in which a worker does nothing else.
        for what, data in pairs {
            ["backslashes"] = '"' .. ("\\\\"):rep(10000) .. 'x"',
            ["escaped quotes"] = '"' .. ('\\"'):rep(10000) .. '"',
            ["spaces"] = "[1," .. (" "):rep(20000) .. "2]",
            ["spaces at the end"] = "1" .. (" "):rep(20000),
        } do
            it("takes no longer for many " .. what, function()
                local text = '{"id":"a",' .. TIMES .. ',"metadata":{"k":"v"},"data":' .. data
                             .. "}"
                local began = os.clock()
                assert.equal("a", assert(record.decode(text, "a")).id)
                assert.is_true(os.clock() - began < 0.2)
            end)
        end

        for what, data in pairs { ["no number"] = "[NaN]", ["infinity"] = "-Infinity",
                                  ["a hexadecimal number"] = "0x10" } do
            it("answers invalid to data with " .. what, function()
                local s, _, code = record.decode('{"id":"a",' .. TIMES .. ',"data":' .. data
                                                 .. "}")
                assert.is_nil(s)
                assert.equal("invalid", code)
            end)
        end

        it("takes null for absent data and metadata", function()
            local s = record.decode('{"id":"a",' .. TIMES .. ',"data":null,"metadata":null}')
            assert.is_nil(s.data)
            assert.same({}, s.metadata)
        end)
    end)

    describe(".copy", function()
        it("shares nothing that can be changed", function()
            local s = session.new("a", { metadata = { k = "v" }, data = { list = { 1 } } })
            local copy = record.copy(s)
            copy.metadata.k = "changed"
            copy.data.list[1] = 2
            assert.equal("v", s.metadata.k)
            assert.equal(1, s.data.list[1])
            assert.equal("changed", copy:get_metadata("k"))
        end)
    end)
end)
