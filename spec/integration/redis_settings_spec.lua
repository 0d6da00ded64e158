-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Settings of a Redis that cost sessions, and what the log says of them.

local proxy = require "support.proxy"
local servers = require "support.servers"

local WARNING = "has maxmemory-policy"

describe("a Redis whose maxmemory-policy is", function()
    local a

    setup(function() a = proxy.backend("a") end)
    teardown(function() servers.stop_all() end)

    local function start(policy)
        local redis = servers.redis { "--maxmemory-policy", policy }
        local web = proxy.start { backends = { a }, workers = 2,
            options = ("storage = %q,"):format(redis.url) }
        servers.wait_for(function()
            return (redis:command_counts()["config|get"] or 0) > 0
                and web:stats().storage.coherence.coherent
        end, 10, "the settings to have been asked for")
        return web
    end

    for _, policy in ipairs { "allkeys-lru", "allkeys-random" } do
        it(policy .. " may drop sessions in use: that is said at the start", function()
            local web = start(policy)
            local log = servers.wait_for(function()
                local log = web:error_log()
                return log:find(WARNING, 1, true) and log
            end, 5, "the warning")
            assert.matches(WARNING .. " " .. policy, log, 1, true)
            assert.matches("use volatile-ttl or noeviction", log, 1, true)
        end)
    end

    for _, policy in ipairs { "noeviction", "volatile-ttl" } do
        it(policy .. " keeps them, and nothing is said", function()
            local web = start(policy)
            assert.is_string((web:open()))
            assert.not_matches(WARNING, web:error_log(), 1, true)
        end)
    end
end)
