-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local reference = require "resty.mooring.router.reference"

local URL = "http://10.0.0.1:8080"

describe("resty.mooring.router.reference", function()
    for text, parts in pairs {
        [URL] = { URL, 0 },
        [URL .. "#2"] = { URL, 2 },
        [URL .. "#999999999999999"] = { URL, 999999999999999 },
        [URL .. "#2;7f3a"] = { URL, 2, "7f3a" },
        [URL .. "#;7f3a"] = { URL, 0, "7f3a" },
        [URL .. "#;a;b=c/d?e"] = { URL, 0, "a;b=c/d?e" },
        [URL .. "#;%22%23%25%3C%7E"] = false,
        [URL .. "#;%22%23%25%3C~"] = { URL, 0, "\"#%<~" },
    } do
        if parts then
            it("writes and reads " .. text, function()
                assert.equal(text, reference.format(parts[1], parts[2], parts[3]))
                assert.same(parts, { reference.parse(text) })
            end)
        end
        it("has no id in what may be logged of " .. text, function()
            assert.equal(URL, reference.strip(text))
        end)
    end

    it("carries every id a client can send", function()
        for c = 0x21, 0x7e do
            local id = "x" .. string.char(c) .. ";%41"
            local text = reference.format(URL, 3, id)
            assert.is_nil(text:sub(#URL + 2):find("[^%w%-%._~!%$&'%(%)%*%+,;=:@/%?%%]"))
            assert.same({ URL, 3, id }, { reference.parse(text) })
        end
    end)

    it("leaves to others whether the URL makes sense", function()
        assert.same({ "", 0 }, { reference.parse("") })
        assert.same({ "", 1 }, { reference.parse("#1") })
    end)

    for _, fragment in ipairs { "", "0", "02", "x", "-1", "1.5", "1x", "1#2",
        "1000000000000000", ";", "1;", "1;a b", "1;a#b", "1;a%zz", "1;a%2",
        "1;%00", "1;%20", "1;\127", "1;%FF" } do
        it(("refuses the fragment %q"):format(fragment), function()
            assert.is_nil(reference.parse(URL .. "#" .. fragment))
        end)
    end
end)
