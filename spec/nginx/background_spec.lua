-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local background = require "resty.mooring.background"
local local_storage = require "resty.mooring.local_storage"
local process = require "support.process"
local session = require "resty.mooring.session"

describe("resty.mooring.background in nginx", function()
    it("calls again after the time that was answered, and not after nothing", function()
        local owner, calls = {}, 0
        assert.truthy(background.every(0.01, owner, function(given)
            assert.equal(owner, given)
            calls = calls + 1
            return calls == 1 or calls < 5 and 0.001 or nil
        end))
        process.wait_for(function() return calls == 5 end, 5, "five calls")
        process.nap(0.05)
        assert.equal(5, calls)
    end)

    it("lets go of an owner that nobody uses, and ends with it", function()
        local seen, calls, witness, ticks = setmetatable({}, { __mode = "v" }), 0, {}, 0
        local function begin()
            seen.owner = {}
            background.every(0.01, seen.owner, function()
                calls = calls + 1
                return true
            end)
        end
        begin()
        process.wait_for(function() return calls >= 2 end, 5, "two calls")
        process.wait_for(function()
            collectgarbage()
            return seen.owner == nil
        end, 5, "the collector")
        local before = calls
        background.every(0.01, witness, function()
            ticks = ticks + 1
            return ticks < 5
        end)
        process.wait_for(function() return ticks == 5 end, 5, "another one's calls")
        assert.equal(before, calls)
    end)

    it("does not wait for its interval where it was told soon", function()
        local owner, calls = {}, 0
        background.every(0.01, owner, function()
            calls = calls + 1
            return calls < 1000 and 0.001 or 1e6
        end)
        process.wait_for(function() return calls == 1000 end, 30, "a thousand calls")
    end)

    it("sweeps on when an on_evict has ended its timer, and counts that",
       function()
        local told = {}
        local storage = local_storage.new { max_entries = 10, ttl = 0.2,
            on_evict = function(s)
                told[s.id] = true
                if s.id == "first" then
                    ngx.exit(500)
                end
            end }
        storage:start()
        for _, id in ipairs { "first", "second" } do
            assert.is_true(storage:store(session.new(id)))
            process.wait_for(function() return told[id] end, 5, id)
        end
        assert.equal(1, storage:stats().hook_errors)
        storage:close()
    end)

    it("leaves a storage alone that was closed by an on_evict", function()
        local storage
        storage = local_storage.new { max_entries = 10, ttl = 0.1,
            on_evict = function() storage:close() end }
        storage:start()
        assert.is_true(storage:store(session.new("a")))
        process.wait_for(function()
            return storage:stats() == nil
        end, 5, "the end")
        process.nap(0.3)
    end)

    it("sweeps on at once when many sessions have expired", function()
        local told = 0
        local storage = local_storage.new { max_entries = 5000, ttl = 0.5,
            on_evict = function() told = told + 1 end }
        storage:start()
        for i = 1, 5000 do
            assert(storage:store(session.new("s" .. i)))
        end
        local turns, sweep = 0, storage.cache.sweep_turn
        storage.cache.sweep_turn = function(self)
            turns = turns + 1
            local again = sweep(self)
            local left = self:stats().entries
            -- Nothing new comes: a full step says that it was one.
            assert(again == true or again < 0.1 and left < 5000)
            return again
        end
        process.wait_for(function() return told == 5000 end, 30, "the hooks")
        assert.is_true(turns >= 9, turns) -- 512 at most in each
        storage:close()
    end)
end)
