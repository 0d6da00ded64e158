-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local url = require "resty.mooring.url"

describe("resty.mooring.url", function()
    for text, expected in pairs {
        ["redis://10.0.0.1"] = { host = "10.0.0.1", port = 6379, db = 0 },
        ["redis://cache.local:7000/3"] = { host = "cache.local", port = 7000, db = 3 },
        ["redis://[::1]:6380/"] = { host = "::1", port = 6380, db = 0 },
        ["redis://:secret@h"] = { host = "h", port = 6379, db = 0, password = "secret" },
        ["redis://me:p%40ss%3Aw@h"] =
            { host = "h", port = 6379, db = 0, user = "me", password = "p@ss:w" },
        ["redis://me:@h"] = { host = "h", port = 6379, db = 0, user = "me" },
        ["redis://me:a@b@h"] = { host = "h", port = 6379, db = 0, user = "me", password = "a@b" },
        ["unix:///run/redis.sock"] = { path = "/run/redis.sock", db = 0 },
        ["unix://u:p@/run/r.sock?db=2"] =
            { path = "/run/r.sock", db = 2, user = "u", password = "p" },
    } do
        it("reads " .. text, function()
            assert.same(expected, url.parse(text))
        end)
    end

    for text, must in pairs {
        ["localhost:6379"] = "must begin with redis:// or unix://",
        ["http://h"] = "must begin with redis:// or unix://",
        ["rediss://h"] = "must be redis:// or unix://: TLS",
        ["redis://"] = "must name a host",
        ["redis://h:0"] = "must have a port from 1 to 65535",
        ["redis://h:65536"] = "must have a port from 1 to 65535",
        ["redis://h:x"] = "must have a port from 1 to 65535",
        ["redis://h/x"] = "must name a database number",
        ["redis://h/65536"] = "must name a database number",
        ["redis://secret@h"] = "must be user:password before the @",
        ["unix://run/redis.sock"] = "must have an absolute path",
        ["unix:///r.sock?x=1"] = "may have ?db=N",
    } do
        it("refuses " .. text, function()
            local target, err = url.parse(text)
            assert.is_nil(target)
            assert.matches(must, err, 1, true)
            assert.not_matches("secret", err, 1, true)
        end)
    end

    it("names an address without credentials", function()
        assert.equal("[::1]:6379", url.address(url.parse("redis://u:pw@[::1]")))
        assert.equal("unix:/r.sock", url.address(url.parse("unix://u:pw@/r.sock")))
    end)
end)
