-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The least that a decision in Lua takes of nginx (plain_lua of bench.farm): a
-- look into a table in the access phase, and telling the balancer.

local ngx = ngx
local set_current_peer = require("ngx.balancer").set_current_peer

local _M = {}

--- For the sessions of wrk.lua.
function _M.new(host, port)
    local bound, ports = {}, {}
    for i = 1, 500 do
        bound[("%032x-a"):format(i * 7919)] = host
    end
    ports[host] = port
    return {
        access = function()
            local var = ngx.var
            local backend = bound[var.http_mcp_session_id]
            if not backend then
                return ngx.exit(404)
            end
            var.backend = backend
        end,
        balancer = function()
            local backend = ngx.var.backend
            set_current_peer(backend, ports[backend])
        end,
    }
end

--- In the place of a router: its handlers, which decide nothing.
function _M.none(host, port)
    local function nothing() end
    return {
        access = nothing, header_filter = nothing, log = nothing,
        balancer = function() set_current_peer(host, port) end,
    }
end

return _M
