-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Smooth weighted round robin, as in nginx (ngx_http_upstream_round_robin.c,
-- Maxim Dounin, commit 52327e0627f4): in each step every backend's current
-- weight grows by its weight, the one with the most is taken and pays the sum
-- of all weights. For weights 5, 1, 1 that is a a b a c a a and not a a a a a
-- b c: a heavy backend is never flooded with a burst.
--
-- The state is one worker's. Were all workers to begin with the first backend,
-- many workers with few sessions each would fill it alone: each worker is told
-- to skip some steps.

local ipairs = ipairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


---
-- @return a policy
function _M.new()
    return setmetatable({ current = {} }, mt)
end


---
-- Picks the backend of a new session.
-- @param _ the request: not looked at
-- @param backends array of { url =, weight = }, not empty; may be another one
--        in each call
-- @return one of backends
function _M.route(self, _, backends)
    local current = self.current
    local total, best, most = 0, nil, nil
    for _, backend in ipairs(backends) do
        local url, weight = backend.url, backend.weight
        local value = (current[url] or 0) + weight
        current[url] = value
        total = total + weight
        -- The first of several equals, as in nginx.
        if not best or value > most then
            best, most = backend, value
        end
    end
    current[best.url] = most - total
    return best
end


---
-- Goes n steps ahead.
function _M.skip(self, n, backends)
    for _ = 1, n do
        self:route(nil, backends)
    end
end


return _M
