-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Transparent re-initialisation, for policies whose on_unreachable answers
-- "reinitialize" (policy/reinitialize.lua): the backend of a session is gone,
-- another one opens a session in its place, and the client keeps its id.
--
--     connect failed, or 404 for the session
--          |
--     initialize, initialized --> another backend --> its id for the session
--          |                                                |
--     update_if(record that was seen, backend_url "http://b:1#;<its id>")
--          |-- done ----> the request is sent again, from the access phase on
--          '-- not so --> somebody else was faster: that backend session is
--                         ended, the request goes where the record says now
--
-- Of the requests of one worker that notice at once one acts and the others
-- wait for it; of several workers and replicas each may open a session, and one
-- of them wins.
--
-- What can go wrong:
--   * No other backend can be connected to: 503, the binding stays, the next
--     request tries again.
--   * One refuses (an error, no session, another protocol version): the session
--     is forgotten, 404, and the client opens a new one itself.
--   * The store fails between the two: 503; the new backend session is ended.
--   * The client of the request that acts goes away: it acts all the same,
--     others may be waiting for it.
--   * The worker is killed: a backend session may be left over.
--   * The new backend goes, too, before the request gets there: MAX_MOVES.
--
-- A 404 is seen in the header filter, which cannot wait. So with a policy that
-- `watches_answers` the requests of sessions go through the hop, as initialize
-- and DELETE do, and Lua sees the 404 before the client does.

local answers = require "resty.mooring.router.answer"
local binding = require "resty.mooring.router.binding"
local choice = require "resty.mooring.router.choice"
local errors = require "resty.mooring.errors"
local hop = require "resty.mooring.router.hop"
local http1 = require "resty.mooring.router.http1"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local record = require "resty.mooring.record"
local references = require "resty.mooring.router.reference"
local replay = require "resty.mooring.router.replay"
local requests = require "resty.mooring.router.requests"
local scripts = require "resty.mooring.router.scripts"
local semaphore = require "ngx.semaphore"

local clock = mooring_ffi.now
local copy = record.copy
local key_of = requests.key
local ngx = ngx
local pcall = pcall
local tonumber = tonumber
local tostring = tostring

local _M = {}

local CARRIED = { GET = true, POST = true }
local MAX_MOVES = 2 -- of one request
local PATIENCE = 30 -- seconds the others wait for the one that acts


-- ---------------------------------------------------------- the backend --

-- The present request, as far as it goes for the endpoint of the session.
local function request_for(s)
    local var = ngx.var
    local request = hop.request("", nil)
    if s.metadata.endpoint then
        request.target = http1.escape_path(s.metadata.endpoint)
                         .. var.is_args .. (var.args or "")
    end
    return request
end


-- @return peer, id of the session there; or nil and the answer for the client
local function open_elsewhere(router, request, s, tried)
    local req = scripts.request(router)
    local version = ngx.var.http_mcp_protocol_version
    while true do
        local peer = choice.pick(router, req, tried)
        if not peer then
            return nil, "moved"
        end
        local id, err, outcome = replay.open(router, request, peer.url,
                                             replay.body_of(s), version)
        if id then
            router.set.health:succeeded(peer.url)
            return peer, id
        end
        log.warn_limited("replay " .. peer.url, "could not open a session at ",
                         peer.url, " in the place of another: ", err)
        if outcome ~= "connect" then
            return nil, outcome == "refused" and "forgotten" or "moved"
        end
        router.set.health:failed(peer.url)
        tried[peer.url] = true
    end
end


local function close(_, router, request, url, id, version)
    replay.close(router, request, url, id, version)
end


-- Ends a session that was opened in vain. The client does not wait for that.
local function close_later(router, request, url, id)
    router.counters:add("orphans")
    ngx.timer.at(0, close, router, request, url, id,
                 ngx.var.http_mcp_protocol_version)
end


-- ---------------------------------------------------------- the record --

local function moved_to(s, peer, id)
    local moved = copy(s)
    local url, incarnation = references.parse(peer.reference)
    moved:set_metadata("backend_url", references.format(url, incarnation, id))
    moved:touch()
    return moved
end


-- As update_if of the storage, of any storage.
local function update_if(storage, moved, seen)
    if type(storage.update_if) == "function" then
        return storage:update_if(moved, seen)
    end
    local now, err, code = storage:load(seen.id)
    if not now then
        if code == errors.NOT_FOUND then
            return false
        end
        return nil, err, code
    end
    return now.metadata.backend_url == seen.metadata.backend_url
           and storage:store(moved)
end


local function forget(router, id, s)
    local forgotten, err = binding.forget(router, id, s.metadata.backend_url)
    if forgotten == nil then
        log.warn_limited("forget", "could not forget the session ", log.id(id),
                         ": ", err)
        return "unavailable"
    end
    return forgotten and "forgotten" or "moved"
end


-- @return nil: the record says where to go now; or the answer for the client
local function act(router, id, s, tried)
    local request = request_for(s)
    local peer, new_id = open_elsewhere(router, request, s, tried)
    if not peer then
        return new_id == "forgotten" and forget(router, id, s) or new_id
    end
    local ok, err = update_if(router.storage, moved_to(s, peer, new_id), s)
    if not ok then
        close_later(router, request, peer.url, new_id)
    end
    if ok == nil then
        log.warn_limited("bind", "could not bind the session ", log.id(id),
                         " to ", peer.url, ": ", err)
        return "unavailable"
    elseif ok then
        router.counters:add("reinitialized")
        log.warn_limited("replayed " .. peer.url, "the session ", log.id(id),
                         " goes on at ", peer.url)
    end
end


-- ----------------------------------------------------------- one flight --

local function nothing()
end


local function fly(router, id, s, tried)
    -- Else the request is killed when its client goes, and whoever waits for
    -- it waits in vain.
    ngx.on_abort(nothing)
    local flight = { landed = semaphore.new(0), waiting = 0, since = clock() }
    router.moving[id] = flight
    local ok, answer = pcall(act, router, id, s, tried)
    if router.moving[id] == flight then
        router.moving[id] = nil
    end
    if not ok then
        log.err("could not reinitialize a session: ", answer)
        answer = "unavailable"
    end
    flight.done, flight.answer = true, answer
    flight.landed:post(flight.waiting + 1)
    return answer
end


local function join_or_fly(router, id, s, tried)
    local flight = router.moving[id]
    if flight and clock() - flight.since < PATIENCE * 1000 then
        flight.waiting = flight.waiting + 1
        flight.landed:wait(PATIENCE)
        return not flight.done and "moved" or flight.answer
    end
    return fly(router, id, s, tried)
end


-- ---------------------------------------------------------- the request --

---
-- Sends the current request again, to where its session is now. Ends the
-- request, or this part of it.
function _M.resend(router)
    local var = ngx.var
    local moves = (tonumber(var.mooring_moves) or 0) + 1
    if moves > MAX_MOVES then
        return router:refuse("moved")
    end
    var.mooring_moves = tostring(moves)
    var.mooring_result = "bound"
    var.mooring_attempts = ""
    var.mooring_upstream = "http://mooring"
    local id = router:session_id()
    if id then
        ngx.req.set_header("Mcp-Session-Id", id) -- again the client's
    end
    return ngx.exec(var.uri, var.args)
end


---
-- Moves a session whose backend is gone to another one, and sends the current
-- request there. Ends the request.
-- @param router
-- @param id of the session
-- @param s the session as load has returned it
-- @param gone URL of the backend that is not to be asked, or nil
function _M.run(router, id, s, gone)
    local answer = join_or_fly(router, id, s, gone and { [gone] = true } or {})
    if answer then
        return router:refuse(answer)
    end
    return _M.resend(router)
end


-- ------------------------------------------------------ watched answers --

-- The backend does not know the session (any more). Returns when the answer is
-- for the client.
local function on_404(router, id, peer, answer)
    local s = router.storage:load(id)
    if not s or not binding.is_endpoint(s, ngx.var.uri) then
        return
    elseif s.metadata.backend_url ~= peer.reference then
        hop.drop(answer)
        return _M.resend(router) -- somebody has been faster
    end
    local verdict = scripts.verdict(router, s)
    if verdict == "reinitialize" then
        hop.drop(answer)
        return _M.run(router, id, s)
    elseif verdict == "forget" then
        forget(router, id, s)
    end
end


-- What is left of an answer: its id is the client's.
local function pass(router, id, peer, answer, stale)
    hop.own_id(router, answer, id, peer.session_id)
    if stale then
        router:note("stale")
    else
        local counts = router.counters.now
        counts.bound = counts.bound + 1
    end
    if answer.status ~= 404 then
        router.requests.ids[key_of()] = id -- for open streams
    end
    return hop.pass(answer)
end


---
-- Carries a request of a session to its backend, so that a 404 can be dealt
-- with. Ends the request.
-- @param reference what it is bound to
-- @param stale as router:proxy
-- @return "dropped" as router:proxy
function _M.carry(router, var, id, reference, stale)
    local body = CARRIED[var.request_method] and answers.body()
    if not body then
        return router:proxy(var, id, reference, stale) -- too large to hold
    end
    local peer = router:peer_of(id, reference)
    if not peer then
        return "dropped"
    end
    var.mooring_backend = peer.url
    local answer, err, outcome = router.hop:open(
        hop.request(body, peer.session_id or id), peer.url)
    if answer then
        if answer.status == 404 then
            on_404(router, id, peer, answer)
        end
        return pass(router, id, peer, answer, stale)
    end
    log.warn_limited("carry " .. peer.url, "no answer from ", peer.url, ": ",
                     err)
    if outcome == "connect" then
        return router:gone(id, peer)
    end
    return router:refuse(outcome == "timeout" and "timeout" or "failed")
end


return _M
