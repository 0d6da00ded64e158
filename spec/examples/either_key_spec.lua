-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local proxy = require "support.proxy"
local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("either_key.lua", function()
    teardown(function() servers.stop_all() end)

    local policy = testing.policy(examples.path "either_key.lua")

    it("takes the header, then the cookie, then the argument", function()
        local fields = { args = { session = "by argument" } }
        assert.equal("by argument", policy:key(testing.request(fields)))
        fields.cookies = { session = "by cookie" }
        assert.equal("by cookie", policy:key(testing.request(fields)))
        fields.headers = { ["X-Session"] = "by header" }
        assert.equal("by header", policy:key(testing.request(fields)))
        assert.is_nil(policy:key(testing.request()))
    end)

    it("sends all requests of a session to one backend, in a real nginx", function()
        local a, b = proxy.backend("a"), proxy.backend("b")
        for _, backend in ipairs { a, b } do
            proxy.rule(backend, { body = "ok", times = 1000 })
        end
        local web = proxy.start {
            backends = { a, b }, options = ('key = { header = "X-Session" }, policy = %q,')
                :format(examples.path "either_key.lua"),
        }
        local function served_by(opts)
            opts.method = "GET"
            return assert(web:request(opts)).headers["x-served-by"]
        end
        local used = {}
        for i = 1, 6 do
            local name = served_by { headers = { ["X-Session"] = "u" .. i } }
            used[name] = true
            assert.equal(name, served_by { headers = { Cookie = "session=u" .. i } })
            assert.equal(name, served_by { path = "/mcp?session=u" .. i })
        end
        assert.same({ a = true, b = true }, used)
        assert.is_nil(web:error_log():find("failed in", 1, true))
    end)
end)
