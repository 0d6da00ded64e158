-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions with an event stream outlive a restart of their backend (which has
-- to find them again, and the events its clients have missed). By default the
-- first request that finds the backend away ends the session; here a session
-- whose client has opened a stream through this nginx is kept, and the client
-- resumes it with Last-Event-ID when the backend is back. Others are forgotten,
-- so that their clients start anew elsewhere at once.
--
-- In nginx.conf: lua_shared_dict mooring_streams 1m;

local shared = ngx and ngx.shared and ngx.shared.mooring_streams
local plain = {} -- without nginx

local function mark(id, value)
    if shared then
        shared:set(id, value)
    else
        plain[id] = value
    end
end

local function is_marked(id)
    if shared then
        return shared:get(id)
    end
    return plain[id]
end


return {
    admit = function(session, req)
        if req.method == "GET" then
            mark(session.id, true)
        end
        return true
    end,
    on_unreachable = function(session)
        return is_marked(session.id) and "keep" or "forget"
    end,
    on_evict = function(session, reason)
        -- One that had to make room in memory may be used again.
        if reason ~= "capacity" then
            mark(session.id, nil)
        end
    end,
}
