-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- An nginx of two workers with a named routing_storage over a Redis, driven by
-- HTTP. Two of them over one Redis are two replicas.
--
--   local app = storage_app.start { url = redis.url, routing = "coherence_lease = 0.5" }
--   app:ask { op = "store", id = "a", url = "http://b1:1" }    -- operations and what
--   app:ask({ op = "resolve", id = "a" }, pid).value           -- they return: see
--   local done = app:begin { op = "watch", ... }; done()       -- storage_inside
--
-- Everything is stopped by servers.stop_all().

local cjson = require "cjson.safe"
local servers = require "support.servers"

local _M = {}

local CONF = [[
    lua_shared_dict workers 1m;
    lua_shared_dict events 10m;
    lua_socket_log_errors off;
    lua_socket_buffer_size 64k;
    lua_check_client_abort on;
    lua_max_pending_timers 8192;
    lua_max_running_timers 4096;
    client_body_buffer_size 1m;
    client_max_body_size 1m;
    $http
    init_by_lua_block {
        inside = require "support.storage_inside"
        inside.init {
            redis = { url = "$url", $redis },
            routing = { name = "$name", max_local_entries = 5000, $routing },
        }
    }
    init_worker_by_lua_block { $start }
    server {
        listen 127.0.0.1:$port backlog=4096;
        location = /do { content_by_lua_block { inside.run() } }
        location = /workers { content_by_lua_block { inside.workers() } }
    }
]]

local App = {}

--- Performs an operation.
-- @param command  { op = ..., ... }
-- @param pid      of the worker to do it (nil: any)
-- @return its answer, with .pid; raises when there is none
function App:ask(command, pid, seconds)
    local answer = assert(servers.http(self.nginx.url .. "/do", {
        body = cjson.encode(command), timeout = seconds or 20,
        headers = { ["X-Worker"] = pid and tostring(pid) or nil },
    }))
    assert(answer.status == 200, answer.body)
    return assert(cjson.decode(answer.body))
end

-- Until the right worker has accepted: another one may not live as long.
local UNTIL_ACCEPTED = [[
while curl -sS --max-time 60 -H "X-Worker: $1" -H "X-Last: 1" \
        -H "X-Accepted: $2/accepted" --data-binary "@$2/in" -o "$2/out" "$3"; do
    grep -qx "wrong worker" "$2/out" || exit 0
done]]

--- Begins an operation in the background, and waits until it is under way.
-- @return function(seconds): waits for its answer; the process
function App:begin(command, pid)
    local dir = servers.tmpdir()
    servers.write_file(dir .. "/in", cjson.encode(command))
    local process = servers.spawn { "sh", "-c", UNTIL_ACCEPTED, "sh", pid or "", dir,
        self.nginx.url .. "/do", err = dir .. "/err" }
    servers.wait_for(function()
        return servers.read_file(dir .. "/accepted") ~= ""
    end, 10, "a worker to begin " .. command.op)
    return function(seconds)
        servers.wait_for(function() return not process:alive() end, seconds or 30,
            "the answer to " .. command.op)
        process:kill()
        local text = servers.read_file(dir .. "/out")
        return assert(cjson.decode(text), text .. servers.read_file(dir .. "/err"))
    end, process
end

--- What each worker knows of its coherence: { [pid as text] = table }.
function App:workers()
    local answer = assert(servers.http(self.nginx.url .. "/workers"))
    return assert(cjson.decode(answer.body), answer.body)
end

--- Waits until one worker listens and hits are believed.
-- @return pid of that worker, pid of another one
function App:listener(seconds)
    local listener, other
    servers.wait_for(function()
        listener, other = nil, nil
        local detail = {}
        local known = self:workers()
        for _, pid in ipairs(self.nginx:worker_pids()) do
            local about = known[tostring(pid)]
            if about and about.listening and about.coherent then
                listener = pid
            else
                other = pid
            end
            detail[#detail + 1] = pid .. " " .. (cjson.encode(about) or "?")
        end
        return listener, table.concat(detail, "; ")
    end, seconds or 10, "a worker that listens")
    return listener, other
end

--- Waits until a session is a hit in a worker.
function App:wait_for_hit(id, pid, seconds)
    servers.wait_for(function()
        local answer = self:ask({ op = "use", id = id, n = 1 }, pid)
        return answer.hits == 1, cjson.encode(answer)
    end, seconds or 5, "a hit of " .. id)
end

function App:stats(pid)
    return self:ask({ op = "stats" }, pid).value
end

local function variables(opts)
    return { url = opts.url, name = opts.name or "spec", redis = opts.redis or "",
             routing = opts.routing or "", http = opts.http or "",
             start = opts.start or "inside.start()" }
end

-- $url, $redis, ... are ours; nginx' own and those of the harness stay.
local function configuration(opts)
    local vars = variables(opts)
    return (CONF:gsub("%$(%l+)", vars))
end

--- Reloads with other options.
function App:reload_with(opts)
    self.nginx:configure(configuration(opts))
    self.nginx:reload()
end

App.__index = function(self, name)
    if App[name] then
        return App[name]
    end
    local own = self.nginx[name]
    if type(own) ~= "function" then
        return own
    end
    return function(_, ...) return own(self.nginx, ...) end
end

--- Starts one.
-- @param opts  { url = of Redis, redis = more options of redis_storage as Lua
--              text, routing = more of routing_storage, name = its name,
--              http = more of nginx.conf, start = another init_worker_by_lua,
--              workers = (2), listening = false: do not wait for it }
-- @return app; it answers to all methods of a servers.nginx, too
function _M.start(opts)
    local self = setmetatable({}, App)
    rawset(self, "nginx", servers.nginx {
        conf = configuration(opts), workers = opts.workers or 2,
        log_level = opts.log_level or "warn",
    })
    if opts.listening ~= false then
        self:listener()
    end
    return self
end

return _M
