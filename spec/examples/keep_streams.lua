-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions with an event stream outlive a restart of their backend (which has
-- to find them again, and the events their clients have missed). By default the
-- first request that finds the backend away ends the session. Here one whose
-- client has opened a stream is kept, and the client resumes it with
-- Last-Event-ID once the backend is back; others are forgotten, so that their
-- clients start anew elsewhere at once.
--
-- That a session has a stream is noted in the session, when the first one is
-- opened, so that all replicas know: one write for each such session.

local HAS_STREAM = "has_stream"

return {
    admit = function(session, req)
        if req.method == "GET" and not session:get_metadata(HAS_STREAM) then
            session:set_metadata(HAS_STREAM, "yes")
            -- The global of init_by_lua. If the store is away the next GET
            -- tries again.
            _G.router.storage:update(session)
        end
        return true
    end,
    on_unreachable = function(session)
        return session:get_metadata(HAS_STREAM) and "keep" or "forget"
    end,
}
