-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local caches = require "resty.mooring.cache"
local clock = require("resty.mooring.ffi").now
local negatives = require "resty.mooring.negative"

describe("resty.mooring.negative", function()
    local cache, negative

    before_each(function()
        cache = caches.new { max_entries = 100, max_record = 1000 }
        cache:set_lease(clock() + 60000)
        negative = negatives.new(cache, 60)
    end)

    after_each(function() cache:close() end)

    local function add(id)
        negative:add(id, cache:token(id))
    end

    it("knows what it was told, and nothing else", function()
        add "a"
        assert.is_true(negative:has("a"))
        assert.is_false(negative:has("b"))
    end)

    it("forgets after its ttl", function()
        negative = negatives.new(cache, 0.02)
        add "a"
        assert.is_true(negative:has("a"))
        local till = clock() + 25
        repeat until clock() > till
        assert.is_false(negative:has("a"))
    end)

    it("forgets at once what changes", function()
        add "a"
        cache:doubt("a")
        assert.is_false(negative:has("a"))
    end)

    it("does not learn from a question that was asked before a change", function()
        local token = cache:token("a")
        cache:doubt("a")
        negative:add("a", token)
        assert.is_false(negative:has("a"))
    end)

    it("forgets everything with the epoch", function()
        add "a"
        cache:bump_epoch()
        assert.is_false(negative:has("a"))
    end)

    it("neither learns nor knows without a lease", function()
        add "a"
        cache:set_lease(0)
        assert.is_false(negative:has("a"))
        add "b"
        cache:set_lease(clock() + 60000)
        assert.is_true(negative:has("a"))
        assert.is_false(negative:has("b"))
        cache:set_lease(caches.NEVER) -- of a remote that tells nothing
        assert.is_false(negative:has("a"))
    end)

    it("is off with a ttl of 0", function()
        negative = negatives.new(cache, 0)
        add "a"
        assert.is_false(negative:has("a"))
    end)

    it("holds a bounded number of ids, the latest among them", function()
        collectgarbage()
        collectgarbage()
        local before = collectgarbage("count")
        for i = 1, 100000 do
            add("unknown-" .. i)
        end
        collectgarbage()
        collectgarbage()
        local kilobytes = collectgarbage("count") - before
        assert.is_true(kilobytes < 2048, kilobytes .. " KiB")
        local known = 0
        for i = 1, 100000 do
            known = known + (negative:has("unknown-" .. i) and 1 or 0)
        end
        assert.is_true(known >= 2048 and known <= 4096, known)
        assert.is_true(negative:has("unknown-100000"))
    end)
end)
