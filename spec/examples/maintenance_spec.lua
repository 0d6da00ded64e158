-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local proxy = require "support.proxy"
local rfc3339 = require "resty.mooring.rfc3339"
local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("maintenance.lua", function()
    teardown(function() servers.stop_all() end)

    local MINE, OTHER = "http://10.0.0.2:8080", "http://10.0.0.1:8080"
    local real_time = os.time

    -- The policy as it is so many seconds before or after a time of its window.
    local function at(drain, close, back, url)
        local now = real_time()
        return examples.copy("maintenance.lua", {
            ["2026-03-01T02:00:00Z"] = rfc3339.format(now - drain),
            ["2026-03-01T03:00:00Z"] = rfc3339.format(now - close),
            ["2026-03-01T04:00:00Z"] = rfc3339.format(now - back),
            [MINE] = url or MINE,
        })
    end

    local function counts(policy, n)
        local backends, count = testing.backends { OTHER, MINE }, {}
        for _ = 1, n do
            local url = policy:route(testing.request(), backends).url
            count[url] = (count[url] or 0) + 1
        end
        return count
    end

    local function admits(policy, url)
        return policy:admit(testing.session("s1", { backend_url = url }), testing.request())
    end

    it("is all open before the window, and behind it", function()
        for _, path in ipairs { at(-1000, -2000, -3000), at(3000, 2000, 1000) } do
            local policy = testing.policy(path)
            assert.same({ [MINE] = 5, [OTHER] = 5 }, counts(policy, 10))
            assert.is_true(admits(policy, MINE))
        end
    end)

    it("takes no new session from the first time on, and keeps the old ones", function()
        local policy = testing.policy(at(1000, -1000, -2000))
        assert.same({ [OTHER] = 10 }, counts(policy, 10))
        assert.is_true(admits(policy, MINE))
    end)

    it("sends the old ones away from the second time on", function()
        local policy = testing.policy(at(2000, 1000, -1000))
        assert.same({ [OTHER] = 10 }, counts(policy, 10))
        assert.is_false(admits(policy, MINE))
        assert.is_false(admits(policy, MINE .. "#3"))
        assert.is_true(admits(policy, OTHER))
    end)

    it("has no backend for new sessions when all are in maintenance", function()
        local policy = testing.policy(at(1000, -1000, -2000))
        assert.is_nil(policy:route(testing.request(), testing.backends { MINE }))
    end)

    it("moves clients to the other backend, in a real nginx", function()
        local a, b = proxy.backend("a"), proxy.backend("b")
        local function options(path)
            return { backends = { a, b }, options = ("policy = %q,"):format(path) }
        end
        local web = proxy.start(options(at(-1000, -2000, -3000, b.url)))
        local ids = {}
        for _ = 1, 2 do
            local id, answer = web:open()
            ids[answer.headers["x-served-by"]] = id
        end

        web:reload_with(options(at(1000, -1000, -2000, b.url)))
        assert.equal("b", web:call(ids.b).headers["x-served-by"])
        for _ = 1, 3 do
            assert.equal("a", select(2, web:open()).headers["x-served-by"])
        end

        web:reload_with(options(at(2000, 1000, -1000, b.url)))
        local refused = web:call(ids.b)
        assert.equal(404, refused.status)
        assert.equal(web:call("nobody-knows").body, refused.body)
        assert.equal("a", web:call(ids.a).headers["x-served-by"])
        assert.equal("a", select(2, web:open()).headers["x-served-by"])
        assert.is_nil(web:error_log():find("failed in", 1, true))
    end)
end)
