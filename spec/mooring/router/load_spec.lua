-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local load = require "resty.mooring.router.load"
local local_storage = require "resty.mooring.local_storage"
local session = require "resty.mooring.session"

local A, B = "http://10.0.0.1:8080", "http://10.0.0.2:8080"
local names = 0

local function unique_name()
    names = names + 1
    return "load_spec " .. names
end

describe("resty.mooring.router.load", function()
    local table_name, loads

    before_each(function()
        table_name = unique_name()
        loads = load.open(table_name)
    end)

    it("gives each URL a label, and the same one each time", function()
        local a, b = loads:label(A), loads:label(B)
        assert.is_true(a >= 1 and a <= 1023)
        assert.not_equal(a, b)
        assert.equal(a, loads:label(A))
        assert.equal(a, load.open(table_name):label(A))
    end)

    it("has no label for URLs beyond the first 1,023", function()
        local seen = {}
        for i = 1, 1023 do
            local label = loads:label("http://10.0.0.1:" .. i)
            assert.is_nil(seen[label])
            seen[label] = true
        end
        assert.equal(0, loads:label("http://10.0.0.1:1024"))
        assert.is_true(seen[loads:label("http://10.0.0.1:5")])
    end)

    it("counts what is in flight, across all objects of its name", function()
        local label, other = loads:label(A), load.open(table_name)
        loads:begin(label)
        other:begin(label)
        loads:begin(loads:label(B))
        assert.equal(2, loads:inflight(label))
        loads:finish(label)
        assert.equal(1, other:inflight(label))
        other:finish(label)
        other:finish(label)
        assert.equal(0, loads:inflight(label))
    end)

    it("tells the version of the set of backends when a request begins", function()
        assert.equal(1, loads:version())
        assert.equal(1, loads:begin(loads:label(A)))
        assert.equal(2, load.open(table_name):bump_version())
        assert.equal(2, loads:begin(loads:label(A)))
        assert.equal(2, loads:version())
    end)

    it("raises for a name no table can have", function()
        for _, name in ipairs { "", ("n"):rep(256), 1 } do
            assert.error_matches(function() load.open(name) end,
                "name must be a string of 1 to 255 bytes", 1, true)
        end
    end)

    describe(":sessions", function()
        local storage

        before_each(function() storage = local_storage.new { max_entries = 10 } end)
        after_each(function() storage:close() end)

        local function bind(id, url)
            assert(storage:store(session.new(id, { metadata = { backend_url = url } })))
        end

        it("counts the sessions that are bound to a backend", function()
            local a, b = loads:label(A), loads:label(B)
            assert.is_true(loads:attach(storage))
            bind("1", A)
            bind("2", A)
            bind("3", B)
            bind("2", B) -- bound anew
            assert.equal(1, loads:sessions(a))
            assert.equal(2, loads:sessions(b))
            storage:delete("3")
            assert.equal(1, loads:sessions(b))
        end)

        it("counts bindings with an incarnation and a mapped id", function()
            local a = loads:label(A)
            loads:attach(storage)
            bind("1", A .. "#2")
            bind("2", A .. "#2;another-id")
            assert.equal(2, loads:sessions(a))
        end)

        it("counts those of a dropped backend apart", function()
            local before = loads:tag(A, 0)
            local after = loads:tag(A, 1)
            assert.equal(loads:label(A), before)
            assert.not_equal(before, after)
            assert.equal(after, load.open(table_name):tag(A, 1))
            loads:attach(storage)
            bind("1", A)
            bind("2", A .. "#;another-id")
            bind("3", A .. "#1")
            bind("4", A .. "#1;another-id")
            bind("5", A .. "#1;yet%21another-id")
            assert.equal(2, loads:sessions(before))
            assert.equal(3, loads:sessions(after))
            bind("1", A .. "#1")
            assert.equal(1, loads:sessions(before))
            assert.equal(4, loads:sessions(after))
        end)

        it("tells an incarnation from the three before, in four labels for a "
            .. "backend, however often it is dropped", function()
            local seen, n = {}, 0
            for incarnation = 0, 100 do
                local tag = loads:tag(A, incarnation)
                for back = 1, math.min(3, incarnation) do
                    assert.not_equal(tag, loads:tag(A, incarnation - back))
                end
                n = n + (seen[tag] and 0 or 1)
                seen[tag] = true
            end
            assert.equal(4, n)
            assert.is_nil(seen[0])
        end)

        it("counts all of a dropped backend when no label is left", function()
            local a = loads:label(A)
            for i = 1, 1022 do
                loads:label("http://10.0.0.1:" .. i)
            end
            assert.equal(a, loads:tag(A, 1))
            assert.equal(0, loads:tag(B, 1))
            loads:attach(storage)
            bind("1", A)
            bind("2", A .. "#1")
            bind("3", B .. "#1")
            assert.equal(2, loads:sessions(a))
        end)

        it("gives no label to an incarnation that only a binding names",
           function()
            local a = loads:label(A)
            loads:attach(storage)
            for i = 1, 10 do
                bind(tostring(i), A .. "#" .. i)
            end
            assert.equal(10, loads:sessions(a))
            for i = 1, 1022 do
                assert.not_equal(0, loads:label("http://10.0.0.1:" .. i))
            end
        end)

        it("counts no binding that makes no sense", function()
            local a = loads:label(A)
            loads:attach(storage)
            for i, fragment in ipairs { "#", "#0", "#01", "#x", "#1x", "#;" } do
                bind(tostring(i), A .. fragment)
            end
            assert.equal(0, loads:sessions(a))
        end)

        it("gives no label to a URL that only a binding names", function()
            loads:attach(storage)
            for i = 1, 10 do
                bind(tostring(i), "http://10.0.1.1:" .. i)
            end
            for i = 1, 1023 do
                assert.not_equal(0, loads:label("http://10.0.0.1:" .. i))
            end
            assert.equal(0, loads:sessions(0))
        end)

        it("is 0 where a storage cannot count", function()
            assert.is_false(loads:attach {})
            assert.equal(0, loads:sessions(loads:label(A)))
        end)

        it("is 0 when the storage is closed", function()
            local a = loads:label(A)
            loads:attach(storage)
            bind("1", A)
            storage:close()
            assert.equal(0, loads:sessions(a))
        end)
    end)
end)
