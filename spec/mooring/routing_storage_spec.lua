-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local contract = require "support.contract"
local local_storage = require "resty.mooring.local_storage"
local remotes = require "support.remotes"
local routing_storage = require "resty.mooring.routing_storage"
local session = require "resty.mooring.session"

local URL = "http://10.0.0.1:8080"
local names = 0

local function unique_name()
    names = names + 1
    return "routing_storage_spec " .. names
end

local function make(id, url)
    return session.new(id, { metadata = { backend_url = url or URL } })
end

local function wait_until(what, condition)
    local deadline = os.time() + 10
    while not condition() do
        assert(os.time() < deadline, "in vain: " .. what)
    end
end

contract("a routing_storage over a user's table", function()
    return routing_storage.new { max_local_entries = 100, remote = remotes.counting() }
end)

contract("a routing_storage over a local_storage", function()
    return routing_storage.new { max_local_entries = 100,
                                 remote = local_storage.new { max_entries = 1000 } }
end)

contract("a routing_storage of one entry", function()
    return routing_storage.new { max_local_entries = 1, remote = remotes.counting() }
end)

describe("resty.mooring.routing_storage", function()
    local remote, storage

    before_each(function()
        remote = remotes.counting()
        storage = routing_storage.new { max_local_entries = 100, remote = remote }
    end)

    after_each(function() storage:close() end)

    it("loads what it stored without asking the remote", function()
        storage:store(make "a")
        assert.equal(URL, storage:load("a").metadata.backend_url)
        assert.equal(URL, storage:resolve("a"))
        assert.equal(1, remote.calls.store)
        assert.equal(0, remote.calls.load)
    end)

    describe(":create_later", function()
        local remote_said, answers, over

        before_each(function()
            answers = {}
            over = remotes.counting()
            over.create_later = function(_, s, callback)
                over.asked, remote_said = s.id, callback
                return true
            end
            storage:close()
            storage = routing_storage.new { max_local_entries = 100,
                                            remote = over }
        end)

        local function create()
            return storage:create_later(make "a", function(...)
                answers[#answers + 1] = { ... }
            end)
        end

        it("knows the session before the remote does", function()
            assert.is_true(create())
            assert.equal("a", over.asked)
            assert.same({}, answers)
            assert.equal(URL, storage:resolve "a")
            remote_said(true)
            assert.same({ { true } }, answers)
            assert.equal(URL, storage:resolve "a")
            assert.equal(0, over.calls.load)
        end)

        it("gives it up when the id is taken", function()
            over:store(make("a", "http://b:1"))
            create()
            remote_said(nil, "session already exists", "already_exists")
            assert.equal("already_exists", answers[1][3])
            assert.equal("http://b:1", storage:resolve "a")
        end)

        it("keeps it while nobody can say", function()
            create()
            remote_said(nil, "gone", "unavailable")
            assert.equal("unavailable", answers[1][3])
            assert.equal(URL, storage:resolve "a")
        end)

        it("knows nothing of what the remote refuses at once", function()
            over.create_later = function() return nil, "no", "invalid" end
            assert.equal("invalid", select(3, create()))
            assert.equal("not_found", select(3, storage:resolve "a"))
            assert.same({}, answers)
        end)

        it("refuses an id that is known here", function()
            storage:store(make("a", "http://b:1"))
            assert.equal("already_exists", select(3, create()))
            assert.is_nil(over.asked)
            assert.equal("http://b:1", storage:resolve "a")
        end)

        it("does not keep a session that was deleted meanwhile", function()
            create()
            storage:delete "a"
            remote_said(nil, "gone", "unavailable")
            assert.equal("not_found", select(3, storage:resolve "a"))
        end)

        it("refuses what create refuses", function()
            assert.has_error(function() storage:create_later("a") end,
                "session must be a session")
            assert.equal("invalid", select(3, storage:create_later(make "")))
            storage:close()
            assert.equal("closed", select(3, create()))
        end)
    end)

    it("asks the remote on a miss, and itself the second time", function()
        remote:store(make "a")
        assert.equal("a", storage:load("a").id)
        assert.equal(1, remote.calls.load)
        assert.equal("a", storage:load("a").id)
        assert.equal(URL, storage:resolve("a"))
        assert.equal(1, remote.calls.load)
    end)

    it("passes not_found through with the exact message", function()
        local s, err, code = storage:load("nobody")
        assert.is_nil(s)
        assert.equal("session not found", err)
        assert.equal("not_found", code)
    end)

    it("passes any other error of the remote through", function()
        remote.failing.load = { "could not reach the store", "unavailable" }
        local s, err, code = storage:load("a")
        assert.is_nil(s)
        assert.equal("could not reach the store", err)
        assert.equal("unavailable", code)
    end)

    it("never waits for the remote on a hit", function()
        storage:store(make "a")
        remote.failing.load = { "down", "unavailable" }
        assert.equal(URL, storage:resolve("a"))
        assert.equal("a", storage:load("a").id)
    end)

    it("deletes from both tiers", function()
        storage:store(make "a")
        assert.is_true(storage:delete("a"))
        assert.is_nil(remote.records.a)
        assert.equal("not_found", select(3, storage:load("a")))
    end)

    it("calls the remote's delete when the local tier has nothing", function()
        remote:store(make "a")
        assert.is_true(storage:delete("a"))
        assert.equal(1, remote.calls.delete)
        assert.is_nil(remote.records.a)
    end)

    it("returns the remote's error from delete and believes its copy no longer", function()
        storage:store(make "a")
        remote.failing.delete = { "down", "unavailable" }
        local ok, err, code = storage:delete("a")
        assert.is_nil(ok)
        assert.equal("down", err)
        assert.equal("unavailable", code)
        storage:load("a")
        assert.equal(1, remote.calls.load)
    end)

    it("leaves the local tier empty when the remote's store fails", function()
        remote.failing.store = { "down", "unavailable" }
        local ok, err, code = storage:store(make "a")
        assert.is_nil(ok)
        assert.equal("down", err)
        assert.equal("unavailable", code)
        assert.equal(0, storage:stats()["local"].entries)
        assert.equal("not_found", select(3, storage:load("a")))
        assert.equal(1, remote.calls.load)
    end)

    it("does not go on with the old value when a store over it fails", function()
        storage:store(make "a")
        remote.failing.store = { "no answer in time", "timeout" }
        storage:store(make("a", "http://new:1"))
        remote.records.a = remote.records.a:gsub("10.0.0.1", "10.0.0.9")
        assert.equal("http://10.0.0.9:8080", storage:resolve("a"))
    end)

    it("keeps max_local_entries copies, the others load from the remote", function()
        storage = routing_storage.new { max_local_entries = 2, remote = remote }
        for _, id in ipairs { "a", "b", "c" } do storage:store(make(id)) end
        assert.equal(2, storage:stats()["local"].entries)
        assert.equal("b", storage:load("b").id)
        assert.equal("c", storage:load("c").id)
        assert.equal(0, remote.calls.load)
        assert.equal("a", storage:load("a").id)
        assert.equal(1, remote.calls.load)
    end)

    it("delegates delete_expired, and what it removed is gone here too", function()
        local old = make "old"
        old.updated_at = 1000
        storage:store(old)
        storage:store(make "new")
        storage:load("old")
        assert.equal(1, storage:delete_expired(2000))
        assert.equal(1, remote.calls.delete_expired)
        assert.equal("not_found", select(3, storage:resolve("old")))
        assert.equal(URL, storage:resolve("new"))
    end)

    it("closes the remote and returns its error", function()
        remote.failing.close = { "stuck", "unavailable" }
        local ok, err, code = storage:close()
        assert.is_nil(ok)
        assert.equal("stuck", err)
        assert.equal("unavailable", code)
        assert.equal(1, remote.calls.close)
        assert.is_true(storage:close())
        assert.equal(1, remote.calls.close)
        assert.equal("closed", select(3, storage:load("a")))
    end)

    it("sees a direct store to the remote on the next miss", function()
        remote:store(make("a", "http://direct:1"))
        assert.equal("http://direct:1", storage:resolve("a"))
    end)

    it("believes a copy for local_ttl only", function()
        storage = routing_storage.new { max_local_entries = 10, remote = remote, local_ttl = 0.05 }
        storage:store(make "a")
        remote:store(make("a", "http://elsewhere:1"))
        assert.equal(URL, storage:resolve("a"))
        wait_until("the change is seen", function()
            return storage:resolve("a") == "http://elsewhere:1"
        end)
    end)

    describe("a race", function()
        it("of a delete with a fetch leaves no dead session behind", function()
            remote:store(make "a")
            local record = remote.records.a
            remote.before = function(method)
                if method == "load" then -- the reply is on its way when this happens
                    remote.before = nil
                    storage:delete("a")
                    remote.records.a = record
                end
            end
            assert.equal("a", storage:load("a").id)
            remote.records.a = nil
            assert.equal("not_found", select(3, storage:load("a")))
        end)

        it("of a store with a fetch leaves no old value behind", function()
            remote:store(make("a", "http://old:1"))
            local old = remote.records.a
            remote.before = function(method)
                if method == "load" then
                    remote.before = nil
                    storage:store(make("a", "http://new:1"))
                    remote.records.a, remote.newer = old, remote.records.a
                end
            end
            assert.equal("http://old:1", storage:resolve("a")) -- the late reply itself
            remote.records.a = remote.newer
            assert.equal("http://new:1", storage:resolve("a"))
        end)

        it("of two stores ends with the tiers agreeing", function()
            remote.before = function(method)
                if method == "store" then
                    remote.before = nil
                    storage:store(make("a", "http://inner:1"))
                end
            end
            storage:store(make("a", "http://outer:1"))
            assert.equal("http://outer:1", storage:resolve("a"))
            assert.matches("http://outer:1", (remote.records.a:gsub("\\/", "/")), 1, true)
        end)

        it("of a create with a fetch that finds nothing keeps the new session", function()
            local left = {}
            storage = routing_storage.new { max_local_entries = 10, remote = remote,
                on_evict = function(s, reason) left[#left + 1] = s.id .. " " .. reason end }
            remote.before = function(method)
                if method == "load" then
                    remote.before = nil
                    storage:store(make "a")
                    remote.records.a, remote.newer = nil, remote.records.a
                end
            end
            assert.equal("not_found", select(3, storage:load("a")))
            remote.records.a = remote.newer
            assert.equal(URL, storage:resolve("a"))
            assert.same({}, left)
        end)

        it("of close with a fetch does no harm", function()
            remote:store(make "a")
            remote.before = function(method)
                if method == "load" then
                    remote.before = nil
                    storage:close()
                end
            end
            storage:load("a")
            assert.equal("closed", select(3, storage:load("a")))
        end)
    end)

    describe("over a remote that has no create and update", function()
        it("does them with load and store", function()
            assert.is_true(storage:create(make "a"))
            assert.equal("already_exists", select(3, storage:create(make("a", "http://b:1"))))
            assert.equal(URL, storage:resolve("a"))
            assert.equal("not_found", select(3, storage:update(make "b")))
        end)

        it("returns unavailable when it cannot even look", function()
            remote.failing.load = { "down", "unavailable" }
            assert.equal("unavailable", select(3, storage:create(make "a")))
            assert.equal("unavailable", select(3, storage:update(make "a")))
            assert.equal(0, remote.calls.store)
        end)
    end)

    describe("over a remote that has no update_if and remove_if", function()
        local seen

        before_each(function()
            storage:store(make "a")
            seen = storage:load "a"
        end)

        it("does nothing when it cannot look what is there", function()
            remote.failing.load = { "down", "unavailable" }
            assert.same({ nil, "down", "unavailable" },
                        { storage:update_if(make("a", "http://b:1"), seen) })
            assert.same({ nil, "down", "unavailable" }, { storage:remove_if("a", seen) })
            assert.equal(1, remote.calls.store)
            assert.equal(0, remote.calls.delete)
            remote.failing.load = nil
            assert.equal(URL, storage:resolve "a")
        end)

        it("does nothing to a session that is gone", function()
            remote:delete "a"
            assert.is_false(storage:update_if(make("a", "http://b:1"), seen))
            assert.is_false(storage:remove_if("a", seen))
            assert.equal("not_found", select(3, storage:resolve "a"))
        end)
    end)

    it("has the remote's board, or none", function()
        assert.is_nil(storage:board("backends", error))
        local board = { key = "backends" }
        function remote.board(_, name) return name == board.key and board end
        assert.equal(board, storage:board("backends", error))
    end)

    it("serves a session larger than max_record without keeping it", function()
        storage = routing_storage.new { max_local_entries = 10, remote = remote, max_record = 256 }
        local s = make "a"
        s.data = ("x"):rep(1000)
        storage:store(s)
        assert.equal(URL, storage:resolve("a"))
        assert.equal(URL, storage:resolve("a"))
        assert.equal(2, remote.calls.load)
        assert.equal(3, storage:stats()["local"].too_large)
        assert.equal(0, storage:stats()["local"].entries)
    end)

    describe("with fewer max_local_bytes than", function()
        local function large(id, bytes)
            local s = make(id)
            s.data = ("x"):rep(bytes)
            return s
        end

        before_each(function()
            storage = routing_storage.new { max_local_entries = 10, remote = remote,
                max_local_bytes = 1024 }
        end)

        it("a session takes, serves it without keeping it, and evicts nobody", function()
            assert.is_true(storage:store(large("small", 10)))
            assert.is_true(storage:store(large("a", 2000)))
            for _ = 1, 2 do
                assert.equal(2000, #storage:load("a").data)
                assert.equal(URL, storage:resolve("a"))
            end
            assert.equal(4, remote.calls.load)
            assert.equal(URL, storage:resolve("small"))
            assert.equal(4, remote.calls.load)
            assert.equal(1, storage:stats()["local"].entries)
            assert.equal(5, storage:stats()["local"].too_large)
            assert.is_true(storage.cache:check())
        end)

        it("a session has grown to, does not go on serving what it was", function()
            assert.is_true(storage:store(large("a", 10)))
            assert.equal(10, #storage:load("a").data)
            assert.is_true(storage:update(large("a", 2000)))
            assert.equal(2000, #storage:load("a").data)
            assert.equal(0, storage:stats()["local"].entries)
            assert.is_true(storage.cache:check())
        end)

        it("all sessions take, keeps those used last", function()
            for _, id in ipairs { "a", "b", "c" } do
                assert.is_true(storage:store(large(id, 300)))
            end
            local before = remote.calls.load
            assert.equal(URL, storage:resolve("c"))
            assert.equal(before, remote.calls.load)
            assert.equal(URL, storage:resolve("a"))
            assert.equal(before + 1, remote.calls.load)
            assert.is_true(storage:stats()["local"].evicted_for_space > 0)
            assert.is_true(storage.cache:check())
        end)
    end)

    describe("on_evict", function()
        local left

        before_each(function()
            left = {}
            storage = routing_storage.new { max_local_entries = 2, remote = remote,
                on_evict = function(s, reason)
                    left[#left + 1] = s.id .. " " .. s.metadata.backend_url .. " " .. reason
                end }
        end)

        it("hears of capacity, deleted and closed, once each", function()
            for _, id in ipairs { "a", "b", "c" } do storage:store(make(id)) end
            storage:delete("b")
            storage:delete("b")
            storage:close()
            assert.same({ "a " .. URL .. " capacity", "b " .. URL .. " deleted",
                          "c " .. URL .. " closed" }, left)
        end)

        it("hears 'gone' when a copy turns out to be deleted elsewhere", function()
            storage = routing_storage.new { max_local_entries = 2, remote = remote,
                local_ttl = 0.02,
                on_evict = function(s, reason) left[#left + 1] = s.id .. " " .. reason end }
            storage:store(make "a")
            remote.records.a = nil
            wait_until("it is noticed", function() return not storage:resolve("a") end)
            assert.same({ "a gone" }, left)
        end)

        it("hears nothing of a copy dropped for coherence only", function()
            storage:store(make "a")
            storage:store(make("a", "http://new:1"))
            remote.failing.delete = { "down", "unavailable" }
            storage:delete("a")
            remote.failing.store = { "down", "unavailable" }
            storage:load("a")
            storage:store(make("a", "http://newer:1"))
            assert.same({}, left)
        end)
    end)

    describe("a name", function()
        it("lets another object over the same remote hit at once", function()
            local name = unique_name()
            local opts = { name = name, max_local_entries = 9, remote = remote }
            local one, other = routing_storage.new(opts), routing_storage.new(opts)
            one:store(make "a")
            assert.equal(URL, other:resolve("a"))
            assert.equal(0, remote.calls.load)
            other:delete("a")
            assert.equal("not_found", select(3, one:resolve("a")))
        end)

        it("raises for two live objects with different remotes", function()
            local name = unique_name()
            local function remote_of(fingerprint)
                local r = remotes.counting()
                r.fingerprint = function() return fingerprint end
                return r
            end
            local one = routing_storage.new { name = name, max_local_entries = 9,
                                              remote = remote_of "redis a" }
            one:store(make "a")
            assert.error_matches(function()
                routing_storage.new { name = name, max_local_entries = 9,
                                      remote = remote_of "redis b" }
            end, 'opts.name "' .. name .. '" is in use')
            one:close()
            -- and one after the other: entries of another remote are never hits
            local other = routing_storage.new { name = name, max_local_entries = 9,
                                                remote = remote_of "redis b" }
            assert.equal("not_found", select(3, other:load("a")))
        end)
    end)

    it("interleaves calls of several light threads without mixing them up", function()
        remote.before = function() if coroutine.running() then coroutine.yield() end end
        local threads, done = {}, 0
        for n = 1, 20 do
            threads[n] = coroutine.create(function()
                for i = 1, 50 do
                    local id = "t" .. (n % 5) .. "-" .. i
                    assert(storage:store(make(id, "http://" .. id .. ":1")))
                    assert.equal("http://" .. id .. ":1", storage:resolve(id))
                    assert.equal(id, storage:load(id).id)
                end
                done = done + 1
            end)
        end
        while done < 20 do
            for _, thread in ipairs(threads) do
                if coroutine.status(thread) ~= "dead" then
                    assert(coroutine.resume(thread))
                end
            end
        end
        assert.is_true(storage.cache:check())
    end)

    describe(".new", function()
        it("blames the caller for its mistakes", function()
            local ok, err = pcall(function()
                local made = routing_storage.new { max_local_entries = 0, remote = remote }
                return made
            end)
            assert.is_false(ok)
            assert.matches("routing_storage_spec", err, 1, true)
        end)

        for what, value in pairs { zero = 0, negative = -1, fractional = 1.5, string = "x",
                                   ["too large"] = 2^24 + 1 } do
            it("raises for a " .. what .. " max_local_entries", function()
                assert.error_matches(function()
                    routing_storage.new { max_local_entries = value, remote = remote }
                end, "opts.max_local_entries must be an integer "
                     .. "from 1 to 16777216")
            end)
        end

        it("raises when max_local_entries is missing", function()
            assert.error_matches(function() routing_storage.new { remote = remote } end,
                                 "opts.max_local_entries is required")
        end)

        it("raises when remote is missing or is no table", function()
            assert.error_matches(function() routing_storage.new { max_local_entries = 1 } end,
                                 "opts.remote is required and must be a storage")
            assert.error_matches(function()
                routing_storage.new { max_local_entries = 1, remote = "redis" }
            end, "opts.remote must be a storage")
        end)

        for _, method in ipairs { "store", "load", "delete", "delete_expired", "close" } do
            it("raises for a remote that lacks " .. method, function()
                remote[method] = nil
                assert.error_matches(function()
                    routing_storage.new { max_local_entries = 1, remote = remote }
                end, "opts.remote must have the method " .. method .. "$")
                remote.close = function() return true end
            end)
        end
    end)
end)
