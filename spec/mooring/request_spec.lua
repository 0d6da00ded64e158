-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local request = require "resty.mooring.request"

describe("resty.mooring.request", function()
    describe(".build", function()
        it("makes a request of nothing", function()
            local req = request.build {}
            assert.same({ "GET", "/", "127.0.0.1" }, { req.method, req.path, req.remote_addr })
            assert.is_nil(req.headers["X-User"])
            assert.is_nil(req.args.x)
            assert.is_nil(req.cookies.x)
            assert.is_nil(req.session_id)
            assert.is_nil(req.body)
            assert.is_nil(req.rpc_method)
        end)

        it("finds headers in any spelling of their name", function()
            local req = request.build { headers = { ["X-Tenant-Id"] = "t" } }
            for _, name in ipairs { "X-Tenant-Id", "x-tenant-id", "X_TENANT_ID" } do
                assert.equal("t", req.headers[name])
            end
            assert.is_nil(req.headers[1])
        end)

        it("joins a header that is there several times", function()
            local req = request.build { headers = { Accept = { "a/b", "c/d" } } }
            assert.equal("a/b, c/d", req.headers.accept)
        end)

        it("reads cookies in a time that does not grow with the square of spaces", function()
            local spaces = (" "):rep(65536)
            local began = os.clock()
            local req = request.build { headers = { cookie = "a=x" .. spaces .. "y; b=1" } }
            assert.equal("x" .. spaces .. "y", req.cookies.a)
            assert.equal("1", req.cookies.b)
            assert.is_true(os.clock() - began < 1) -- of CPU; it took 20
        end)

        it("reads cookies out of their header", function()
            local req = request.build { headers = {
                Cookie = 'a=1; b = two ;c="x=y";a=3; ;novalue; d=' } }
            assert.same({ a = "1", b = "two", c = '"x=y"', d = "" }, req.cookies)
        end)

        it("takes the first of several arguments", function()
            local req = request.build { args = { a = { "1", "2" }, b = true } }
            assert.same({ a = "1", b = "" }, req.args)
        end)

        it("finds the method in the body", function()
            for body, method in pairs {
                ['{"jsonrpc":"2.0","id":1,"method":"tools/call"}'] = "tools/call",
                ['[{"method":"x"}]'] = false,
                ['{"method":5}'] = false,
                ['{"method":'] = false,
                [""] = false,
            } do
                assert.equal(method or nil, (request.build { body = body }).rpc_method)
            end
            assert.equal("x", (request.build { rpc_method = "x" }).rpc_method)
        end)

        it("names the field that is wrong", function()
            for text, fields in pairs {
                ["header is not a field of a request"] = { header = {} },
                ["headers must be a table"] = { headers = "x" },
                ["method must be a string"] = { method = 1 },
                ["fields must be a table"] = "x",
            } do
                local ok, err = pcall(request.build, fields)
                assert.is_false(ok)
                assert.matches("request_spec.lua:%d+: " .. text, "request_spec.lua:1: " .. err)
            end
        end)
    end)
end)
