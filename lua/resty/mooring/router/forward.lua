-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sends requests on to peers: what happens between the decision of the access
-- phase and the connection, and when that comes to nothing.

local balancer = require "ngx.balancer"
local choice = require "resty.mooring.router.choice"
local hop = require "resty.mooring.router.hop"
local log = require "resty.mooring.log"
local requests = require "resty.mooring.router.requests"
local scripts = require "resty.mooring.router.scripts"

local find = string.find
local get_last_failure = balancer.get_last_failure
local http_version = ngx.req.http_version
local key_of = requests.key
local ngx = ngx
local set_header = ngx.req.set_header
local set_current_peer = balancer.set_current_peer
local set_more_tries = balancer.set_more_tries

local _M = {}

local REPEATABLE = { GET = true, DELETE = true }
local BUSY = -3 -- NGX_BUSY: no live upstreams, a 502


-- For peers that are not simply an address for the upstream "mooring".
local function describe(router, var, peer)
    var.mooring_backend = peer.url
    if peer.session_id then
        set_header("Mcp-Session-Id", peer.session_id)
    end
    if peer.tls then
        if var.mooring_tls ~= "on" then
            log.warn_limited("tls", "no request goes to ", peer.url, ": its ",
                             "certificate would not be verified; include ",
                             "tls.conf in the location")
            return router:refuse("failed")
        end
        var.mooring_tls_name = peer.tls_name
    end
    if peer.upstream then
        var.mooring_upstream = peer.upstream
    end
end


---
-- Goes on with a request to a peer (access phase).
-- @param peer that the request was counted for: set:enter(peer)
-- @param id of the session, nil for none
function _M.send(router, var, peer, id)
    local under_way = router.requests
    local request = key_of()
    local peers = under_way.peers
    if peers[request] then
        -- The end of another request, or of an earlier pass of this one, was
        -- not told: an error_page without our log handler.
        router.set:leave(peers[request])
        var.mooring_backend = peer.url -- $upstream_addr may have two
    end
    peers[request] = peer
    under_way.ids[request] = id
    if peer.special then
        return describe(router, var, peer)
    end
end


---
-- Goes on with a request that this nginx has sent to itself (rewrite phase of
-- the internal server), and refuses all others.
function _M.send_inner(router)
    local var = ngx.var
    local url, client = router.hop:requested_backend()
    local peer = url and router.peers:named(url)
    if not peer then
        log.warn_limited("internal", "a request to the internal server was ",
                         "refused: it is not from this nginx")
        return hop.report(403, "refused")
    end
    var.mooring_result = "internal"
    -- What the outer server has found out of the client.
    var.mooring_remote_addr = client
    var.mooring_forwarded_for = var.http_x_forwarded_for
    var.mooring_forwarded_proto = var.http_x_forwarded_proto
    router.requests.inner[key_of()] = true
    router.set:enter(peer)
    return _M.send(router, var, peer)
end


-- Was the connection of the attempt before this one never made? nginx lists
-- this one already, which has no peer yet: "0.004, - : ".
local function had_no_connection(var)
    local times = var.upstream_connect_time
    return times and find(times, "%- : $") ~= nil
end


---
-- A request to a backend that has failed lately has ended (log phase): if there
-- was an answer, the backend is healthy again.
function _M.note_health(router, peer)
    local times = ngx.var.upstream_header_time
    if times and find(times, "%d%s*$") then
        router.set.health:succeeded(peer.url)
    end
end


-- A request that may go to any backend: one that it was not sent to yet.
local function next_peer(router, last)
    local ctx = ngx.ctx
    local tried = ctx.mooring_tried or {}
    ctx.mooring_tried = tried
    tried[last.url] = true
    if had_no_connection(ngx.var) then
        router.set.health:failed(last.url)
    end
    while true do
        local peer = choice.pick(router, scripts.request(router), tried)
        -- Of the upstreams "mooring" and "mooring_tls" this one is fixed.
        if not peer or peer.upstream == last.upstream then
            return peer
        end
        tried[peer.url] = true
    end
end


-- The peer of one more attempt, or nil. nginx does not count attempts on idle
-- connections and would go on for as long as it has some.
local function second_peer(router, var, last)
    if var.mooring_result == "unpinned" then
        return next_peer(router, last)
    elseif var.mooring_attempts == "" and REPEATABLE[var.request_method] then
        var.mooring_attempts = "2"
        return last
    end
end


local function try_again(router, request)
    local var = ngx.var
    local peers = router.requests.peers
    local last = peers[request]
    local peer = second_peer(router, var, last)
    -- $upstream_addr lists all attempts from now on.
    var.mooring_backend = (peer or last).url
    if not peer then
        var.mooring_attempts = "over"
        return ngx.exit(BUSY)
    end
    if peer ~= last then
        router.set:leave(last)
        router.set:enter(peer)
        peers[request] = peer
    end
    return set_current_peer(peer.address, peer.port)
end


---
-- What to end a request with whose backend has given no final answer, or one
-- that has no head (header filter phase); nil when all is well.
--
-- nginx (before 1.29) takes a 1xx for the answer and what comes behind it for
-- its body, and what is not HTTP at all for a body of HTTP/0.9. Neither has an
-- end that the client could tell: a backend could write the answers to other
-- requests on the client's connection, which may be that of a proxy in front.
function _M.wrong_answer()
    if http_version() < 1 then
        return ngx.ERROR -- an answer of ours would have no head either
    end
    local status = ngx.status
    if status < 200 and not (status == 101 and ngx.var.http_upgrade) then
        return ngx.HTTP_BAD_GATEWAY
    end
end


-- It is the configuration that is wrong: no session is lost for that, and no
-- backend blamed.
local function refuse_upstream(peer)
    ngx.var.mooring_result = "failed"
    if peer then
        log.warn_limited("upstream", "no request goes to ", peer.url,
                         " from a location with location_plain.conf: that ",
                         "backend needs location.conf")
    else
        log.warn_limited("upstream", "a request came to the upstream ",
                         "\"mooring\" that does not belong there: proxy_pass ",
                         "to it goes with the rest of location.conf only")
    end
    return ngx.exit(BUSY)
end


---
-- Tells nginx the address of the peer (balancer phase).
--
-- A second attempt is for GET and DELETE, which may be repeated, on the same
-- peer: its idle connections may close under a request. A request of no session
-- may try all backends; nginx repeats a POST only if nothing of it was sent.
-- @param tls does the connection begin with a handshake?
function _M.balance(router, tls)
    local request = key_of()
    if get_last_failure() then
        return try_again(router, request)
    end
    set_more_tries(router.set.more_tries)
    local peer = router.requests.peers[request]
    if not peer or not peer.address or peer.tls ~= tls then
        return refuse_upstream(peer)
    end
    return set_current_peer(peer.address, peer.port)
end


return _M
