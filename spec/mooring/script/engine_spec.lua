-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local log = require "resty.mooring.log"
local policy = require "resty.mooring.policy"
local request = require "resty.mooring.request"
local session = require "resty.mooring.session"

describe("resty.mooring.script.engine", function()
    local A = { url = "http://a:1", weight = 1 }
    local B = { url = "http://b:1", weight = 1 }
    local BOTH = { A, B }
    local req = request.build {}
    local n, logged = 0, nil
    local err = log.err

    before_each(function()
        logged = {}
        log.err = function(...) logged[#logged + 1] = table.concat { ... } end
    end)
    after_each(function() log.err = err end)

    -- Each with a name of its own: messages of one name are limited.
    local function compile(functions)
        n = n + 1
        functions.name = "spec" .. n
        return policy.compile(functions), functions.name
    end

    local function here(offset)
        return "spec/mooring/script/engine_spec.lua:"
            .. debug.getinfo(2, "l").currentline + offset
    end

    local function bound()
        return session.new("some-id", { metadata = { backend_url = A.url,
            endpoint = "/mcp" } })
    end

    -- What each function answers when there is none, or it has failed.
    local DEFAULTS = {
        key = { args = { req }, default = nil },
        admit = { args = { bound(), req }, default = true },
        route = { args = { req, BOTH }, default = A },
        on_unreachable = { args = { bound(), req }, default = "forget" },
        on_evict = { args = { bound(), "expired" }, default = nil },
    }

    local NONSENSE = {
        key = { 5, true, {}, print },
        admit = { 0, "no", {}, "false" },
        route = { 1, true, "http://a:1", {}, { url = "http://a:1", weight = 1 }, print },
        on_unreachable = { true, false, "drop", 1, {} },
    }

    for name, case in pairs(DEFAULTS) do
        describe(":" .. name, function()
            local function call(engine)
                return (engine[name](engine, unpack(case.args)))
            end

            it("has a default", function()
                assert.equal(case.default, call(policy.compile {}))
            end)

            it("uses it for a function that answers nothing", function()
                local engine = compile { [name] = function() end }
                assert.equal(case.default, call(engine))
                assert.equal(0, engine:stats()["spec" .. n][name].errors)
            end)

            for what, thrown in pairs {
                ["a text"] = "oops", ["no text"] = {},
                ["an object that cannot be shown"] = setmetatable({}, {
                    __tostring = function() error("no") end }),
                ["an object that is shown as no text"] = setmetatable({}, {
                    __tostring = function() return {} end }),
            } do
                it("uses it for a function that throws " .. what, function()
                    local place = here(1)
                    local engine, id = compile { [name] = function() error(thrown) end }
                    assert.equal(case.default, call(engine))
                    assert.equal(1, engine:stats()[id][name].errors)
                    assert.equal(1, #logged)
                    local begin = 'the policy "' .. id .. '" failed in ' .. name
                        .. " (the default is used): " .. place .. ": "
                    assert.equal(begin, logged[1]:sub(1, #begin))
                end)
            end

            it("uses it for a function that yields outside of a coroutine", function()
                local engine, id = compile { [name] = function() coroutine.yield("x") end }
                -- busted's specs run in the main one
                assert.equal(case.default, call(engine))
                assert.equal(1, engine:stats()[id][name].errors)
            end)

            it("uses it for a function that recurses for ever", function()
                local function deep(x) return 1 + deep(x) end
                local engine = compile { [name] = deep }
                assert.equal(case.default, call(engine))
                assert.matches("used%): spec/mooring/script/engine_spec.lua:%d+: ", logged[1])
                assert.is_true(logged[1]:find("stack overflow") ~= nil
                    or logged[1]:find("error in error handling") ~= nil)
            end)

            it("calls it with what the contract says, and no more", function()
                local got
                local engine = compile { [name] = function(...) got = { ... } end }
                call(engine)
                for i, arg in ipairs(case.args) do
                    assert.same(arg, got[i])
                end
                assert.is_nil(got[#case.args + 1])
            end)

            for i, answer in ipairs(NONSENSE[name] or {}) do
                it("uses it for nonsense, " .. i .. ": a " .. type(answer), function()
                    local place = here(1)
                    local engine, id = compile { [name] = function() return answer end }
                    assert.equal(case.default, call(engine))
                    assert.equal(1, engine:stats()[id][name].errors)
                    assert.truthy(logged[1]:find(place .. ": it answered ", 1, true), logged[1])
                end)
            end
        end)
    end

    it("logs a function at most once a second, and counts each failure", function()
        local engine, id = compile { key = function() error("x") end,
            admit = function() error("y") end }
        for _ = 1, 100 do
            engine:key(req)
            engine:admit(bound(), req)
        end
        assert.equal(2, #logged)
        assert.equal(100, engine:stats()[id].key.errors)
        assert.equal(100, engine:stats()[id].key.calls)
    end)

    it("logs neither control characters nor more than 500 bytes of a message", function()
        local engine = compile { key = function()
            error("a\nb\27[0m" .. ("x"):rep(10000)) end }
        engine:key(req)
        assert.is_nil(logged[1]:find("%c"))
        assert.is_true(#logged[1] < 700)
    end)

    it("never logs a text that a function has answered", function()
        local engine = compile { route = function(r) return r.session_id end }
        assert.equal(A, engine:route(request.build { session_id = "secret" }, BOTH))
        assert.is_nil(logged[1]:find("secret", 1, true))
    end)

    -- Whoever takes all memory there is leaves it to the collector. Without its
    -- help the request has none.
    it("has memory for the request behind a function that has taken all #address_space",
        function()
        local program = [[
            local policy = require "resty.mooring.policy"
            require("resty.mooring.log").err = function() end
            local A = { url = "http://a:1", weight = 1 }
            local function greedy() local t = {} while true do t[#t + 1] = {} end end
            for i = 1, 3 do
                local engine = policy.compile { name = "greedy" .. i, route = greedy }
                assert(engine:route({}, { A }) == A)
                assert(engine:stats()["greedy" .. i].route.errors == 1)
                local mine = {}
                for n = 1, 20000 do mine[n] = { "x" .. n } end
            end
            print "served"
        ]]
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        file:write(program)
        file:close()
        local pipe = io.popen("ulimit -v 300000; " .. (os.getenv("LUAJIT") or "luajit")
            .. " " .. path .. " 2>&1")
        local text = pipe:read("*a")
        pipe:close()
        os.remove(path)
        assert.equal("served\n", text)
    end)

    it("adds up the time that a function takes", function()
        local engine, id = compile { key = function()
            local stop = os.clock() + 0.02
            repeat until os.clock() > stop
        end }
        engine:key(req)
        local took = engine:stats()[id].key.seconds
        assert.is_true(took >= 0.02 and took < 5, took)
    end)

    describe("of several policies", function()
        it("takes the first answer of functions that decide", function()
            local engine = policy.compile {
                {},
                { key = function() end, route = function() end,
                  on_unreachable = function() end },
                { key = function() return "b" end, route = function() return B end,
                  on_unreachable = function() return "keep" end },
                { key = function() return "c" end, route = function() return A end,
                  on_unreachable = function() return "forget" end },
            }
            assert.equal("b", engine:key(req))
            assert.equal(B, engine:route(req, BOTH))
            assert.equal("keep", engine:on_unreachable(bound(), req))
        end)

        it("takes an empty key for none, and asks the next one", function()
            local engine = policy.compile {
                { key = function() return "" end }, { key = function() return "b" end },
            }
            assert.equal("b", engine:key(req))
            for _, counts in pairs(engine:stats()) do
                assert.equal(0, counts.key.errors)
            end
            assert.is_nil(policy.compile({ { key = function() return "" end } }):key(req))
        end)

        it("asks the next one when one has failed", function()
            local engine = policy.compile {
                { key = function() error("x") end, route = function() return "x" end },
                { key = function() return "b" end, route = function() return B end },
            }
            assert.equal("b", engine:key(req))
            assert.equal(B, engine:route(req, BOTH))
        end)

        it("refuses with the first false, whatever the others say", function()
            local asked = 0
            local function yes() asked = asked + 1 return true end
            local engine = policy.compile {
                { admit = yes }, { admit = function() return false end }, { admit = yes } }
            assert.is_false(engine:admit(bound(), req))
            assert.equal(1, asked)
            assert.is_true(policy.compile({ { admit = yes }, { admit = function() end } })
                :admit(bound(), req))
        end)

        it("gives each a session that no other can spoil", function()
            local seen = {}
            local function spoil(s)
                seen[#seen + 1] = s.id .. " " .. s.metadata.backend_url
                s.id, s.metadata.backend_url, s.metadata = "other", "u", nil
            end
            local twice = { on_evict = spoil, on_unreachable = spoil, admit = spoil }
            local engine = policy.compile { twice, twice }
            local s = bound()
            engine:on_evict(s, "expired")
            engine:on_unreachable(s, req)
            assert.equal("some-id", s.id)
            assert.equal(A.url, s.metadata.backend_url)
            engine:admit(s, req)
            assert.equal(6, #seen)
            for _, text in ipairs(seen) do
                assert.equal("some-id http://a:1", text)
            end
        end)

        it("calls all hooks, also when one of them fails", function()
            local calls = {}
            local function hook(name) return function() calls[#calls + 1] = name end end
            local engine = policy.compile {
                { on_evict = hook "a", on_bind = hook "a" },
                { on_evict = function() error("x") end, on_bind = function() error("x") end },
                { on_evict = hook "c", on_bind = hook "c" },
            }
            engine:on_evict(bound(), "expired")
            engine:on_bind(bound(), req)
            assert.same({ "a", "c", "a", "c" }, calls)
        end)

        it("starts all of them in each worker", function()
            local started = {}
            local function start(...) started[#started + 1] = { ... } end
            policy.compile({ { start = start }, { start = function() error("x") end },
                { start = start } }):start("default", 3)
            assert.same({ { "default", 3 }, { "default", 3 } }, started)
        end)

        it("counts them apart", function()
            local engine = policy.compile { { key = function() end },
                { key = function() end }, { name = "mine", key = function() end }, "round_robin" }
            engine:key(req)
            engine:route(req, BOTH)
            local stats, names = engine:stats(), {}
            for name in pairs(stats) do names[#names + 1] = name end
            table.sort(names)
            assert.same({ "inline", "inline#2", "mine", "round_robin" }, names)
            assert.equal(1, stats.mine.key.calls)
            assert.equal(1, stats.round_robin.route.calls)
        end)
    end)

    describe(":route", function()
        it("gives scripts a list of their own", function()
            local engine = compile { route = function(_, backends)
                backends[1], backends[2] = nil, nil
                return B
            end }
            for _ = 1, 3 do
                assert.equal(B, engine:route(req, BOTH))
            end
            assert.same({ A, B }, BOTH)
        end)

        it("shows scripts all that a backend has, and takes no changes of it", function()
            local list = { setmetatable({ url = "u", weight = 3 }, {
                __index = function(_, name) return name == "inflight" and 7 or nil end }), B }
            for _, field in ipairs { "weight", "url", "mine" } do
                local shown
                local engine, id = compile { route = function(_, backends)
                    local one = backends[1]
                    shown = { one.url, one.weight, one.inflight, one.mine }
                    one[field] = "spoilt"
                    return one
                end }
                assert.equal(list[1], engine:route(req, list))
                assert.same({ "u", 3, 7, nil }, shown)
                assert.equal(1, engine:stats()[id].route.errors)
                assert.matches("a backend cannot be changed by a script", logged[#logged])
            end
            assert.same({ "u", 3 }, { list[1].url, list[1].weight })
            assert.is_nil(rawget(list[1], "mine"))
        end)

        it("lets scripts remember and compare backends", function()
            local last
            local engine = compile { route = function(_, backends)
                for _, backend in ipairs(backends) do
                    if backend == last then
                        return backend
                    end
                end
                last = backends[2]
                return last
            end }
            for _ = 1, 3 do
                assert.equal(B, engine:route(req, BOTH))
                collectgarbage()
            end
        end)

        it("lets scripts remember a backend when all have been made anew", function()
            local kept, other
            local engine, id = compile { route = function(_, backends)
                kept = kept or backends[2]
                return kept
            end }
            assert.equal(B, engine:route(req, BOTH))
            for weight = 2, 3 do
                other = { url = B.url, weight = weight }
                assert.equal(other, engine:route(req, { A, other }))
                assert.equal(weight, kept.weight)
            end
            assert.equal(0, engine:stats()[id].route.errors)
        end)

        it("takes the answer of a script that waited while all were made anew", function()
            local engine = compile { route = function(_, backends)
                local one = backends[2]
                coroutine.yield()
                return one
            end }
            local co = coroutine.create(function() return engine:route(req, BOTH) end)
            coroutine.resume(co)
            local B2 = { url = B.url, weight = 1 }
            local later = coroutine.create(function()
                return engine:route(req, { A, B2 })
            end)
            coroutine.resume(later)
            assert.equal(B, select(2, coroutine.resume(co)))
            assert.equal(B2, select(2, coroutine.resume(later)))
        end)

        it("answers nothing, and asks nobody, when there is no backend", function()
            local engine, id = compile { route = function() return A end }
            assert.is_nil(engine:route(req, {}))
            assert.equal(0, engine:stats()[id].route.calls)
        end)

        it("refuses a backend that has left the list", function()
            local last
            local engine = compile { route = function(_, backends)
                last = last or backends[2]
                return last
            end }
            assert.equal(B, engine:route(req, BOTH))
            assert.equal(A, engine:route(req, { A }))
            assert.matches("one of the backends it was given", logged[1])
        end)
    end)

    describe(":on_bind", function()
        it("keeps what is added to metadata and data", function()
            local engine = compile { on_bind = function(s, r)
                s:set_metadata("owner", r.headers["X-User"])
                s.data = { seen = { 1, 2 } }
            end }
            local s = bound()
            engine:on_bind(s, request.build { headers = { ["x-user"] = "ann" } })
            assert.same({ backend_url = A.url, endpoint = "/mcp", owner = "ann" }, s.metadata)
            assert.same({ seen = { 1, 2 } }, s.data)
        end)

        for what, spoil in pairs {
            ["a number as metadata"] = function(s) s.metadata.count = 5 end,
            ["a name of metadata that is a number"] = function(s) s.metadata[1] = "x" end,
            ["no metadata at all"] = function(s) s.metadata = nil end,
            ["metadata that is no table"] = function(s) s.metadata = "x" end,
            ["data that JSON cannot hold"] = function(s) s.data = { f = print } end,
            ["data that holds itself"] = function(s) s.data = {} s.data.x = s.data end,
            ["another id"] = function(s) s.id = "other" end,
            ["another type"] = function(s) s.type = "x" end,
            ["no time"] = function(s) s.created_at = nil end,
            ["another backend"] = function(s) s.metadata.backend_url = B.url end,
            ["another endpoint"] = function(s) s.metadata.endpoint = nil end,
            ["metadata that throws when it is read"] = function(s)
                s.metadata = setmetatable({}, { __index = function() error("no") end })
            end,
            ["metadata that throw what is shown as no text"] = function(s)
                s.metadata = setmetatable({}, { __index = function()
                    error(setmetatable({}, { __tostring = function() return {} end }))
                end })
            end,
            ["metadata that are written otherwise than they are read"] = function(s)
                s.metadata = setmetatable({ owner = "ann" }, { __index = s.metadata })
            end,
            ["an id that is another one when it is written"] = function(s)
                local asked = 0
                s.id = nil
                setmetatable(s, { __index = function(_, name)
                    asked = name == "id" and asked + 1 or asked
                    return name == "id" and (asked == 1 and "some-id" or "other") or nil
                end })
            end,
            ["half of its work done"] = function(s) s.metadata.owner = "ann" error("x") end,
        } do
            it("leaves the session as it was after " .. what, function()
                local engine, id = compile { on_bind = spoil }
                local s, before = bound(), bound()
                before.created_at, before.updated_at = s.created_at, s.updated_at
                engine:on_bind(s, req)
                assert.same(before, s)
                assert.equal(1, engine:stats()[id].on_bind.errors)
                assert.matches("engine_spec.lua:%d+: ", logged[1])
            end)
        end

        it("keeps nothing that the script could change later", function()
            local kept
            local engine = compile { on_bind = function(s)
                s.metadata.owner, s.data = "ann", { deep = { n = 1 } }
                kept = s
            end }
            local s = bound()
            engine:on_bind(s, req)
            local metadata, deep = kept.metadata, kept.data.deep
            metadata.backend_url, metadata.owner, deep.n = "http://evil:1", "bob", 2
            assert.same({ backend_url = A.url, endpoint = "/mcp", owner = "ann" }, s.metadata)
            assert.same({ deep = { n = 1 } }, s.data)
        end)

        it("gives the next one a session whatever the last one has made of it", function()
            local engine = policy.compile {
                { on_bind = function(s)
                    s.data = setmetatable({ n = 1 }, { __metatable = "locked" })
                    s.metadata = setmetatable(s.metadata, { __metatable = 1 })
                end },
                { on_bind = function(s) s.metadata.n = tostring(s.data.n) end },
            }
            local s = bound()
            engine:on_bind(s, req)
            assert.equal("1", s.metadata.n)
            assert.is_nil(getmetatable(s.data))
        end)

        it("keeps what the others have added when one fails", function()
            local engine = policy.compile {
                { on_bind = function(s) s.metadata.a = "1" end },
                { on_bind = function(s) s.metadata.a = 2 end },
                { on_bind = function(s) s.metadata.c = s.metadata.a end },
            }
            local s = bound()
            engine:on_bind(s, req)
            assert.same({ backend_url = A.url, endpoint = "/mcp", a = "1", c = "1" }, s.metadata)
        end)
    end)

    it("lets functions wait inside of a coroutine", function()
        local engine, id = compile { admit = function(s)
            return coroutine.yield(s.id) == "yes"
        end }
        local co = coroutine.create(function() return engine:admit(bound(), req) end)
        assert.same({ true, "some-id" }, { coroutine.resume(co) })
        assert.same({ true, false }, { coroutine.resume(co, "no") })
        assert.equal(0, engine:stats()[id].admit.errors)
    end)
end)
