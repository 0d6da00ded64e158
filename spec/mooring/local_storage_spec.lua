-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local clock = require("resty.mooring.ffi").now
local contract = require "support.contract"
local local_storage = require "resty.mooring.local_storage"
local log = require "resty.mooring.log"
local session = require "resty.mooring.session"

local URL = "http://10.0.0.1:8080"
local names = 0

local function unique_name()
    names = names + 1
    return "local_storage_spec " .. names
end

local function bind(storage, id, url)
    return storage:store(session.new(id, { metadata = { backend_url = url or URL } }))
end

local function wait_until(what, condition)
    local deadline = os.time() + 10
    while not condition() do
        assert(os.time() < deadline, "in vain: " .. what)
    end
end

contract("a private local_storage", function()
    return local_storage.new { max_entries = 500 }
end, { truth = true })

contract("a named local_storage", function()
    return local_storage.new { name = unique_name(), max_entries = 500 }
end, { truth = true, reopen = function(storage)
    return local_storage.new { name = storage.cache.name, max_entries = 500 }
end })

describe("resty.mooring.local_storage", function()
    it("deletes what has expired, however much it is", function()
        local storage = local_storage.new { max_entries = 10000 }
        for i = 1, 5000 do
            assert(bind(storage, "old-" .. i))
        end
        local kept = session.new("kept", { updated_at = os.time() + 100 })
        assert(storage:store(kept))
        assert.equal(5000, storage:delete_expired(os.time() + 50))
        assert.is_nil((storage:load "old-1"))
        assert.is_nil((storage:load "old-5000"))
        assert.equal("kept", storage:load("kept").id)
        storage:close()
    end)

    describe("when it is full of sessions in use", function()
        it("refuses new ones and keeps the old ones", function()
            local storage = local_storage.new { max_entries = 2 }
            bind(storage, "a")
            bind(storage, "b")
            local ok, err, code = bind(storage, "c")
            assert.is_nil(ok)
            assert.equal("the storage is full", err)
            assert.equal("full", code)
            assert.equal(URL, storage:resolve("a"))
            assert.equal(URL, storage:resolve("b"))
            assert.equal(1, storage:stats().refused)
            assert.is_true(bind(storage, "a", "http://moved:1")) -- an overwrite needs no room
            assert.equal("http://moved:1", storage:resolve("a"))
        end)

        for wanted, opts in pairs {
            ["max_entries"] = { max_entries = 1 },
            ["max_entries or max_bytes"] = { max_entries = 1, max_bytes = 2048 },
        } do
            it("says that one may raise " .. wanted, function()
                local said
                local warn_limited = log.warn_limited
                log.warn_limited = function(_, ...) said = table.concat { ... } end
                local storage = local_storage.new(opts)
                bind(storage, "a")
                bind(storage, "b")
                log.warn_limited = warn_limited
                assert.equal("raise " .. wanted, said:match("; (.*)$"))
            end)
        end

        it("evicts the least recently used one with full = 'evict'", function()
            local storage = local_storage.new { max_entries = 2, full = "evict" }
            bind(storage, "a")
            bind(storage, "b")
            storage:resolve("a")
            assert.is_true(bind(storage, "c"))
            assert.equal(URL, storage:resolve("a"))
            assert.is_nil(storage:resolve("b"))
            assert.equal(1, storage:stats().evicted)
        end)

        describe("and what is full is its bytes", function()
            local function large(id, bytes, url)
                return session.new(id, { metadata = { backend_url = url or URL,
                    long = ("x"):rep(bytes) } })
            end

            it("refuses new ones, and overwrites as far as there is room", function()
                local storage = local_storage.new { max_entries = 10, max_bytes = 2048 }
                assert.is_true(storage:store(large("a", 700)))
                assert.is_true(storage:store(large("b", 700)))
                assert.equal("full", select(3, storage:store(large("c", 700))))
                assert.equal("full", select(3, storage:store(large("b", 1500, "http://n:1"))))
                assert.equal("full", select(3, storage:update(large("b", 1500, "http://n:1"))))
                assert.equal(URL, storage:resolve("a"))
                assert.equal(URL, storage:resolve("b"))
                assert.is_true(storage:store(large("b", 300, "http://moved:1")))
                assert.equal("http://moved:1", storage:resolve("b"))
                assert.is_true(storage:store(large("d", 10)))
                assert.equal(3, storage:stats().refused)
                assert.is_true(storage.cache:check())
            end)

            it("evicts as many as it needs with full = 'evict', and tells of each", function()
                local left = {}
                local storage = local_storage.new { max_entries = 10, max_bytes = 2048,
                    full = "evict",
                    on_evict = function(s, reason) left[#left + 1] = s.id .. " " .. reason end }
                for _, id in ipairs { "a", "b", "c" } do
                    assert.is_true(storage:store(large(id, 400)))
                end
                assert.is_true(storage:store(large("d", 1000)))
                assert.same({ "a capacity", "b capacity" }, left)
                assert.equal(URL, storage:resolve("c"))
                assert.equal(URL, storage:resolve("d"))
                assert.equal(2, storage:stats().evicted_for_space)
                assert.is_true(storage.cache:check())
            end)

            it("refuses one that would not fit alone, and evicts nobody for it", function()
                for _, full in ipairs { "refuse", "evict" } do
                    local storage = local_storage.new { max_entries = 10, max_bytes = 2048,
                        full = full }
                    bind(storage, "a")
                    local ok, _, code = storage:store(large("b", 3000))
                    assert.is_nil(ok)
                    assert.equal("invalid", code)
                    assert.equal(URL, storage:resolve("a"))
                    assert.is_true(storage.cache:check())
                end
            end)
        end)

        it("takes new ones again when old ones have expired", function()
            local storage = local_storage.new { max_entries = 2, ttl = 0.05 }
            bind(storage, "a")
            bind(storage, "b")
            wait_until("room after the ttl", function() return bind(storage, "c") end)
            assert.equal(URL, storage:resolve("c"))
        end)
    end)

    describe("sliding expiry", function()
        it("keeps a session in use and drops an idle one", function()
            local storage = local_storage.new { ttl = 0.2 }
            bind(storage, "used")
            bind(storage, "idle")
            local hits, started = 0, os.clock()
            wait_until("the idle one is gone", function()
                hits = hits + (storage:resolve("used") and 1 or -1e9)
                return not storage:peek("idle")
            end)
            while os.clock() - started < 1 do
                hits = hits + (storage:resolve("used") and 1 or -1e9)
            end
            assert.is_true(hits > 0)
        end)

        it("counts from the store, however old updated_at is", function()
            local storage = local_storage.new { ttl = 100 }
            storage:store(session.new("old", { created_at = 5, updated_at = 5,
                                               metadata = { backend_url = URL } }))
            assert.equal(URL, storage:resolve("old"))
        end)

        it("ends at max_lifetime, in use or not", function()
            local storage = local_storage.new { ttl = 100, max_lifetime = 0.1 }
            bind(storage, "a")
            assert.equal(URL, storage:resolve("a"))
            wait_until("the end of its life", function() return not storage:resolve("a") end)
        end)
    end)

    it("answers invalid to a session larger than max_record, and keeps the old one", function()
        local storage = local_storage.new { max_record = 1024 }
        bind(storage, "a")
        local ok, err, code = storage:store(session.new("a", { data = ("x"):rep(2000) }))
        assert.is_nil(ok)
        assert.equal("the session is larger than max_record", err)
        assert.equal("invalid", code)
        assert.equal(URL, storage:resolve("a"))
    end)

    describe("on_evict", function()
        local left, storage

        local function make(opts)
            left = {}
            opts.on_evict = function(s, reason)
                left[#left + 1] = s.id .. " " .. s.metadata.backend_url .. " " .. reason
            end
            storage = local_storage.new(opts)
        end

        it("hears the whole session and the reason of each that leaves, once", function()
            make { max_entries = 2, full = "evict" }
            bind(storage, "a")
            bind(storage, "b")
            bind(storage, "c")
            bind(storage, "c", "http://moved:1") -- an overwrite is no leaving
            storage:delete("b")
            storage:delete("b")
            storage:close()
            assert.same({ "a " .. URL .. " capacity", "b " .. URL .. " deleted",
                          "c http://moved:1 closed" }, left)
        end)

        it("hears of expired sessions", function()
            make { ttl = 0.05 }
            bind(storage, "a")
            wait_until("a left", function() storage:peek("other") return left[1] end)
            assert.same({ "a " .. URL .. " expired" }, left)
        end)

        it("hears of one that is asked for when it has expired", function()
            make { ttl = 0.01 }
            for i = 1, 20 do -- more than one call sweeps
                bind(storage, "s" .. i)
            end
            local stored = clock()
            wait_until("all have expired", function() return clock() - stored > 20 end)
            assert.equal("not_found", select(3, storage:load("s20")))
            local told = 0
            for _, line in ipairs(left) do
                told = told + (line == "s20 " .. URL .. " expired" and 1 or 0)
            end
            assert.equal(1, told)
        end)

        it("may call the storage itself", function()
            left = {}
            storage = local_storage.new { max_entries = 2, full = "evict",
                on_evict = function(s, reason)
                    left[#left + 1] = s.id .. " " .. reason
                    if s.id == "a" then
                        bind(storage, "d")
                    end
                end }
            bind(storage, "a")
            bind(storage, "b")
            bind(storage, "c")
            assert.same({ "a capacity", "b capacity" }, left)
            assert.equal(URL, storage:resolve("d"))
        end)

        it("costs nothing when it throws, and is counted", function()
            storage = local_storage.new { max_entries = 1, full = "evict",
                                          on_evict = function() error("oops") end }
            bind(storage, "a")
            assert.is_true(bind(storage, "b"))
            assert.equal(1, storage:stats().hook_errors)
        end)
    end)

    describe("a name", function()
        it("finds the sessions again after the object was closed", function()
            local name = unique_name()
            local one = local_storage.new { name = name }
            bind(one, "a")
            one:close()
            assert.equal(URL, local_storage.new({ name = name }):resolve("a"))
        end)

        it("carries the sessions over into a region of another size", function()
            local name = unique_name()
            local one = local_storage.new { name = name, max_entries = 100 }
            for i = 1, 100 do bind(one, "id" .. i) end
            one:close()
            local other = local_storage.new { name = name, max_entries = 200 }
            for i = 1, 100 do assert.equal(URL, other:resolve("id" .. i)) end
            assert.equal(200, other:stats().max_entries)
        end)

        it("keeps two storages without a name apart", function()
            local one, other = local_storage.new {}, local_storage.new {}
            bind(one, "a")
            assert.is_nil(other:resolve("a"))
        end)
    end)

    describe(".new", function()
        it("blames the caller for its mistakes", function()
            local ok, err = pcall(function()
                local storage_of_bad_options = local_storage.new { ttl = 0 }
                return storage_of_bad_options
            end)
            assert.is_false(ok)
            assert.matches("local_storage_spec", err, 1, true)
        end)

        for message, opts in pairs {
            ["opts.max_entries must be an integer"] = { max_entries = 0 },
            ["opts.ttl must be a positive number"] = { ttl = 0 },
            ["opts.ttl must be at most"] = { ttl = 1e300 },
            ["opts.max_lifetime must be at most"] = { max_lifetime = 1e300 },
            ['opts.full must be "refuse" or "evict"'] = { full = "drop" },
            ["opts.name must be a non-empty string"] = { name = "" },
            ["opts.on_evict must be a function"] = { on_evict = "x" },
            ["opts.max_entrys is not an option"] = { max_entrys = 1 },
        } do
            it("raises '" .. message .. "'", function()
                assert.error_matches(function() local_storage.new(opts) end,
                                     message, 1, true)
            end)
        end
    end)
end)
