-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local session = require "resty.mooring.session"

describe("resty.mooring.session", function()
    describe(".new", function()
        it("fills in type, times and metadata", function()
            local before = os.time()
            local s = session.new("abc")
            assert.equal("abc", s.id)
            assert.equal("mcp", s.type)
            assert.is_true(s.created_at >= before - 1 and s.created_at <= os.time() + 1)
            assert.equal(s.created_at, s.updated_at)
            assert.same({}, s.metadata)
            assert.is_nil(s.data)
        end)

        it("keeps fractions of a second", function()
            local s = session.new("abc", { created_at = 1.25, updated_at = 2.5 })
            assert.equal(1.25, s.created_at)
            assert.equal(2.5, s.updated_at)
        end)

        it("copies the metadata it is given", function()
            local metadata = { backend_url = "http://10.0.0.1:80" }
            local s = session.new("abc", { metadata = metadata })
            metadata.backend_url = "changed"
            assert.equal("http://10.0.0.1:80", s.metadata.backend_url)
        end)

        for what, opts in pairs {
            ["metadata with a key that is no string"] = { metadata = { "v" } },
            ["a time that is no number"] = { updated_at = 0 / 0 },
        } do
            it("raises for " .. what, function()
                assert.has_error(function() session.new("a", opts) end)
            end)
        end

        for message, bad in pairs {
            ["id must be a string"] = { 7 },
            ["opts must be a table"] = { "a", "b" },
            ["opts.tpye is not an option"] = { "a", { tpye = "mcp" } },
            ["opts.type must be a string"] = { "a", { type = 1 } },
            ["opts.metadata must be a table"] = { "a", { metadata = "x" } },
            ["opts.metadata must hold strings only"] = { "a", { metadata = { k = 1 } } },
            ["opts.created_at must be a number (unix seconds)"] =
                { "a", { created_at = "now" } },
        } do
            it("raises '" .. message .. "' and blames the caller", function()
                local ok, err = pcall(function()
                    return session.new(bad[1], bad[2]) and nil
                end)
                assert.is_false(ok)
                assert.matches(message, err, 1, true)
                assert.matches("session_spec", err, 1, true)
            end)
        end
    end)

    describe(":set_metadata", function()
        it("sets and removes what get_metadata returns", function()
            local s = session.new("abc")
            s:set_metadata("k", "v")
            assert.equal("v", s:get_metadata("k"))
            s:set_metadata("k", nil)
            assert.is_nil(s:get_metadata("k"))
        end)

        it("raises for a value that is not a string", function()
            local s = session.new("abc")
            assert.has_error(function() s:set_metadata("k", 1) end,
                             "value must be a string or nil")
            assert.has_error(function() s:set_metadata(1, "v") end, "key must be a string")
        end)
    end)

    describe(":touch", function()
        it("moves updated_at to now and leaves created_at", function()
            local s = session.new("abc", { created_at = 5 })
            s:touch()
            assert.equal(5, s.created_at)
            assert.is_true(math.abs(s.updated_at - os.time()) < 2)
        end)
    end)

    describe(".invalid_id", function()
        it("takes every byte from 0x21 to 0x7E", function()
            local bytes = {}
            for b = 0x21, 0x7E do
                bytes[#bytes + 1] = string.char(b)
            end
            assert.is_nil(session.invalid_id(table.concat(bytes)))
        end)

        it("refuses every other byte and says where it is", function()
            for b = 0, 255 do
                if b < 0x21 or b > 0x7E then
                    assert.equal("invalid session id: byte 3 is not in 0x21-0x7E",
                                 session.invalid_id("ab" .. string.char(b) .. "c"))
                end
            end
        end)

        it("refuses an empty and an oversized id without repeating it", function()
            assert.equal("invalid session id: it is empty", session.invalid_id(""))
            assert.is_nil(session.invalid_id(("x"):rep(4096)))
            assert.equal("invalid session id: 4097 bytes, over max_id_length 4096",
                         session.invalid_id(("x"):rep(4097)))
            assert.equal("invalid session id: 3 bytes, over max_id_length 2",
                         session.invalid_id("xxx", 2))
        end)
    end)
end)
