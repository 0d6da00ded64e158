-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What every storage promises. A spec file calls contract(name, make), with
-- make() returning a fresh, empty storage; `options.truth` is true where
-- delete_expired has something to do, `options.reopen(storage)` returns a
-- second object over the same sessions.

local session = require "resty.mooring.session"

local URL = "http://10.0.0.1:8080"
local counter = 0

local function new(fields)
    counter = counter + 1
    fields = fields or {}
    fields.metadata = fields.metadata or { backend_url = URL }
    return session.new("session-" .. counter, fields)
end

return function(name, make, options)
    -- busted's functions are globals of the spec file, not of this one
    setfenv(1, getfenv(2))
    options = options or {}

    local function assert_error(code, result, err, actual)
        assert.is_nil(result)
        assert.is_string(err)
        assert.equal(code, actual)
        if code == "not_found" then
            assert.equal("session not found", err)
        end
    end

    describe("the storage contract of " .. name, function()
        local storage

        before_each(function() storage = make() end)
        after_each(function() storage:close() end)

        it("loads what was stored", function()
            local s = new { type = "sse", data = { n = 1 }, created_at = 1750000000.25,
                            metadata = { backend_url = URL, backend_pod = "pod-1" } }
            assert.is_true(storage:store(s))
            local loaded = assert(storage:load(s.id))
            assert.equal(s.id, loaded.id)
            assert.equal("sse", loaded.type)
            assert.equal(1750000000.25, loaded.created_at)
            assert.equal(s.updated_at, loaded.updated_at)
            assert.same({ n = 1 }, loaded.data)
            assert.same({ backend_url = URL, backend_pod = "pod-1" }, loaded.metadata)
        end)

        it("returns the caller's own view of a session", function()
            local s = new()
            storage:store(s)
            s:set_metadata("backend_url", "changed")
            local one = storage:load(s.id)
            assert.equal(URL, one.metadata.backend_url)
            one:set_metadata("backend_url", "changed")
            assert.equal(URL, storage:load(s.id).metadata.backend_url)
            assert.equal(URL, storage:resolve(s.id))
        end)

        it("resolves a session to its backend_url", function()
            local s = new()
            storage:store(s)
            assert.equal(URL, storage:resolve(s.id))
            assert.equal(URL, storage:resolve(s.id))
        end)

        it("calls a session without backend_url invalid to resolve, yet loads it", function()
            local s = session.new("unbound")
            storage:store(s)
            assert_error("invalid", storage:resolve("unbound"))
            assert.equal("unbound", storage:load("unbound").id)
        end)

        it("answers not_found with the exact message for an unknown id", function()
            assert_error("not_found", storage:load("nobody"))
            assert_error("not_found", storage:resolve("nobody"))
        end)

        it("overwrites on store", function()
            local s = new()
            storage:store(s)
            storage:load(s.id)
            s:set_metadata("backend_url", "http://10.0.0.2:8080")
            assert.is_true(storage:store(s))
            assert.equal("http://10.0.0.2:8080", storage:resolve(s.id))
            assert.equal("http://10.0.0.2:8080", storage:load(s.id).metadata.backend_url)
        end)

        it("creates only what is not there", function()
            local s = new()
            assert.is_true(storage:create(s))
            s:set_metadata("backend_url", "http://other:1")
            assert_error("already_exists", storage:create(s))
            assert.equal(URL, storage:resolve(s.id))
        end)

        it("updates only what is there", function()
            local s = new()
            assert_error("not_found", storage:update(s))
            assert_error("not_found", storage:load(s.id))
            storage:store(s)
            s:set_metadata("backend_url", "http://other:1")
            assert.is_true(storage:update(s))
            assert.equal("http://other:1", storage:resolve(s.id))
        end)

        it("does not bring back a deleted session by an update", function()
            local s = new()
            storage:store(s)
            storage:delete(s.id)
            assert_error("not_found", storage:update(s))
            assert_error("not_found", storage:load(s.id))
        end)

        it("deletes, and takes the delete of an unknown id for done", function()
            local s = new()
            storage:store(s)
            storage:resolve(s.id)
            assert.is_true(storage:delete(s.id))
            assert_error("not_found", storage:load(s.id))
            assert_error("not_found", storage:resolve(s.id))
            assert.is_true(storage:delete(s.id))
            assert.is_true(storage:delete("nobody"))
        end)

        it("removes only the very record that was seen", function()
            local s = new()
            storage:store(s)
            local seen = storage:load(s.id)
            s:set_metadata("backend_url", "http://newer:1")
            storage:store(s)
            assert.is_false(storage:remove_if(s.id, seen))
            assert.equal("http://newer:1", storage:resolve(s.id))
            assert.is_true(storage:remove_if(s.id, storage:load(s.id)))
            assert_error("not_found", storage:load(s.id))
            assert.is_false(storage:remove_if(s.id, seen))
        end)

        it("updates only the very record that was seen", function()
            local s = new()
            assert.is_false(storage:update_if(s, s))
            assert_error("not_found", storage:load(s.id))
            storage:store(s)
            local seen, other = storage:load(s.id), storage:load(s.id)
            s:set_metadata("backend_url", "http://newer:1")
            assert.is_true(storage:update_if(s, seen))
            assert.equal("http://newer:1", storage:resolve(s.id))
            s:set_metadata("backend_url", "http://late:1")
            assert.is_false(storage:update_if(s, other))
            assert.equal("http://newer:1", storage:resolve(s.id))
            assert.is_true(storage:update_if(s, storage:load(s.id)))
            assert.equal("http://late:1", storage:resolve(s.id))
            storage:delete(s.id)
            assert.is_false(storage:update_if(s, s))
            assert_error("not_found", storage:load(s.id))
        end)

        it("takes ids of every byte from 0x21 to 0x7E", function()
            local ids = {}
            for b = 0x21, 0x7E do
                ids[#ids + 1] = "id" .. string.char(b)
            end
            local all = {}
            for b = 0x21, 0x7E do all[#all + 1] = string.char(b) end
            ids[#ids + 1] = table.concat(all)
            for _, id in ipairs(ids) do
                assert.is_true(storage:store(session.new(id, {
                    metadata = { backend_url = "http://" .. #id .. ":1/" .. id } })))
            end
            for _, id in ipairs(ids) do
                assert.equal("http://" .. #id .. ":1/" .. id, storage:resolve(id))
                assert.equal(id, storage:load(id).id)
            end
        end)

        it("answers invalid to ids that no session can have", function()
            for _, id in ipairs { "", "a b", "tab\t", "\127", "\0", "caf\195\169",
                                  ("x"):rep(4097) } do
                assert_error("invalid", storage:load(id))
                assert_error("invalid", storage:resolve(id))
                assert_error("invalid", storage:delete(id))
                assert_error("invalid", storage:store(session.new(id)))
                assert_error("invalid", storage:create(session.new(id)))
                assert_error("invalid", storage:update(session.new(id)))
                assert_error("invalid", storage:update_if(session.new(id), new()))
                assert_error("invalid", storage:remove_if(id, new()))
            end
        end)

        it("answers invalid to a session that cannot be written, and keeps the old one", function()
            local s = new()
            storage:store(s)
            s.metadata = { backend_url = 7 }
            assert_error("invalid", storage:store(s))
            assert.equal(URL, storage:resolve(s.id))
        end)

        it("raises for mistakes of the caller", function()
            for _, method in ipairs { "load", "resolve", "delete" } do
                assert.error_matches(function() storage[method](storage) end,
                                     "id must be a string")
            end
            for _, method in ipairs { "store", "create", "update" } do
                for _, wrong in ipairs { "x", {}, { id = 7 } } do
                    assert.error_matches(function() storage[method](storage, wrong) end,
                                         "session must be a session")
                end
            end
            for _, wrong in ipairs { "now", 0 / 0 } do
                assert.error_matches(function() storage:delete_expired(wrong) end,
                                     "before must be a number %(unix seconds%)")
            end
        end)

        it("blames the caller for its mistakes", function()
            for _, call in ipairs { function() local s = storage:load(7) return s end,
                                    function() local s = storage:resolve(7) return s end,
                                    function() local ok = storage:delete(7) return ok end,
                                    function() local ok = storage:store(7) return ok end,
                                    function() local ok = storage:create(7) return ok end,
                                    function() local ok = storage:update(7) return ok end,
                                    function() local ok = storage:delete_expired("") return ok end,
                                  } do
                local ok, err = pcall(call)
                assert.is_false(ok)
                assert.matches("contract.lua", err, 1, true)
            end
        end)

        it("returns a count from delete_expired", function()
            storage:store(new())
            assert.equal(0, storage:delete_expired(0))
        end)

        if options.truth then
            it("delete_expired removes what was neither updated nor loaded since", function()
                local now = os.time()
                local old = new { created_at = now - 500, updated_at = now - 500 }
                local used = new { created_at = now - 500, updated_at = now - 500 }
                local fresh = new()
                for _, s in ipairs { old, used, fresh } do storage:store(s) end
                storage:load(used.id)
                assert.equal(1, storage:delete_expired(now - 100))
                assert_error("not_found", storage:load(old.id))
                assert.equal(used.id, storage:load(used.id).id)
                assert.equal(fresh.id, storage:load(fresh.id).id)
            end)
        end

        it("answers closed to every call after close, which may be repeated", function()
            local s = new()
            storage:store(s)
            storage:resolve(s.id)
            assert.is_true(storage:close())
            assert.is_true(storage:close())
            assert_error("closed", storage:load(s.id))
            assert_error("closed", storage:resolve(s.id))
            assert_error("closed", storage:store(s))
            assert_error("closed", storage:create(s))
            assert_error("closed", storage:update(s))
            assert_error("closed", storage:update_if(s, s))
            assert_error("closed", storage:delete(s.id))
            assert_error("closed", storage:delete_expired(0))
            assert_error("closed", storage:stats())
        end)

        it("has stats made of numbers", function()
            storage:store(new())
            local function check(stats)
                for _, value in pairs(stats) do
                    if type(value) == "table" then
                        check(value)
                    else
                        assert.is_true(type(value) == "number" or type(value) == "boolean")
                    end
                end
            end
            check(storage:stats())
        end)

        if options.reopen then
            it("shows another object over the same sessions every change at once", function()
                local other = options.reopen(storage)
                local s = new()
                storage:store(s)
                assert.equal(URL, other:resolve(s.id))
                s:set_metadata("backend_url", "http://moved:1")
                other:store(s)
                assert.equal("http://moved:1", storage:resolve(s.id))
                storage:delete(s.id)
                assert_error("not_found", other:resolve(s.id))
                other:close()
            end)
        end
    end)
end
