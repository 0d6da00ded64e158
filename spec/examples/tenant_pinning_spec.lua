-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local testing = require "resty.mooring.testing"

describe("tenant_pinning.lua", function()
    local policy = testing.policy(examples.path "tenant_pinning.lua")
    local backends = testing.backends {
        "http://10.0.0.1:8080", "http://10.0.0.2:8080", "http://10.0.0.3:8080",
        "http://10.0.0.8:8080", "http://10.0.0.9:8080",
    }

    local function place(tenant, list)
        local req = testing.request { headers = { ["X-Tenant"] = tenant } }
        return policy:route(req, list or backends).url
    end

    it("keeps a tenant on one backend", function()
        local used = {}
        for i = 1, 100 do
            local url = place("tenant" .. i)
            assert.equal(url, place("tenant" .. i))
            used[url] = (used[url] or 0) + 1
        end
        assert.is_nil(used["http://10.0.0.8:8080"])
        assert.is_nil(used["http://10.0.0.9:8080"])
        for i = 1, 3 do
            assert.is_true(used["http://10.0.0." .. i .. ":8080"] > 15)
        end
    end)

    it("gives a tenant its own backends", function()
        assert.matches("10%.0%.0%.[89]", place "acme")
        local one = testing.backends { "http://10.0.0.1:8080", "http://10.0.0.9:8080" }
        assert.equal("http://10.0.0.9:8080", place("acme", one))
    end)

    it("gives it a shared one when its own are away", function()
        assert.equal("http://10.0.0.1:8080",
            place("acme", testing.backends { "http://10.0.0.1:8080" }))
    end)

    it("leaves requests without a tenant to the next policy", function()
        local second = testing.policy {
            examples.path "tenant_pinning.lua",
            { route = function(_, list) return list[2] end },
        }
        assert.equal(backends[2], second:route(testing.request(), backends))
    end)

    it("makes no mistake when only others' backends are left", function()
        local left = testing.backends { "http://10.0.0.8:8080" }
        assert.equal("http://10.0.0.8:8080", place("other", left)) -- the default
        assert.equal(0, policy:stats()["tenant_pinning.lua"].route.errors)
    end)
end)
