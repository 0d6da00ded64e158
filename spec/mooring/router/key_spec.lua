-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local key = require "resty.mooring.router.key"

describe("resty.mooring.router.key", function()
    it("is MCP's header by default", function()
        assert.same({ "http_mcp_session_id", true }, { key.variable(nil) })
        assert.same({ "http_mcp_session_id", true },
            { key.variable { header = "MCP-Session-Id" } })
    end)

    it("is the nginx variable of a header, cookie or argument", function()
        assert.same({ "http_x_user_id", false },
            { key.variable { header = "X-User-Id" } })
        assert.same({ "cookie_sid", false }, { key.variable { cookie = "SID" } })
        assert.same({ "arg_user", false }, { key.variable { arg = "user" } })
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
