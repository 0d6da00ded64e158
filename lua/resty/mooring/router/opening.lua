-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- `initialize`: a backend opens a session, and the client must not learn its id
-- before every replica can find the backend.
--
--     store there? --> policy --> backend --> head of the answer
--                                                |
--     client <-- body, as it comes <-- client <-- create(id -> backend)
--                                      head
--
-- Until the first byte of the answer nothing has been promised to anybody, so
-- what goes wrong before is an error for this client and no more.

local binding = require "resty.mooring.router.binding"
local choice = require "resty.mooring.router.choice"
local errors = require "resty.mooring.errors"
local hop = require "resty.mooring.router.hop"
local http1 = require "resty.mooring.router.http1"
local log = require "resty.mooring.log"
local scripts = require "resty.mooring.router.scripts"
local store = require "resty.mooring.router.store"

local next = next
local ngx = ngx

local _M = {}


-- The first backend that answers, and what a session it opens is bound to: the
-- backend as it was before it was asked, so that a drop meanwhile is a drop of
-- this session, too. One that cannot be connected to has seen nothing of the
-- request, so the next one may have it.
local function ask_backends(router, request)
    local tried = {}
    local req = scripts.request(router, request.body)
    while true do
        local peer = choice.pick(router, req, next(tried) and tried)
        if not peer then
            return nil, next(tried) and "unreachable" or "no_backend"
        end
        ngx.var.mooring_backend = peer.url
        local answer, err, outcome = router.hop:open(request, peer.url)
        if answer then
            router.set.health:succeeded(peer.url)
            return answer, peer.url, peer.reference
        end
        if outcome ~= "hop" then
            router.set.health:failed(peer.url)
        end
        log.warn_limited("open " .. peer.url, "no session at ", peer.url, ": ",
                         err)
        if outcome ~= "connect" then
            return nil, outcome == "timeout" and "timeout" or "failed"
        end
        tried[peer.url] = true
    end
end


local function end_orphan(premature, router, request, url)
    if premature then
        return
    end
    local answer = router.hop:open(request, url)
    if answer then
        hop.drop(answer)
    end
end


-- Tells a backend, with the credentials of the client, that nobody will use the
-- session it has just opened. If that fails the backend's own limits remain.
local function abandon(router, request, id, url)
    router.counters:add("orphans")
    request.method, request.body = "DELETE", ""
    request.extra["Mcp-Session-Id"] = id
    ngx.timer.at(0, end_orphan, router, request, url)
end


local function could_not_bind(router, request, id, url, err, code)
    if code == errors.ALREADY_EXISTS then
        -- The id is somebody else's: a DELETE could end that session.
        log.err("the backend ", url, " has issued the session id ", log.id(id),
                ", which is bound already")
        return router:refuse("failed")
    end
    log.warn_limited("bind", "could not bind the session ", log.id(id), " to ",
                     url, ": ", err)
    abandon(router, request, id, url)
    return router:refuse("unavailable")
end


-- The id the backend has issued: nil for none, false for one without use.
local function issued_id(router, answer, url)
    local id = http1.single(answer.headers, "mcp-session-id")
    if id == nil or answer.status >= 300 then
        return nil
    end
    local wrong = id == false and "there are several"
                  or binding.invalid_id(router, id)
    if wrong then
        log.err("the backend ", url, " has issued a session id that is not ",
                "usable: ", wrong)
        return false
    end
    return id
end


local function pass_unpinned(router, answer)
    if answer.headers["mcp-session-id"] then
        answer.headers["mcp-session-id"] = nil
        router.counters:add("foreign_ids")
    end
    router:note("unpinned")
    return hop.pass(answer)
end


---
-- Carries an `initialize` request and ends the request.
-- @param router
-- @param body of the request
function _M.run(router, body)
    local ok, err = store.ready(router.storage)
    if not ok then
        log.warn_limited("ready", "no session can be opened: ", err)
        return router:refuse("unavailable")
    end

    local request = hop.request(body)
    local answer, url, reference = ask_backends(router, request)
    if not answer then
        return router:refuse(url)
    end

    local id = issued_id(router, answer, url)
    if id == nil then
        return pass_unpinned(router, answer)
    elseif id == false then
        hop.drop(answer)
        return router:refuse("failed")
    end

    local code
    ok, err, code = binding.create(router, id, reference, ngx.var.uri, body)
    if not ok then
        hop.drop(answer)
        return could_not_bind(router, request, id, url, err, code)
    end
    router:note("created")
    return hop.pass(answer)
end


return _M
