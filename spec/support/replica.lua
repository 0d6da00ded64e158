-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- An nginx with the router in front of MCP servers, configured with the include
-- files as a user would, plus knobs for the specs. Two of them that share a
-- storage are two replicas.

local cjson = require "cjson.safe"
local servers = require "support.servers"

local _M = {}

local CONF = [[
    include $root/lua/resty/mooring/nginx/http.conf;
    $http
    init_by_lua_block {
        router = require("resty.mooring.router").new {
            backends = $backends,
            storage = $storage,
            internal = "unix:$dir/internal.sock",
            $options
        }
    }
    init_worker_by_lua_block { router:init_worker() }
    server {
        listen unix:$dir/internal.sock;
        include $root/lua/resty/mooring/nginx/internal.conf;
        location / {
            include $root/lua/resty/mooring/nginx/location.conf;
            $location
        }
    }
    server {
        listen 127.0.0.1:$port $listen;
        include $root/lua/resty/mooring/nginx/server.conf;
        $server
        location /mcp {
            include $root/lua/resty/mooring/nginx/location.conf;
            $location
        }
        location = /mooring-status {
            content_by_lua_block { router:status() }
        }
    }
]]

local function backend_list(backends)
    if type(backends) == "string" then
        return backends
    end
    local list = {}
    for i, backend in ipairs(backends) do
        list[i] = type(backend) == "table" and ("%q"):format(backend.url)
            or backend
    end
    return "{ " .. table.concat(list, ", ") .. " }"
end

local function variables(opts)
    local storage = opts.storage or "local"
    return {
        backends = backend_list(opts.backends),
        storage = storage:find("[%({]") and storage or ("%q"):format(storage),
        options = opts.options or "",
        http = opts.http or "",
        server = opts.server or "",
        location = opts.location or "",
        listen = opts.listen or "",
    }
end

-- The counters of a replica's status endpoint.
local function status(self)
    local answer = assert(servers.http(self.url .. "/mooring-status",
        { flags = { "--insecure" } }))
    return assert(cjson.decode(answer.body))
end

-- Reloads a replica with some of the options changed.
local function change(self, changes)
    for name, value in pairs(changes) do
        self.chosen[name] = value
    end
    for name, value in pairs(variables(self.chosen)) do
        self.vars[name] = value
    end
    self:configure(CONF)
    self:reload()
end

--- Starts a replica with two workers.
-- @param opts  { backends = { MCP servers, or Lua expressions }, or a Lua
--                expression for all of them, storage = URL, "local"
--                (the default) or a Lua expression with a call or table,
--                options = more fields of router.new, as Lua text,
--                http =, server =, location = more nginx directives (the
--                last in the internal server, too),
--                listen = parameters of listen ("ssl") }
-- @return nginx server, and in addition .mcp: URL of the endpoint,
--         :status() its counters, :change { backends = ... } reloads it
function _M.start(opts)
    local self = servers.nginx {
        conf = CONF,
        workers = 2,
        scheme = (opts.listen or ""):find("ssl", 1, true) and "https" or "http",
        vars = variables(opts),
    }
    self.chosen = opts
    self.mcp = self.url .. "/mcp"
    self.status, self.change = status, change
    return self
end

--- Starts n MCP servers called b1, b2, ... with these more arguments.
function _M.backends(n, ...)
    local list = {}
    for i = 1, n do
        list[i] = servers.node_begin("spec/fixtures/mcp/server.mjs",
            { "--name=b" .. i, ... })
    end
    for _, backend in ipairs(list) do
        backend:await_ready()
    end
    return list
end

--- What /admin/sessions of an MCP server says: { sessions = { ids },
-- requests = { POST = n, ... } }.
function _M.inside(backend)
    local answer = assert(servers.http(backend.url .. "/admin/sessions",
        { flags = { "--insecure" } }))
    return assert(cjson.decode(answer.body))
end

-- A command that has to succeed.
local function expect(self, command)
    local answer = self:ask(command)
    if not answer.ok then
        error(("%s failed: %s %s"):format(command.op,
            tostring(answer.error.code), answer.error.message), 2)
    end
    return answer
end

--- Starts the program that plays the MCP clients; see driver.mjs.
-- @return it, with :ask(command) (the answer, whatever it is) and
--         :expect(command) (raises when the command failed)
function _M.clients(env)
    local self = servers.node("spec/fixtures/mcp/driver.mjs", {}, env)
    self.expect = expect
    return self
end

return _M
