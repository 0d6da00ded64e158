-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A router in a real nginx in front of small backends, for the specs.
--
--   local proxy = require "support.proxy"
--   local a, b = proxy.backend("a"), proxy.backend("b")
--   local web = proxy.start { backends = { a, b } }
--   local id = web:open()                     -- initialize
--   web:call(id)                              -- a request of that session
--   web:request { method = "GET", id = id, headers = {}, path = "/mcp" }
--
-- Everything is stopped by servers.stop_all().

local cjson = require "cjson"
local servers = require "support.servers"

local _M = {}

_M.INITIALIZE = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":'
  .. '{"protocolVersion":"2025-06-18","capabilities":{},'
  .. '"clientInfo":{"name":"spec","version":"1"}}}'
_M.CALL = '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}'
_M.VERSION = "2025-06-18"

local CONF = [[
include $root/lua/resty/mooring/nginx/http.conf;
$http
init_by_lua_block {
  $before
  router = require("resty.mooring.router").new {
    backends = $backends,
    internal = "unix:$dir/internal.sock",
    $options
  }
}
init_worker_by_lua_block { router:init_worker() }

server {
  listen unix:$dir/internal.sock;
  include $root/lua/resty/mooring/nginx/internal.conf;
  location / {
    include $root/lua/resty/mooring/nginx/$inside;
    $location
  }
}
server {
  listen 127.0.0.1:$port;
  $listen
  access_log $dir/requests.log mooring;
  include $root/lua/resty/mooring/nginx/server.conf;
  location /mcp {
    include $root/lua/resty/mooring/nginx/$include;
    $location
  }
  location = /status {
    content_by_lua_block { router:status() }
  }
  $server
}
]]

--- Starts a small backend (spec/fixtures/backends/backend.mjs).
-- @param name  sent by it as X-Served-By
-- @param args  more arguments
-- @return node server, see support.servers; .name
function _M.backend(name, args)
  local argv = { "--name=" .. name, unpack(args or {}) }
  local backend = servers.node("spec/fixtures/backends/backend.mjs", argv)
  backend.name = name
  return backend
end

--- Requests a backend has seen.
-- @param method  only those of this method
function _M.seen(backend, method)
  local found = {}
  for _, request in ipairs(backend:ask("seen").requests) do
    if not method or request.method == method then
      found[#found + 1] = request
    end
  end
  return found
end

--- Tells a backend how to answer, see `actions` in backend.mjs.
function _M.rule(backend, rule)
  backend:ask { op = "rule", rule = rule }
end

local Web = {}
Web.__index = function(self, name)
  return Web[name] or self.nginx[name]
end

local function listed(backends)
  local urls = {}
  for i, backend in ipairs(backends) do
    urls[i] = type(backend) == "string" and backend
      or ("%q"):format(backend.url)
  end
  return table.concat(urls, ", ")
end

local function variables(opts)
  return {
    backends = opts.backends_lua or "{ " .. listed(opts.backends or {}) .. " }",
    http = opts.http or "",
    options = opts.options or "",
    before = opts.before or "",
    listen = opts.listen or "",
    location = opts.location or "",
    inside = opts.plain_inside and "location_plain.conf" or "location.conf",
    include = opts.plain and "location_plain.conf" or "location.conf",
    server = opts.server or "",
  }
end

-- A copy of location.conf with another read timeout: specs have no hour.
local function impatient(timeout)
  local path = servers.tmpdir() .. "/location.conf"
  local text, n = servers.read_file(servers.root
    .. "/lua/resty/mooring/nginx/location.conf")
    :gsub("proxy_read_timeout %w+;", "proxy_read_timeout " .. timeout .. ";")
  assert(n == 1)
  servers.write_file(path, text)
  return path
end

-- Before nginx' own variables are looked for: these hold some.
local function fill(opts)
  local vars = variables(opts)
  local conf = CONF:gsub("%$(%l+)", function(name) return vars[name] end)
  if opts.read_timeout then
    conf = conf:gsub("%S+/location%.conf", impatient(opts.read_timeout))
  end
  return conf
end

--- Starts an nginx with a router.
-- @param opts  { backends = array of backends or Lua expressions, or
--                backends_lua = a Lua expression for all of them,
--                options = more options of the router as Lua text,
--                location =, server =, http =, listen = lines for nginx,
--                before = Lua that runs before the router is made,
--                read_timeout = "200ms" for backends,
--                plain = true: with location_plain.conf, plain_inside = the
--                same for the internal server, where it has no business,
--                workers =, dir =, main =, env = as servers.nginx }
function _M.start(opts)
  local self = setmetatable({}, Web)
  self.nginx = servers.nginx {
    conf = fill(opts), workers = opts.workers, dir = opts.dir,
    main = opts.main, env = opts.env,
  }
  self.mcp = self.nginx.url .. "/mcp"
  return self
end

--- Reloads with other options.
function Web:reload_with(opts)
  self.nginx:configure(fill(opts))
  self.nginx:reload()
end

--- One request.
-- @param opts  { method = "POST", id = session id, body =, headers =, path =,
--                version = false for none, flags = }
-- @return answer as servers.http; nil, message
function Web:request(opts)
  local headers = {
    ["Content-Type"] = "application/json",
    ["Accept"] = "application/json, text/event-stream",
    ["Mcp-Session-Id"] = opts.id,
  }
  if opts.version ~= false then
    headers["MCP-Protocol-Version"] = opts.version or _M.VERSION
  end
  for name, value in pairs(opts.headers or {}) do
    headers[name] = value
  end
  return servers.http(self.url .. (opts.path or "/mcp"), {
    method = opts.method or "POST", headers = headers, body = opts.body,
    flags = opts.flags, timeout = opts.timeout,
  })
end

--- Sends `initialize`.
-- @return session id, answer
function Web:open(opts)
  opts = opts or {}
  opts.body, opts.version = opts.body or _M.INITIALIZE, false
  local answer = assert(self:request(opts))
  return answer.headers["mcp-session-id"], answer
end

--- Sends a request of a session.
-- @return answer
function Web:call(id, opts)
  opts = opts or {}
  opts.id, opts.body = id, opts.body or _M.CALL
  return assert(self:request(opts))
end

--- Ends a session.
function Web:delete(id)
  return assert(self:request { method = "DELETE", id = id })
end

local Stream = {}
Stream.__index = Stream

--- What has come of the body.
function Stream:body()
  return servers.read_file(self.out)
end

--- What has come of the head (curl holds that back where it has to go with the
-- body).
function Stream:head()
  return servers.read_file(self.err)
end

function Stream:wait_for_body(text)
  return servers.wait_for(function()
    return self:body():find(text, 1, true)
  end, 5, text .. " in the body")
end

function Stream:wait_for_head(text)
  return servers.wait_for(function()
    return self:head():find("\n< " .. text, 1, true)
  end, 5, text .. " in the head")
end

--- Waits until the answer has ended.
function Stream:wait()
  return self.process:wait(5)
end

function Stream:stop()
  self.process:kill()
end

--- Opens a request whose answer is read while it comes.
function Web:stream(opts)
  local dir = servers.tmpdir()
  local argv = { "curl", "-sSNv", "-X", opts.method or "GET",
    "-H", "Accept: text/event-stream, application/json",
    "-H", "Content-Type: application/json",
    out = dir .. "/body", err = dir .. "/head" }
  local function add(...)
    for _, arg in ipairs { ... } do
      argv[#argv + 1] = arg
    end
  end
  if opts.id then
    add("-H", "Mcp-Session-Id: " .. opts.id, "-H",
      "MCP-Protocol-Version: " .. _M.VERSION)
  end
  if opts.body then
    add("--data-binary", opts.body)
  end
  add(unpack(opts.flags or {}))
  add(opts.url or self.url .. "/mcp")
  return setmetatable({ process = servers.spawn(argv), out = argv.out,
    err = argv.err }, Stream)
end

--- router:stats(), with the counts of all workers as of now.
function Web:stats()
  return cjson.decode(assert(servers.http(self.url .. "/status")).body)
end

--- Waits until a count of router:stats() is reached.
function Web:wait_for_count(name, count)
  servers.wait_for(function()
    local now = self:stats().results[name]
    return now >= count, name .. " is " .. tostring(now)
  end, 5, name .. " = " .. count)
end

--- $mooring_backend of the last request that went to one, as it was logged.
function Web:last_backend()
  return servers.read_file(self.dir .. "/requests.log")
    :match('.*" %d+ %d+ [%d.]+ [%l_]+ (%S[^\n]*)')
end

--- $mooring_result of each request so far that had one.
function Web:results()
  local list = {}
  for line in servers.read_file(self.dir .. "/requests.log"):gmatch("[^\n]+") do
    list[#list + 1] = line:match('" %d+ %d+ [%d.]+ ([%l_]+)')
  end
  return list
end

return _M
