-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The HTTP+SSE transport of MCP 2024-11-05, seen from a router: the locations
-- that include sse.conf. A session is an event stream, and the id of the
-- session comes in it:
--
--     client --GET /sse------------> policy --> backend
--            <-- event: endpoint, data: /messages?sessionId=X --.
--                    body filter: create(X -> backend) queued <-'
--            --POST /messages?sessionId=X--> the backend of X, on any replica
--     the stream ends ---------------------> X is removed
--
-- A body filter cannot wait for the store. So the write is queued before the
-- client can read the id, and this instance knows the session at once; another
-- replica may be asked for it before the store has it, and looks it up again
-- for PATIENCE before it says 404.
--
-- As long as its stream is open through this worker, the session is alive and
-- this worker is sure where: it keeps the session from expiring
-- (router.streams) and repeats a write that has failed.
--
--     open[request] = { url, reference,    the backend
--                       parser, decided,   which part of the stream are we in
--                       session, stored,   what was read from it, what became
--                       cut, ended }       of it
--
-- What can go wrong:
--   * The store is away when the stream is opened: 503, no backend is asked.
--   * It goes away between that and the write: this instance serves the
--     session, others say 503; the write is tried again until the stream ends.
--   * The id is bound already: this is another client's session. The stream
--     is cut, at once if this instance knows, with its next event if only the
--     store did. POSTs go where the id was bound first. The same where the
--     store will never take the session (there is no room).
--   * The stream ends while its write is under way: the removal is queued
--     behind it, or follows it. If the store is away, router.disowned goes on
--     trying.
--   * The worker is killed: its sessions stay bound until a backend answers 404
--     for them or they expire.

local binding = require "resty.mooring.router.binding"
local choice = require "resty.mooring.router.choice"
local errors = require "resty.mooring.errors"
local forward = require "resty.mooring.router.forward"
local headers = require "resty.mooring.router.headers"
local log = require "resty.mooring.log"
local mcp = require "resty.mooring.router.mcp"
local requests = require "resty.mooring.router.requests"
local scripts = require "resty.mooring.router.scripts"
local sole = require "resty.mooring.router.sole"
local sse = require "resty.mooring.router.sse"
local sse_id = require "resty.mooring.router.sse_id"
local store = require "resty.mooring.router.store"

local abs = math.abs
local complete = headers.complete
local exiting = ngx.worker.exiting
local get_method = ngx.req.get_method
local has_fragment = sole.has_fragment
local ipairs = ipairs
local is_stream = headers.is_stream
local key_of = requests.key
local min = math.min
local next = next
local ngx = ngx
local pairs = pairs
local pcall = pcall
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- Seconds for which an unknown id is looked up again, and between two looks.
local PATIENCE = 0.25
local FIRST_PAUSE, LAST_PAUSE = 0.005, 0.05

local RETRY = 0.5 -- seconds between two attempts to store a session


---
-- @param router whose sessions these are
-- @param where the option `sse_id`
function _M.new(router, where)
    return setmetatable({
        router = router,
        ids = sse_id.new(where),
        open = {},
        count = 0,      -- of open
        unsaved = {},   -- of open, those to be stored again: opening -> true
        busy = false,   -- a timer is at it
    }, mt)
end


-- ---------------------------------------------------------------- access --

local function open(self, var)
    local router = self.router
    local ok, err = store.ready(router.storage)
    if not ok then
        log.warn_limited("ready", "no session can be opened: ", err)
        return router:refuse("unavailable")
    end
    local peer = choice.pick(router, scripts.request(router))
    if not peer then
        return router:refuse("no_backend")
    end
    -- Until the stream says more; counted when it has ended without.
    var.mooring_result = "unpinned"
    self.open[key_of()] = {
        host = var.http_host or var.mooring_host, path = var.uri,
        -- As it was before it was asked: a drop meanwhile covers the session.
        url = peer.url, reference = peer.reference,
    }
    self.count = self.count + 1
    router.set:enter(peer)
    return forward.send(router, var, peer)
end


-- What a session is bound to that may have been opened a moment ago elsewhere.
local function resolve(router, id)
    local found, err, code = router.resolve_session(router.storage, id)
    local till, pause = ngx.now() + PATIENCE, FIRST_PAUSE
    while code == errors.NOT_FOUND and ngx.now() < till do
        ngx.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE)
        -- One that is not admitted is not asked for again, but must not be
        -- answered sooner than one that is unknown.
        if err ~= scripts.NOT_ADMITTED then
            found, err, code = router.resolve_session(router.storage, id)
        end
    end
    return found, err, code
end


local function go_on(self, var, id)
    local router = self.router
    local has = router.engine.has
    if has.admit or has.on_unreachable then
        scripts.request(router).session_id = id
    end
    local reference, err, code = resolve(router, id)
    if not reference then
        return router:unresolved(id, err, code)
    elseif router:proxy(var, id, reference, code) == "dropped" then
        return router:refuse("not_found")
    end
end


-- Anything that is not of this transport: a server that speaks Streamable HTTP
-- at the same URL, a client that tries that first.
local function pass(router, var)
    if router.mcp then
        return mcp.access(router, var)
    end
    return router:unpinned(var)
end


---
-- Decides where a request goes (access phase).
function _M.access(self, var)
    if var.http_mooring_backend then
        -- sse.conf is in the internal server, where it has no business.
        return self.router:refuse("failed")
    end
    complete(var)
    local id = self.ids:find(var.uri, var.args)
    if self.ids.path and id then
        var.mooring_path = self.ids.path .. "-" -- for the log
    end
    local streamable = var.http_mcp_session_id
    if id == false or id and streamable or has_fragment(var) then
        return self.router:refuse("invalid")
    elseif get_method() == "GET" and not streamable then
        return open(self, var)
    elseif id then
        return go_on(self, var, id)
    end
    return pass(self.router, var)
end


-- --------------------------------------------------------------- storing --

-- There is no such session and will be none. The stream is cut.
local function give_up(self, opening, err, code)
    local id = log.id(opening.session.id)
    opening.cut = true
    self.unsaved[opening] = nil
    self.router.counters:add("orphans")
    if code == errors.ALREADY_EXISTS then
        log.err("the backend ", opening.url, " has issued the session id ", id,
                ", which is bound already")
    else
        log.warn_limited("bind", "could not bind the session ", id, " to ",
                         opening.url, ": ", err)
    end
end


local function is_passing(code)
    return code == errors.UNAVAILABLE or code == errors.TIMEOUT
end


local retry


local function save_later(self, opening)
    self.unsaved[opening] = true
    if not self.busy then
        self.busy = ngx.timer.at(RETRY, retry, self) or false
    end
end


-- Is what the store has under this id the session of that stream? An earlier
-- write may have come through whose outcome was not known.
local function is_own(self, s)
    local found = self.router.storage:load(s.id)
    return found ~= nil
           and found.metadata.backend_url == s.metadata.backend_url
           and abs(found.created_at - s.created_at) < 0.001
end


local function end_session(self, opening)
    local s = opening.session
    self.router.disowned:add_ended(s.id, s.metadata.backend_url, s.created_at)
end


-- The session without what policies have added to it, with which the storage
-- does not take it.
local function make_plain(self, opening, err)
    local s = opening.session
    self.router.engine:blame_on_bind(err)
    opening.scripted = false
    opening.session = binding.session(self.router, s.id, opening.reference,
                                      s.metadata.endpoint, "sse")
end


-- One more attempt; false when the store could not be asked.
local function save(self, opening)
    local router = self.router
    -- A write that fails costs this instance its copy.
    local ok, err, code = store.ready(router.storage)
    if ok then
        ok, err, code = router.create_session(router.storage, opening.session)
    end
    if code == errors.INVALID and opening.scripted then
        make_plain(self, opening, err)
        ok, err, code = router.create_session(router.storage, opening.session)
    end
    local s = opening.session
    if ok or code == errors.ALREADY_EXISTS and is_own(self, s) then
        self.unsaved[opening] = nil
        opening.stored = true
        if opening.ended then
            end_session(self, opening)
        end
        return true
    elseif not is_passing(code) then
        give_up(self, opening, err, code)
        return true
    end
    log.warn_limited("save", "could not store the session ", log.id(s.id),
                     " yet: ", err)
    return false
end


-- A list of its own: streams end while the store is waited for.
local function pending(self)
    local list = {}
    for opening in pairs(self.unsaved) do
        list[#list + 1] = opening
    end
    return list
end


local function save_all(self)
    for _, opening in ipairs(pending(self)) do
        if self.unsaved[opening] and not save(self, opening)
           and not exiting()
        then
            return
        end
    end
end


function retry(_, self)
    local ok, err = pcall(save_all, self)
    if not ok then
        log.warn_limited("save", "could not store sessions: ", err)
    end
    self.busy = next(self.unsaved) ~= nil
                and ngx.timer.at(RETRY, retry, self) or false
end


-- ---------------------------------------------------------- the stream --

local create_later


-- What the store has said to the first write.
local function on_reply(self, opening, ok, err, code)
    if ok then
        opening.stored = true
    elseif code == errors.INVALID and opening.scripted then
        make_plain(self, opening, err)
        if not opening.ended then
            create_later(self, opening)
        end
    elseif not is_passing(code) then
        give_up(self, opening, err, code)
    elseif not opening.ended then
        log.warn_limited("save", "could not store the session ",
                         log.id(opening.session.id), " yet: ", err)
        save_later(self, opening)
    end
end


function create_later(self, opening)
    local ok, err, code = store.create_later(
        self.router.storage, opening.session,
        function(...) on_reply(self, opening, ...) end)
    if not ok then
        on_reply(self, opening, nil, err, code)
    end
end


local function store_session(self, opening, id, path)
    local router = self.router
    local engine = router.engine
    local s = binding.session(router, id, opening.reference, path, "sse")
    opening.session, opening.scripted = s, engine.has.on_bind
    if opening.scripted then
        engine:on_bind(s, scripts.request(router))
    end
    create_later(self, opening)
end


-- The balancer may have found the backend unreachable and taken another one.
local function note_backend(self, opening, request)
    local router = self.router
    local peer = router.requests.peers[request]
    if peer.url ~= opening.url then
        opening.url, opening.reference = peer.url, peer.reference
    end
    return peer.url
end


-- The stream has named its session. Returns true when it may not go on.
local function bind(self, opening, request, url)
    local router = self.router
    local id, path = self.ids:of_endpoint(url, opening.path, opening.host)
    local backend = note_backend(self, opening, request)
    local wrong = id == false and "there are several"
                  or id and binding.invalid_id(router, id)
    if wrong then
        log.err("the backend ", backend, " has issued a session id that is ",
                "not usable: ", wrong)
        return true
    elseif not id then
        log.warn_limited("endpoint", "the endpoint event of ", backend,
                         path and " has no session id where sse_id says"
                         or " leads to another host")
        return false
    end
    store_session(self, opening, id, path)
    if opening.cut then
        return true
    end
    router:note("created")
    router.requests.streams[request] = id
    router.streams:add(id)
end


-- Is this an event stream that we can read?
local function parser_of()
    if ngx.status == 200 and is_stream() and not ngx.header.content_encoding
    then
        return sse.new()
    end
end


---
-- Looks at a part of a response (body filter phase).
-- @return ngx.ERROR when the response has to be cut here, else nil
function _M.body(self)
    local request = key_of()
    local opening = self.open[request]
    if not opening then
        return
    elseif opening.cut then
        return ngx.ERROR
    elseif opening.decided then
        return
    end
    opening.parser = opening.parser or parser_of()
    local url, over = nil, true
    if opening.parser then
        url, over = opening.parser:feed(ngx.arg[1])
    end
    if url or over or ngx.arg[2] then
        opening.decided, opening.parser = true, nil
    end
    if url and bind(self, opening, request, url) then
        return ngx.ERROR
    end
end


---
-- A request has ended (log phase).
function _M.finish(self, request)
    local opening = self.open[request]
    if not opening then
        return
    end
    self.open[request] = nil
    self.count = self.count - 1
    opening.ended = true
    if opening.session and not opening.cut then
        self.unsaved[opening] = nil
        end_session(self, opening)
    elseif ngx.var.mooring_result == "unpinned" then
        self.router.counters:add("unpinned")
    end
end


return _M
