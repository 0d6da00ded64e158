-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- nginx could not get an answer from a backend (error_page 502 504 of
-- location.conf). Only a connect() that failed means that the backend is gone
-- and the session with it; a connection that was reset or an answer that did
-- not come in time says nothing about the session, and its binding stays.
--
-- nginx tells the two apart by $upstream_connect_time, which is "-" for an
-- attempt whose connection was never made. The last attempt counts. But a
-- connect() can also fail for reasons of this host (no local port left, a
-- network that is down), which would cost sessions that are alive: before a
-- binding goes, the backend is connected to once more, and only what says that
-- nobody is there counts.

local binding = require "resty.mooring.router.binding"
local hop = require "resty.mooring.router.hop"
local log = require "resty.mooring.log"
local scripts = require "resty.mooring.router.scripts"

local find = string.find
local match = string.match
local ngx = ngx

local _M = {}

local PROBE_TIMEOUT = 1000 -- ms

-- Errors of connect() that are about the other side.
local NOBODY_THERE = {
    ["connection refused"] = true,
    ["host is down"] = true,
    ["no route to host"] = true,
    ["timeout"] = true,
}


-- What nginx' resolver says to NXDOMAIN.
local HOST_NOT_FOUND = "(3: Host not found)"


-- The last of the values nginx lists for several attempts.
local function last(values)
    return match(values, "([^%s,:]+)%s*$")
end


---
-- "connect", "timeout" (connected, but no answer in time) or "broken".
-- @param statuses $upstream_status
-- @param connect_times $upstream_connect_time, nil when it did not even come to
--        that: the name of the backend could not be resolved
function _M.outcome(statuses, connect_times)
    if not connect_times or last(connect_times) == "-" then
        return "connect"
    end
    return last(statuses) == "504" and "timeout" or "broken"
end


---
-- Is nobody there? Tries to connect.
-- @param peer see resty.mooring.router.backends
function _M.is_gone(peer)
    local sock = ngx.socket.tcp()
    sock:settimeout(PROBE_TIMEOUT)
    local ok, err = sock:connect(peer.host, peer.port)
    if ok then
        sock:close()
        return false
    end
    return NOBODY_THERE[err] or find(err, HOST_NOT_FOUND, 1, true) ~= nil
end


---
-- Forgets a binding whose backend cannot be connected to, and ends the request
-- as one for an unknown session; unless a policy will have it otherwise.
-- @param peer as the session is bound to it
function _M.forget(router, id, peer)
    local url = peer.url
    if not _M.is_gone(peer) then
        log.warn_limited("back " .. url, "could not connect to the backend ",
                         url, ", but somebody is there: its sessions stay")
        return router:refuse("unreachable")
    end
    router.set.health:failed(url)
    local seen, verdict = nil, nil
    local forgotten, err = binding.forget(router, id, peer.reference,
                                          function(s)
        seen, verdict = s, scripts.verdict(router, s)
        if verdict == "reinitialize" and ngx.req.get_method() == "DELETE" then
            verdict = "forget" -- it ends anyway
        end
        return verdict == "forget"
    end)
    if verdict == "reinitialize" then
        return router:reinitialize(id, seen, url)
    elseif forgotten == false and not seen
           and router.engine.has.on_unreachable
    then
        return router:resend() -- somebody has reinitialized it
    elseif forgotten == nil then
        log.warn_limited("forget", "could not forget the session ", log.id(id),
                         " whose backend ", url, " is unreachable: ", err)
        return router:refuse("unavailable")
    end
    if not forgotten then
        -- Bound to another backend by now, or the policy keeps it: the next
        -- request will find it.
        return router:refuse("moved")
    end
    log.warn_limited("gone " .. url, "the backend ", url, " is unreachable, ",
                     "its session ", log.id(id), " is forgotten")
    if router.unknown == "bind" then
        return router:refuse("moved")
    end
    return router:refuse("forgotten")
end


-- nginx lists an attempt also where the balancer has refused to make one.
local function attempts(values, over)
    if over then
        return match(values, "^(.*), ")
    end
    return values
end


---
-- The content handler of @mooring_unreachable.
function _M.run(router)
    local var = ngx.var
    local over = var.mooring_attempts == "over"
    local result = var.mooring_result
    -- The balancer says "failed" of what must not be tried at all.
    local outcome = result == "failed" and "broken"
                    or _M.outcome(attempts(var.upstream_status, over),
                                  attempts(var.upstream_connect_time, over))
    if var.mooring_role == "internal" then
        return hop.report(outcome == "timeout" and 504 or 502, outcome)
    end
    if outcome == "connect" and (result == "bound" or result == "stale") then
        return _M.forget(router, router:session_id(),
                         router.requests:peer())
    elseif outcome == "connect" then
        local peer = router.requests:peer() -- none: the 502 is not a backend's
        if peer and not over then -- else the balancer has counted it
            router.set.health:failed(peer.url)
        end
        return router:refuse("unreachable")
    end
    return router:refuse(outcome == "timeout" and "timeout" or "failed")
end


return _M
