-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Requests through the router: tool calls of known sessions, and `initialize`,
-- beside a plain proxy_pass to the same backends (bench.farm). The proxy's one
-- worker has a CPU for itself; backends, Redis and wrk share the other one.

local cjson = require "cjson"
local farms = require "bench.farm"
local load = require "bench.load"
local servers = require "support.servers"

local _M = {}

local CONNECTIONS_SLACK = 64 -- requests in progress when wrk stops counting

local function results_of(router)
    return cjson.decode(assert(servers.http(router.url .. "/status")).body).results
end

-- The router itself must have counted as many of an outcome as there were
-- requests, and nothing else.
local function expect_outcome(target, outcome)
    local before
    target.before = function() before = results_of(target.nginx) end
    target.after = function(result)
        for name, count in pairs(results_of(target.nginx)) do
            local new, wanted = count - before[name], name == outcome and result.requests or 0
            if new < wanted or new > wanted + CONNECTIONS_SLACK * (wanted > 0 and 1 or 0) then
                error(("%s: %d requests, %d %s"):format(target.name, result.requests, new, name), 0)
            end
        end
    end
end

-- Adds one to a list, if the farm has it.
local function add(list, farm, name, mode, suffix, outcome)
    local nginx = farm[name]
    if not nginx then
        return
    end
    local made = { name = name, nginx = nginx, url = nginx.url .. "/mcp", mode = mode,
                   suffix = suffix }
    if outcome then
        expect_outcome(made, outcome)
    end
    list[#list + 1] = made
end

--- Tool calls of known sessions, as targets for bench.load.
function _M.calls(farm)
    local list = {}
    for _, name in ipairs { "plain", "plain_lua", "balancer", "handlers", "no_access" } do
        add(list, farm, name, "call", "a")
    end
    add(list, farm, "router_local", "call", "ab", "bound")
    add(list, farm, "router_redis", "call", "ab", "bound")
    return list
end

--- The same for `initialize`.
function _M.openings(farm)
    local list = {}
    add(list, farm, "plain", "initialize")
    add(list, farm, "router_local", "initialize", nil, "created")
    add(list, farm, "router_redis", "initialize", nil, "created")
    return list
end

--- @return { calls = as bench.load compare, initialize = the same }
function _M.run(plan)
    local farm = farms.start()
    return {
        calls = load.compare(plan, _M.calls(farm)),
        initialize = load.compare(plan, _M.openings(farm)),
    }
end

return _M
