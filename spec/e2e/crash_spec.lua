-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Workers that die without a word, under traffic.

local replica = require "support.replica"
local servers = require "support.servers"

describe("a killed worker", function()
    local backends, redis, clients

    setup(function()
        redis = servers.redis()
        -- Answers of one piece: a client notices at once that one was cut off,
        -- while it waits a minute for the rest of an event stream.
        backends = replica.backends(3, "--json")
        clients = replica.clients()
    end)

    teardown(function() servers.stop_all() end)

    local function run(storage)
        local web = replica.start { backends = backends, storage = storage }
        local list = {}
        for i = 1, 8 do
            list[i] = storage .. i
            clients:expect { op = "open", as = list[i], urls = { web.mcp } }
        end
        clients:expect { op = "traffic_start", names = list }
        local function calls()
            return clients:expect { op = "traffic_calls" }.calls
        end
        for round = 1, 4 do
            local before = calls()
            local pids = web:worker_pids()
            local victim = pids[round % 2 + 1]
            assert.equal(0, os.execute("kill -KILL " .. victim))
            servers.wait_for(function()
                local now = web:worker_pids()
                return #now == 2 and now[1] ~= victim and now[2] ~= victim
            end, 5, "a new worker")
            servers.wait_for(function() return calls() > before + 60 end, 10,
                "traffic to go on")
        end
        local result = clients:expect { op = "traffic_stop" }
        for _, failure in ipairs(result.failures) do
            -- A cut connection, but no wrong answer and no error of ours.
            assert.equal("TypeError", failure.name, failure.message)
        end
        assert.is_true(#result.failures < 40)
        for _, name in ipairs(list) do
            clients:expect { op = "call", as = name, tool = "counter" }
        end
        web:stop()
    end

    it("costs no session over Redis", function() run(redis.url) end)

    it("costs no session in the replica's own memory", function()
        run("local")
    end)
end)
