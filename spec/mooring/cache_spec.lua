-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local caches = require "resty.mooring.cache"
local now = require("resty.mooring.ffi").now
local record = require "resty.mooring.record"
local session = require "resty.mooring.session"

local NEVER = caches.NEVER
local TIMES = { stamp = 0, fresh_until = NEVER, expires_at = NEVER }

describe("resty.mooring.cache", function()
    local cache

    before_each(function() cache = caches.new { max_entries = 100, max_record = 1000 } end)
    after_each(function() cache:close() end)

    describe(":find", function()
        it("finds no entry that has expired, and tells the hooks of it", function()
            local told = {}
            cache:add_hook(function(s, reason) told[#told + 1] = s.id .. " " .. reason end)
            local expires = now() + 1
            assert.equal(0, cache:put("a", record.encode(session.new("a")), 0,
                { stamp = 0, fresh_until = expires, expires_at = expires }))
            repeat until now() > expires
            local found, failed = cache:find("a")
            assert.is_nil(found)
            assert.is_nil(failed)
            assert.same({ "a expired" }, told)
        end)
    end)

    describe(":remove_ref", function()
        local ref

        before_each(function()
            assert.equal(0, cache:put("a", "record", 0, TIMES))
            ref = assert(cache:find("a", true)).ref
        end)

        it("removes the entry that was found", function()
            assert.is_true(cache:remove_ref(ref, caches.DELETED))
            assert.is_nil((cache:find("a", true)))
        end)

        it("leaves an entry that was put in the place of it", function()
            cache:remove("a", caches.DELETED)
            assert.equal(0, cache:put("a", "another", 0, TIMES))
            assert.is_false(cache:remove_ref(ref, caches.DELETED))
            assert.is_not_nil((cache:find("a", true)))
        end)
    end)
end)
