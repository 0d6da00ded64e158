-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Tenants stay together: all sessions of a tenant open on the same backend,
-- where its caches are warm, through every replica. Some tenants have backends
-- of their own, which nobody else gets to.
--
-- Requests without a tenant are left to the next policy:
--     policy = { "tenant_pinning.lua", "least_sessions" }

local DEDICATED = {
    acme = {
        ["http://10.0.0.8:8080"] = true,
        ["http://10.0.0.9:8080"] = true,
    },
}

local by_tenant = require("resty.mooring.policy.rendezvous").new {
    header = "X-Tenant",
}


local function is_dedicated(url)
    for _, own in pairs(DEDICATED) do
        if own[url] then
            return true
        end
    end
    return false
end


local function open_to(tenant, backends)
    local own, theirs, shared = DEDICATED[tenant], {}, {}
    for _, backend in ipairs(backends) do
        if own and own[backend.url] then
            theirs[#theirs + 1] = backend
        elseif not is_dedicated(backend.url) then
            shared[#shared + 1] = backend
        end
    end
    return #theirs > 0 and theirs or shared
end


return {
    route = function(req, backends)
        return by_tenant.route(req, open_to(req.headers["X-Tenant"], backends))
    end,
}
