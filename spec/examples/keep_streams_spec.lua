-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local proxy = require "support.proxy"
local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("keep_streams.lua", function()
    teardown(function() servers.stop_all() end)

    local policy = testing.policy(examples.path "keep_streams.lua")
    local get = testing.request { method = "GET" }
    local post = testing.request { method = "POST" }

    it("keeps a session whose client has opened a stream", function()
        local s = testing.session "s1"
        assert.is_true(policy:admit(s, get))
        assert.equal("keep", policy:on_unreachable(s, post))
        assert.equal("keep", policy:on_unreachable(s, get))
    end)

    it("forgets one that has none", function()
        local s = testing.session "s2"
        assert.is_true(policy:admit(s, post))
        assert.equal("forget", policy:on_unreachable(s, post))
    end)

    it("no longer knows one that has ended", function()
        local s = testing.session "s3"
        policy:admit(s, get)
        policy:on_evict(s, "capacity")
        assert.equal("keep", policy:on_unreachable(s, post))
        policy:on_evict(s, "deleted")
        assert.equal("forget", policy:on_unreachable(s, post))
    end)

    it("keeps them while the backend restarts, in a real nginx", function()
        local a = proxy.backend("a")
        local web = proxy.start {
            backends = { a }, http = "lua_shared_dict mooring_streams 1m;",
            options = ("policy = %q,"):format(examples.path "keep_streams.lua"),
        }
        local with_stream, without = web:open(), (web:open())
        local stream = web:stream { id = with_stream }
        stream:wait_for_head("HTTP/1.1 200")
        a:ask("stop")
        stream:wait()
        assert.equal(404, web:call(without).status)
        assert.is_true(web:call(with_stream).status >= 502)
        assert.is_true(web:request({ id = with_stream, method = "GET" }).status >= 502)
        a:ask("start")
        assert.equal("a", web:call(with_stream).headers["x-served-by"])
        assert.equal(404, web:call(without).status)
        assert.is_nil(web:error_log():find("failed in", 1, true))
    end)
end)
