-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A session that has to be fetched from Redis, in a content handler, with 64
-- connections against one worker (bench.endpoints). Redis and wrk share the
-- other CPU.

local dataset = require "bench.dataset"
local load = require "bench.load"
local pin = require "bench.pin"
local redis_storage = require "resty.mooring.redis_storage"
local servers = require "support.servers"
local session = require "resty.mooring.session"

local _M = {}

local CONF = [[
    access_log off;
    lua_socket_log_errors off;
    lua_socket_buffer_size 16k;
    keepalive_requests 1000000;
    init_by_lua_block {
        require("bench.endpoints").init { host = "127.0.0.1", port = $redis, records = $records }
    }
    init_worker_by_lua_block { require("bench.endpoints").init_worker() }
    server {
        listen 127.0.0.1:$port backlog=1024;
        $locations
    }
]]

local LOCATION = [[
        location = /%s { content_by_lua_block { require("bench.endpoints").%s() } }
]]

local ENDPOINTS = { "nothing", "mooring", "redis_storage", "nginx_redis", "hiredis" }

local function locations()
    local list = {}
    for i, name in ipairs(ENDPOINTS) do
        list[i] = LOCATION:format(name, name)
    end
    return table.concat(list)
end

local function fill(redis, n)
    local storage = redis_storage.new { url = redis.url, command_timeout = 5 }
    for _, id in ipairs(dataset.ids(n, 1)) do
        assert(storage:store(session.new(id, { metadata = { backend_url = dataset.url(id) } })))
    end
    storage:close()
end

-- Each request must really have read from Redis.
local function expect_reads(redis, target)
    local before
    target.before = function() before = redis:command_counts() end
    target.after = function(result)
        local now = redis:command_counts()
        for _, command in ipairs { "get", "pttl" } do
            local reads = (now[command] or 0) - (before[command] or 0)
            if reads < result.requests then
                error(("%s: %d requests, %d %s"):format(target.name, result.requests, reads,
                    command:upper()), 0)
            end
        end
    end
end

--- Starts an nginx for each endpoint of one run, or one for all.
-- @param under command they are run by, in one process each; or nil: one nginx
--        with a worker for all of them
-- @param names array of the endpoints, or nil: all
-- @return array of targets for bench.load
function _M.start(plan, under, names)
    local redis = servers.redis()
    pin.move(redis.pid, pin.other)
    fill(redis, plan.records)
    local targets, nginx = {}, nil
    for i, name in ipairs(names or ENDPOINTS) do
        nginx = not under and nginx or servers.nginx {
            conf = CONF, log_level = "error", under = under,
            main = under and "master_process off;\n" or pin.workers(pin.measured),
            vars = { redis = redis.port, records = ("%d"):format(plan.records),
                     locations = locations() },
        }
        targets[i] = { name = name, nginx = nginx, url = nginx.url .. "/" .. name }
        if name ~= "nothing" then
            expect_reads(redis, targets[i])
        end
    end
    return targets
end

--- @return as bench.load compare
function _M.run(plan)
    return load.compare(plan, _M.start(plan))
end

return _M
