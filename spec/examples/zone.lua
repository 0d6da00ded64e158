-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Stay in the zone: new sessions open on backends of this nginx' own zone, as
-- long as one of them is up; else the next policy in the list decides.
--     policy = { "zone.lua", "power_of_two" }
--
-- In nginx.conf: env ZONE;

local ZONES = {
    east = "^https?://10%.1%.",
    west = "^https?://10%.2%.",
}

local pattern = assert(ZONES[os.getenv("ZONE")], "ZONE is not east or west")
local power_of_two = require("resty.mooring.policy.power_of_two").new()


return {
    route = function(req, backends)
        local near = {}
        for _, backend in ipairs(backends) do
            if backend.url:find(pattern) then
                near[#near + 1] = backend
            end
        end
        if #near > 0 then
            return power_of_two.route(req, near)
        end
    end,
}
