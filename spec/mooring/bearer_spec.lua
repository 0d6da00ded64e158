-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local bearer = require "resty.mooring.bearer"
local cjson = require "cjson"
local tokens = require "support.tokens"

describe("resty.mooring.bearer", function()
    local function sub(value)
        return bearer.claim("Bearer " .. tokens.make('{"sub":' .. value .. "}"), "sub")
    end

    it("reads a claim of the token in RFC 7519, 3.1", function()
        local token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
            .. "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
            .. "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
            .. "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        assert.equal("joe", bearer.claim("Bearer " .. token, "iss"))
        assert.equal("1300819380", bearer.claim("bearer  " .. token, "exp"))
        assert.is_true(bearer.claims("BEARER " .. token)["http://example.com/is_root"])
        assert.is_nil(bearer.claim("Bearer " .. token, "sub"))
    end)

    it("reads texts of every length and with every byte", function()
        for n = 1, 20 do
            assert.equal(("x"):rep(n), sub('"' .. ("x"):rep(n) .. '"'))
        end
        local text = "\1\127\194\128\239\191\191\244\143\191\191~?>"
        assert.equal(text, sub(cjson.encode(text)))
    end)

    for name, value in pairs {
        ["a boolean"] = "true", ["null"] = "null", ["an object"] = '{"a":1}',
        ["an array"] = '["a"]', ["an empty text"] = '""', ["a fraction"] = "1.5",
        ["2^53, which other integers are rounded to"] = "9007199254740993",
        ["-2^53"] = "-9007199254740993",
    } do
        it("has no claim that is " .. name, function()
            assert.is_nil(sub(value))
        end)
    end

    it("tells the largest integers apart", function()
        assert.equal("9007199254740991", sub("9007199254740991"))
        assert.equal("9007199254740990", sub("9007199254740990"))
        assert.equal("-12", sub("-12"))
        assert.equal("0", sub("0"))
    end)

    for name, header in pairs {
        ["another scheme"] = "Basic eyJzdWIiOiJhIn0.eyJzdWIiOiJhIn0.x",
        ["an opaque token"] = "Bearer 2YotnFZFEjr1zCsicMWpAA",
        ["two parts"] = "Bearer a.eyJzdWIiOiJhIn0",
        ["five parts, encrypted"] = "Bearer a.b.eyJzdWIiOiJhIn0.d.e",
        ["what is not base64url"] = "Bearer a.eyJzdWIiOiJhIn0=.c",
        ["an impossible length"] = "Bearer a.eyJzd.c",
        ["a byte that is cut off"] = "Bearer a.eyJzdWIiOiJhYiJ9A.c", -- behind {"sub":"ab"}
        ["no JSON"] = "Bearer a.eyJzdWIiOiJhIiw.c",
        ["JSON that is no object"] = "Bearer a.MTIz.c",
        ["text behind it"] = "Bearer a.eyJzdWIiOiJhIn0.c d",
        ["nothing"] = "",
        ["over 16 KiB"] = "Bearer a.eyJzdWIiOiJhIn0." .. ("x"):rep(16384),
    } do
        it("finds no token in a header with " .. name, function()
            assert.is_nil(bearer.claims(header))
            assert.is_nil(bearer.claim(header, "sub"))
        end)
    end

    it("finds none in no header, and in several", function()
        assert.is_nil(bearer.claims(nil))
        assert.is_nil(bearer.claims { "Bearer a.eyJzdWIiOiJhIn0.c", "x" })
        assert.equal("a", bearer.claim("Bearer a.eyJzdWIiOiJhIn0.c", "sub"))
    end)

    it("bears JSON nested deeper than it is read", function()
        assert.is_nil(bearer.claims("Bearer "
            .. tokens.make(("["):rep(2000) .. ("]"):rep(2000))))
    end)

    describe("reader", function()
        it("answers as claim does, also when asked again", function()
            local read = bearer.reader("sub")
            for _ = 1, 3 do
                for i = 1, 700 do
                    assert.equal("user" .. i, read(tokens.bearer("user" .. i)))
                end
                assert.is_nil(read("Bearer opaque"))
                assert.is_nil(read(nil))
                assert.is_nil(read("Bearer " .. tokens.make('{"sub":true}')))
            end
        end)

        it("reads a token once", function()
            local read, claim = bearer.reader("sub"), spy.on(bearer, "claim")
            for _ = 1, 5 do
                read(tokens.bearer("ann"))
                read("Bearer opaque")
            end
            assert.spy(claim).was.called(2)
            claim:revert()
        end)

        it("holds bounded memory whatever it is asked", function()
            local read = bearer.reader("sub")
            collectgarbage()
            local before = collectgarbage("count")
            for i = 1, 1000 do
                read(tokens.bearer(("x"):rep(2900) .. i))
                read("Bearer " .. ("x"):rep(16000) .. i)
            end
            collectgarbage()
            assert.is_true(collectgarbage("count") - before < 400 * 8)
            assert.equal("ann", read(tokens.bearer "ann"))
        end)
    end)
end)
