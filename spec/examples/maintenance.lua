-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Planned maintenance: a backend takes no new session from `drain` on. From
-- `close` on those it still has are not admitted: their clients are told that
-- the session does not exist, and open one elsewhere. From `back` on all is as
-- before. All replicas do so at the same time, and nobody has to be awake.

local WINDOWS = {
    {
        url = "http://10.0.0.2:8080",
        drain = "2026-03-01T02:00:00Z",
        close = "2026-03-01T03:00:00Z",
        back = "2026-03-01T04:00:00Z",
    },
}

local rfc3339 = require "resty.mooring.rfc3339"
local round_robin = require("resty.mooring.policy.round_robin").new()

local windows = {}
for _, window in ipairs(WINDOWS) do
    local of_backend = windows[window.url] or {}
    windows[window.url] = of_backend
    of_backend[#of_backend + 1] = {
        drain = assert(rfc3339.parse(window.drain)),
        close = assert(rfc3339.parse(window.close)),
        back = assert(rfc3339.parse(window.back)),
    }
end

local now = ngx and ngx.time or os.time


-- Is it between this time of a window and its end?
local function is_past(url, from)
    for _, window in ipairs(windows[url] or {}) do
        local time = now()
        if time >= window[from] and time < window.back then
            return true
        end
    end
    return false
end


return {
    start = round_robin.start,
    route = function(req, backends)
        local open = {}
        for _, backend in ipairs(backends) do
            if not is_past(backend.url, "drain") then
                open[#open + 1] = backend
            end
        end
        return #open > 0 and round_robin.route(req, open)
    end,
    admit = function(session)
        -- What is behind a # is the router's own.
        local url = session:get_metadata("backend_url"):match("^[^#]*")
        return not is_past(url, "close")
    end,
}
