-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Real servers for the specs: redis-server, nginx and node programs, each on
-- private ports in a temporary directory, waited for until they serve.
--
--   local servers = require "support.servers"
--   local redis, web
--   setup(function()
--     redis = servers.redis()
--     web = servers.nginx { conf = [[
--       server { listen 127.0.0.1:$port; location / { return 204; } } ]] }
--   end)
--   teardown(function() servers.stop_all() end)
--   it("answers", function()
--     assert.equal(204, servers.http(web.url .. "/").status)
--     assert.equal("OK", redis:cli("SET k v"))
--   end)
--
-- Stopping in teardown is good manners; what is left running when the run ends,
-- however it ends, is killed by the guard of support.process.

local ffi = require "ffi"
local cjson = require "cjson.safe"
local net = require "support.net"
local process = require "support.process"

local C = ffi.C

ffi.cdef [[
unsigned mooring_spec_geteuid(void) __asm__("geteuid");
]]

local _M = {
    root = process.root,
    tmpdir = process.tmpdir,
    wait_for = process.wait_for,
    spawn = process.spawn,
    run = process.run,
    read_file = process.read_file,
    write_file = process.write_file,
    now = process.now,
    nap = process.nap,
    keep = process.keep,
    free_port = net.free_port,
    listening = net.listening,
    http = net.http,
}

-- What `make` has built, or with BUILD another build of it.
local build = _M.root .. "/" .. (os.getenv("BUILD") or "build")

-- LUA_PATH and LUA_CPATH of the checkout, for programs the specs start.
_M.lua_path = table.concat({
    _M.root .. "/lua/?.lua", _M.root .. "/lua/?/init.lua",
    build .. "/lua/?.lua", _M.root .. "/spec/?.lua", ";",
}, ";")
_M.lua_cpath = build .. "/?.so;;"

local started = {} -- every server, in order

--- Stops every server started through this module and not stopped yet.
function _M.stop_all()
    for i = #started, 1, -1 do
        started[i]:stop()
        started[i] = nil
    end
end

-- Objects whose missing methods are those of their process.
local function class()
    local methods = {}
    local meta = {
        __index = function(self, name)
            local method = methods[name]
            if method or name == "process" then
                return method
            end
            local own = self.process and self.process[name]
            if type(own) ~= "function" then
                return own
            end
            return function(_, ...) return own(self.process, ...) end
        end,
    }
    return methods, function(fields)
        local self = setmetatable(fields, meta)
        started[#started + 1] = self
        return self
    end
end

------------------------------------------------------------------- redis ---

local Redis, new_redis = class()

--- Starts a redis-server without persistence, on a private port and socket.
-- @param opts  { more arguments of redis-server ..., port =, dir =,
--              socket = path, password = for cli() }
-- @return server: .host .port .socket .url .unix_url .dir; :cli(...) :stop()
--         :kill() :pause() :resume() :restart() :command_counts() :log()
function _M.redis(opts)
    opts = opts or {}
    local dir = opts.dir or process.tmpdir()
    local self = new_redis {
        args = opts,
        dir = dir,
        host = "127.0.0.1",
        port = opts.port or _M.free_port(),
        socket = opts.socket or dir .. "/redis.sock",
        password = opts.password,
    }
    self.url = "redis://127.0.0.1:" .. self.port .. "/0"
    self.unix_url = "unix://" .. self.socket
    self:start()
    return self
end

--- Starts it (again) on the same port and socket, and waits until it serves.
function Redis:start()
    local argv = { "redis-server", "--port", self.port, "--bind", self.host,
        "--unixsocket", self.socket, "--dir", self.dir, "--save", "",
        "--appendonly", "no", out = self.dir .. "/redis.log" }
    for _, arg in ipairs(self.args) do
        argv[#argv + 1] = arg
    end
    self.process = process.spawn(argv)
    process.wait_for(function()
        if not self.process:alive() then
            error("redis-server ended:\n" .. self:log(), 0)
        end
        local answer = self:cli("PING")
        return answer:find("^PONG") or answer:find("^NOAUTH")
    end, 10, "redis-server to answer")
end

--- Stops it and starts it anew on the same port: its data is gone.
function Redis:restart()
    self:stop()
    self:start()
end

--- redis-cli: :cli("GET k") or :cli("SET", "k", "a value with spaces").
-- @return the answer as text, without the last newline
function Redis:cli(...)
    local argv = { "redis-cli", "-s", self.socket }
    if self.password then
        argv[#argv + 1] = "--no-auth-warning"
        argv.env = { REDISCLI_AUTH = self.password }
    end
    if select("#", ...) == 1 then
        for word in (...):gmatch("%S+") do
            argv[#argv + 1] = word
        end
    else
        for _, word in ipairs { ... } do
            argv[#argv + 1] = word
        end
    end
    local result = process.run(argv)
    return ((result.out .. result.err):gsub("\r?\n$", ""))
end

--- How often each command was executed since the start (or CONFIG RESETSTAT):
-- { get = 12, set = 3, ... }, subcommands as "config|get".
function Redis:command_counts()
    local counts = {}
    for name, calls in self:cli("INFO commandstats")
            :gmatch("cmdstat_(%S-):calls=(%d+)") do
        counts[name] = tonumber(calls)
    end
    return counts
end

function Redis:log()
    return process.read_file(self.dir .. "/redis.log")
end

------------------------------------------------------------------- nginx ---

local Nginx, new_nginx = class()

local NGINX = os.getenv("NGINX") or "nginx"

-- Debian builds the Lua module as a dynamic one; OpenResty links it in.
local load_modules
local function module_lines()
    if load_modules then
        return load_modules
    end
    local about = process.run { NGINX, "-V" }
    local dir = (about.err .. about.out):match("%-%-modules%-path=(%S+)")
    load_modules = ""
    for _, name in ipairs { "ndk_http_module", "ngx_http_lua_module" } do
        local path = dir and dir .. "/" .. name .. ".so"
        if path and process.read_file(path) ~= "" then
            load_modules = load_modules .. "load_module " .. path .. ";\n"
        end
    end
    return load_modules
end

local MAIN = [[
daemon off;
pid $dir/nginx.pid;
error_log $dir/error.log $log_level;
]]

local HTTP = [[
    access_log $dir/access.log;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    lua_package_path "$lua_path";
    lua_package_cpath "$lua_cpath";
]]

-- $dir, $root, $port, $port2... and opts.vars; nginx' own variables stay.
local function substitute(self, text)
    return (text:gsub("%$([%a_][%w_]*)", function(name)
        local n = name:match("^port(%d*)$")
        if n and not self.vars[name] then
            self.vars[name] = _M.free_port()
        end
        return self.vars[name] and tostring(self.vars[name])
    end))
end

-- The full text of nginx.conf around what the caller gave.
local function configuration(self, opts)
    local before, after = ("\n" .. opts.conf):match("^(.-\n%s*http%s*{)(.*)$")
    if not before then
        before = (opts.main or "")
            .. "\nevents { worker_connections 2048; }\nhttp {"
        after = "\n" .. opts.conf .. "\n}\n"
    end
    local main, http = module_lines() .. MAIN, HTTP
    if C.mooring_spec_geteuid() == 0 then
        main = main .. "user root;\n" -- temporary directories are root's
    end
    if not before:find("worker_processes", 1, true) then
        main = main .. ("worker_processes %d;\n"):format(opts.workers or 1)
    end
    if substitute(self, after):find("lua_package_path", 1, true) then
        http = http:gsub("[^\n]*lua_package[^\n]*\n", "")
    end
    return substitute(self, main .. before .. "\n" .. http .. after)
end

--- Starts an nginx of its own prefix.
-- @param opts  { conf = what goes into http { }, or a complete configuration
--                  (without daemon, pid, user), workers = (default 1),
--                main = lines for the main context, log_level = ("info"),
--                scheme = of .url ("http"),
--                vars = { name = value for $name }, env = { }, dir =,
--                under = command that nginx is run by, such as { "valgrind" } }
--   In conf, $dir (the prefix), $root (the checkout), $port, $port2, ... (free
--   ports) and vars are replaced; lua_package_path and cpath are the checkout's
--   unless conf has its own.
-- @return server: .dir .port .port2 ... .url ("http://127.0.0.1:" .. port);
--         :reload() :quit() :stop() :kill() :error_log() :worker_pids()
--         :configure(conf)
function _M.nginx(opts)
    local dir = opts.dir or process.tmpdir()
    local self = new_nginx { dir = dir, opts = opts, vars = {
        dir = dir, root = _M.root, lua_path = _M.lua_path,
        lua_cpath = _M.lua_cpath, log_level = opts.log_level or "info",
    } }
    for name, value in pairs(opts.vars or {}) do
        self.vars[name] = value
    end
    self:configure(opts.conf)
    self:start()
    return self
end

--- Writes another configuration (as opts.conf) for the next start or reload.
-- The ports stay.
function Nginx:configure(conf)
    self.opts.conf = conf
    process.write_file(self.dir .. "/nginx.conf",
        configuration(self, self.opts))
    for name, value in pairs(self.vars) do
        if name:find("^port%d*$") then
            self[name] = value
        end
    end
    self.url = self.port and (self.opts.scheme or "http") .. "://127.0.0.1:"
        .. self.port
end

-- All workers are there: the master has run init_by_lua and listens.
local function up(self)
    if not self.process:alive() then
        error("nginx ended:\n" .. self:error_log(), 0)
    end
    if self.single then
        return process.read_file(self.dir .. "/nginx.pid") ~= ""
    end
    return #self:worker_pids() >= self.workers
end

--- Starts it (again), and waits until its workers are up.
function Nginx:start()
    local text = process.read_file(self.dir .. "/nginx.conf")
    self.single = text:find("master_process%s+off") ~= nil
    self.workers = tonumber(text:match("worker_processes%s+(%d+)")) or 1
    os.remove(self.dir .. "/nginx.pid")
    local argv = { env = self.opts.env, out = self.dir .. "/error.log" }
    for i, arg in ipairs(self.opts.under or {}) do
        argv[i] = arg
    end
    for _, arg in ipairs { NGINX, "-p", self.dir, "-c", self.dir .. "/nginx.conf",
                           "-e", self.dir .. "/error.log" } do
        argv[#argv + 1] = arg
    end
    self.process = process.spawn(argv)
    process.wait_for(function() return up(self) end, self.opts.under and 60 or 10,
        "nginx to start")
end

--- Pids of the workers that accept requests, ascending.
-- @param leaving  true: of those that are shutting down instead
function Nginx:worker_pids(leaving)
    local pids = {}
    local path = ("/proc/%d/task/%d/children"):format(self.pid, self.pid)
    for pid in process.read_file(path):gmatch("%d+") do
        local title = process.read_file("/proc/" .. pid .. "/cmdline")
        local is_leaving = title:find("shutting down", 1, true) ~= nil
        if title:find("worker process", 1, true)
                and is_leaving == (leaving == true) then
            pids[#pids + 1] = tonumber(pid)
        end
    end
    table.sort(pids)
    return pids
end

--- Reads the configuration again (SIGHUP) and waits until new workers are up
-- and the old ones know that they have to leave (they may still be busy).
function Nginx:reload()
    local old = {}
    for _, pid in ipairs(self:worker_pids()) do
        old[pid] = true
    end
    self:signal("HUP")
    process.wait_for(function()
        local fresh = 0
        for _, pid in ipairs(self:worker_pids()) do
            if old[pid] then
                return false
            end
            fresh = fresh + 1
        end
        return fresh >= self.workers
    end, 10, "the new workers")
end

--- Ends it gracefully: requests in progress are finished.
function Nginx:quit(seconds)
    self:stop("QUIT", seconds)
end

function Nginx:error_log()
    return process.read_file(self.dir .. "/error.log")
end

-------------------------------------------------------------------- node ---

local Node, new_node = class()

-- The answers so far: one JSON object a line, the first one says "ready".
local function read_answers(self)
    local text = process.read_file(self.dir .. "/out")
    for line in text:sub(self.seen + 1):gmatch("([^\n]*)\n") do
        self.seen = self.seen + #line + 1
        local answer = cjson.decode(line)
        if type(answer) == "table" then
            self.answers[#self.answers + 1] = answer
        end
    end
    return self.answers
end

local function forget_events(answers)
    for i = #answers, 1, -1 do
        if answers[i].event then
            table.remove(answers, i)
        end
    end
end

local function await(self, wanted, seconds, what, on_event)
    return process.wait_for(function()
        local answers = read_answers(self)
        for i = 1, #answers do
            local answer = answers[i]
            if wanted(answer) then
                return table.remove(answers, i)
            elseif on_event and answer.event then
                on_event(answer)
            end
        end
        forget_events(answers)
        if not self.process:alive() then
            error("node ended:\n" .. self:log(), 0)
        end
    end, seconds, what)
end

--- Starts a node program that prints {"ready":true,...} when it is, one JSON
-- object a line, and takes commands the same way on its stdin. Does not wait,
-- so that several start at the same time; :await_ready() does.
-- @param script  path, relative to the checkout
-- @param args    array of arguments
-- @param env     { NAME = value }
-- @return server: .ready (that object), .port and .url if it has a port;
--         :ask(command, seconds) :stop() :kill() :log()
function _M.node_begin(script, args, env)
    local dir = process.tmpdir()
    local self = new_node { dir = dir, seen = 0, answers = {}, asked = 0 }
    local argv = { "node", script:sub(1, 1) == "/" and script
        or _M.root .. "/" .. script, input = true, env = env,
        out = dir .. "/out", err = dir .. "/err" }
    for _, arg in ipairs(args or {}) do
        argv[#argv + 1] = arg
    end
    self.process = process.spawn(argv)
    return self
end

--- As node_begin(), and waits until it is ready.
function _M.node(script, args, env)
    return _M.node_begin(script, args, env):await_ready()
end

--- Waits until a program started with node_begin() is ready; returns it.
function Node:await_ready()
    self.ready = await(self, function(answer) return answer.ready end, 15,
        "a node program to be ready")
    self.port = self.ready.port
    self.url = self.ready.url
    return self
end

--- Sends a command without waiting.
-- @param command  a table, or the name of a command without arguments
-- @return function(seconds, on_event): waits for the answer, a table, and
--         raises when it does not come in time (default 20 s). on_event is
--         called with what the program prints meanwhile with a field `event`.
function Node:begin(command)
    if type(command) == "string" then
        command = { op = command }
    end
    self.asked = self.asked + 1
    local n = self.asked
    command.n = n
    assert(self.process:write(cjson.encode(command) .. "\n"),
        "node has ended")
    return function(seconds, on_event)
        return await(self, function(answer) return answer.n == n end,
            seconds or 20, "the answer to " .. tostring(command.op), on_event)
    end
end

--- Sends a command and waits for the answer; see :begin().
function Node:ask(command, seconds, on_event)
    return self:begin(command)(seconds, on_event)
end

function Node:log()
    return process.read_file(self.dir .. "/err")
        .. process.read_file(self.dir .. "/out")
end

return _M
