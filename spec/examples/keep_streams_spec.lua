-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local local_storage = require "resty.mooring.local_storage"
local proxy = require "support.proxy"
local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("keep_streams.lua", function()
    local policy, storage
    local get = testing.request { method = "GET" }
    local post = testing.request { method = "POST" }

    before_each(function()
        policy = testing.policy(examples.path "keep_streams.lua")
        storage = local_storage.new { max_entries = 10 }
        _G.router = { storage = storage }
    end)
    after_each(function() _G.router = nil end)
    teardown(function() servers.stop_all() end)

    -- A session that is stored, as a request finds it.
    local function stored(id)
        assert(storage:store(testing.session(id, { backend_url = "http://a:1" })))
        return assert(storage:load(id))
    end

    it("keeps a session whose client has opened a stream", function()
        assert.is_true(policy:admit(stored "s1", get))
        -- through whichever worker or replica it comes next
        local found = assert(storage:load "s1")
        assert.is_true(policy:admit(found, post))
        assert.equal("keep", policy:on_unreachable(found, post))
        assert.equal("http://a:1", found:get_metadata("backend_url"))
    end)

    it("forgets one that has none", function()
        local s = stored "s1"
        assert.is_true(policy:admit(s, post))
        assert.equal("forget", policy:on_unreachable(s, post))
    end)

    it("writes once for a session, and never brings back one that has ended", function()
        local s = stored "s1"
        policy:admit(s, get)
        local update = spy.on(storage, "update")
        policy:admit(assert(storage:load "s1"), get)
        assert.spy(update).was_not.called()
        local ended = stored "s2"
        storage:delete "s2"
        assert.is_true(policy:admit(ended, get))
        assert.is_nil((storage:load "s2"))
    end)

    it("keeps them while the backend restarts, on every replica", function()
        local redis, a = servers.redis(), proxy.backend("a")
        local function replica()
            return proxy.start { backends = { a }, options = ("storage = %q, policy = %q,")
                :format(redis.url, examples.path "keep_streams.lua") }
        end
        local one, two = replica(), replica()
        local with_stream, without = one:open(), (one:open())
        assert.equal("a", two:call(with_stream).headers["x-served-by"])
        local stream = one:stream { id = with_stream }
        stream:wait_for_head("HTTP/1.1 200")
        a:ask("stop")
        stream:wait()
        assert.equal(404, two:call(without).status)
        assert.is_true(two:call(with_stream).status >= 502)
        assert.is_true(one:request({ id = with_stream, method = "GET" }).status >= 502)
        a:ask("start")
        for _, web in ipairs { one, two } do
            assert.equal("a", web:call(with_stream).headers["x-served-by"])
            assert.equal(404, web:call(without).status)
            assert.is_nil(web:error_log():find("failed in", 1, true))
        end
    end)
end)
