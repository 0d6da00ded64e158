-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What both transports are made of, without memory: errors, and not a word of
-- malformed replies.

local failing = require "support.failing"
local protocol = require "resty.mooring.transport.protocol"

describe("Without memory,", function()
    local COMMANDS = { { "SET", "k", ("x"):rep(5000) }, { "GET", "k" } }

    it("commands cannot be formatted, or are", function()
        local whole = protocol.encode_all(COMMANDS)
        local n = failing.each(function() end, function()
            return protocol.encode_all(COMMANDS)
        end, function(_, failed, ok, bytes, err, code)
            assert.is_true(ok, bytes)
            if failed then
                assert.is_nil(bytes)
                assert.equal("could not format a command: out of memory", err)
                assert.equal("unavailable", code)
            else
                assert.equal(whole, bytes)
            end
        end)
        assert.is_true(n >= 2)
    end)

    it("a decoder cannot be made, or is", function()
        local n = failing.each(function() end, protocol.reader,
            function(_, failed, ok, reader, err)
                assert.is_true(ok, reader)
                assert.equal(failed, reader == nil)
                assert.equal(failed and "could not make a reader: out of memory" or nil, err)
            end)
        assert.is_true(n > 0)
    end)

    it("a reply is read, or its connection is to be closed", function()
        local reply = "*3\r\n$3\r\nfoo\r\n:5\r\n*1\r\n$5000\r\n" .. ("x"):rep(5000) .. "\r\n"
        local n = failing.each(protocol.reader, function(reader)
            local ok, err = reader:feed(reply)
            if not ok then
                return nil, err
            end
            return reader:next()
        end, function(_, failed, ok, value, err)
            assert.is_true(ok, value)
            if failed then
                assert.is_nil(value)
                assert.matches("^could not read a reply: .*memory", err)
            else
                assert.same({ "foo", 5, { ("x"):rep(5000), n = 1 }, n = 3 }, value)
            end
        end)
        assert.is_true(n > 3)
    end)
end)
