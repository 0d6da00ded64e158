-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What replay bears from a backend; all the rest with real ones, in
-- spec/integration/router_reinitialize_spec.lua.

local ffi = require "resty.mooring.ffi"

local MODULE = "resty.mooring.router.replay"

describe("resty.mooring.router.replay", function()
    local now = ffi.now
    local RESULT = '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"v"}}'
    local replay, time, parts, read, opened

    -- A backend that answers an initialize with what next_part() gives, and
    -- `answering` requests in all.
    local function open(kind, next_part, answering)
        local sock = { settimeout = function() end, close = function() end }
        local function next_of()
            read = read + 1
            return next_part(read)
        end
        local router = { hop = { open = function(_, request)
            opened[#opened + 1] = request.method
            if #opened > (answering or 3) then
                return nil, "connection refused", "connect"
            end
            return { status = 200, sock = sock, next_part = next_of, headers = {
                ["content-type"] = { kind }, ["mcp-session-id"] = { "new" } } }
        end } }
        return replay.open(router, { headers = {}, extra = {} }, "http://a:1", "{}", nil)
    end

    setup(function()
        ffi.now = function() return time end
        package.loaded[MODULE] = nil
        replay = require(MODULE)
        ffi.now, package.loaded[MODULE] = now, nil
    end)
    before_each(function()
        time, read, opened = 0, 0, {}
        local result = "data: " .. RESULT .. "\n"
        parts = {}
        for i = 1, #result do
            parts[i] = result:sub(i, i)
        end
    end)

    it("reads a result that comes byte by byte, among other lines", function()
        local noise = 50000
        local id, version = open("text/event-stream", function(i)
            return i <= noise and (i % 2 == 0 and "\n" or ":") or parts[i - noise]
        end)
        assert.same({ "new", "v" }, { id, version })
        assert.same({ "POST", "POST" }, opened)
    end)

    for _, kind in ipairs { "text/event-stream", "application/json" } do
        it("does not wait for ever for a result in " .. kind .. " that drips", function()
            local id, why = open(kind, function()
                time = time + 5000
                return "\n"
            end)
            assert.is_nil(id)
            assert.matches("no InitializeResult", why)
            assert.is_true(read <= 3, read)
            assert.same({ "POST", "DELETE" }, opened)
        end)

        it("does not read for ever what comes as " .. kind .. " and is no result", function()
            local part = (":"):rep(65535) .. "\n"
            local id, why = open(kind, function() return part end)
            assert.is_nil(id)
            assert.matches("no InitializeResult", why)
            assert.is_true(read <= 5, read)
            assert.same({ "POST", "DELETE" }, opened)
        end)
    end

    it("takes a result from a stream that ends with it, without an end of its line", function()
        local id, version = open("text/event-stream", function(i)
            return i == 1 and "data: " .. RESULT or nil
        end)
        assert.same({ "new", "v" }, { id, version })
    end)

    it("opens nothing at a backend that goes in between", function()
        local id, why, outcome = open("application/json", function(i)
            return i == 1 and RESULT or nil
        end, 1)
        assert.same({ nil, "connection refused", "connect" }, { id, why, outcome })
        assert.same({ "POST", "POST", "DELETE" }, opened)
    end)
end)
