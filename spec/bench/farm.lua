-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The servers of the benchmarks of the router: backends that cost next to
-- nothing, and in front of them
--
--     plain          proxy_pass with keepalive to one of the backends
--     plain_lua      the same through an access handler that looks the id up in
--                    a Lua table and a balancer in Lua: what nginx takes for a
--                    decision in Lua, whatever decides
--     balancer       plain, with a balancer in Lua that does nothing but name the
--                    backend: the least that any choice in Lua takes
--     handlers       the router's configuration, with handlers that do nothing but
--                    name the backend: what its phases and headers take of nginx,
--                    however quickly it decided
--     no_access      the same without the access phase: what is left when a hit is
--                    decided in the balancer
--     router_local   the router, sessions in its own memory
--     router_redis   the router over Redis
--
-- each an nginx of its own with one worker. A session's id says which backend it
-- is bound to (its last letter), and a backend refuses those of the other one.

local pin = require "bench.pin"
local servers = require "support.servers"

local _M = {}

local BACKENDS = [[
    access_log off;
    keepalive_requests 10000000;
    map $http_x_new_id $new { "" $request_id-$server_port; default $http_x_new_id; }
    map $http_mcp_session_id $opened { "" $new; }
    server {
        listen 127.0.0.1:$port backlog=1024;
        if ($http_mcp_session_id ~ "-b$") { return 421; }
        $answer
    }
    server {
        listen 127.0.0.1:$port2 backlog=1024;
        if ($http_mcp_session_id ~ "-a$") { return 421; }
        $answer
    }
]]

local ANSWER = [[
        default_type application/json;
        location / {
            add_header Mcp-Session-Id $opened;
            return 200 '{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"1"}]}}';
        }
]]

local COMMON = [[
    access_log off;
    keepalive_requests 10000000;
]]

local PROXY_PASS = [[
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
]]

local PLAIN = COMMON .. [[
    upstream backend { server 127.0.0.1:$a; keepalive 256; keepalive_requests 10000000; }
    server {
        listen 127.0.0.1:$port backlog=1024;
        location /mcp {
            proxy_pass http://backend;
]] .. PROXY_PASS .. [[
        }
    }
]]

local PLAIN_LUA = COMMON .. [[
    init_by_lua_block { choice = require("bench.choice").new("127.0.0.1", $a) }
    upstream backend {
        server 0.0.0.1;
        balancer_by_lua_block { choice.balancer() }
        keepalive 256;
        keepalive_requests 10000000;
    }
    server {
        listen 127.0.0.1:$port backlog=1024;
        location /mcp {
            set $backend "";
            access_by_lua_block { choice.access() }
            proxy_pass http://backend;
]] .. PROXY_PASS .. [[
        }
    }
]]

local BALANCER = COMMON .. [[
    init_by_lua_block { router = require("bench.choice").none("127.0.0.1", $a) }
    upstream backend {
        server 0.0.0.1;
        balancer_by_lua_block { router:balancer() }
        keepalive 256;
        keepalive_requests 10000000;
    }
    server {
        listen 127.0.0.1:$port backlog=1024;
        location /mcp {
            proxy_pass http://backend;
]] .. PROXY_PASS .. [[
        }
    }
]]

local HANDLERS = COMMON .. [[
    include $root/lua/resty/mooring/nginx/http.conf;
    init_by_lua_block { router = require("bench.choice").none("127.0.0.1", $a) }
    server {
        listen 127.0.0.1:$port backlog=1024;
        location /mcp {
            $location
        }
        location @mooring_unreachable { return 502; }
    }
]]

local PLAIN_LOCATION = servers.root .. "/lua/resty/mooring/nginx/location_plain.conf"
local ACCESS = "access_by_lua_block [^\n]*\n"

-- As in the README, with more patience for a busy machine, and a location that
-- binds the sessions of wrk.lua.
local ROUTER = COMMON .. [[
    include $root/lua/resty/mooring/nginx/http.conf;
    init_by_lua_block {
        router = require("resty.mooring.router").new {
            backends = { "http://127.0.0.1:$a", "http://127.0.0.1:$b" },
            storage = $storage,
            max_local_sessions = 2^21,
            internal = "unix:$dir/internal.sock",
        }
    }
    init_worker_by_lua_block { router:init_worker() }
    server {
        listen unix:$dir/internal.sock;
        include $root/lua/resty/mooring/nginx/internal.conf;
        location / { include $root/lua/resty/mooring/nginx/location.conf; }
    }
    server {
        listen 127.0.0.1:$port backlog=1024;
        include $root/lua/resty/mooring/nginx/server.conf;
        location /mcp { include $root/lua/resty/mooring/nginx/location_plain.conf; }
        location = /status { content_by_lua_block { router:status() } }
        location = /heap {
            content_by_lua_block {
                local before = collectgarbage("count")
                collectgarbage()
                ngx.say(before * 1024, " ", collectgarbage("count") * 1024)
            }
        }
        location = /bind_many {
            content_by_lua_block {
                local session = require "resty.mooring.session"
                local n, at, threads = tonumber(ngx.var.arg_n), 0, {}
                local function bind()
                    while at < n do
                        local url = "http://127.0.0.1:" .. (at % 2 == 0 and $a or $b)
                        local s = session.new("churn-" .. at,
                            { metadata = { backend_url = url, endpoint = "/mcp" } })
                        at = at + 1
                        assert(router.storage:store(s))
                    end
                end
                for i = 1, 200 do
                    threads[i] = ngx.thread.spawn(bind)
                end
                for i = 1, 200 do
                    assert(ngx.thread.wait(threads[i]))
                end
                ngx.say("bound")
            }
        }
        location = /bind {
            content_by_lua_block {
                local session = require "resty.mooring.session"
                for i = 1, 500 do
                    local own = i % 2 == 1 and "a" or "b"
                    local url = "http://127.0.0.1:" .. (own == "a" and $a or $b)
                    assert(router.storage:store(session.new(("%032x-%s"):format(i * 7919, own),
                        { metadata = { backend_url = url, endpoint = "/mcp" } })))
                end
                ngx.say("bound")
            }
        }
    }
]]

local OVER_REDIS = [[require("resty.mooring.routing_storage").new {
                name = "router:default", max_local_entries = %d,
                remote = require("resty.mooring.redis_storage").new {
                    url = "%s", command_timeout = 5,
                },
            }]]

local function start(conf, vars, under)
    return servers.nginx {
        conf = conf, vars = vars, log_level = "error", under = under,
        main = under and "master_process off;\n" or pin.workers(pin.measured),
    }
end

local function bind(router)
    local answer = assert(servers.http(router.url .. "/bind", { timeout = 60 }))
    assert(answer.status == 200, router:error_log())
    return router
end

local function keys(map)
    local list = {}
    for key in pairs(map) do
        list[#list + 1] = key
    end
    return list
end

-- The router's configuration with handlers that do nothing.
local function start_handlers(a, location, under)
    return start(HANDLERS, { a = a, location = location }, under)
end

-- Backends and a Redis.
local function start_behind()
    local backends = servers.nginx { conf = BACKENDS, vars = { answer = ANSWER },
                                     log_level = "error", main = pin.workers(pin.other) }
    local redis = servers.redis()
    pin.move(redis.pid, pin.other)
    return backends, redis
end

--- A router over Redis that knows n sessions, churn-0 to churn-(n - 1), and has
-- room for twice as many.
-- @return nginx
function _M.with_sessions(n)
    local backends, redis = start_behind()
    local router = start(ROUTER, { a = backends.port, b = backends.port2,
                                   storage = OVER_REDIS:format(2 * n, redis.url) })
    local answer = assert(servers.http(router.url .. "/bind_many?n=" .. n, { timeout = 300 }))
    assert(answer.status == 200, router:error_log())
    return router
end

--- Starts them.
-- @param under command the proxies are run by, in one process each; or nil
-- @param names array of those to start, or nil: all
-- @return { redis =, plain =, plain_lua =, balancer =, handlers =, no_access =,
--         router_local =, router_redis = }
function _M.start(under, names)
    local backends, redis = start_behind()
    local function vars(storage)
        return { a = backends.port, b = backends.port2, storage = storage }
    end
    local location = servers.read_file(PLAIN_LOCATION)
    local no_access, found = location:gsub(ACCESS, "")
    assert(found == 1, PLAIN_LOCATION .. " has no access handler")
    local starters = {
        plain = function() return start(PLAIN, vars(), under) end,
        plain_lua = function() return start(PLAIN_LUA, vars(), under) end,
        balancer = function() return start(BALANCER, vars(), under) end,
        handlers = function() return start_handlers(backends.port, location, under) end,
        no_access = function() return start_handlers(backends.port, no_access, under) end,
        router_local = function() return bind(start(ROUTER, vars('"local"'), under)) end,
        router_redis = function()
            return bind(start(ROUTER, vars(OVER_REDIS:format(1000, redis.url)), under))
        end,
    }
    local farm = { redis = redis }
    for _, name in ipairs(names or keys(starters)) do
        farm[name] = starters[name]()
    end
    return farm
end

return _M
