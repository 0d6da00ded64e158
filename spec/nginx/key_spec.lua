-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local key = require "resty.mooring.router.key"

describe("resty.mooring.router.key", function()
    -- What it reads of these variables.
    local function read(opts, var)
        return (key.reader(opts))(var)
    end

    it("is MCP's header by default", function()
        for _, opts in ipairs { false, { header = "MCP-Session-Id" } } do
            local reader, is_mcp = key.reader(opts or nil)
            assert.equal("x", reader { http_mcp_session_id = "x" })
            assert.is_true(is_mcp)
        end
    end)

    it("is else not MCP's", function()
        for _, opts in ipairs { { header = "X-Id" }, { cookie = "a" }, { arg = "a" } } do
            assert.is_false((select(2, key.reader(opts))))
        end
    end)

    it("can be an argument, whatever is around it", function()
        local opts = { arg = "Tok" }
        local function of(args, found)
            return read(opts, { args = args, request_uri = "/?" .. (args or ""),
                arg_tok = found })
        end
        assert.is_nil(of(nil))
        assert.is_nil(of("a=b"))
        assert.equal("x", of("a=b&tok=x", "x"))
        assert.equal("x y", of("tok=x+y", "x+y"))
        assert.is_false(of("tok=x&tok=y", "x"))
        assert.is_false(read(opts, { request_uri = "/#?tok=x" }))
        assert.is_nil(read(opts, {})) -- where nginx could not read the request
    end)

    it("can be a cookie, whatever is around it", function()
        local function of(text) return read({ cookie = "sid" }, { http_cookie = text }) end
        assert.is_nil(of(nil))
        assert.is_nil(of("SID=x"))
        for _, text in ipairs { "sid=x", "a=b; sid=x", "sid=x; a=b", 'sid="x"',
                                "sid=%78", "a=b;sid=x", "sid=x;a=sid" } do
            assert.equal("x", of(text))
        end
        assert.is_false(of("sid=x; sid=y"))
    end)

    it("refuses anything else", function()
        for _, wrong in ipairs { "x-user", 1, {}, { header = 1 },
                                 { header = "" }, { header = "a b" },
                                 { cookie = "a;b" }, { query = "x" },
                                 { header = "a", cookie = "b" } } do
            local ok, must = key.check(wrong)
            assert.is_false(ok)
            assert.matches("^must be { header = name }", must)
        end
        assert.is_true((key.check { header = "X-User" }))
    end)
end)
