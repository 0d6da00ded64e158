-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which backend takes a new session, or a request that belongs to none?
-- Membership matters here and only here: a session that is bound stays with its
-- backend, listed or not.

local ipairs = ipairs

local _M = {}


---
-- The backends that may take new sessions.
-- @param configured array of peers
function _M.active(configured)
    local active = {}
    for _, peer in ipairs(configured) do
        if peer.state == "active" then
            active[#active + 1] = peer
        end
    end
    return active
end


local function without(backends, tried)
    local left = {}
    for _, backend in ipairs(backends) do
        if not tried[backend.url] then
            left[#left + 1] = backend
        end
    end
    return left
end


---
-- Asks the policy.
-- @param router
-- @param req the request, see resty.mooring.request
-- @param tried optional set of URLs that were refused just now
-- @return peer, or nil when there is none (left)
function _M.pick(router, req, tried)
    local candidates = router.candidates
    return router.engine:route(req, tried and without(candidates, tried)
                                    or candidates)
end


return _M
