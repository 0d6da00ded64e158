-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A Redis that speaks its protocol, but not the truth: what it does is in
-- spec/fixtures/hostile_redis.mjs. Whatever that is, a call comes back in its
-- time with what it promises, or with nil, message, code; it never hands out
-- the session of another id, and never takes memory without end.

local ffi = require "ffi"
local redis_storage = require "resty.mooring.redis_storage"
local routing_storage = require "resty.mooring.routing_storage"
local servers = require "support.servers"
local session = require "resty.mooring.session"

ffi.cdef "int malloc_trim(size_t pad);"
local C = ffi.C

local PREFIX = "mooring:session:"
local TIMEOUT = 0.1
local PATIENCE = 1 -- where an answer comes at once, on a busy machine too

-- Connecting, AUTH, the command; and time to be scheduled in on a busy machine,
-- still less than a reply takes that comes byte by byte.
local BUDGET = 3 * TIMEOUT + 1.5

local CODES = { not_found = true, already_exists = true, unavailable = true,
                timeout = true, invalid = true, closed = true }

-- Megabytes. A reply may take 16 in the buffer and as much again as a tree.
local PEAK, KEPT = 160, 48

local OF_A_STRING = { "integer", "status", "array", "nested", "empty_array",
                      "negative_integer", "huge_integer", "no_session",
                      "string", "empty_string", "binary", "deep_session",
                      "other_session", "error", "odd_error", "long_error" }
local OF_ANY = { "http", "garbage", "resp3", "bad_length", "negative_length",
                 "huge_bulk", "impossible_bulk", "huge_array",
                 "impossible_array", "eight_arrays", "endless_nesting",
                 "endless_string", "endless_line", "endless_error",
                 "endless_length", "endless_array", "trickle", "half",
                 "half_and_close", "silence", "close" }
local OF_ORDER = { "twice", "late", "one_behind", "endless_replies",
                   "endless_nils", "endless_integers" }
local OF_A_LISTENER = { "flood", "flood_of_nothing", "flood_of_many",
                        "huge_message", "message_of_a_number",
                        "message_of_a_string", "message_of_an_error",
                        "message_of_all", "odd_keys", "another_channel",
                        "empty_message", "no_message" }

local function memory(what)
    local text = servers.read_file("/proc/self/status")
    return tonumber(text:match("Vm" .. what .. ":%s*(%d+)")) / 1024
end

describe("with a hostile Redis", function()
    local peer, open

    setup(function() peer = servers.node("spec/fixtures/hostile_redis.mjs") end)
    teardown(function() servers.stop_all() end)

    local function behave(as, to, skip)
        local answer = peer:ask { op = "behave", as = as, to = to, skip = skip }
        assert.is_nil(answer.error)
    end

    local function backend(id)
        return "http://" .. id .. ".example:8080"
    end

    local function bound(id)
        return session.new(id, { metadata = { backend_url = backend(id) } })
    end

    local function new_remote(userinfo, timeout)
        return redis_storage.new {
            url = ("redis://%s127.0.0.1:%d/1"):format(userinfo or "", peer.port),
            transport = "blocking",
            connect_timeout = timeout or TIMEOUT, command_timeout = timeout or TIMEOUT,
            ttl = 3600,
        }
    end

    local KINDS = {
        redis_storage = function(timeout) return new_remote(nil, timeout) end,
        routing_storage = function(timeout)
            return routing_storage.new {
                remote = new_remote(nil, timeout), max_local_entries = 100,
                coherence_lease = 0.5, negative_ttl = 0,
            }
        end,
    }

    local function fresh(kind, timeout)
        open[#open + 1] = KINDS[kind](timeout)
        return open[#open]
    end

    before_each(function()
        open = {}
        behave("sane")
        local writer = new_remote(nil, PATIENCE)
        for _, id in ipairs { "a", "b", "other" } do
            assert(writer:store(bound(id)))
        end
        writer:close()
    end)

    after_each(function()
        for _, store in ipairs(open) do
            store:close()
        end
    end)

    -- What a method may return beside nil, message, code.
    local RIGHT = {
        load = function(s, id)
            return s.id == id and s.metadata.backend_url == backend(id)
        end,
        resolve = function(url, id) return url == backend(id) end,
        fetch = function(s, id) return s.id == id end,
        remove_if = function(done) return type(done) == "boolean" end,
        delete_expired = function(n) return type(n) == "number" end,
    }

    local function is_true(value)
        return value == true
    end

    -- Calls a method within its time. Returns what it returned.
    local function call(store, method, id, ...)
        local began = servers.now()
        local ok, value, err, code = pcall(store[method], store, ...)
        local took = servers.now() - began
        assert(ok, method .. " raised: " .. tostring(value))
        assert(took < BUDGET, ("%s took %.2f s"):format(method, took))
        if value == nil then
            assert(type(err) == "string" and CODES[code],
                ("%s returned nil, %s, %s"):format(method, tostring(err),
                    tostring(code)))
        else
            assert((RIGHT[method] or is_true)(value, id),
                method .. " of " .. tostring(id) .. " returned something else")
        end
        return value, err, code
    end

    local function call_all(store)
        call(store, "load", "a", "a")
        call(store, "resolve", "b", "b")
        call(store, "store", "b", bound("b"))
        call(store, "create", "c", bound("c"))
        call(store, "update", "a", bound("a"))
        call(store, "remove_if", "b", "b", bound("b"))
        call(store, "delete", "c", "c")
        call(store, "load", "b", "b")
        call(store, "delete_expired", nil, 1)
        call(store, "ready")
    end

    -- Of a session that nobody else has touched.
    local function recovers(store)
        behave("sane")
        peer:ask { op = "set", key = PREFIX .. "a", ttl = 5e6,
                   value = assert(require("resty.mooring.record").encode(bound("a"))) }
        servers.wait_for(function()
            local s = call(store, "load", "a", "a")
            return s and s.id == "a"
        end, 5, "it to find the session again")
    end

    local function all(lists)
        local names = {}
        for _, list in ipairs(lists) do
            for _, name in ipairs(list) do
                names[#names + 1] = name
            end
        end
        return names
    end

    for kind in pairs(KINDS) do
        describe("resty.mooring." .. kind, function()
            for _, as in ipairs(all { OF_ANY, OF_ORDER }) do
                it("comes back in time when each answer is: " .. as, function()
                    local store = fresh(kind)
                    assert(call(store, "load", "a", "a"))
                    behave(as)
                    call_all(store)
                    recovers(store)
                end)
            end

            for _, as in ipairs(OF_A_STRING) do
                it("finds no session in an answer to GET that is: " .. as, function()
                    local store = fresh(kind, PATIENCE)
                    behave(as, { "GET" })
                    for _, id in ipairs { "a", "b" } do
                        local value, _, code = call(store, "load", id, id)
                        assert.is_nil(value)
                        assert.is_true(code == "invalid" or code == "unavailable")
                    end
                end)
            end

            for _, as in ipairs { "string", "number_string", "status", "array", "nil",
                                  "empty_array", "error" } do
                it("does not believe an answer to PTTL that is: " .. as, function()
                    local store = fresh(kind, PATIENCE)
                    behave(as, { "PTTL" })
                    local value, _, code = call(store, "load", "a", "a")
                    assert.is_nil(value)
                    assert.equal("unavailable", code)
                end)
            end

            for _, as in ipairs { "integer", "string", "array", "empty_array", "status",
                                  "error", "zero" } do
                it("takes for no write what is answered with: " .. as, function()
                    local store = fresh(kind, PATIENCE)
                    behave(as, { "SET" })
                    for _, method in ipairs { "store", "create", "update" } do
                        local value, _, code = call(store, method, "c", bound("c"))
                        assert.is_nil(value)
                        assert.equal("unavailable", code)
                    end
                end)
            end

            for _, as in ipairs { "string", "array", "status", "nil", "error" } do
                it("takes for no removal what is answered with: " .. as, function()
                    local store = fresh(kind, PATIENCE)
                    behave(as, { "DEL", "EVAL" })
                    local value, _, code = call(store, "delete", "c", "c")
                    assert.is_nil(value)
                    assert.equal("unavailable", code)
                    value, _, code = call(store, "remove_if", "b", "b", bound("b"))
                    assert.is_nil(value)
                    assert.equal("unavailable", code)
                end)
            end
        end)
    end

    for _, as in ipairs(all { OF_A_STRING, OF_ANY }) do
        it("comes back in time when AUTH and SELECT are answered with: " .. as, function()
            local store = new_remote("user:password@")
            open[1] = store
            behave(as, { "AUTH", "SELECT" })
            call(store, "load", "a", "a")
            call(store, "resolve", "b", "b")
            call(store, "ready")
            recovers(store)
        end)
    end

    describe("resty.mooring.routing_storage", function()
        -- Calls for some time, as a process would.
        local function work(store, seconds)
            local deadline = servers.now() + seconds
            while servers.now() < deadline do
                call(store, "load", "a", "a")
                call(store, "resolve", "b", "b")
                servers.nap(0.005)
            end
        end

        for _, as in ipairs(all { OF_ANY, OF_ORDER, OF_A_LISTENER }) do
            it("goes on when its listener is told: " .. as, function()
                local store = fresh("routing_storage")
                behave(as, { "CLIENT", "SUBSCRIBE" })
                work(store, 0.05)
                recovers(store)
            end)
        end

        for _, as in ipairs(OF_A_LISTENER) do
            it("goes on when, instead of being confirmed, it is sent: " .. as, function()
                local store = fresh("routing_storage")
                behave(as, { "SUBSCRIBE" })
                work(store, 0.1)
                recovers(store)
            end)
        end

        it("keeps a session whose renewal is answered with nonsense", function()
            for _, as in ipairs { "integer", "string", "array", "nil", "error" } do
                local store = fresh("routing_storage")
                peer:ask { op = "set", key = PREFIX .. "a", ttl = 1000,
                           value = assert(require("resty.mooring.record").encode(bound("a"))) }
                behave(as, { "PEXPIRE" })
                for _ = 1, 3 do
                    assert(call(store, "load", "a", "a"))
                end
            end
        end)
    end)

    it("takes no memory without end", function()
        collectgarbage()
        collectgarbage()
        local before = memory("RSS")
        servers.write_file("/proc/self/clear_refs", "5") -- of the peak
        for _, as in ipairs(all { OF_ANY, OF_ORDER }) do
            local store = fresh("routing_storage")
            behave(as)
            call_all(store)
        end
        for _, as in ipairs(OF_A_LISTENER) do
            local store = fresh("routing_storage")
            behave(as, { "SUBSCRIBE" })
            for _ = 1, 20 do
                call(store, "load", "a", "a")
            end
        end
        assert.is_true(memory("HWM") - before < PEAK)
        open = {}
        collectgarbage()
        collectgarbage()
        C.malloc_trim(0) -- what is free already is not kept
        assert.is_true(memory("RSS") - before < KEPT)
    end)
end)
