-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Is on_evict called exactly once for each session that leaves? `make evictions`
-- does the same with 1,000,000 operations.

local cjson = require "cjson"
local servers = require "support.servers"

local OPERATIONS = tonumber(os.getenv("OPERATIONS")) or 60000
local PROCESSES = 4
local PATIENCE = 60 + OPERATIONS / 2000 -- seconds

describe("on_evict", function()
    teardown(function() servers.stop_all() end)

    it("is called once for each session that leaves, in " .. PROCESSES .. " processes",
       function()
        local result = servers.run {
            os.getenv("LUAJIT") or "luajit", servers.root .. "/spec/fixtures/evicting.lua",
            tostring(PROCESSES), tostring(OPERATIONS / PROCESSES), tostring(os.time()),
            timeout = PATIENCE,
        }
        local sums, n = { 0, 0, 0, 0, 0, 0, 0 }, 0
        for line in result.out:gmatch("counts ([^\n]+)") do
            local i = 0
            n = n + 1
            for number in line:gmatch("%d+") do
                i = i + 1
                sums[i] = sums[i] + number
            end
        end
        local entries, evicted, expired, removed, check =
            result.out:match("region (%d+) (%d+) (%d+) (%d+) (%l+)")
        assert.equal(PROCESSES, n, result.out .. result.err)
        local created = sums[1]
        assert.is_true(created > OPERATIONS / 4)
        -- capacity, expired, deleted, gone, closed, wrong
        assert.same({ tonumber(evicted), tonumber(expired), tonumber(removed), 0, 0, 0 },
            { unpack(sums, 2) })
        assert.equal(created, sums[2] + sums[3] + sums[4] + entries)
        assert.equal("ok", check)
    end)

    describe("of a policy, in " .. PROCESSES .. " workers", function()
        local web

        -- Each worker works in steps, so that it also serves.
        setup(function()
            web = servers.nginx {
                workers = PROCESSES,
                vars = { each = tostring(OPERATIONS / PROCESSES) },
                conf = [[
                    include $root/lua/resty/mooring/nginx/http.conf;
                    lua_shared_dict told 1m;
                    init_by_lua_block {
                        storage = require("resty.mooring.local_storage").new {
                            name = "evictions", max_entries = 2000, ttl = 0.2, full = "evict",
                        }
                        router = require("resty.mooring.router").new {
                            backends = { "http://127.0.0.1:1" }, storage = storage,
                            internal = "unix:$dir/internal.sock",
                            policy = { on_evict = function(s, reason)
                                ngx.shared.told:incr(reason, 1, 0)
                                if s.metadata.backend_url ~= "http://" .. s.id then
                                    ngx.shared.told:incr("wrong", 1, 0)
                                end
                            end },
                        }
                    }
                    init_worker_by_lua_block {
                        router:init_worker()
                        local session, told = require "resty.mooring.session", ngx.shared.told
                        local left = $each
                        local function one()
                            local id = "session-" .. math.random(20000)
                            local dice = math.random(100)
                            if dice <= 60 then
                                if storage:create(session.new(id, {
                                    metadata = { backend_url = "http://" .. id } })) then
                                    told:incr("created", 1, 0)
                                end
                            elseif dice <= 75 then
                                storage:delete(id)
                            else
                                storage:resolve(id)
                            end
                        end
                        local function step(premature)
                            for _ = 1, premature and 0 or 200 do
                                one()
                                left = left - 1
                            end
                            if left > 0 then
                                ngx.timer.at(0.001, step)
                            else
                                told:incr("ended", 1, 0)
                            end
                        end
                        math.randomseed(ngx.worker.pid())
                        ngx.timer.at(0.001, step)
                    }
                    server {
                        listen 127.0.0.1:$port;
                        location / { content_by_lua_block {
                            local told = { stats = storage:stats(),
                                           policies = router:stats().policies }
                            for _, name in ipairs(ngx.shared.told:get_keys(0)) do
                                told[name] = ngx.shared.told:get(name)
                            end
                            ngx.say(require("cjson").encode(told))
                        } }
                    }]],
            }
        end)

        local function told()
            return cjson.decode(assert(servers.http(web.url)).body)
        end

        it("is called once for each session that leaves", function()
            servers.wait_for(function() return told().ended == PROCESSES end, PATIENCE,
                "the end of the operations")
            -- Nothing happens any more but the sweep: it empties the storage.
            servers.wait_for(function() return told().stats.entries == 0 end, 10,
                "the sweep without traffic")
            local now = told()
            local stats = now.stats
            assert.is_nil(now.wrong)
            assert.equal(stats.evicted + stats.evicted_for_space, now.capacity or 0)
            assert.same({ stats.expired, stats.removed }, { now.expired, now.deleted })
            assert.equal(now.created, (now.capacity or 0) + now.expired + now.deleted)
            servers.wait_for(function()
                return told().policies.inline.on_evict.calls == now.created
            end, 5, "the counts of all workers")
            assert.equal(0, told().policies.inline.on_evict.errors)
        end)
    end)
end)
