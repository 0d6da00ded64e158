-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Two replicas over one Redis, in front of real MCP servers, with the clients
-- of traffic.mjs; and what can be done to them. Each fault tells the clients
-- when it begins and when it is over.

local cjson = require "cjson"
local replica = require "support.replica"
local samples = require "soak.samples"
local servers = require "support.servers"

local _M = {}
local Farm = {}
Farm.__index = Farm

-- As the router's own, but patient: the machine is busy, and a Redis that does
-- not answer in time is a trouble of its own.
local PATIENCE = 3 -- seconds
local STORAGE = [[
    require("resty.mooring.routing_storage").new {
        name = "soak", max_local_entries = %d,
        remote = require("resty.mooring.redis_storage").new {
            url = %q, connect_timeout = %g, command_timeout = %g,
        },
    }
]]

-- What a replica says of its region: location /inside.
local INSIDE = [[
    access_log $log soak;
    location = /inside {
        access_log off;
        content_by_lua_block {
            local sound, why = router.storage.cache:check()
            local s = router.storage.cache:stats()
            local push = router.storage:stats().coherence
            ngx.say(require("cjson").encode {
                sound = sound or why, entries = s.entries, hits = s.hits,
                max_entries = s.max_entries, bytes_used = s.bytes_used,
                max_bytes = s.max_bytes, region_bytes = s.region_bytes,
                repairs = s.repairs, epoch = s.epoch, misses = s.misses,
                coherent = push.coherent, listening = push.listening,
                worker = ngx.worker.pid(),
            })
        }
    }
]]


-- With the library built for tests: a worker dies at a point of c/fault.h.
local ARM = [[
    location = /arm {
        access_log off;
        content_by_lua_block {
            local ffi = require "ffi"
            if ngx.var.arg_pid ~= tostring(ngx.worker.pid()) then
                return ngx.say("another")
            end
            if not pcall(ffi.typeof, "mooring_armed") then
                ffi.cdef "extern int mr_fault_at; typedef int mooring_armed;"
            end
            require("resty.mooring.ffi").C.mr_fault_at = tonumber(ngx.var.arg_point)
            ngx.say("armed")
        }
    }
]]


local function paths(library)
    return library and ('lua_package_path "%s"; lua_package_cpath "%s/?.so;;";')
        :format(servers.lua_path, library) or ""
end


local function inside(web)
    local answer, err = servers.http(web.url .. "/inside")
    if not answer or answer.status ~= 200 then
        error("could not look inside: " .. tostring(err or answer.body))
    end
    return cjson.decode(answer.body)
end


local function start_replica(self, opts)
    local log = servers.tmpdir() .. "/soak.log"
    local web = replica.start {
        backends = self.backends,
        storage = STORAGE:format(opts.entries or 100, self.redis.url, PATIENCE,
                                 PATIENCE),
        http = samples.LOG_FORMAT .. paths(opts.library) .. (opts.http or ""),
        server = INSIDE:gsub("%$log", log) .. (opts.library and ARM or ""),
        location = "add_header X-Worker $pid always;" .. (opts.location or ""),
    }
    web.inside, web.soak_log = inside, log
    return web
end


---
-- Starts everything, and the traffic.
-- @param opts { clients =, idle =, think = see traffic.mjs, entries = of the
--        local tier, location =, http = more directives, library = directory
--        of one that was built for tests }
function _M.new(opts)
    local self = setmetatable({}, Farm)
    self.redis = servers.redis()
    self.backends = replica.backends(3)
    self.webs = { start_replica(self, opts), start_replica(self, opts) }
    self.clients = servers.node("spec/soak/traffic.mjs")
    self.clients:ask {
        op = "start", urls = { self.webs[1].mcp, self.webs[2].mcp },
        clients = opts.clients or 20, idle = opts.idle or 60,
        think = opts.think or 300,
    }
    return self
end


--- Tells the clients that something is about to fail. @return number, for over()
function Farm:begin(window)
    return self.clients:ask({ op = "begin", window = window }).window
end


function Farm:over(number)
    self.clients:ask { op = "over", window = number }
end


function Farm:counts()
    return self.clients:ask "counts"
end


--- Restarts Redis. `losing`: without what it held.
function Farm:restart_redis(losing)
    local windows = { self:begin { kind = "redis" } }
    if losing then
        windows[2] = self:begin { kind = "lost" }
    end
    self.redis:cli(losing and "SHUTDOWN NOSAVE" or "SHUTDOWN SAVE")
    servers.wait_for(function() return not self.redis.process:alive() end, 10,
        "the end of Redis")
    if losing then
        os.remove(self.redis.dir .. "/dump.rdb")
    end
    servers.nap(1)
    self.redis:start()
    for _, number in ipairs(windows) do
        self:over(number)
    end
end


--- Kills an MCP server and starts it again on the same port.
-- @param meanwhile function: called while waiting
function Farm:restart_backend(i, meanwhile)
    local old = self.backends[i]
    local name = "b" .. i
    local window = self:begin { kind = "backend", backend = name }
    old:kill()
    servers.nap(0.5)
    local new = servers.node_begin("spec/fixtures/mcp/server.mjs",
        { "--name=" .. name, "--port=" .. old.port })
    self.backends[i] = new
    servers.wait_for(function()
        meanwhile()
        return servers.listening(old.port)
    end, 30, "an MCP server to be back")
    new:await_ready()
    self:over(window)
end


--- Reloads a replica. Nothing may be seen of that, so nobody is told.
function Farm:reload(i)
    self.webs[i]:reload()
end


local function is_running(pid)
    local stat = servers.read_file(("/proc/%d/stat"):format(pid))
    return stat ~= "" and not stat:find("^%d+ %(.*%) [ZX]")
end


--- SIGKILL for a worker. @return its pid
function Farm:kill_worker(i, pid)
    local window = self:begin { kind = "kill", replica = i - 1, worker = pid }
    os.execute("kill -KILL " .. pid)
    servers.wait_for(function() return not is_running(pid) end, 10,
        "the death of a worker")
    self:over(window)
    return pid
end


-- Lets a worker die by itself the next time it passes a point of c/fault.h.
local function arm(web, pid, point)
    servers.wait_for(function()
        local answer = servers.http(("%s/arm?pid=%d&point=%d"):format(web.url, pid, point))
        return answer and answer.body == "armed\n"
    end, 30, "the worker to be armed")
end


---
-- Death within a change of the region, with its lock: by SIGKILL, too.
-- @param seconds to wait until the worker passes the point; then it is killed
--        where it is
function Farm:kill_within(i, pid, point, seconds)
    local window = self:begin { kind = "kill", replica = i - 1, worker = pid }
    arm(self.webs[i], pid, point)
    if not pcall(servers.wait_for, function() return not is_running(pid) end, seconds) then
        os.execute("kill -KILL " .. pid)
        servers.wait_for(function() return not is_running(pid) end, 10,
            "the death of a worker")
    end
    self:over(window)
end


--- Ends the traffic. @return what the clients have seen
function Farm:stop_traffic()
    return self.clients:ask("stop", 90)
end


function Farm:stop()
    self.clients:stop()
    for _, web in ipairs(self.webs) do
        web:stop()
    end
    for _, backend in ipairs(self.backends) do
        backend:stop()
    end
    self.redis:stop()
end


return _M
