-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The cosocket transport over the life of nginx workers and in all phases of
-- requests. What one worker shows by itself is in spec/nginx/cosocket_spec.lua.

local cjson = require "cjson"
local servers = require "support.servers"

local wait_for = servers.wait_for

-- The http { } of an nginx with a transport `t`, and a location to run Lua in.
local CONF = [[
  lua_socket_log_errors off;
  lua_check_client_abort on;
  lua_code_cache $code_cache;
  lua_max_pending_timers $timers;
  lua_max_running_timers $running;
  init_by_lua_block {
    cosocket = require "resty.mooring.transport.cosocket"
    opts = { path = "$redis", connect_timeout = 0.5, command_timeout = 0.5 }
    t = cosocket.new(opts)
    cjson = require "cjson"
    arrived = 0 -- requests that wait for the worker to exit
    done = false
    -- The results of a call with one command, as JSON.
    function ask(...)
      local replies, err, code = t:call { { ... } }
      return cjson.encode { reply = replies and replies[1], err = err, code = code,
                            pid = ngx.worker.pid(), exiting = ngx.worker.exiting() }
    end
    $init
  }
  init_worker_by_lua_block { $init_worker }
  upstream balanced {
    server 127.0.0.1:1;
    balancer_by_lua_block {
      $balancer
      require("ngx.balancer").set_current_peer("127.0.0.1", $port)
    }
  }
  server {
    listen 127.0.0.1:$port;
    location / { content_by_lua_block { ngx.say("hello") } }
    location /ask { content_by_lua_block { ngx.say(ask("GET", "k")) } }
    location /stats { content_by_lua_block {
      local stats = t:stats()
      stats.arrived = arrived
      ngx.say(cjson.encode(stats))
    } }
    $locations
  }
]]

local DEFAULTS = { code_cache = "on", timers = "1024", running = "256", init = "", balancer = "",
                   init_worker = "t:start()", locations = "" }

describe("resty.mooring.transport.cosocket in nginx", function()
    local redis

    setup(function() redis = servers.redis() end)
    teardown(function() servers.stop_all() end)

    before_each(function()
        redis:cli("FLUSHALL")
        redis:cli("SET", "k", "value")
    end)

    -- An nginx with parts of CONF exchanged.
    local function nginx(parts, workers)
        local conf = CONF:gsub("%$([%l_]+)", function(name)
            return name == "redis" and redis.socket or parts[name] or DEFAULTS[name]
        end)
        local web = servers.nginx { conf = conf, workers = workers }
        finally(function() web:stop() end)
        return web
    end

    local function get(web, path)
        local response = assert(servers.http(web.url .. path))
        assert.equal(200, response.status, response.body)
        return response.body
    end

    local function json(web, path)
        return cjson.decode(get(web, path))
    end

    -- A request in the background: returns a function that waits for its body.
    local function request(web, path)
        local out = os.tmpname()
        local curl = servers.spawn { "curl", "-sS", "--max-time", "10",
                                     web.url .. path, out = out }
        return function()
            curl:wait(10)
            curl:kill()
            local body = servers.read_file(out)
            os.remove(out)
            return body
        end
    end

    -- How many connections of others Redis has.
    local function connections()
        local n = 0
        for _ in redis:cli("CLIENT", "LIST"):gmatch("id=") do
            n = n + 1
        end
        return n - 1
    end

    local function alive(pid)
        local stat = servers.read_file("/proc/" .. pid .. "/stat")
        return stat ~= "" and not stat:find(") Z ", 1, true)
    end

    -- Seconds until a process has ended.
    local function seconds_until_end(pid)
        local start = servers.now()
        wait_for(function() return not alive(pid) end, 10)
        return servers.now() - start
    end

    local function wait_connected(web)
        wait_for(function() return json(web, "/stats").connected end)
    end


    describe("an idle worker with the connection open", function()
        it("exits at once on HUP", function()
            local web = nginx {}
            wait_connected(web)
            local pid = web:worker_pids()[1]
            web:signal("HUP")
            local took = seconds_until_end(pid)
            assert.is_true(took < 1, took)
            assert.not_matches("alert", web:error_log())
        end)

        it("exits at once on QUIT", function()
            local web = nginx {}
            wait_connected(web)
            local pid = web:worker_pids()[1]
            web:signal("QUIT")
            local took = seconds_until_end(pid)
            assert.is_true(took < 1, took)
        end)

        it("exits at once also while Redis is down", function()
            local web = nginx { init = "opts.path = '/nonexistent.sock'" }
            assert.equal("unavailable", json(web, "/ask").code)
            local pid = web:worker_pids()[1]
            web:signal("QUIT")
            local took = seconds_until_end(pid)
            assert.is_true(took < 1, took)
        end)
    end)


    describe("an exiting worker", function()
        it("still has Redis for the requests it is serving", function()
            local web = nginx { locations = [[
                location /late { content_by_lua_block {
                  arrived = arrived + 1
                  while not ngx.worker.exiting() do ngx.sleep(0.01) end
                  ngx.sleep(0.3)
                  ngx.say(ask("GET", "k"))
                } } ]] }
            wait_connected(web)
            local pid = web:worker_pids()[1]
            local late = request(web, "/late")
            wait_for(function() return json(web, "/stats").arrived == 1 end)
            web:signal("HUP")

            local answer = cjson.decode(late())
            assert.same({ reply = "value", pid = pid, exiting = true }, answer)
            local took = seconds_until_end(pid)
            assert.is_true(took < 1, took)
        end)

        it("answers calls that were under way", function()
            local web = nginx { locations = [[
                location /blocked { content_by_lua_block { ngx.say(ask("BLPOP", "list", "0")) } }
            ]] }
            wait_connected(web)
            local pid = web:worker_pids()[1]
            local blocked = request(web, "/blocked")
            wait_for(function()
                return redis:cli("INFO clients"):find("blocked_clients:1", 1, true)
            end)
            web:signal("QUIT")
            redis:cli("RPUSH", "list", "element")
            assert.equal("element", cjson.decode(blocked()).reply["2"])
            assert.is_true(seconds_until_end(pid) < 1)
        end)

        it("does not wait longer than command_timeout for calls", function()
            local web = nginx {}
            wait_connected(web)
            local pid = web:worker_pids()[1]
            redis:pause()
            finally(function() redis:resume() end)
            local commands = json(web, "/stats").commands
            local waiting = request(web, "/ask")
            wait_for(function() return json(web, "/stats").commands > commands end)
            web:signal("QUIT")
            local took = seconds_until_end(pid)
            assert.equal("timeout", cjson.decode(waiting()).code)
            assert.is_true(took < 1, took)
        end)

        for queued, what in pairs { [""] = "a connection",
                                    ['t:enqueue { "INCR", "n" }'] = "one and has queued more" } do
            it("answers a call that was waiting for " .. what, function()
                redis:pause()
                local web = nginx { init = "opts.command_timeout = 10", locations = ([[
                    location /early { content_by_lua_block {
                      arrived = arrived + 1
                      %s
                      ngx.say(ask("GET", "k"))
                    } } ]]):format(queued) }
                finally(function() redis:resume() web:stop() end)
                local pid = web:worker_pids()[1]
                local early = request(web, "/early")
                wait_for(function() return json(web, "/stats").arrived == 1 end)
                web:signal("QUIT")
                wait_for(function() return web:worker_pids(true)[1] == pid end)
                redis:resume()
                assert.same({ reply = "value", pid = pid, exiting = true },
                            cjson.decode(early()))
                seconds_until_end(pid)
                assert.equal(queued == "" and "" or "1", redis:cli("GET n"))
            end)
        end

        it("sends what is queued before it goes", function()
            local web = nginx { locations = [[
                location /many { content_by_lua_block {
                  local ffi = require "ffi"
                  ffi.cdef "int kill(int, int);"
                  for i = 1, 1000 do assert(t:enqueue { "INCR", "n" }) end
                  ffi.C.kill(ngx.worker.pid(), 3)
                  ngx.say("queued")
                } } ]] }
            wait_connected(web)
            local pid = web:worker_pids()[1]
            get(web, "/many")
            local took = seconds_until_end(pid)
            assert.equal("1000", redis:cli("GET n"))
            assert.is_true(took < 1, took)
        end)

        it("tells the callbacks of what it could not send", function()
            local web = nginx { init = "opts.path = '/nonexistent.sock'", locations = [[
                location /queue { content_by_lua_block {
                  assert(t:enqueue({ "PING" }, function(reply, err, code)
                    ngx.log(ngx.WARN, "told: ", code)
                  end))
                  ngx.say("queued")
                } } ]] }
            get(web, "/queue")
            local pid = web:worker_pids()[1]
            web:signal("QUIT")
            seconds_until_end(pid)
            assert.matches("told: unavailable", web:error_log())
        end)

        it("sends what is queued while it is going", function()
            local web = nginx { locations = [[
                location /late { content_by_lua_block {
                  arrived = arrived + 1
                  while not ngx.worker.exiting() do ngx.sleep(0.01) end
                  ngx.sleep(0.3)
                  ngx.say("late")
                }
                log_by_lua_block {
                  for i = 1, 3 do assert(t:enqueue { "INCR", "n" }) end
                } } ]] }
            wait_connected(web)
            local pid = web:worker_pids()[1]
            local late = request(web, "/late")
            wait_for(function() return json(web, "/stats").arrived == 1 end)
            web:signal("HUP")
            assert.equal("late\n", late())
            assert.is_true(seconds_until_end(pid) < 1)
            assert.equal("3", redis:cli("GET n"))
        end)
    end)


    describe("the phases", function()
        -- Both methods in a phase, their results in the global `seen`.
        local function try(phase)
            return ([[
              local replies, err, code = t:call { { "GET", "k" } }
              local ok, enqueue_err, enqueue_code = t:enqueue { "INCR", "%s" }
              local ready, ready_err, ready_code = t:ready()
              seen = seen or {}
              seen.%s = { reply = replies and replies[1], err = err, code = code,
                          enqueued = ok, enqueue_code = enqueue_code }
            ]]):format(phase, phase)
        end

        it("that can wait, call; the others enqueue, but for init", function()
            local web = nginx {
                init = try("init"),
                init_worker = "t:start() " .. try("init_worker"),
                balancer = try("balancer"),
                locations = ([[
                  location /phases {
                    set_by_lua_block $x { %s return "" }
                    rewrite_by_lua_block { %s }
                    access_by_lua_block { %s }
                    proxy_pass http://balanced/content;
                    header_filter_by_lua_block { %s }
                    body_filter_by_lua_block { if not seen.body_filter then %s end }
                    log_by_lua_block { %s }
                  }
                  location /content { content_by_lua_block {
                    %s
                    ngx.timer.at(0, function() %s end)
                    ngx.sleep(0.05)
                    ngx.say("ok")
                  } }
                  location /seen { content_by_lua_block { ngx.say(cjson.encode(seen)) } }
                ]]):format(try "set", try "rewrite", try "access", try "header_filter",
                           try "body_filter", try "log", try "content", try "timer"),
            }
            wait_connected(web)
            get(web, "/phases")
            wait_for(function() return json(web, "/seen").log end)
            local seen = json(web, "/seen")

            for _, phase in ipairs { "rewrite", "access", "content", "timer" } do
                assert.equal("value", seen[phase].reply, phase)
            end
            for _, phase in ipairs { "init_worker", "set", "balancer", "header_filter",
                                     "body_filter", "log" } do
                assert.equal("unavailable", seen[phase].code, phase)
                assert.matches(phase, seen[phase].err)
            end
            for phase, result in pairs(seen) do
                if phase ~= "init" then
                    assert.is_true(result.enqueued, phase)
                    wait_for(function() return redis:cli("GET", phase) == "1" end,
                             2, phase .. " to be sent")
                end
            end
            assert.equal("unavailable", seen.init.code)
            assert.equal("unavailable", seen.init.enqueue_code)
        end)
    end)


    it("has no shared connection where there are no timers", function()
        local web = nginx {
            init = "master = { t:start() }", init_worker = "",
            locations = [[
              location /master { content_by_lua_block { ngx.say(cjson.encode(master)) } }
              location /late { content_by_lua_block {
                arrived = arrived + 1
                while not ngx.worker.exiting() do ngx.sleep(0.01) end
                ngx.say(cjson.encode { t:start() })
              } } ]],
        }
        local none = { cjson.null, "there are no timers here", "unavailable" }
        assert.same(none, json(web, "/master"))
        local late = request(web, "/late")
        wait_for(function() return json(web, "/stats").arrived == 1 end)
        web:signal("QUIT")
        assert.same(none, cjson.decode(late()))
        assert.equal(0, connections())
    end)


    describe("workers", function()
        it("have one connection each", function()
            local web = nginx({}, 2)
            wait_for(function() return connections() == 2 end)
            for _ = 1, 20 do
                assert.equal("value", json(web, "/ask").reply)
            end
            assert.equal(2, connections())
        end)
    end)


    describe("a client that goes away while its request waits", function()
        it("does no harm to others", function()
            local web = nginx { init = "opts.command_timeout = 5", locations = [[
                location /blocked { content_by_lua_block { ngx.say(ask("BLPOP", "list", "0")) } }
            ]] }
            wait_connected(web)
            local gone = servers.spawn { "curl", "-s", web.url .. "/blocked" }
            wait_for(function()
                return redis:cli("INFO clients"):find("blocked_clients:1", 1, true)
            end)
            gone:kill()
            local waiting = request(web, "/ask")
            redis:cli("RPUSH", "list", "element")
            assert.equal("value", cjson.decode(waiting()).reply)
            for _ = 1, 20 do
                assert.equal("value", json(web, "/ask").reply)
            end
            assert.equal(1, json(web, "/stats").connects)
        end)
    end)


    describe("an object that nobody started", function()
        it("shares a connection from the second request on", function()
            local web = nginx { init_worker = "" }
            for _ = 1, 20 do
                assert.equal("value", json(web, "/ask").reply)
            end
            local stats = json(web, "/stats")
            assert.is_true(stats.connected)
            assert.equal(2, stats.connects)
            assert.equal(1, connections())
        end)

        it("leaves no connection behind when it was made for one request", function()
            local web = nginx { init_worker = "", locations = [[
                location /new { content_by_lua_block {
                  t = cosocket.new(opts)
                  ask("GET", "k")
                  t:enqueue { "INCR", "n" }
                  ngx.say(ask("GET", "k"))
                } } ]] }
            for _ = 1, 20 do
                assert.equal("value", json(web, "/new").reply)
            end
            wait_for(function() return redis:cli("GET n") == "20" end)
            wait_for(function() return connections() == 0 end)
        end)
    end)


    describe("where there can be no shared connection", function()
        it("uses connections of the request's own, with lua_code_cache off", function()
            local web = nginx { code_cache = "off", init_worker = "" }
            for _ = 1, 20 do
                assert.equal("value", json(web, "/ask").reply)
            end
            wait_for(function() return connections() == 0 end)
        end)

        it("uses them also when no timer is to be had", function()
            local web = nginx { timers = "1", init_worker = "ok, err = t:start()",
                locations = [[ location /start { content_by_lua_block {
                    ngx.say(cjson.encode { ok = ok, err = err }) } } ]] }
            assert.matches("could not make a timer", json(web, "/start").err)
            for _ = 1, 5 do
                assert.equal("value", json(web, "/ask").reply)
            end
            wait_for(function() return connections() == 0 end)
        end)

        it("starts it later when nginx has dropped the timer", function()
            local web = nginx { running = "1", init_worker = [[
                ngx.timer.at(0, function() while not done do ngx.sleep(0.01) end end)
                t:start() ]],
                locations = "location /done { content_by_lua_block { done = true } }" }
            wait_for(function() return json(web, "/ask").reply == "value" end)
            assert.is_false(json(web, "/stats").connected)
            get(web, "/done")
            wait_for(function()
                return json(web, "/ask").reply == "value" and json(web, "/stats").connected
            end)
        end)
    end)
end)
