-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local binding = require "resty.mooring.router.binding"
local local_storage = require "resty.mooring.local_storage"
local session = require "resty.mooring.session"

describe("resty.mooring.router.binding", function()
    local A, B = "http://10.0.0.1:80", "http://10.0.0.2:80"
    local router, forgotten, storage

    before_each(function()
        forgotten = 0
        storage = local_storage.new { max_entries = 100 }
        router = {
            storage = storage,
            session_type = "mcp",
            engine = require("resty.mooring.policy").compile {},
            create_session = storage.create,
            counters = { add = function() forgotten = forgotten + 1 end },
        }
    end)
    after_each(function() storage:close() end)

    it(".create binds an id to a backend, once", function()
        assert.is_true(binding.create(router, "id", A, "/mcp"))
        assert.same({ backend_url = A, endpoint = "/mcp" },
            storage:load("id").metadata)
        local ok, _, code = binding.create(router, "id", B, "/mcp")
        assert.same({ nil, "already_exists" }, { ok, code })
    end)

    it(".create keeps no endpoint that JSON could not hold", function()
        for i, path in ipairs { "/caf\195\169", "/" .. ("x"):rep(300), "/a b" } do
            binding.create(router, "id" .. i, A, path)
            assert.is_nil(storage:load("id" .. i).metadata.endpoint)
        end
    end)

    describe(".forget", function()
        it("removes the binding to the backend that is gone", function()
            binding.create(router, "id", A)
            assert.is_true(binding.forget(router, "id", A))
            assert.is_nil(storage:load("id"))
            assert.equal(1, forgotten)
        end)

        it("keeps a binding to another backend", function()
            binding.create(router, "id", B)
            assert.is_false(binding.forget(router, "id", A))
            assert.equal(B, storage:resolve("id"))
            assert.equal(0, forgotten)
        end)

        it("keeps a binding that has changed since it was seen", function()
            binding.create(router, "id", A)
            local real = storage.remove_if
            storage.remove_if = function(self, id, seen)
                self:store(session.new("id", {
                    metadata = { backend_url = A, new = "yes" } }))
                return real(self, id, seen)
            end
            assert.is_false(binding.forget(router, "id", A))
            assert.equal("yes", storage:load("id").metadata.new)
        end)

        it("keeps a binding its condition says no to", function()
            binding.create(router, "id", A)
            assert.is_false(binding.forget(router, "id", A,
                function() return false end))
            assert.equal(A, storage:resolve("id"))
        end)

        it("is content with a binding that is gone already", function()
            assert.is_true(binding.forget(router, "id", A))
            assert.equal(0, forgotten)
        end)

        it("hands a failure of the store on", function()
            storage.load = function() return nil, "away", "unavailable" end
            assert.same({ nil, "away", "unavailable" },
                { binding.forget(router, "id", A) })
        end)
    end)
end)
