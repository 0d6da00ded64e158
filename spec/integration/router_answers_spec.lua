-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The answers that a router makes itself, as a browser sees them.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, answers of its own", function()
    local a

    setup(function() a = proxy.backend("a") end)
    teardown(function() servers.stop_all() end)

    local function refused(options)
        local web = proxy.start { backends = { a }, options = options }
        local answer = web:call("unknown")
        assert.same({ 404, "application/json", 7 }, { answer.status,
            answer.headers["content-type"], cjson.decode(answer.body).id })
        local headers = answer.headers
        return { origin = headers["access-control-allow-origin"], vary = headers.vary,
                 exposed = headers["access-control-expose-headers"] }, web
    end

    it("may be read by any page", function()
        assert.same({ origin = "*", exposed = "Mcp-Session-Id, WWW-Authenticate" }, (refused()))
    end)

    it("may be read by the pages of one origin, which caches are told", function()
        assert.same({ origin = "https://app.test", vary = "Origin",
                      exposed = "Mcp-Session-Id, WWW-Authenticate" },
            (refused 'cors_origin = "https://app.test",'))
    end)

    it("may be read by no page with cors_origin = false", function()
        assert.same({}, (refused "cors_origin = false,"))
    end)

    it("have the request's id only where it is in memory", function()
        local _, web = refused()
        local body = ('{"jsonrpc":"2.0","id":7,"method":"x","params":"%s"}'):format(
            ("x"):rep(100000))
        local answer = web:call("unknown", { body = body })
        assert.equal(404, answer.status)
        assert.is_nil(cjson.decode(answer.body).id)
        answer = web:call("unknown", { method = "GET", body = "" })
        assert.is_nil(cjson.decode(answer.body).id)
    end)
end)
