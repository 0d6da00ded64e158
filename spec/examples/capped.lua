-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Least sessions with a cap: a backend takes new sessions until it has CAP for
-- each unit of its weight. When all are full new sessions are refused with 503
-- and Retry-After, which is better than a backend that runs out of memory with
-- everybody's sessions in it.
--
-- What counts are the sessions this nginx knows: divide by the number of
-- replicas if each sees its own clients.

local CAP = 500

local least_sessions = require("resty.mooring.policy.least_sessions").new()


return {
    start = least_sessions.start,
    route = function(req, backends)
        if req.rpc_method ~= "initialize" then
            return nil -- it opens no session
        end
        local with_room = {}
        for _, backend in ipairs(backends) do
            if backend.sessions < CAP * backend.weight then
                with_room[#with_room + 1] = backend
            end
        end
        return #with_room > 0 and least_sessions.route(req, with_room)
    end,
}
