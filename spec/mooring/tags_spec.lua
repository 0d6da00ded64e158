-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions counted by tag, in every storage that has a local tier.

local local_storage = require "resty.mooring.local_storage"
local remotes = require "support.remotes"
local routing_storage = require "resty.mooring.routing_storage"
local session = require "resty.mooring.session"

local TAGS = { red = 1, blue = 2 }
local names = 0

local function unique_name()
    names = names + 1
    return "tags_spec " .. names
end

local function colour(s)
    return TAGS[s.metadata.colour] or 0
end

local function make(id, name)
    return session.new(id, { metadata = { backend_url = "http://a:1", colour = name } })
end

local KINDS = {
    ["a local_storage"] = function(opts)
        opts.max_entries = opts.max_entries or 10
        return local_storage.new(opts)
    end,
    ["a routing_storage"] = function(opts)
        opts.max_local_entries = opts.max_entries or 10
        opts.max_entries = nil
        opts.remote = opts.remote or remotes.counting()
        return routing_storage.new(opts)
    end,
}

for kind, new in pairs(KINDS) do
    describe("the tags of " .. kind, function()
        local storage

        before_each(function()
            storage = new {}
            storage:classify(colour)
        end)

        after_each(function() storage:close() end)

        it("count what is stored, overwritten and deleted", function()
            storage:store(make("1", "red"))
            storage:store(make("2", "red"))
            storage:create(make("3", "blue"))
            assert.same({ 2, 1 }, { storage:tagged(1), storage:tagged(2) })
            storage:update(make("2", "blue"))
            assert.same({ 1, 2 }, { storage:tagged(1), storage:tagged(2) })
            storage:delete("3")
            assert.same({ 1, 1 }, { storage:tagged(1), storage:tagged(2) })
        end)

        it("do not change by a look", function()
            storage:store(make("1", "red"))
            for _ = 1, 3 do
                storage:resolve("1")
                storage:load("1")
            end
            assert.equal(1, storage:tagged(1))
        end)

        for what, answer in pairs { nothing = "nil", ["a text"] = "x", ["a fraction"] = 1.5,
                                    ["too high a number"] = 1024, ["a negative number"] = -1,
                                    ["no number at all"] = 0 / 0 } do
            it("take " .. what .. " for no tag", function()
                storage:classify(function() return answer ~= "nil" and answer or nil end)
                assert.is_true(storage:store(make("1", "red")))
                assert.equal(1, storage:tagged(0))
            end)
        end

        it("survive a classifier that throws", function()
            storage:classify(function() error("oops") end)
            assert.is_true(storage:store(make("1", "red")))
            assert.equal("http://a:1", storage:resolve("1"))
            assert.equal(1, storage:tagged(0))
        end)

        it("count right when the classifier itself stores something", function()
            storage:classify(function(s)
                if s.id == "1" then
                    storage:store(make("2", "blue"))
                end
                return colour(s)
            end)
            storage:store(make("1", "red"))
            assert.same({ 1, 1 }, { storage:tagged(1), storage:tagged(2) })
            assert.equal("red", storage:load("1").metadata.colour)
        end)

        it("are nobody's after close", function()
            storage:close()
            storage:classify(colour)
            local count, _, code = storage:tagged(1)
            assert.is_nil(count)
            assert.equal("closed", code)
        end)

        it("want a function", function()
            assert.error_matches(function() storage:classify("colour") end,
                                 "classifier must be a function", 1, true)
        end)

        it("are one count for all objects of a name", function()
            local opts = function() return { name = "tags " .. kind, remote = storage.remote } end
            local one, other = new(opts()), new(opts())
            one:classify(colour)
            one:store(make("1", "red"))
            assert.equal(1, other:tagged(1))
            other:delete("1")
            assert.equal(0, one:tagged(1))
            one:close()
            other:close()
        end)
    end)
end

describe("the tags of a routing_storage", function()
    it("count what is fetched, and not what is evicted", function()
        local remote = remotes.counting()
        for i = 1, 5 do
            remote:store(make(tostring(i), "red"))
        end
        local storage = routing_storage.new { max_local_entries = 3, remote = remote }
        storage:classify(colour)
        for i = 1, 5 do
            storage:resolve(tostring(i))
        end
        assert.equal(3, storage:tagged(1))
        storage:close()
    end)
end)

describe("the tags of a local_storage", function()
    it("are kept when it is opened again with another size", function()
        local name = unique_name()
        local storage = local_storage.new { name = name, max_entries = 10 }
        storage:classify(colour)
        for i = 1, 4 do
            storage:store(make(tostring(i), i > 1 and "red" or "blue"))
        end
        storage:close()
        storage = local_storage.new { name = name, max_entries = 20 }
        assert.same({ 3, 1 }, { storage:tagged(1), storage:tagged(2) })
        assert.is_true(storage.cache:check())
        storage:close()
    end)
end)
