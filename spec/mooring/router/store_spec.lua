-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a router makes of a storage that has the five methods and no more.

local log = require "resty.mooring.log"
local session = require "resty.mooring.session"
local store = require "resty.mooring.router.store"

describe("resty.mooring.router.store", function()
    local function storage_of(load)
        local stored = {}
        return { load = function(_, id) return load(id) end,
                 store = function(_, s) table.insert(stored, s.id) return true end,
                 delete = function() return true end }, stored
    end

    describe("a resolver over load", function()
        local function resolve(...)
            local results = { ... }
            local storage = storage_of(function() return unpack(results, 1, 3) end)
            return store.resolver(storage)(storage, "x")
        end

        it("gives the backend_url, and says when it is stale", function()
            local s = session.new("x", { metadata = { backend_url = "http://a:80" } })
            assert.same({ "http://a:80" }, { resolve(s) })
            assert.same({ "http://a:80", nil, "stale" }, { resolve(s, nil, "stale") })
        end)

        it("calls a session without one invalid", function()
            for _, s in ipairs { session.new("x"), { id = "x" } } do
                local url, err, code = resolve(s)
                assert.is_nil(url)
                assert.equal("the session has no backend_url", err)
                assert.equal("invalid", code)
            end
        end)

        it("passes errors on", function()
            assert.same({ nil, "away", "unavailable" }, { resolve(nil, "away", "unavailable") })
        end)
    end)

    it("names the option of the router when its local storage is full",
       function()
        local said
        local warn_limited = log.warn_limited
        log.warn_limited = function(_, ...) said = table.concat { ... } end
        local storage = store.open { name = "full", storage = "local",
            max_local_sessions = 1, session_ttl = 60 }
        for _, id in ipairs { "a", "b" } do
            storage:create(session.new(id))
        end
        log.warn_limited = warn_limited
        storage:close()
        assert.equal("raise max_local_sessions", said:match("; (.*)$"))
    end)

    describe("a create over load and store", function()
        it("stores what is not there", function()
            local storage, stored = storage_of(function()
                return nil, "session not found", "not_found"
            end)
            assert.is_true(store.creator(storage)(storage, session.new("x")))
            assert.same({ "x" }, stored)
        end)

        it("stores nothing over a session, nor where it cannot tell", function()
            for code, load in pairs {
                already_exists = function(id) return session.new(id) end,
                timeout = function() return nil, "timed out", "timeout" end,
            } do
                local storage, stored = storage_of(load)
                local ok, err, said = store.creator(storage)(storage, session.new("x"))
                assert.is_nil(ok)
                assert.is_string(err)
                assert.equal(code, said)
                assert.same({}, stored)
            end
        end)
    end)
end)
