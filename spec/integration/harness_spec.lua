-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The harness itself: what the other specs rely on without looking.

local cjson = require "cjson.safe"
local servers = require "support.servers"

-- A run of its own, with a redis-server and an nginx, that only waits.
local RUN = [[
    local servers = require "support.servers"
    local redis = servers.redis()
    local web = servers.nginx {
        workers = 2, conf = "server { listen 127.0.0.1:$port; }",
    }
    local pids = web:worker_pids()
    pids[#pids + 1] = redis.pid
    pids[#pids + 1] = web.pid
    print(require("cjson").encode {
        pids = pids, dirs = { redis.dir, web.dir },
    })
    io.stdout:flush()
    ACT()
]]

describe("the harness", function()
    teardown(function() servers.stop_all() end)

    -- Does a process run? A zombie does not.
    local function runs(pid)
        local stat = servers.read_file("/proc/" .. pid .. "/stat")
        local state = stat:match("^%d+ %(.*%) (%a)")
        return state ~= nil and state ~= "Z"
    end

    local function start_run(last)
        local out = servers.tmpdir() .. "/out"
        local process = servers.spawn {
            os.getenv("LUAJIT") or "luajit", "-e", RUN:gsub("ACT%(%)", last),
            env = { LUA_PATH = servers.lua_path }, out = out,
        }
        local text = servers.wait_for(function()
            local text = servers.read_file(out)
            return (text:find("}\n", 1, true) or not process:alive()) and text
        end, 20, "the run to be up")
        return process, assert(cjson.decode(text:match("{.*}")), text)
    end

    local function assert_clean(about)
        servers.wait_for(function()
            for _, pid in ipairs(about.pids) do
                if runs(pid) then
                    return false, pid .. " lives on"
                end
            end
            for _, dir in ipairs(about.dirs) do
                if os.rename(dir, dir) then
                    return false, dir .. " is still there"
                end
            end
            return true
        end, 5, "everything to be gone")
    end

    for _, signal in ipairs { "KILL", "TERM", "INT" } do
        it("leaves nothing behind when a run gets SIG" .. signal, function()
            local process, about = start_run("servers.nap(60)")
            for _, pid in ipairs(about.pids) do
                assert.is_true(runs(pid))
            end
            process:signal(signal)
            assert_clean(about)
            process:kill()
        end)
    end

    it("leaves nothing behind when a run ends with an error", function()
        local process, about = start_run("error('over board')")
        assert_clean(about)
        process:kill()
    end)

    it("says what it waited for in vain", function()
        assert.error_matches(function()
            servers.wait_for(function() return false, "still ebb" end, 0.01,
                "high water")
        end, "waited 0.01 s in vain for high water: still ebb", 1, true)
    end)

    it("runs programs with arguments, environment and input", function()
        local result = servers.run {
            "sh", "-c", 'echo "$1 $NAME"; cat; echo oops >&2; exit 3',
            "sh", "it's", env = { NAME = "a b" }, stdin = "in",
        }
        assert.same({ code = 3, out = "it's a b\nin", err = "oops\n" }, result)
    end)

    it("stops a program that takes too long", function()
        assert.error_matches(function()
            servers.run { "sleep", "60", timeout = 0.1 }
        end, "sleep took longer than 0.1 s", 1, true)
    end)

    describe("redis", function()
        it("is empty after a restart on the same port", function()
            local redis = servers.redis()
            local port = redis.port
            assert.equal("OK", redis:cli("SET", "k", "two words"))
            assert.equal("two words", redis:cli("GET k"))
            assert.equal(1, redis:command_counts().get)
            redis:restart()
            assert.equal("", redis:cli("GET k"))
            assert.equal(port, redis.port)
            redis:stop()
            assert.is_false(redis:alive())
        end)

        it("can be paused, and be stopped then", function()
            local redis = servers.redis()
            redis:pause()
            assert.error(function()
                servers.run { "redis-cli", "-s", redis.socket, "PING",
                              timeout = 0.2 }
            end)
            redis:resume()
            assert.equal("PONG", redis:cli("PING"))
            redis:pause()
            redis:stop()
            assert.is_false(redis:alive())
        end)
    end)

    describe("nginx", function()
        local CONF = [[
            server {
                listen 127.0.0.1:$port;
                location / { return 200 "$uri WORD\n"; }
            }
        ]]

        it("takes a new configuration with a reload", function()
            local web = servers.nginx { conf = CONF, workers = 2 }
            local pids = web:worker_pids()
            assert.equal(2, #pids)
            local answer = assert(servers.http(web.url .. "/quay"))
            assert.equal(200, answer.status)
            assert.equal("/quay WORD\n", answer.body)
            web:configure((CONF:gsub("WORD", "another")))
            web:reload()
            assert.equal("/quay another\n",
                servers.http(web.url .. "/quay").body)
            assert.not_same(pids, web:worker_pids())
            web:quit()
            assert.is_nil(servers.http(web.url))
        end)

        it("starts with a complete configuration, too", function()
            local web = servers.nginx { conf = [[
                worker_processes 3;
                events { worker_connections 64; }
                http { ]] .. CONF .. "}" }
            assert.equal(3, #web:worker_pids())
            assert.equal(200, servers.http(web.url).status)
        end)

        it("tells why it does not start", function()
            assert.error_matches(function()
                servers.nginx { conf = "no_such_directive;" }
            end, "no_such_directive", 1, true)
        end)
    end)
end)
