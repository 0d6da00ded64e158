-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local servers = require "support.servers"
local testing = require "resty.mooring.testing"

describe("resty.mooring.testing", function()
    teardown(function() servers.stop_all() end)

    -- The message of what raises in this file.
    local function message(fn)
        local ok, err = pcall(fn)
        assert.is_false(ok)
        assert.matches("^%S*testing_spec%.lua:%d+: ", err)
        return (err:gsub("^.-:%d+: ", ""))
    end

    describe(".request", function()
        it("makes a request with what is given", function()
            local req = testing.request {
                method = "POST", path = "/mcp", remote_addr = "192.0.2.1", session_id = "s1",
                headers = { ["X-Tenant"] = "blue" }, args = { a = "1" }, cookies = { c = "2" },
                body = '{"jsonrpc":"2.0","id":1,"method":"initialize"}',
            }
            assert.same({ "POST", "/mcp", "192.0.2.1", "s1", "1", "2", "initialize" },
                { req.method, req.path, req.remote_addr, req.session_id, req.args.a,
                    req.cookies.c, req.rpc_method })
        end)

        it("finds headers whatever their case", function()
            local req = testing.request { headers = { ["X-Tenant"] = "blue" } }
            assert.equal("blue", req.headers["x-tenant"])
            assert.equal("blue", req.headers["X-TENANT"])
            assert.is_nil(req.headers["X-Other"])
        end)

        it("reads cookies from the header", function()
            local req = testing.request { headers = { Cookie = "a=1; b=2" } }
            assert.same({ "1", "2" }, { req.cookies.a, req.cookies.b })
        end)

        it("has defaults, so that most can be left out", function()
            local req = testing.request()
            assert.same({ "GET", "/", "127.0.0.1" }, { req.method, req.path, req.remote_addr })
            assert.is_nil(req.headers["X-Tenant"] or req.args.a or req.cookies.c or req.body
                or req.session_id or req.rpc_method)
        end)

        it("raises where the spec is wrong", function()
            assert.equal("header is not a field of a request",
                message(function() testing.request { header = {} } end))
            assert.equal("method must be a string",
                message(function() testing.request { method = 1 } end))
        end)
    end)

    describe(".backends", function()
        it("makes views with defaults", function()
            assert.same({
                { url = "http://a:80", weight = 1, inflight = 0, sessions = 0, state = "up" },
                { url = "https://b:8443", weight = 2, inflight = 3, sessions = 4,
                    state = "draining" },
            }, testing.backends {
                "http://A",
                { url = "https://b:8443", weight = 2, inflight = 3, sessions = 4,
                    state = "draining" },
            })
        end)

        it("lets a spec change the counts", function()
            local backends = testing.backends { "http://a:1", "http://b:1" }
            local policy = testing.policy "least_sessions"
            assert.equal("http://a:1", policy:route(testing.request(), backends).url)
            backends[2].sessions = 5
            assert.equal("http://a:1", policy:route(testing.request(), backends).url)
            backends[1].sessions = 6
            assert.equal("http://b:1", policy:route(testing.request(), backends).url)
        end)

        for must, wrong in pairs {
            ["its url must begin with http:// or https://"] = { "a:1" },
            ["its url must not have a path: the path of the request is passed on"] =
                { "http://a/b" },
            ["weight must be a number"] = { { url = "http://a", weight = "1" } },
            ['state must be "up", "draining" or "down"'] = { { url = "http://a", state = "new" } },
            ["load is not a field of a backend"] = { { url = "http://a", load = 1 } },
        } do
            it("raises where the spec is wrong: " .. must, function()
                assert.equal("backend 1: " .. must,
                    message(function() testing.backends(wrong) end))
            end)
        end
    end)

    describe(".session", function()
        it("makes a session with metadata", function()
            local s = testing.session("s1", { backend_url = "http://a:1" })
            assert.equal("s1", s.id)
            assert.equal("http://a:1", s:get_metadata("backend_url"))
            assert.is_nil(testing.session("s2"):get_metadata("backend_url"))
        end)

        it("raises where the spec is wrong", function()
            assert.equal("id must be a string", message(function() testing.session(1) end))
        end)
    end)

    describe(".policy", function()
        it("compiles whatever the router takes", function()
            local path = servers.tmpdir() .. "/second.lua"
            servers.write_file(path, "return { route = function(_, b) return b[2] end }")
            local backends = testing.backends { "http://a:1", "http://b:1" }
            for _, option in ipairs {
                path,
                { route = function(_, b) return b[2] end },
                { { route = function() end }, path, "round_robin" },
            } do
                assert.equal(backends[2], testing.policy(option):route(testing.request(), backends))
            end
        end)

        it("has the defaults of the router", function()
            local policy, req = testing.policy {}, testing.request()
            local s, backends = testing.session "s1", testing.backends { "http://a:1" }
            assert.is_nil(policy:key(req))
            assert.equal(backends[1], policy:route(req, backends))
            assert.is_true(policy:admit(s, req))
            assert.equal("forget", policy:on_unreachable(s, req))
            policy:on_bind(s, req)
            policy:on_evict(s, "expired")
        end)

        it("counts what a function has thrown", function()
            local policy = testing.policy { name = "mine", admit = function() error("no") end }
            assert.is_true(policy:admit(testing.session "s1", testing.request()))
            assert.same({ 1, 1 }, { policy:stats().mine.admit.calls,
                policy:stats().mine.admit.errors })
        end)

        it("raises where the spec is wrong", function()
            assert.matches("^opts%.policy ", message(function() testing.policy "nonsense" end))
            assert.matches("rout", message(function() testing.policy { rout = print } end))
        end)
    end)

    it("needs neither nginx nor what a router needs", function()
        local result = servers.run { "bash", "-c", [[
            unset LUA_PATH LUA_CPATH; eval "$(make -s env)"
            exec "${LUAJIT:-luajit}" -e '
                local testing = require "resty.mooring.testing"
                local policy = testing.policy { "power_of_two", "round_robin" }
                print(policy:route(testing.request(), testing.backends { "http://a:1" }).url)
                print(ngx, package.loaded["resty.mooring.router"])'
        ]] }
        assert.equal("http://a:1\nnil\tnil\n", result.out .. result.err)
    end)
end)
