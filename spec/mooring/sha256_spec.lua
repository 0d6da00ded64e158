-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local servers = require "support.servers"
local sha256 = require "resty.mooring.sha256"

describe("resty.mooring.sha256", function()
    teardown(function() servers.stop_all() end)

    -- FIPS 180-4, examples of NIST; the last one has a million bytes.
    for _, vector in ipairs {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { ("a"):rep(1000000),
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
    } do
        it("digests " .. #vector[1] .. " bytes as NIST says", function()
            assert.equal(vector[2], sha256.hex(vector[1]))
        end)
    end

    -- RFC 4231, 4.2 to 4.8 but for 4.6, which is cut short.
    for name, vector in pairs {
        ["4.2"] = { ("\11"):rep(20), "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
        ["4.3"] = { "Jefe", "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
        ["4.4"] = { ("\170"):rep(20), ("\221"):rep(50),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
        ["4.7"] = { ("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
        ["4.8"] = { ("\170"):rep(131), "This is a test using a larger than block-size key and a "
            .. "larger than block-size data. The key needs to be hashed before being used by the "
            .. "HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2" },
    } do
        it("signs as RFC 4231, " .. name .. ", says", function()
            assert.equal(vector[3], sha256.hmac(vector[1])(vector[2]))
        end)
    end

    it("agrees with OpenSSL on every length around a block", function()
        local dir = servers.tmpdir()
        local argv, texts = { "openssl", "dgst", "-sha256", "-r" }, {}
        for n = 0, 130 do
            local bytes = {}
            for i = 1, n do
                bytes[i] = string.char((i * 37 + n * 101) % 256)
            end
            texts[n] = table.concat(bytes)
            servers.write_file(dir .. "/" .. n, texts[n])
            argv[#argv + 1] = dir .. "/" .. n
        end
        local seen = 0
        for digest, n in servers.run(argv).out:gmatch("(%x+) %*%S-/(%d+)\n") do
            seen = seen + 1
            assert.equal(digest, sha256.hex(texts[tonumber(n)]))
        end
        assert.equal(131, seen)
    end)

    it("signs one text after the other with the same key", function()
        local sign = sha256.hmac("Jefe")
        local first = sign("a")
        sign(("b"):rep(200))
        assert.equal(first, sign("a"))
        assert.not_equal(first, sha256.hmac("Jeff")("a"))
    end)
end)
