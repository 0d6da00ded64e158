-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local hop = require "resty.mooring.router.hop"

describe("resty.mooring.router.hop", function()
    it(".secret is one per process, and long", function()
        assert.matches("^%x+$", hop.secret())
        assert.equal(32, #hop.secret())
        assert.equal(hop.secret(), hop.secret())
    end)

    it(".same compares whole strings", function()
        assert.is_true(hop.same("abc", "abc"))
        for _, other in ipairs { "", "ab", "abd", "xbc", "abcd", "ABC" } do
            assert.is_false(hop.same("abc", other))
        end
    end)

    it(".check_address wants a unix socket", function()
        assert.is_true((hop.check_address("unix:/run/x.sock")))
        for _, wrong in ipairs { "", "unix:", "unix:/", "/run/x",
                                 "127.0.0.1:80", 1 } do
            assert.is_false((hop.check_address(wrong)))
        end
    end)
end)
