-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local memo = require "resty.mooring.cache.memo"

local SLOTS = 16777216

local function new(max_entries)
    local self = {}
    memo.init(self, max_entries)
    return self
end

local function ref_of(slot, generation)
    return generation * SLOTS + slot
end

describe("resty.mooring.cache.memo", function()
    for _, size in ipairs { 1, 2, 50, 5000 } do
        it("holds the last id of each slot, and no other, at " .. size, function()
            math.randomseed(size)
            local self, refs = new(size), {}
            for generation = 1, 3000 do
                -- At times an id comes into another slot than it had.
                local new_id = "id-" .. math.random(2 * size)
                local slot = math.random(0, size - 1)
                memo.memoize(self, new_id, ref_of(slot, generation), "url-" .. generation)
                for id, ref in pairs(refs) do
                    if ref % SLOTS == slot then
                        refs[id] = nil
                    end
                end
                refs[new_id] = ref_of(slot, generation)
            end
            assert.same(refs, self.refs)
            for _, ref in pairs(self.refs) do
                assert.equal("url-" .. math.floor(ref / SLOTS), self.urls[ref % SLOTS])
            end
        end)
    end

    -- What fn allocates, in KiB.
    local function allocated(fn)
        jit.flush() -- traces take memory as well
        jit.off()
        collectgarbage()
        collectgarbage("stop")
        local before = collectgarbage("count")
        fn()
        local grown = collectgarbage("count") - before
        collectgarbage("restart")
        jit.on()
        return grown
    end

    it("has all of its memory from the start, and is seldom made anew", function()
        local n = 1000
        local ids = {}
        for i = 1, 20 * n do
            ids[i] = "session-" .. i
        end
        local self = new(n)
        local function keep(from, to)
            return function()
                for i = from, to do
                    memo.memoize(self, ids[i], ref_of(i % n, 1), "url")
                end
            end
        end
        local first = allocated(keep(1, n))
        assert.is_true(first < 1, first .. " KiB")
        -- once for a thousand ids, not each time that a table of 1,024 is full again
        assert.is_true(allocated(keep(n + 1, 20 * n)) < 20 * 64)
    end)
end)
