-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Every allocation that a call of a storage makes in the core fails once, one
-- at a time: the call has then failed as "unavailable" or has done without,
-- never said "not found", never raised; the region is sound, no other session
-- is touched, this one is as before or as after; and the same call succeeds.

local failing = require "support.failing"
local loads = require "resty.mooring.router.load"
local local_storage = require "resty.mooring.local_storage"
local redis_storage = require "resty.mooring.redis_storage"
local routing_storage = require "resty.mooring.routing_storage"
local servers = require "support.servers"
local sessions = require "resty.mooring.session"

local OLD, NEW, OTHER = "http://old:1", "http://new:1", "http://other:1"

describe("Without memory,", function()
    local redis
    local open, told = {}, nil

    setup(function() redis = servers.redis() end)
    teardown(function() servers.stop_all() end)
    before_each(function() redis:cli("FLUSHALL") end)
    after_each(function()
        for _, storage in ipairs(open) do
            storage:close()
        end
        open = {}
    end)

    local function session(id, url)
        return sessions.new(id, { metadata = { backend_url = url, long = ("x"):rep(500) } })
    end

    local function hook(s, reason)
        told[#told + 1] = s.id .. " " .. reason
    end

    ------------------------------------------------------------ storages ---

    local MAKE = {}

    function MAKE.local_storage(opts)
        local storage = local_storage.new { max_entries = opts.room or 20,
            max_bytes = 40000, on_evict = hook, full = opts.full }
        return storage -- no tail call: errors blame this file
    end

    function MAKE.redis_storage()
        return redis_storage.new { url = redis.url }
    end

    function MAKE.routing_storage(opts)
        local storage = routing_storage.new { max_local_entries = opts.room or 20,
            remote = MAKE.redis_storage(opts), on_evict = hook }
        return storage
    end

    -- One with a session "other", and one "there" if wanted.
    local function prepared(kind, opts)
        for _, storage in ipairs(open) do
            storage:close()
        end
        redis:cli("FLUSHALL")
        told = {}
        local storage = MAKE[kind](opts)
        open = { storage }
        assert(storage:store(session("other", OTHER)))
        if opts.there then
            assert(storage:store(session("there", OLD)))
        end
        if opts.cold and storage.remote then
            storage.cache:invalidate("there", 0)
        end
        -- Not those of before: what is kept from call to call is made anew.
        if opts.seen then
            opts.seen[storage] = assert(storage:load("there"))
        end
        return storage
    end

    -- As a client would: until it has worked, or time is up. Connections that
    -- were lost come back.
    local function again(act, storage)
        local deadline = servers.now() + 5
        local ok, err
        repeat
            ok, err = act(storage)
            if ok == nil then
                servers.nap(0.01)
            end
        until ok ~= nil or servers.now() > deadline
        return ok, err
    end

    local function url_of(storage, id)
        return (again(function()
            local url, err, code = storage:resolve(id)
            if code == "not_found" then
                return false
            end
            return url, err
        end, storage))
    end

    local function assert_sound(storage)
        if storage.cache then
            assert.is_true(storage.cache:check())
        end
        assert.equal(OTHER, url_of(storage, "other"))
    end

    --------------------------------------------------------------- calls ---

    -- act is what is done; `before` and `after` are the URL of the session then
    -- (false: there is none); `last` is what a call that went well returns.
    local seen = {}
    local CALLS = {
        ["store of a new session"] = { before = false, after = NEW, last = true,
            act = function(s) return s:store(session("there", NEW)) end },
        ["store over another one"] = { before = OLD, after = NEW, last = true, there = true,
            act = function(s) return s:store(session("there", NEW)) end },
        ["create"] = { before = false, after = NEW, last = true,
            act = function(s) return s:create(session("there", NEW)) end,
            repeated = "already_exists" },
        ["update"] = { before = OLD, after = NEW, last = true, there = true,
            act = function(s) return s:update(session("there", NEW)) end },
        ["update_if"] = { before = OLD, after = NEW, last = true, there = true, seen = seen,
            act = function(s) return s:update_if(session("there", NEW), seen[s]) end,
            repeated = false },
        ["delete"] = { before = OLD, after = false, last = true, there = true,
            act = function(s) return s:delete("there") end },
        ["remove_if"] = { before = OLD, after = false, last = true, there = true, seen = seen,
            act = function(s) return s:remove_if("there", seen[s]) end, repeated = false },
        ["resolve"] = { before = OLD, after = OLD, last = OLD, there = true,
            act = function(s) return s:resolve("there") end },
        ["resolve of a session that is not here"] = { before = OLD, after = OLD, last = OLD,
            there = true, cold = true, act = function(s) return s:resolve("there") end },
        ["load"] = { before = OLD, after = OLD, last = OLD, there = true, cold = true,
            act = function(s)
                local found, err, code = s:load("there")
                return found and found.metadata.backend_url, err, code
            end },
    }

    local function check_failure(call, err, code)
        assert.equal("string", type(err))
        assert.is_true(code == "unavailable" or code == "timeout",
            tostring(code) .. ": " .. err)
        assert.is_nil(err:find("not found", 1, true))
        return call
    end

    -- Once more, as somebody would who was told that it has failed: it may have
    -- been done all the same, as far as the remote can know.
    local function check_again(call, storage)
        local code
        local ok, err = again(function(s)
            local result, message
            result, message, code = call.act(s)
            return result == nil and code == call.repeated and code or result, message
        end, storage)
        assert.is_true(ok == call.last or ok == call.repeated,
            tostring(ok) .. " " .. tostring(err))
        assert.equal(call.after, url_of(storage, "there"))
    end

    local function check_call(kind, call)
        return failing.each(function() return prepared(kind, call) end, call.act,
            function(storage, failed, ok, result, err, code)
                assert.is_true(ok, tostring(result))
                if result == nil then
                    assert.is_true(failed, err)
                    check_failure(call, err, code)
                    assert_sound(storage)
                    local url = url_of(storage, "there")
                    assert.is_true(url == call.before or url == call.after, tostring(url))
                    check_again(call, storage)
                else
                    assert.equal(call.last, result)
                    assert.equal(call.after, url_of(storage, "there"))
                end
                assert_sound(storage)
            end)
    end

    for kind in pairs(MAKE) do
        describe(kind .. ":", function()
            local total = 0

            for what, call in pairs(CALLS) do
                it(what .. " fails or does without, and then succeeds", function()
                    total = total + check_call(kind, call)
                end)
            end

            it("has met failures at all", function()
                assert.is_true(total + check_call(kind, CALLS.delete) > 0)
            end)

            it("cannot be opened, or is", function()
                local _, err
                local n = failing.each(function() told = {} end,
                    function()
                        local storage = MAKE[kind] {}
                        return storage
                    end,
                    function(_, failed, ok, result)
                        if ok then
                            open[#open + 1] = result
                            assert(again(function(s)
                                return s:store(session("there", NEW))
                            end, result))
                            assert.equal(NEW, url_of(result, "there"))
                        else
                            assert.is_true(failed)
                            err = result
                            assert.matches("^spec/memory/storages_spec.lua:%d+: could not "
                                .. "open the local tier: .*memory", err)
                        end
                    end)
                assert.is_true(n > 0 or kind == "redis_storage", _)
            end)
        end)
    end

    ------------------------------------------------ the region, and hooks ---

    it("a region of another size keeps its sessions, whoever fails to open it", function()
        local sizes = 20
        local function open_named()
            return local_storage.new { name = "starved", max_entries = sizes }
        end
        local first = open_named()
        assert(first:store(session("there", OLD)))
        first:close()
        local n = failing.each(function() sizes = sizes + 1 end, open_named,
            function(_, failed, ok, storage)
                if not ok then
                    assert.is_true(failed)
                    assert.matches("could not open the local tier: .*memory", storage)
                    storage = open_named()
                end
                assert.is_true(storage.cache:check())
                assert.equal(OLD, storage:resolve("there"))
                storage:close()
            end)
        assert.is_true(n > 0)
    end)

    it("an eviction is told once, or has not been one", function()
        local act = function(s) return s:store(session("new", NEW)) end
        local n = failing.each(function()
            return prepared("local_storage", { room = 2, there = true, full = "evict" })
        end, act, function(storage, failed, ok, result, err, code)
            assert.is_true(ok, result)
            if not result then
                assert.is_true(failed)
                check_failure({}, err, code)
                assert.same({}, told)
                assert.equal(OLD, storage:resolve("there"))
                assert.equal(OTHER, storage:resolve("other"))
                assert.is_true(act(storage))
            end
            assert.is_true(storage.cache:check())
            assert.equal(1, #told)
            assert.matches(" capacity$", told[1])
        end)
        assert.is_true(n > 0)
    end)

    it("a full storage still refuses with full, and the sweep goes on", function()
        local act = function(s) return s:store(session("new", NEW)) end
        failing.each(function()
            return prepared("local_storage", { room = 2, there = true })
        end, act, function(storage, _, ok, result, _, code)
            assert.is_true(ok, result)
            assert.is_nil(result)
            assert.is_true(code == "full" or code == "unavailable", code)
            local _, _, then_code = act(storage)
            assert.equal("full", then_code)
            assert.is_true(storage.cache:check())
        end)
    end)

    it("delete_expired removes all or fails, and removes the rest the next time", function()
        local act = function(s) return s:delete_expired(servers.now() + 1e10) end
        local n = failing.each(function()
            return prepared("local_storage", { there = true })
        end, act, function(storage, failed, ok, result, err, code)
            assert.is_true(ok, result)
            if not result then
                assert.is_true(failed)
                check_failure({}, err, code)
                assert(act(storage))
            end
            assert.is_true(storage.cache:check())
            assert.equal(0, storage:stats().entries)
            table.sort(told)
            assert.same({ "other expired", "there expired" }, told)
        end)
        assert.is_true(n > 0)
    end)

    it("closing a private storage tells of all that was in it", function()
        local n = failing.each(function()
            return prepared("local_storage", { there = true })
        end, function(s) return s:close() end, function(_, _, ok)
            assert.is_true(ok)
            table.sort(told)
            assert.same({ "other closed", "there closed" }, told)
        end)
        assert.is_true(n > 0)
    end)

    it("a load table cannot be opened, or is", function()
        local number = 0
        local n = failing.each(function() number = number + 1 end,
            function() return loads.open("starved " .. number) end,
            function(_, failed, ok, result)
                if not ok then
                    assert.is_true(failed)
                    assert.matches("could not open the load table: out of memory", result)
                    result = loads.open("starved " .. number)
                end
                local label = result:label("http://a:1")
                assert.is_true(label > 0)
            end)
        assert.is_true(n > 0)
    end)
end)
