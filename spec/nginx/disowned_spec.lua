-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local disowned = require "resty.mooring.router.disowned"
local errors = require "resty.mooring.errors"
local process = require "support.process"
local semaphore = require "ngx.semaphore"

describe("resty.mooring.router.disowned", function()
    it("holds ten thousand sessions while the store does not answer, and counts the others",
       function()
        local counts, forgotten = { dropped = 0 }, 0
        local answers, asked = semaphore.new(0), false
        local sessions = disowned.new {
            counters = { add = function(_, name) counts[name] = counts[name] + 1 end },
            storage = { load = function()
                if not asked then
                    asked = true
                    answers:wait(60)
                end
                forgotten = forgotten + 1
                return errors.not_found()
            end },
        }
        sessions:add_ended("first", "http://a:1", 0)
        process.wait_for(function() return asked end, 5, "the store to be asked")
        for i = 1, 10003 do
            sessions:add_ended("s" .. i, "http://a:1", 0)
        end
        assert.equal(3, counts.dropped)
        answers:post()
        process.wait_for(function() return forgotten == 10001 end, 30, "all to be forgotten")
        sessions:add_ended("once more", "http://a:1", 0)
        process.wait_for(function() return forgotten == 10002 end, 5, "one more")
        assert.equal(3, counts.dropped)
    end)

    it("goes on when somebody else's function has ended its timer", function()
        local asked = {}
        local sessions = disowned.new { storage = { load = function(_, id)
            asked[id] = true
            if id == "first" then
                ngx.exit(500)
            end
            return errors.not_found()
        end } }
        for _, id in ipairs { "first", "second" } do
            sessions:add_ended(id, "http://a:1", 0)
            process.wait_for(function() return asked[id] end, 5, id)
        end
        process.wait_for(function() return not sessions.busy end, 5, "the end")
    end)
end)
