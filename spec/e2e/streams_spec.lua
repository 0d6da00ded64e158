-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A session whose client only listens.

local replica = require "support.replica"
local servers = require "support.servers"

describe("an open GET stream", function()
    local redis, clients

    setup(function()
        redis = servers.redis()
        clients = replica.clients()
    end)

    teardown(function() servers.stop_all() end)

    local function open(name, web)
        return clients:expect {
            op = "open", as = name, urls = { web.mcp },
        }.session
    end

    it("keeps its session from expiring", function()
        local web = replica.start {
            backends = replica.backends(1), storage = redis.url,
            options = "session_ttl = 1,",
        }
        local function key_exists(session)
            return redis:cli("EXISTS mooring:session:" .. session) == "1"
        end
        -- Opens a session nobody uses, and watches it expire.
        local function wait_one_life(name)
            local session = open(name, web)
            clients:expect { op = "close", as = name }
            assert.is_true(key_exists(session))
            servers.wait_for(function() return not key_exists(session) end, 5,
                "an unused session to expire")
        end

        local listening = open("listener", web)
        servers.wait_for(function() return web:status().streams == 1 end, 5,
            "the stream to be open")
        wait_one_life("first")
        wait_one_life("second")
        assert.is_true(key_exists(listening))
        assert.equal(1, clients:expect {
            op = "call", as = "listener", tool = "counter",
        }.value.count)
    end)
end)
