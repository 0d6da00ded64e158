-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Against session hijacking: only who has opened a session gets into it, told
-- by the `sub` of the bearer token. That is enough if the MCP server verifies
-- the token of each request. Have it see the one that was looked at here, too:
--     proxy_set_header Authorization $http_authorization;
--
-- The secret is the same on all replicas; in nginx.conf: env MOORING_SECRET;
-- Composed: policy = { "identity.lua", "least_sessions" }

return require("resty.mooring.policy.identity").new {
    secret = os.getenv("MOORING_SECRET") or error "MOORING_SECRET is not set",
    claim = "sub",
}
