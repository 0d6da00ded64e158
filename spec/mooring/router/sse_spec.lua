-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local sse = require "resty.mooring.router.sse"

local ENDPOINT = "event: endpoint\ndata: /messages?sessionId=1\n\n"
local URL = "/messages?sessionId=1"

-- What a parser finds in these chunks, and whether it has given up.
local function find(...)
    local parser = sse.new()
    local data, over
    for _, chunk in ipairs(type(...) == "table" and ... or { ... }) do
        data, over = parser:feed(chunk)
        if data or over then
            break
        end
    end
    return data, over or false
end

-- The stream cut into pieces of n bytes.
local function cut(text, n)
    local chunks = {}
    for at = 1, #text, n do
        chunks[#chunks + 1] = text:sub(at, at + n - 1)
    end
    return chunks
end

describe("resty.mooring.router.sse", function()
    it("finds the endpoint event", function()
        assert.equal(URL, find(ENDPOINT))
    end)

    it("finds it with any end of line, cut anywhere", function()
        for _, eol in ipairs { "\n", "\r", "\r\n" } do
            local text = ":hello\n\nid: 7\nevent:endpoint\nretry: 5\ndata:"
                .. URL .. "\n\nevent: message\ndata: {}\n\n"
            text = text:gsub("\n", eol)
            for n = 1, #text do
                assert.equal(URL, (find(cut(text, n))))
            end
            for at = 0, #text do
                assert.equal(URL, (find(text:sub(1, at), "", text:sub(at + 1))))
            end
        end
    end)

    it("does not wait for what follows the blank line", function()
        assert.equal(URL, find("event: endpoint\r\ndata: " .. URL .. "\r\n\r"))
        assert.equal(URL, find("event: endpoint\rdata: " .. URL .. "\r\r"))
    end)

    it("waits for the blank line", function()
        assert.same({ nil, false },
            { find("event: endpoint\ndata: " .. URL .. "\n") })
    end)

    it("does not take CR LF for a blank line when it is cut", function()
        assert.is_nil((find("event: endpoint\r", "\ndata: " .. URL .. "\r",
            "\n")))
        assert.equal(URL, find("event: endpoint\r", "\ndata: " .. URL .. "\r",
            "\n", "\r"))
    end)

    it("takes away one space behind the colon, and only one", function()
        assert.equal(" x", find("event: endpoint\ndata:  x\n\n"))
    end)

    it("skips a byte order mark, comments and other events", function()
        assert.equal(URL, find("\239\187\191: welcome\n: ping\n\n"
            .. "event: message\ndata: hello\n\ndata\n\n" .. ENDPOINT))
    end)

    it("joins several data lines as the standard says", function()
        assert.equal("a\nb", find("event: endpoint\ndata: a\ndata: b\n\n"))
    end)

    it("has the last name of an event count", function()
        assert.equal("x", find("event: other\nevent: endpoint\ndata: x\n\n"))
        assert.is_nil((find("event: endpoint\nevent\ndata: x\n\n")))
    end)

    it("does not carry fields over to the next event", function()
        assert.is_nil((find("event: endpoint\n\ndata: x\n\n")))
    end)

    it("does not take an event without data", function()
        assert.is_nil((find("event: endpoint\n\n")))
        assert.is_nil((find("event: endpoint\ndata:\n\n")))
    end)

    it("gives up after 16 KiB, however they come", function()
        local long = ("x"):rep(sse.MAX_BYTES)
        assert.same({ nil, true }, { find(long .. "\n\n" .. ENDPOINT) })
        assert.same({ nil, true }, { find(cut(long, 1)) })
        assert.same({ nil, false }, { find(long:sub(2)) })
    end)

    it("keeps no more than it may look at", function()
        local parser = sse.new()
        local _, over = parser:feed(("x"):rep(10 * sse.MAX_BYTES))
        assert.is_true(over)
        local kept = 0
        for _, piece in ipairs(parser.pieces) do
            kept = kept + #piece
        end
        assert.equal(sse.MAX_BYTES, kept)
    end)

    it("finds an event that ends with the last byte it looks at", function()
        local pad = ":" .. ("x"):rep(sse.MAX_BYTES - #ENDPOINT - 2) .. "\n"
        assert.equal(URL, find(pad .. ENDPOINT))
        assert.is_nil((find("x" .. pad .. ENDPOINT)))
    end)
end)
