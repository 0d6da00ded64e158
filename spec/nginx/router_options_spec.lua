-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local router = require "resty.mooring.router"

describe("resty.mooring.router.new", function()
    local BACKENDS = { "http://127.0.0.1:1" }
    local n = 0

    -- Each router with a name, and so a region, of its own.
    local function new(opts)
        n = n + 1
        opts.name = opts.name or "spec" .. n
        opts.backends = opts.backends or BACKENDS
        return router.new(opts)
    end

    local function fails(opts, text)
        local ok, err = pcall(new, opts)
        assert.is_false(ok)
        assert.is_truthy(err:find(text, 1, true), err)
    end

    it("needs nothing but backends", function()
        local made = router.new { backends = BACKENDS, name = "plain" }
        assert.is_true(made.mcp)
        assert.is_true(made.storage:store(
            require("resty.mooring.session").new("x")))
        local ok, err = pcall(router.new, {})
        assert.is_false(ok)
        assert.matches("opts.backends is required", err)
    end)

    it("names the option that is wrong", function()
        fails({ backends = {} }, "opts.backends must be an array")
        fails({ backends = { "http://x", nil, "http://y" } }, "opts.backends "
            .. "must be an array without holes or other keys: entry 2 is nil")
        fails({ backends = { "http://x", y = 1 } }, "opts.backends must be an "
            .. "array without holes or other keys: it has the key y")
        fails({ backends = { "http://x/y" } }, "opts.backends is wrong: entry "
            .. '1 ("http://x/y") must not have a path')
        for _, name in ipairs { "session_ttl", "backends_interval",
                                "fail_timeout" } do
            fails({ [name] = 1e300 }, "opts." .. name .. " must be at most "
                .. "1000000000 (seconds), got 1e+300")
        end
        fails({ storage = "redsi://x" },
            "opts.storage must begin with redis:// or unix://")
        fails({ storage = 1 }, 'opts.storage must be "local", a redis://')
        fails({ storage = { load = print, store = print } },
            "opts.storage must have the method delete and delete_expired and "
            .. "close")
        fails({ max_local_entries = 0 }, "opts.max_local_entries must be")
        fails({ session_ttl = -1 }, "opts.session_ttl must be")
        fails({ policy = "random" },
            'opts.policy must be the name of a built-in policy ("round_robin"')
        fails({ key = "X-User" }, "opts.key must be { header = name }")
        fails({ unknown = "allow" }, 'opts.unknown must be "reject" or "bind"')
        fails({ allow = {} }, "opts.allow must be")
        fails({ allow = { "x" } }, "opts.allow must be")
        fails({ allow = { 5 } }, "opts.allow must be")
        fails({ allow = "http://x" }, "opts.allow must be")
        fails({ internal = "127.0.0.1:1" }, "opts.internal must be")
        fails({ cors_origin = "a b" }, "opts.cors_origin must be")
        fails({ cors_origin = true }, "opts.cors_origin must be")
        fails({ backend = 1 }, "opts.backend is not an option")
    end)

    it("never shows the password of a store", function()
        local ok, err = pcall(new, { storage = "redis://u:secret@x:y/0" })
        assert.is_false(ok)
        assert.is_nil(err:find("secret", 1, true))
    end)

    it("binds unknown keys, except those of MCP, whose backends make the ids",
       function()
        fails({ unknown = "bind" }, 'opts.unknown must be "reject" for MCP')
        fails({ unknown = "bind", key = { header = "Mcp-Session-Id" } },
            'opts.unknown must be "reject" for MCP')
        assert.equal("bind", new({ key = { cookie = "sid" } }).unknown)
        assert.equal("reject", new({ key = { cookie = "sid" },
            unknown = "reject" }).unknown)
    end)
end)
