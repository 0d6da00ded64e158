-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- DELETE: the client ends its session. When it reads the answer no replica may
-- serve the session any more, so the binding goes before the answer does.

local answers = require "resty.mooring.router.answer"
local binding = require "resty.mooring.router.binding"
local hop = require "resty.mooring.router.hop"
local log = require "resty.mooring.log"
local record = require "resty.mooring.record"
local scripts = require "resty.mooring.router.scripts"
local unreachable = require "resty.mooring.router.unreachable"

local ngx = ngx

local _M = {}


local function has_ended(status)
    return status >= 200 and status < 300 or status == 404
end


local function carry(router, id, peer)
    local url = peer.url
    local body = answers.body()
    if not body then
        return ngx.exit(ngx.HTTP_REQUEST_ENTITY_TOO_LARGE)
    end
    ngx.var.mooring_backend = url
    local answer, err, outcome = router.hop:open(
        hop.request(body, peer.session_id or id), url)
    if answer then
        return answer
    end
    log.warn_limited("end " .. url, "could not end the session ", log.id(id),
                     " at ", url, ": ", err)
    if outcome == "connect" then
        return unreachable.forget(router, id, peer)
    end
    return router:refuse(outcome == "timeout" and "timeout" or "failed")
end


local function nothing()
end


-- The session has ended, whether its client waits to hear so or not: a request
-- killed now would leave the binding, and nobody would hear of its end.
local function unbind(router, id)
    ngx.on_abort(nothing)
    return router.storage:delete(id)
end


---
-- Carries a DELETE to the backend of a session and ends the request.
-- @param router
-- @param id as the client gave it
function _M.run(router, id)
    local s, err, code = router.storage:load(id)
    local reference = s and s.metadata.backend_url
    if s and not scripts.admits(router, record.copy(s)) then
        s, err, code = scripts.refusal(code)
    end
    if not s or not reference then
        return router:unresolved(id, err, code)
    end
    local peer = router:peer_of(id, reference)
    if not peer then
        return router:refuse("not_found")
    elseif not binding.is_endpoint(s, ngx.var.uri) then
        return router:proxy(ngx.var, id, reference, code)
    end

    local answer = carry(router, id, peer)
    if has_ended(answer.status) then
        local ok
        ok, err = unbind(router, id)
        if not ok then
            hop.drop(answer)
            log.warn_limited("unbind", "could not remove the ended session ",
                             log.id(id), ": ", err)
            return router:refuse("unavailable")
        end
        router:note("deleted")
    else
        router:note("bound")
    end
    hop.own_id(router, answer, id, peer.session_id)
    return hop.pass(answer)
end


return _M
