-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a routing storage does behind a request, over a remote that has the five
-- methods and no more.

local background = require "resty.mooring.background"
local routing_storage = require "resty.mooring.routing_storage"
local semaphore = require "ngx.semaphore"
local session = require "resty.mooring.session"

local NOT_FOUND = "session not found"
local FETCHES = 300 -- more than flights are kept for reuse

describe("resty.mooring.routing_storage in nginx", function()
    local kept, failure

    local remote = {
        store = function(_, s) kept[s.id] = s return true end,
        load = function(_, id)
            if failure then
                return nil, failure, "unavailable"
            end
            return kept[id], NOT_FOUND, "not_found"
        end,
        delete = function(_, id) kept[id] = nil return true end,
        delete_expired = function() return 0 end,
        close = function() return true end,
    }

    local storage

    before_each(function()
        kept, failure = {}, nil
        storage = routing_storage.new { max_local_entries = 10, remote = remote }
    end)
    after_each(function() storage:close() end)

    -- What the callback of a create_later has been told.
    local function create_later(s)
        local done, results = semaphore.new(0), nil
        assert.is_true(storage:create_later(s, function(...)
            results = { n = select("#", ...), ... }
            done:post()
        end))
        assert(done:wait(5))
        return unpack(results, 1, results.n)
    end

    local function new()
        return session.new("later", { metadata = { backend_url = "http://a:80" } })
    end

    it("leaves an error of the remote to the request that asked, and tells those who waited",
        function()
        local entered, go, load = semaphore.new(0), semaphore.new(0), remote.load
        function remote.load()
            entered:post()
            assert(go:wait(5))
            error("oops", 0)
        end
        local first = ngx.thread.spawn(function() return pcall(storage.load, storage, "a") end)
        assert(entered:wait(5))
        local second = ngx.thread.spawn(function() return storage:load("a") end)
        go:post()
        local asked = { ngx.thread.wait(first) }
        local waited = { ngx.thread.wait(second) }
        remote.load = load
        assert.same({ true, false, "oops" }, asked)
        assert.same({ true, nil, "the fetch failed", "unavailable" }, waited)
        kept.a = session.new("a")
        assert.equal("a", assert(storage:load("a")).id)
    end)

    it("fetches hundreds of sessions at once, and again", function()
        local load = remote.load
        local entered, go = 0, semaphore.new(0)
        function remote.load(_, id)
            entered = entered + 1
            assert(go:wait(5))
            return load(_, id)
        end
        for round = 1, 2 do
            local threads = {}
            for i = 1, FETCHES do
                local id = round .. "-" .. i
                kept[id] = session.new(id)
                threads[i] = ngx.thread.spawn(storage.load, storage, id)
            end
            assert.equal(round * FETCHES, entered)
            go:post(FETCHES)
            for i = 1, FETCHES do
                local _, s = ngx.thread.wait(threads[i])
                assert.equal(round .. "-" .. i, s.id)
            end
        end
        remote.load = load
    end)

    it("sweeps once, however often it is started", function()
        local every = stub(background, "every")
        finally(function() every:revert() end)
        storage:start()
        storage:start()
        assert.stub(every).was_called(1)
    end)

    it("says what the remote says when it cannot delete what has expired", function()
        function remote.delete_expired() return nil, "away", "unavailable" end
        assert.same({ nil, "away", "unavailable" }, { storage:delete_expired(0) })
        function remote.delete_expired() return 0 end
        assert.equal(0, storage:delete_expired(0))
    end)

    it("takes functions for hooks, and nothing else", function()
        assert.error_matches(function() storage:add_hook "x" end, "on_evict must be a function")
    end)

    it("creates a session later", function()
        assert.is_true((create_later(new())))
        assert.equal("http://a:80", kept.later.metadata.backend_url)
        assert.equal("http://a:80", (storage:resolve("later")))
    end)

    it("refuses at once what can never be stored", function()
        local unwritable = new()
        unwritable.data = { print }
        for _, s in ipairs { unwritable, session.new "a b" } do
            local ok, _, code = storage:create_later(s, error)
            assert.is_nil(ok)
            assert.equal("invalid", code)
        end
        assert.error_matches(function() storage:create_later({ id = 7 }, error) end,
            "session must be a session")
    end)

    it("tells later that there is one already", function()
        kept.later = new()
        local ok, _, code = create_later(new())
        assert.is_nil(ok)
        assert.equal("already_exists", code)
    end)

    it("tells later that the remote cannot be asked", function()
        failure = "away"
        local ok, err, code = create_later(new())
        assert.is_nil(ok)
        assert.matches("away", err)
        assert.equal("unavailable", code)
        assert.is_nil(kept.later)
    end)
end)
