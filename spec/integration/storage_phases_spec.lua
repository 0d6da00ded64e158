-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Storages in the phases of nginx: what needs no waiting works in all of them,
-- and nobody has to say start().

local cjson = require "cjson"
local servers = require "support.servers"

local wait_for = servers.wait_for

local CONF = [[
  init_by_lua_block {
    cjson = require "cjson"
    local local_storage = require "resty.mooring.local_storage"
    local routing_storage = require "resty.mooring.routing_storage"
    sessions = require "resty.mooring.session"
    alone = local_storage.new { max_entries = 100, ttl = 1000 }
    over = routing_storage.new { max_local_entries = 100,
        remote = local_storage.new { max_entries = 100 } }
    over_redis = routing_storage.new { max_local_entries = 100, local_ttl = 1000,
        remote = require("resty.mooring.redis_storage").new { url = "$redis" } }
    storages = { alone = alone, over = over, over_redis = over_redis }
    seen = {}
    -- Stores a session named after the phase, and notes what is found then.
    function try(phase)
      seen[phase] = {}
      for name, storage in pairs(storages) do
        local ok, err, code = storage:store(sessions.new(phase,
            { metadata = { backend_url = "http://" .. phase .. ":1" } }))
        local url, _, why = storage:resolve(phase)
        seen[phase][name] = { stored = ok, code = code, err = err, url = url, why = why }
      end
    end
    for _, storage in pairs(storages) do storage:start() end
    try "init"
  }
  init_worker_by_lua_block { try "init_worker" }
  exit_worker_by_lua_block {
    try "exit_worker"
    ngx.log(ngx.WARN, "seen: ", cjson.encode(seen.exit_worker), " end")
  }
  server {
    listen 127.0.0.1:$port;
    location = /phases {
      content_by_lua_block { after = nil try "content" ngx.say("ok") }
      header_filter_by_lua_block { try "header_filter" }
      log_by_lua_block { try "log" after = { over_redis:resolve "content" } }
    }
    location = /seen { content_by_lua_block {
      local connected = over_redis:stats().remote.connected
      ngx.say(cjson.encode { seen = seen, after = after, connected = connected })
    } }
    location = /swept { content_by_lua_block {
      ngx.say(over:store(sessions.new("x")) and over.started and alone.started)
    } }
  }
]]

describe("the phases of nginx", function()
    local redis, web

    setup(function()
        redis = servers.redis()
        web = servers.nginx { conf = CONF, vars = { redis = redis.unix_url } }
    end)
    teardown(function() servers.stop_all() end)

    local function get(path)
        local answer = assert(servers.http(web.url .. path))
        assert.equal(200, answer.status, answer.body)
        return answer.body
    end

    local function assert_works(phase, result)
        assert.same({ stored = true, url = "http://" .. phase .. ":1" }, result)
    end

    local function assert_cannot_wait(phase, result)
        assert.is_nil(result.stored)
        assert.is_nil(result.url)
        assert.same({ "unavailable", "unavailable" }, { result.code, result.why })
        assert.matches("cannot wait for a reply in the phase " .. phase .. "$", result.err)
    end

    it("all have storages, those that can wait have Redis", function()
        wait_for(function() -- later requests share a connection
            get "/phases"
            return cjson.decode(get "/seen").connected
        end, 5, "the connection")
        get "/phases"
        local all = wait_for(function()
            local all = cjson.decode(get "/seen")
            return all.after and all
        end, 5, "the log phase")
        for _, phase in ipairs { "init", "init_worker", "content", "header_filter", "log" } do
            local found = all.seen[phase]
            assert_works(phase, found.alone)
            assert_works(phase, found.over)
            local check = phase == "content" and assert_works or assert_cannot_wait
            check(phase, found.over_redis)
        end
        -- What is known here is found in any phase.
        assert.equal("http://content:1", all.after[1])
    end)

    it("that come first in a worker begin to sweep in it", function()
        assert.equal("true\n", get "/swept")
    end)

    it("that come last have storages as well", function()
        web:quit()
        local found = cjson.decode(web:error_log():match("seen: (.-) end"))
        assert_works("exit_worker", found.alone)
        assert_works("exit_worker", found.over)
        assert_cannot_wait("exit_worker", found.over_redis)
        assert.not_matches("%[error%]", web:error_log())
        assert.not_matches("%[alert%]", web:error_log())
        web:start()
    end)
end)
