-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The router: sends each request to the backend that owns its session.
--
--     init_by_lua         router = require("resty.mooring.router").new { ... }
--     init_worker_by_lua  router:init_worker()
--     access_by_lua       router:access()         which backend?
--     rewrite_by_lua      router:internal()       the same, internal server
--     balancer_by_lua     router:balancer()       its address
--     header_filter       router:header_filter()  ids, 404s, event streams
--     log_by_lua          router:log()            event streams
--     rewrite_by_lua      router:sse()            the HTTP+SSE transport:
--     body_filter_by_lua  router:sse_body()       sse.conf
--     error_page          router:unreachable()    no answer from the backend
--
-- The include files in resty/mooring/nginx call all of these but the first two,
-- on the global `router`.
--
-- What one phase tells the next is in nginx variables, which also survive the
-- internal redirect of an error_page, as ngx.ctx does not, and in
-- router/requests.lua.
--
--     $mooring_backend   URL of the backend
--     $mooring_result    what became of the request (router/counters.lua)
--     $mooring_upstream  where proxy_pass goes (router/backends.lua)
--     $mooring_tls_name  name for SNI and verification
--     $mooring_attempts  "2" in the second attempt, "over" when that was it
--     $mooring_role      "internal" in the internal server (router/hop.lua),
--                        "sse" in locations of the HTTP+SSE transport
--                        (router/legacy.lua)
--     $mooring_path      path of the request as it may be logged
--     $mooring_moves     how often the request was sent again to a backend that
--                        has taken its session over (router/reinitialize.lua)
--
-- What becomes of requests that are not simply sent on is in
-- router/outcomes.lua.
--
-- A request of a known session costs one look into the storage, one into a
-- table of peers, and one call that counts it and tells whether that table is
-- still right; its body is not read, no table is made.

local admin = require "resty.mooring.router.admin"
local allow = require "resty.mooring.router.allow"
local answer = require "resty.mooring.router.answer"
local choice = require "resty.mooring.router.choice"
local cjson = require "cjson"
local counters = require "resty.mooring.router.counters"
local disowned = require "resty.mooring.router.disowned"
local forward = require "resty.mooring.router.forward"
local headers = require "resty.mooring.router.headers"
local hop = require "resty.mooring.router.hop"
local key = require "resty.mooring.router.key"
local keyed = require "resty.mooring.router.keyed"
local legacy = require "resty.mooring.router.legacy"
local loads = require "resty.mooring.router.load"
local log = require "resty.mooring.log"
local mcp = require "resty.mooring.router.mcp"
local membership = require "resty.mooring.router.membership"
local mooring_ffi = require "resty.mooring.ffi"
local operators = require "resty.mooring.router.operators"
local options = require "resty.mooring.options"
local outcomes = require "resty.mooring.router.outcomes"
local policy = require "resty.mooring.policy"
local reinitialize = require "resty.mooring.router.reinitialize"
local requests = require "resty.mooring.router.requests"
local script_counts = require "resty.mooring.router.script_counts"
local scripts = require "resty.mooring.router.scripts"
local sse_id = require "resty.mooring.router.sse_id"
local sources = require "resty.mooring.router.sources"
local store = require "resty.mooring.router.store"
local streams = require "resty.mooring.router.streams"
local unreachable = require "resty.mooring.router.unreachable"

local complete = headers.complete
local gsub = string.gsub
local ipairs = ipairs
local is_stream = headers.is_stream
local key_of = requests.key
local ngx = ngx
local pairs = pairs
local setmetatable = setmetatable
local type = type

local _M = { _VERSION = mooring_ffi._VERSION }
local mt = { __index = _M }

local DICT = "mooring"   -- lua_shared_dict of http.conf
local LOAD = "router"    -- load table, of all routers of this nginx
local FLUSH_INTERVAL = 1 -- seconds

-- nginx calls these from a chunk of its own for each request, which is never
-- compiled, and looks there for what it does not find in the router itself by
-- way of the metatable. That takes 130 instructions each time.
local PER_REQUEST = { "access", "balancer", "header_filter", "log" }

local OPTIONS = {
    { name = "backends", check = sources.check, required = true,
      doc = "array of URLs or of { url =, weight =, server_name =, state = }; "
            .. "function that returns one; { dns =, port = }" },
    { name = "backends_interval", check = options.seconds, default = 5,
      unit = "seconds", doc = "between two calls of the function" },
    { name = "max_fails", check = options.integer(0, 1000), default = 3,
      doc = "failures within fail_timeout; 0: nobody ever fails" },
    { name = "fail_timeout", check = options.seconds, default = 10,
      unit = "seconds", doc = "without new sessions for one that has failed" },
    { name = "storage", check = store.check, default = "local",
      secret = true, doc = '"local", a Redis URL, or a storage' },
    { name = "max_local_entries", check = options.integer(1, 2^24),
      default = 1000, doc = "copies kept in memory, over Redis" },
    { name = "max_local_sessions", check = options.integer(1, 2^24),
      default = 100000, doc = 'sessions held at most with storage "local"' },
    { name = "session_ttl", check = options.seconds, default = 7200,
      unit = "seconds", doc = "life of an unused session" },
    { name = "policy", check = policy.check_option, default = "round_robin",
      doc = "name, table of functions, path of a .lua file, array of these" },
    { name = "key", check = key.check,
      doc = "where the id of a session is found; default: MCP's header" },
    { name = "unknown", check = options.one_of("reject", "bind"),
      doc = 'what to do with an unknown id; MCP: "reject", else "bind"' },
    { name = "sse_id", check = sse_id.check,
      doc = "where the HTTP+SSE transport has its ids" },
    { name = "allow", check = allow.check,
      doc = "what may be dialled beyond backends; array or function(url)" },
    { name = "internal", check = hop.check_address,
      default = "unix:/run/nginx-mooring.sock",
      doc = "address of the internal server" },
    { name = "cors_origin", check = answer.check_origin, default = "*",
      doc = "Access-Control-Allow-Origin of the router's own answers" },
    { name = "name", check = options.non_empty_string, default = "default",
      doc = "tells several routers of one nginx apart" },
}
_M.OPTIONS = OPTIONS


local function dictionary()
    return ngx.shared and ngx.shared[DICT]
end


-- Options that only make sense for one kind of key.
local function set_kind(self, opts)
    if opts.key or not self.engine.has.key then
        self.read_id, self.mcp = key.reader(opts.key)
    else
        self.mcp = false -- ids are the policy's, and only its
    end
    -- A policy may find ids where it likes.
    if opts.key and opts.key.arg or self.engine.has.key then
        log.without_requests()
    end
    self.unknown = opts.unknown or (self.mcp and "reject" or "bind")
    if self.mcp and self.unknown == "bind" then
        error('opts.unknown must be "reject" for MCP, whose ids are made by '
              .. "the backends", 3)
    end
    self.protocol = self.mcp and mcp or keyed
    self.session_type = self.mcp and "mcp" or "keyed"
    -- Whatever finds the id may look at the Host.
    self.completes = self.engine.has.key or not self.mcp
end


-- The backends.
local function open_set(self, opts, dict)
    local source = sources.open(opts.backends, opts.backends_interval, 3)
    if source.read and not dict then
        error("opts.backends that may change need lua_shared_dict mooring of "
              .. "http.conf", 3)
    end
    local load = loads.open(LOAD)
    load:attach(self.storage)
    self.set = membership.new {
        name = opts.name,
        source = source,
        dict = dict,
        load = load,
        storage = self.storage,
        allow = opts.allow,
        max_fails = opts.max_fails,
        fail_timeout = opts.fail_timeout,
        on_failure = function() self.counters:add("refresh_errors") end,
    }
    self.peers = self.set.peers
end


---
-- Makes a router. For init_by_lua.
-- @param opts table, see OPTIONS and the README
-- @return the router; raises naming the option that is wrong. A store that
--         cannot be reached is no error here.
function _M.new(opts)
    opts = options.check(OPTIONS, opts, 2)
    local dict = dictionary()
    local self = setmetatable({
        name = opts.name,
        session_ttl = opts.session_ttl,
        cors_origin = opts.cors_origin,
        counters = counters.new(dict, opts.name),
        requests = requests.new(),
        moving = {}, -- see router/reinitialize.lua
        engine = policy.compile(opts.policy, 2),
    }, mt)
    self.script_counts = script_counts.new(dict, opts.name, self.engine)
    set_kind(self, opts)
    self.serve = self.engine.watches_answers and reinitialize.carry
                 or self.proxy

    self.hop = hop.new(opts.internal)
    self.storage = store.open(opts, scripts.on_evict(self))
    open_set(self, opts, dict)
    local resolve = store.resolver(self.storage)
    self.resolve_session = scripts.admitting(self, resolve)
    self.decide = scripts.access(self) or self.protocol.access
    self.create_session = store.creator(self.storage)
    self.disowned = disowned.new(self)
    self.streams = streams.new(function(id)
        resolve(self.storage, id)
    end, self.session_ttl)
    self.legacy = legacy.new(self, opts.sse_id)
    for _, name in ipairs(PER_REQUEST) do
        self[name] = _M[name]
    end
    return self
end


local function flush(_, self)
    self.counters:flush()
    self.script_counts:flush()
end


---
-- Begins the background work of this worker. For init_worker_by_lua.
function _M.init_worker(self)
    store.start(self.storage)
    self.set:start()
    self.engine:start(self.name, ngx.worker.id() or 0)
    self.streams:start()
    ngx.timer.every(FLUSH_INTERVAL, flush, self)
end


-- --------------------------------------------------------------- phases --

-- A session whose backend this worker does not know, or may not know any more.
-- @param begun the peer that the request was counted for, or nil
local function look_again(self, id, reference, begun)
    if begun then
        self.set:leave(begun) -- a request that waits may end there
    end
    local peer = self:peer_of(id, reference)
    if peer then
        self.set:enter(peer)
    end
    return peer
end


---
-- Goes on with a request of a session. This is the hot path: "bound" is what
-- $mooring_result is without being set.
-- @param reference what it is bound to
-- @param stale "stale" when the store could not confirm it, else nil
-- @return "dropped" when there is no such session any more; else the request is
--         on its way, or has ended
function _M.proxy(self, var, id, reference, stale)
    local set = self.set
    local peer = set.peers.known[reference]
    if not peer or set.load:begin(peer.label) ~= set.version then
        peer = look_again(self, id, reference, peer)
        if not peer then
            return "dropped"
        end
    end
    if stale then
        self:note("stale")
    else
        local counts = self.counters.now
        counts.bound = counts.bound + 1
    end
    return forward.send(self, var, peer, id)
end


---
-- Goes on with a request that belongs to no session, to any backend.
-- @param body of the request, where it was read
function _M.unpinned(self, var, body)
    local peer = choice.pick(self, scripts.request(self, body))
    if not peer then
        return self:refuse("no_backend")
    end
    self.set:enter(peer)
    self:note("unpinned")
    return forward.send(self, var, peer)
end


---
-- Lets pass what this nginx sends to itself. For rewrite_by_lua of the internal
-- server.
function _M.internal(self)
    return forward.send_inner(self)
end


---
-- Says that a location is one of the HTTP+SSE transport. For rewrite_by_lua,
-- with `set $mooring_role sse`.
function _M.sse(self)
    log.without_requests()
    self.requests.inner[key_of()] = true
end


---
-- Decides where a request goes. For access_by_lua.
function _M.access(self)
    local inner = self.requests.inner
    local request = key_of()
    local var = ngx.var
    if inner[request] then
        inner[request] = nil
        -- Else it is a left-over of a request that ended before this phase.
        local role = var.mooring_role
        if role == "internal" then
            return
        elseif role == "sse" then
            return self.legacy:access(var)
        end
    end
    if self.completes then
        complete(var)
    end
    return self.decide(self, var)
end


---
-- Tells nginx the address of the backend. For balancer_by_lua.
-- @param tls true in the upstream of https:// backends
function _M.balancer(self, tls)
    return forward.balance(self, tls or false)
end


---
-- Looks at the head of a response. For header_filter_by_lua.
--
-- Where the id is a header, a request that has one is not of HTTP/0.9, and an
-- answer that has a status is not, either: then there is no need to look, which
-- is not compiled.
function _M.header_filter(self)
    local under_way = self.requests
    local request = key_of()
    local id = under_way.ids[request]
    if not (id and self.mcp and ngx.status >= 200) then
        local wrong = forward.wrong_answer()
        if wrong then
            return ngx.exit(wrong)
        end
    end
    self.protocol.header_filter(self, id)
    if id and is_stream() then
        under_way.streams[request] = id
        self.streams:add(id)
    end
end


---
-- Looks into an event stream of the HTTP+SSE transport. For body_filter_by_lua.
function _M.sse_body(self)
    return self.legacy:body()
end


---
-- The request has ended. For log_by_lua.
function _M.log(self)
    local request = key_of()
    local under_way = self.requests
    local peer = under_way.peers[request]
    if peer then
        self.set:leave(peer)
        if self.set.health.suspects[peer.url] then
            forward.note_health(self, peer)
        end
    end
    under_way:drop(request)
    if self.streams.count > 0 then
        local id = under_way.streams[request]
        if id then
            under_way.streams[request] = nil
            self.streams:remove(id)
        end
    end
    if self.legacy.count > 0 then
        self.legacy:finish(request)
    end
end


---
-- Answers a request that a backend gave no answer to. The content handler of
-- @mooring_unreachable in server.conf.
function _M.unreachable(self)
    return unreachable.run(self)
end


---
-- Serves the operator. For content_by_lua of a location that serves nobody else
-- (allow, deny), see resty.mooring.router.admin.
function _M.admin(self)
    return admin.run(self)
end


for name, method in pairs(operators) do
    _M[name] = method
end

for name, method in pairs(outcomes) do
    _M[name] = method
end


-- --------------------------------------------------------------- status --

---
-- @return table: name, backends, results and policies (counts of all workers),
--         worker (the pid of this one), streams (open in this worker), storage
--         (its stats)
function _M.stats(self)
    local storage = self.storage
    return {
        name = self.name,
        backends = self.set:stats(),
        results = self.counters:totals(),
        policies = self.script_counts:totals(),
        worker = ngx.worker.pid(),
        streams = self.streams.count,
        storage = type(storage.stats) == "function" and storage:stats() or nil,
    }
end


---
-- Answers with stats() as JSON. For content_by_lua.
function _M.status(self)
    ngx.header["Content-Type"] = "application/json"
    -- cjson writes "http:\\/\\/", which is JSON but no pleasure to read
    ngx.say((gsub(cjson.encode(self:stats()), "\\/", "/")))
end


return _M
