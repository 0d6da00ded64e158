-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A canary: the new version gets the sessions of those who ask for it with
-- "X-Canary: always", none of those who say "never", and a share of all others.
-- A client address stays on the side it is on. Sessions that are open stay where
-- they are, whatever changes here.

local CANARIES = {
    ["http://10.0.0.9:8080"] = true,
}
local SHARE = 0.05 -- of the clients that say nothing

local hash = require "resty.mooring.hash"
local round_robin = require "resty.mooring.policy.round_robin"

local canary, stable = round_robin.new(), round_robin.new()


local function wants_canary(req)
    local wish = req.headers["X-Canary"]
    if wish == "always" or wish == "never" then
        return wish == "always"
    end
    return hash.unit(hash.text(req.remote_addr)) < SHARE
end


return {
    start = function(router_name, worker)
        canary.start(router_name, worker)
        stable.start(router_name, worker)
    end,
    route = function(req, backends)
        local new, old = {}, {}
        for _, backend in ipairs(backends) do
            local side = CANARIES[backend.url] and new or old
            side[#side + 1] = backend
        end
        -- A side without backends that are up leaves all to the other one.
        if #new > 0 and (wants_canary(req) or #old == 0) then
            return canary.route(req, new)
        end
        return stable.route(req, old)
    end,
}
