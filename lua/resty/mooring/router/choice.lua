-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which backend takes a new session, or a request that belongs to none?
-- Membership matters here and only here: a session that is bound stays with its
-- backend, listed or not.

local get_phase = ngx.get_phase
local ipairs = ipairs

local _M = {}

local CAN_WAIT = { rewrite = true, access = true, content = true, timer = true }


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
-- Asks the policy. Waits for the store where it is not known, and can be known,
-- what operators have said last.
-- @param router
-- @param req the request, see resty.mooring.request
-- @param tried optional set of URLs that were refused just now
-- @return peer, with the reference to bind to; or nil when there is none (left)
function _M.pick(router, req, tried)
    local set = router.set
    if CAN_WAIT[get_phase()] then
        set:sync()
    end
    while true do
        local candidates = set:candidates()
        local view = router.engine:route(req, tried
                                              and without(candidates, tried)
                                              or candidates)
        if not view or set:admits(view) then
            return view and view.peer
        end
    end
end


return _M
