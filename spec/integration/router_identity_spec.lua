-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The identity policy with callers that nginx itself has proved: what the README
-- says about auth_request, which has to be over before the policy asks.

local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, identity by auth_request", function()
    local a, web

    setup(function()
        a = proxy.backend("a")
        web = proxy.start {
            backends = { a },
            options = [[
                policy = require("resty.mooring.policy.identity").new {
                    secret = "the secret of these specs",
                    value = function() return ngx.var.caller end,
                },
            ]],
            -- The server that proves it: who has the token "t-ann" is ann.
            http = [[
                map $http_x_token $known_user { default ""; "~^t-(?<user>.+)$" $user; }
                server {
                    listen unix:$dir/auth.sock;
                    location / {
                        if ($known_user = "") { return 401; }
                        add_header X-User $known_user;
                        return 204;
                    }
                }
            ]],
            server = [[
                auth_request /auth;
                auth_request_set $caller $upstream_http_x_user;
                location = /auth {
                    internal;
                    auth_request off;
                    proxy_pass http://unix:$dir/auth.sock;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                }
            ]],
        }
    end)
    teardown(function() servers.stop_all() end)

    local function by(user)
        return { ["X-Token"] = user and "t-" .. user, ["X-User"] = "ann" }
    end

    it("admits the owner, and nobody whom auth_request takes for another", function()
        local id = web:open { headers = by "ann" }
        assert.equal(200, web:call(id, { headers = by "ann" }).status)
        local stolen = web:call(id, { headers = by "eve" })
        assert.equal(404, stolen.status)
        assert.equal(web:call("nobody-knows", { headers = by "eve" }).body, stolen.body)
        assert.equal(200, web:call(id, { headers = by "ann" }).status)
    end)

    it("does not come to it for who is refused by auth_request", function()
        local id = web:open { headers = by "ann" }
        assert.equal(401, web:call(id, { headers = by(nil) }).status)
        assert.equal(401, web:call("nobody-knows", { headers = by(nil) }).status)
    end)

    it("fails in no call", function()
        assert.is_nil(web:error_log():find("failed in", 1, true))
    end)
end)
