-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local tokens = require "support.tokens"
local value = require "resty.mooring.request_value"

describe("resty.mooring.request_value", function()
    local req = {
        headers = { ["X-Tenant"] = "by header", Authorization = tokens.bearer("by claim"),
            ["X-Empty"] = "" },
        cookies = { tenant = "by cookie" },
        args = { tenant = "by argument", empty = "" },
        remote_addr = "192.0.2.1",
        path = "/by/path",
    }

    for expected, opts in pairs {
        ["by header"] = { header = "X-Tenant" },
        ["by cookie"] = { cookie = "tenant" },
        ["by argument"] = { arg = "tenant" },
        ["by claim"] = { claim = "sub" },
        ["192.0.2.1"] = { remote_addr = true },
        ["/by/path"] = { value = function(r) return r.path end },
    } do
        it("reads " .. expected .. " with " .. next(opts), function()
            assert.equal(expected, value.reader(opts, 1)(req))
        end)
    end

    for name, opts in pairs {
        ["a header that is not there"] = { header = "X-Other" },
        ["an empty header"] = { header = "X-Empty" },
        ["an empty argument"] = { arg = "empty" },
        ["a claim that is not there"] = { claim = "tenant" },
        ["a function's nil"] = { value = function() end },
        ["a function's number"] = { value = function() return 1 end },
    } do
        it("takes " .. name .. " for no value", function()
            assert.is_nil(value.reader(opts, 1)(req))
        end)
    end

    it("raises unless there is exactly one choice", function()
        local all = "header, cookie, arg, claim, remote_addr, value"
        assert.has_error(function() value.reader({}, 0) end, "opts must have one of " .. all)
        assert.has_error(function() value.reader({ arg = "a", cookie = "a" }, 0) end,
            "opts must have only one of " .. all)
    end)
end)
