-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local proxy = require "support.proxy"
local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("canary.lua", function()
    teardown(function() servers.stop_all() end)

    local CANARY = "http://10.0.0.9:8080"

    local function request(wish, address)
        return testing.request { headers = { ["X-Canary"] = wish }, remote_addr = address }
    end

    local function counts(policy, backends, wish)
        local count = {}
        for i = 0, 1999 do
            local address = "192.0." .. math.floor(i / 250) .. "." .. i % 250
            local url = policy:route(request(wish, address), backends).url
            count[url] = (count[url] or 0) + 1
        end
        return count
    end

    local policy = testing.policy(examples.path "canary.lua")
    local backends = testing.backends { "http://10.0.0.1:8080", "http://10.0.0.2:8080", CANARY }

    it("goes by what the client wants", function()
        assert.same({ [CANARY] = 2000 }, counts(policy, backends, "always"))
        assert.same({ ["http://10.0.0.1:8080"] = 1000, ["http://10.0.0.2:8080"] = 1000 },
            counts(policy, backends, "never"))
    end)

    it("gives the canary its share of the others", function()
        local count = counts(policy, backends)
        assert.is_true(count[CANARY] > 70 and count[CANARY] < 130)
    end)

    it("leaves an address on its side", function()
        for i = 1, 200 do
            local req = request(nil, "198.51.100." .. i)
            local first = policy:route(req, backends).url == CANARY
            for _ = 1, 3 do
                assert.equal(first, policy:route(req, backends).url == CANARY)
            end
        end
    end)

    it("uses the other side when one is away", function()
        local old = testing.backends { "http://10.0.0.1:8080" }
        assert.equal(old[1], policy:route(request "always", old))
        local new = testing.backends { CANARY }
        assert.equal(new[1], policy:route(request "never", new))
    end)

    it("keeps open sessions where they are, in a real nginx", function()
        local a, b = proxy.backend("a"), proxy.backend("b")
        local path = examples.copy("canary.lua", { [CANARY] = b.url, ["0.05"] = "0" })
        local web = proxy.start {
            backends = { a, b }, options = ("policy = %q,"):format(path),
        }
        local function opened_at(wish)
            local id, answer = web:open { headers = { ["X-Canary"] = wish } }
            assert.equal(200, answer.status)
            return id, answer.headers["x-served-by"]
        end
        for _ = 1, 3 do
            local id, name = opened_at "always"
            assert.equal("b", name)
            local answer = web:call(id, { headers = { ["X-Canary"] = "never" } })
            assert.equal("b", answer.headers["x-served-by"])
            assert.equal("a", select(2, opened_at "never"))
            assert.equal("a", select(2, opened_at(nil)))
        end
        assert.is_nil(web:error_log():find("failed in", 1, true))
    end)
end)
