-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local options = require "resty.mooring.options"

local SPEC = {
    { name = "size", check = options.integer(1, 10), required = true },
    { name = "ttl", check = options.seconds, default = 5 },
    { name = "mode", check = options.one_of("a", "b") },
    { name = "key", check = options.non_empty_string, secret = true },
}

local function construct(opts)
    local checked = options.check(SPEC, opts, 2)
    return checked
end

describe("resty.mooring.options", function()
    it("fills in defaults and leaves the caller's table alone", function()
        local opts = { size = 3 }
        assert.same({ size = 3, ttl = 5 }, construct(opts))
        assert.same({ size = 3 }, opts)
    end)

    for message, opts in pairs {
        ["opts must be a table, got number"] = 7,
        ["opts.size is required and must be an integer from 1 to 10"] = {},
        ["opts.size must be an integer from 1 to 10, got 0"] = { size = 0 },
        ["opts.size must be an integer from 1 to 10, got 1.5"] = { size = 1.5 },
        ['opts.size must be an integer from 1 to 10, got "x"'] = { size = "x" },
        ["opts.ttl must be a positive number, got -1"] = { size = 1, ttl = -1 },
        ["opts.ttl must be a positive number, got inf"] = { size = 1, ttl = math.huge },
        ["opts.ttl must be at most 1000000000 (seconds), got 1e+300"] =
            { size = 1, ttl = 1e300 },
        ['opts.mode must be "a" or "b", got "c"'] = { size = 1, mode = "c" },
        ["opts.tll is not an option (known are size, ttl, mode, key)"] =
            { size = 1, tll = 2 },
    } do
        it("raises '" .. message .. "' and blames the caller", function()
            local ok, err = pcall(function() return construct(opts) and nil end)
            assert.is_false(ok)
            assert.matches(message, err, 1, true)
            assert.matches("options_spec", err, 1, true)
        end)
    end

    it("takes a 0 where it may be one, and no text", function()
        local spec = { { name = "wait", check = options.seconds_or_0 } }
        assert.same({ wait = 0 }, (options.check(spec, { wait = 0 }, 2)))
        for _, wrong in ipairs { -1, "0", 0 / 0 } do
            assert.error_matches(function() options.check(spec, { wait = wrong }, 2) end,
                "opts.wait must be a number of 0 or more")
        end
    end)

    it("takes times as long as there is room for them", function()
        for check, most in pairs { [options.seconds] = 1e9,
                                   [options.seconds_or_0] = 1e9, [options.timeout] = 1e6 } do
            local spec = { { name = "wait", check = check } }
            assert.same({ wait = most }, (options.check(spec, { wait = most }, 2)))
            for _, wrong in ipairs { most + 1, 1e300 } do
                assert.error_matches(function() options.check(spec, { wait = wrong }, 2) end,
                    ("opts.wait must be at most %d (seconds), got"):format(most), 1, true)
            end
            for _, wrong in ipairs { math.huge, 0 / 0, -1 } do
                assert.error_matches(function() options.check(spec, { wait = wrong }, 2) end,
                    "opts.wait must be a")
            end
        end
    end)

    it("refuses a NaN", function()
        assert.has_error(function() construct { size = 1, ttl = 0 / 0 } end)
    end)

    it("does not repeat the value of a secret option", function()
        local _, err = pcall(function()
            return options.check({ { name = "key", check = options.seconds, secret = true } },
                                 { key = "hunter2" }) and nil
        end)
        assert.matches("opts.key must be a positive number", err, 1, true)
        assert.not_matches("hunter2", err, 1, true)
    end)
end)
