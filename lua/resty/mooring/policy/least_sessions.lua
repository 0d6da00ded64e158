-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Least sessions: the backend with the fewest sessions for its weight. Of
-- several such ones each is taken in turn.
--
-- A backend that has just come gets the new sessions until it has caught up.
-- The counts are those of sessions this nginx knows, the same in all its
-- workers; sessions that are being opened do not count yet.

local _M = {}


---
-- @return a policy
function _M.new()
    local last = 0 -- where the backend that was taken last is in the list

    return {
        name = "least_sessions",
        -- Workers that begin at the same time begin at different backends.
        start = function(_, worker)
            last = worker
        end,
        route = function(_, backends)
            local n, best, fewest = #backends, nil, nil
            for i = last, last + n - 1 do
                local at = i % n + 1
                local load = backends[at].sessions / backends[at].weight
                if not best or load < fewest then
                    best, fewest = at, load
                end
            end
            last = best
            return backends[best]
        end,
    }
end


return _M
