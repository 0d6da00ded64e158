-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cache = require "resty.mooring.cache"
local local_storage = require "resty.mooring.local_storage"
local routing_storage = require "resty.mooring.routing_storage"
local session = require "resty.mooring.session"

describe("resty.mooring.evictions", function()
    local storages

    before_each(function() storages = {} end)
    after_each(function()
        for _, storage in ipairs(storages) do
            storage:close()
        end
    end)

    local function new(opts)
        local storage = local_storage.new {
            max_entries = opts.max_entries or 4, full = "evict", ttl = opts.ttl,
            on_evict = opts.on_evict,
        }
        storages[#storages + 1] = storage
        return storage
    end

    local function put(storage, id)
        assert.is_true(storage:store(session.new(id, {
            metadata = { backend_url = "http://" .. id } })))
    end

    it("tell the whole session", function()
        local told
        local storage = new { on_evict = function(s) told = s end }
        local s = session.new("a", { type = "x", metadata = { backend_url = "u", k = "v" },
            data = { n = { 1 } }, created_at = 1000.5 })
        storage:store(s)
        storage:delete("a")
        assert.same({ "a", "x", { backend_url = "u", k = "v" }, { n = { 1 } }, 1000.5 },
            { told.id, told.type, told.metadata, told.data, told.created_at })
        assert.equal("v", told:get_metadata("k"))
    end)

    it("reach each of several hooks, each with a session of its own", function()
        local told = {}
        local storage = new { on_evict = function(s) told[1] = s s.id = "spoilt" end }
        storage:add_hook(function(s, reason) told[2], told.reason = s, reason end)
        put(storage, "a")
        storage:delete("a")
        assert.same({ "spoilt", "a", "deleted" }, { told[1].id, told[2].id, told.reason })
    end)

    it("reach a hook that is added to a storage without one", function()
        local told = 0
        local storage = new {}
        put(storage, "a")
        storage:delete("a")
        storage:add_hook(function() told = told + 1 end)
        put(storage, "b")
        storage:delete("b")
        assert.equal(1, told)
        local ok, err = pcall(storage.add_hook, storage, "x")
        assert.is_false(ok)
        assert.matches("on_evict must be a function", err)
    end)

    describe("whose hook uses the storage", function()
        describe("do not disturb", function()
            local NEVER = cache.NEVER
            local times = { stamp = 0, fresh_until = NEVER, expires_at = NEVER }
            local tier, hook

            before_each(function()
                tier = cache.new { max_entries = 2, max_record = 1000,
                    on_evict = function() hook() end }
            end)
            after_each(function()
                hook = function() end
                tier:close()
            end)

            local function put_record(id)
                assert.equal(0, tier:put(id, '{"id":"' .. id .. '","type":"x","created_at":'
                    .. '"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",'
                    .. '"metadata":{"backend_url":"u"}}', 0, times))
            end

            it("a look-up that is under way", function()
                put_record("left")
                put_record("mine")
                hook = function() put_record("other") tier:find("other") end
                tier:invalidate("left", cache.DELETED) -- to be told by the next call
                local entry = tier:find("mine")
                assert.equal("mine", tier:decode("mine", entry).id)
            end)

            it("a look-up of what the hook removes", function()
                put_record("left")
                put_record("mine")
                hook = function() tier:remove("mine", cache.QUIETLY) end
                tier:invalidate("left", cache.DELETED)
                assert.is_nil((tier:find("mine")))
            end)

            it("the reference of what was put", function()
                put_record("a")
                put_record("b")
                hook = function()
                    hook = function() end
                    tier:find("c")
                    put_record("d")
                end
                put_record("c") -- a leaves
                local ref = tier:last_ref()
                assert.equal(ref, tier:find("c", true).ref)
            end)
        end)

        it("tell what the hook makes leave, once and without recursion", function()
            local storage, told, depth, deepest = nil, {}, 0, 0
            storage = new { on_evict = function(s)
                depth = depth + 1
                deepest = math.max(deepest, depth)
                told[#told + 1] = s.id
                if #told < 3000 then
                    put(storage, "h" .. #told)
                end
                depth = depth - 1
            end }
            for i = 1, 5 do
                put(storage, "s" .. i)
            end
            assert.equal(1, deepest)
            assert.equal(3000, #told)
            local seen = {}
            for _, id in ipairs(told) do
                assert.is_nil(seen[id])
                seen[id] = true
            end
            assert.equal(5 + 2999, #told + storage:stats().entries)
        end)

        it("do not keep a worker for ever with a hook that puts back what leaves", function()
            local told = 0
            local storage
            storage = new { on_evict = function(s)
                told = told + 1
                storage:store(s)
            end }
            for i = 1, 5 do
                put(storage, "s" .. i)
            end
            assert.is_true(told >= 1 and told < 10000, told)
            assert.equal(4, storage:stats().entries)
            storages = {}
        end)

        it("may delete the session that leaves, and others", function()
            local storage, told = nil, {}
            storage = new { on_evict = function(s, reason)
                told[#told + 1] = s.id .. " " .. reason
                assert.is_true(storage:delete(s.id))
                assert.is_true(storage:delete("s3"))
            end }
            for i = 1, 5 do
                put(storage, "s" .. i)
            end
            assert.same({ "s1 capacity", "s3 deleted" }, told)
        end)

        it("tell everything when it closes the storage", function()
            local storage, told = nil, {}
            storage = new { on_evict = function(s, reason)
                told[#told + 1] = s.id .. " " .. reason
                storage:close()
            end }
            put(storage, "a")
            put(storage, "b")
            storage:delete("a")
            assert.same({ "a deleted", "b closed" }, told)
        end)
    end)

    it("go on after a hook that was killed while it waited", function()
        local told = {}
        local storage = new { on_evict = function(s)
            told[#told + 1] = s.id
            if s.id == "a" then
                coroutine.yield()
            end
        end }
        put(storage, "a")
        put(storage, "b")
        coroutine.resume(coroutine.create(function() storage:delete("a") end))
        storage:delete("b")
        assert.same({ "a", "b" }, told)
    end)

    it("are not held up by a hook that waits", function()
        local told = {}
        local storage = new { on_evict = function(s)
            if s.id == "a" then
                coroutine.yield()
            end
            told[#told + 1] = s.id
        end }
        put(storage, "a")
        put(storage, "b")
        local co = coroutine.create(function() storage:delete("a") return "deleted" end)
        coroutine.resume(co)
        storage:delete("b")
        assert.same({ true, "deleted" }, { coroutine.resume(co) })
        assert.same({ "b", "a" }, told)
    end)

    describe("of a deletion that asks a remote", function()
        local function over(remote, on_evict)
            local storage = routing_storage.new { max_local_entries = 2, remote = remote,
                on_evict = on_evict, local_ttl = 60 }
            storages[#storages + 1] = storage
            return storage
        end

        it("keep back that session only", function()
            local remote, told, storage = new { max_entries = 100 }, {}, nil
            storage = over(remote, function(s, reason)
                told[#told + 1] = s.id .. " " .. reason
                if s.id == "s1" then
                    put(storage, "s4") -- s2 leaves, and is told by the loop
                    remote.delete = function() return nil, "down", "unavailable" end
                    assert.is_nil((storage:delete("s4")))
                end
            end)
            put(storage, "s1")
            put(storage, "s2")
            put(storage, "s3")
            assert.same({ "s1 capacity", "s2 capacity" }, told)
        end)

        it("tell it when the storage was closed meanwhile", function()
            local remote, told = new { max_entries = 100 }, {}
            local delete = remote.delete
            local storage = over(remote, function(s, reason)
                told[#told + 1] = s.id .. " " .. reason
            end)
            put(storage, "a")
            remote.delete = function(self, id)
                local ok = delete(self, id)
                storage:close()
                return ok
            end
            assert.is_true(storage:delete("a"))
            assert.same({ "a deleted" }, told)
        end)
    end)
end)
