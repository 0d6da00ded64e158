-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Policies: where do new sessions go? A policy is an object with the method
--
--     policy:route(req, backends) -> one of backends
--
-- Membership matters here and only here. A session that is bound stays with
-- its backend, listed or not.

local ipairs = ipairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local BUILT_IN = {
    round_robin = "resty.mooring.policy.round_robin",
}


---
-- The check of the option `policy`, for resty.mooring.options.
function _M.check(name)
    return BUILT_IN[name] ~= nil, 'must be "round_robin"'
end


---
-- @param name of a built-in policy
-- @param backends array of peers, see resty.mooring.router.backends
function _M.new(name, backends)
    local active = {}
    for _, backend in ipairs(backends) do
        if backend.state == "active" then
            active[#active + 1] = backend
        end
    end
    return setmetatable({
        policy = require(BUILT_IN[name]).new(),
        active = active,
    }, mt)
end


---
-- Makes several workers begin at different backends.
-- @param worker number from 0
function _M.stagger(self, worker)
    local n = #self.active
    if n > 0 and self.policy.skip then
        self.policy:skip(worker % n, self.active)
    end
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
-- The backend of a new session, or of a request that belongs to none.
-- @param tried optional set of URLs that were refused just now
-- @return peer, or nil when there is none (left)
function _M.pick(self, tried)
    local candidates = tried and without(self.active, tried) or self.active
    if #candidates == 0 then
        return nil
    end
    return self.policy:route(nil, candidates)
end


return _M
