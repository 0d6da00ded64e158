-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local proxy = require "support.proxy"
local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("capped.lua", function()
    teardown(function() servers.stop_all() end)

    local policy = testing.policy(examples.path "capped.lua")
    local initialize = testing.request { method = "POST", body = proxy.INITIALIZE }

    local function route(...)
        local backends = testing.backends { ... }
        local chosen = policy:route(initialize, backends)
        return chosen and chosen.url
    end

    it("takes the backend with the fewest sessions", function()
        assert.equal("http://b:1", route({ url = "http://a:1", sessions = 499 },
            { url = "http://b:1", sessions = 498 }))
    end)

    it("takes none that is full", function()
        assert.equal("http://b:1", route({ url = "http://a:1", sessions = 500 },
            { url = "http://b:1", weight = 2, sessions = 999 }))
        assert.is_nil(route({ url = "http://a:1", sessions = 500 },
            { url = "http://b:1", weight = 2, sessions = 1000 }))
    end)

    it("lets requests pass that open no session", function()
        local backends = testing.backends { { url = "http://a:1", sessions = 500 } }
        assert.equal(backends[1], policy:route(testing.request { method = "POST",
            body = proxy.CALL }, backends))
    end)

    it("refuses new sessions with 503 while all are full, in a real nginx", function()
        local a, b = proxy.backend("a"), proxy.backend("b")
        local path = examples.copy("capped.lua", { ["CAP = 500"] = "CAP = 2" })
        local web = proxy.start {
            backends = { a, b }, options = ("policy = %q,"):format(path),
        }
        local ids = {}
        for i = 1, 4 do
            ids[i] = assert((web:open()))
        end
        local _, answer = web:open()
        assert.equal(503, answer.status)
        assert.equal("1", answer.headers["retry-after"])
        for i = 1, 4 do
            assert.equal(200, web:call(ids[i]).status)
        end
        assert.equal(200, web:delete(ids[1]).status)
        assert.is_string((web:open()))
        assert.equal(503, select(2, web:open()).status)
        assert.is_nil(web:error_log():find("failed in", 1, true))
    end)
end)
