-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Methods of a router for operators: what they say is kept where the sessions
-- are and reaches every replica, so one is enough to talk to.

local log = require "resty.mooring.log"

local error = error
local type = type

local _M = {}


---
-- Changes a backend on all replicas, and says so in the log.
-- @param url string
-- @param what "up", "draining", "down" or "drop"
-- @return the URL as it is known; or nil, message, code as drain
function _M.change(self, url, what)
    local changed, err, code = self.set:change(url, what)
    if changed then
        log.warn("the backend ", changed, " is changed by an operator: ", what)
    end
    return changed, err, code
end


local function change(self, url, what)
    if type(url) ~= "string" then
        error("url must be a string", 3)
    end
    local changed, err, code = self:change(url, what)
    if not changed then
        return nil, err, code
    end
    return true
end


---
-- Gives a backend no new sessions, on all replicas; those it has go on. Like
-- the three below, for phases that can wait for the store.
-- @param url of a backend that is or was configured; no other is touched
-- @return true; or nil, message, code: invalid, not_found (there is no such
--         backend), unavailable (nothing was changed), timeout (the store has
--         not said whether it was)
function _M.drain(self, url)
    return change(self, url, "draining")
end


---
-- Takes back drain and set_down: the state is that of the configuration.
-- @return as drain
function _M.undrain(self, url)
    return change(self, url, "up")
end


---
-- As drain, for a backend that is known to be out of order.
-- @return as drain
function _M.set_down(self, url)
    return change(self, url, "down")
end


---
-- Voids all bindings of a backend at once: whoever has a session there is
-- answered as one with an unknown id. It goes on taking new sessions.
-- @return as drain
function _M.drop(self, url)
    return change(self, url, "drop")
end


return _M
