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
-- many workers with few sessions each would fill it alone: the first pick of
-- worker n comes after n steps.

local ipairs = ipairs

local _M = {}


local function step(current, backends)
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


-- A new table without the backends that are gone. Where they come and go under
-- ever new addresses they would else pile up.
local function only_listed(current, backends)
    local kept = {}
    for _, backend in ipairs(backends) do
        kept[backend.url] = current[backend.url]
    end
    return kept
end


local function has_new(current, backends)
    for _, backend in ipairs(backends) do
        if not current[backend.url] then
            return true
        end
    end
    return false
end


---
-- @return a policy
function _M.new()
    local current, ahead = {}, 0
    return {
        name = "round_robin",

        start = function(_, worker)
            ahead = worker
        end,

        -- backends is not empty, and may be another array in each call.
        route = function(_, backends)
            if has_new(current, backends) then
                current = only_listed(current, backends)
            end
            for _ = 1, ahead % #backends do
                step(current, backends)
            end
            ahead = 0
            return step(current, backends)
        end,
    }
end


return _M
