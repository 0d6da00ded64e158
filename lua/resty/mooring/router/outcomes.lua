-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What may become of a request: it is noted, answered by the router itself,
-- sent to the backend that its session has, or to one that takes the session
-- over.
--
--     unresolved     no such id, an invalid one, or no storage to ask
--     peer_of        bound to a known peer, to a dropped one ("unknown" then),
--                    or to what may not be dialled (not_allowed)
--     gone           the backend does not answer: the session is forgotten
--     reinitialize   another backend takes it over; resend goes there
--
-- Another replica may end the session or bind it anew at any time: only the
-- very binding that was seen is taken back (router/unreachable.lua) or over
-- (router/reinitialize.lua).
--
-- These are methods of resty.mooring.router.

local answer = require "resty.mooring.router.answer"
local binding = require "resty.mooring.router.binding"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local references = require "resty.mooring.router.reference"
local reinitialize = require "resty.mooring.router.reinitialize"
local requests = require "resty.mooring.router.requests"
local unreachable = require "resty.mooring.router.unreachable"

local key_of = requests.key
local ngx = ngx

local _M = {}


---
-- Notes what became of the request.
-- @param result one of the outcomes in resty.mooring.router.counters
function _M.note(self, result)
    ngx.var.mooring_result = result
    self.counters:add(result)
end


---
-- Answers the request with an error and ends it.
-- @param kind see resty.mooring.router.answer
function _M.refuse(self, kind)
    return answer.send(self, kind)
end


---
-- Ends a request whose id could not be resolved.
-- @param err, code as the storage returned them
function _M.unresolved(self, id, err, code)
    if code == errors.NOT_FOUND then
        return self:refuse("not_found")
    elseif code == errors.INVALID and binding.invalid_id(self, id) then
        return self:refuse("invalid")
    end
    log.warn_limited("resolve", "could not look up the session ", log.id(id),
                     ": ", err or "its record has no backend_url")
    return self:refuse("unavailable")
end


---
-- Ends a request whose session is bound to what may not be dialled. The binding
-- stays: it may be this configuration that is wrong.
function _M.not_allowed(self, id, reference)
    local url = references.strip(reference)
    log.warn_limited("allow", "the session ", log.id(id), " is bound to ",
                     #url <= 256 and ngx.escape_uri(url, 0) or "a long URL",
                     ", which is neither a backend nor allowed")
    return self:refuse("not_allowed")
end


---
-- The peer a session is bound to. May wait for the store. Ends the request when
-- that may not be dialled.
-- @return peer; nil when the backend was dropped since the session was bound:
--         then the session is to be taken for unknown, and its binding goes
function _M.peer_of(self, id, reference)
    self.set:sync()
    local peer, why = self.peers:find(reference)
    if peer then
        return peer
    elseif why == "dropped" then
        self.disowned:add(id, reference)
        return nil
    end
    return self:not_allowed(id, reference)
end


---
-- The session the current request was sent on for, nil for none. For phases
-- behind the access phase.
function _M.session_id(self)
    return self.requests.ids[key_of()]
end


---
-- The backend of a session cannot be connected to. Ends the request.
-- @param peer as the session is bound to it
function _M.gone(self, id, peer)
    return unreachable.forget(self, id, peer)
end


---
-- Lets another backend take a session over, and sends the request there.
-- @param s the session as load has returned it
-- @param gone URL of the backend it had
function _M.reinitialize(self, id, s, gone)
    return reinitialize.run(self, id, s, gone)
end


---
-- Sends the request to where its session is by now.
function _M.resend(self)
    return reinitialize.resend(self)
end


---
-- Was the request sent to the backend of its session?
function _M.is_bound(_, var)
    local result = var.mooring_result
    return result == "bound" or result == "stale"
end


return _M
