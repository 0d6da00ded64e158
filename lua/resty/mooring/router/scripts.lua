-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Where the functions of policies meet the requests of a router. What a policy
-- does not have is not in the way: the router then keeps its own functions and
-- makes no request object.
--
--     key    ahead of the protocol: for MCP the id goes into the request's
--            header, where everything else finds it
--     admit  inside the look-up: a session that is refused is not found, so
--            nothing behind can tell the difference
--
-- The access phase looks a session up at most once for each request that it
-- answers; while a script waits, the request may be killed, and has then left
-- nothing behind but counts.

local errors = require "resty.mooring.errors"
local replay = require "resty.mooring.router.replay"
local request = require "resty.mooring.request"

local ngx = ngx

local _M = {}

-- A look-up that ends with this message and NOT_FOUND found a session that the
-- request may not have.
local NOT_ADMITTED = "session not admitted"
_M.NOT_ADMITTED = NOT_ADMITTED


local function new_request(router, body)
    local read_id = router.read_id
    local id = read_id and read_id(ngx.var)
    return request.current(id ~= "" and id or nil, body)
end


---
-- The request object of the current request; one for its access phase.
-- @param body what the router has read of it, or nil
function _M.request(router, body)
    local has = router.engine.has
    if not (has.key or has.admit or has.on_bind or has.on_unreachable) then
        return new_request(router, body) -- for route; ngx.ctx costs more
    end
    local ctx = ngx.ctx
    local req = ctx.mooring_req
    if not req then
        req = new_request(router)
        ctx.mooring_req = req
    end
    req.body = req.body or body
    return req
end


---
-- May the current request use this session?
function _M.admits(router, session)
    local engine = router.engine
    if not engine.has.admit
       or engine:admit(session, _M.request(router))
    then
        return true
    end
    router.counters:add("refused")
    return false
end


---
-- What a look-up answers that has found a session the request may not have:
-- what it would have answered had there been none.
-- @param mark third result of the look-up: "stale" while the store is away, and
--        could not have said so
-- @return nil, message, code
function _M.refusal(mark)
    return nil, NOT_ADMITTED, mark == "stale" and errors.UNAVAILABLE
                              or errors.NOT_FOUND
end


---
-- The hook of the router's storage; nil when no policy wants one.
function _M.on_evict(router)
    local engine = router.engine
    if engine.has.on_evict then
        return function(session, reason)
            engine:on_evict(session, reason)
        end
    end
end


---
-- Wraps a look-up, resolve(storage, id): only sessions that are admitted.
function _M.admitting(router, resolve)
    if not router.engine.has.admit then
        return resolve
    end
    return function(storage, id)
        local s, err, code = storage:load(id)
        if not s then
            return nil, err, code
        end
        local url = s.metadata and s.metadata.backend_url
        if not _M.admits(router, s) then
            return _M.refusal(code)
        elseif not url then
            return nil, "the session has no backend_url", errors.INVALID
        end
        return url, nil, code
    end
end


-- The id for this request, as the policy finds it or as the client has sent it.
local function find_id(router)
    local req = _M.request(router)
    local sent = req.session_id
    local id = router.engine:key(req) or sent
    req.session_id = id -- whatever the script has made of it
    return id
end


local function access_mcp(router, var)
    local id = find_id(router)
    if id and id ~= var.http_mcp_session_id then
        ngx.req.set_header("Mcp-Session-Id", id)
    end
    return router.protocol.access(router, var)
end


local function access_keyed(router, var)
    local read_id = router.read_id
    local sent = read_id and read_id(var, true)
    local id = find_id(router)
    if not id and sent == false then
        id = false
    end
    return router.protocol.serve(router, var, id)
end


---
-- The access phase of a router whose policy finds ids.
-- @return function(router, var); nil when the policy does not
function _M.access(router)
    if router.engine.has.key then
        return router.mcp and access_mcp or access_keyed
    end
end


---
-- The request object for on_unreachable when it is asked after the end of the
-- request; nil when there is no such function.
function _M.frozen_request(router)
    if router.engine.has.on_unreachable then
        return request.freeze(_M.request(router))
    end
end


---
-- What becomes of a session whose backend is unreachable?
-- @param req nil: that of the current request
-- @return "forget", "keep" or "reinitialize"
function _M.verdict(router, session, req)
    local engine = router.engine
    if not engine.has.on_unreachable then
        return "forget"
    end
    req = req or _M.request(router)
    -- An error_page starts with another ngx.ctx, without what `key` has found.
    req.session_id = req.session_id or session.id
    local verdict = engine:on_unreachable(session, req)
    if verdict == "reinitialize" and not replay.body_of(session) then
        return "forget"
    end
    return verdict
end


---
-- Is a session to be forgotten for which a client has got a 404? One that can
-- be reinitialized before the next client sees a 404 is not.
-- @param req nil: that of the current request
function _M.forgets(router, session, req)
    local verdict = _M.verdict(router, session, req)
    return verdict == "forget"
           or verdict == "reinitialize" and not router.engine.watches_answers
end


return _M
