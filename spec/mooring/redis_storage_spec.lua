-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local contract = require "support.contract"
local redis_storage = require "resty.mooring.redis_storage"
local routing_storage = require "resty.mooring.routing_storage"
local servers = require "support.servers"
local session = require "resty.mooring.session"

local URL = "http://10.0.0.1:8080"
local PREFIX = "mooring:session:"

local redis

local function make(id, url)
    return session.new(id, { metadata = { backend_url = url or URL } })
end

local function new(opts)
    opts = opts or {}
    opts.url = opts.url or redis.unix_url
    return redis_storage.new(opts)
end

-- Runs fn at each of `times` (seconds after the first call), without drifting.
local function at(times, fn)
    local started = servers.now()
    for _, moment in ipairs(times) do
        servers.wait_for(function() return servers.now() - started >= moment end, 10, "time")
        fn(moment)
    end
end

-- Waits until changes are pushed to a routing storage, and one by itself was.
local function settle(storage)
    local marker = "marker-" .. os.clock()
    servers.wait_for(function()
        storage:load "nobody"
        return storage:stats().coherence.coherent
    end, 5, "a lease")
    storage:store(make(marker))
    local before = storage:stats().coherence.invalidations
    servers.wait_for(function()
        storage:load(marker)
        return storage:stats().coherence.invalidations > before
    end, 5, "an invalidation")
    servers.wait_for(function()
        local hits = storage:stats()["local"].hits
        storage:resolve(marker)
        return storage.cache:url(marker) and storage:stats()["local"].hits > hits
    end, 5, "a hit")
end

setup(function() redis = servers.redis() end)
teardown(function() servers.stop_all() end)

contract("a redis_storage", function()
    redis:cli "FLUSHALL"
    return new()
end, { reopen = function() return new() end })

contract("a routing_storage over a redis_storage", function()
    redis:cli "FLUSHALL"
    return routing_storage.new { max_local_entries = 100, remote = new() }
end)

describe("resty.mooring.redis_storage", function()
    local storage

    before_each(function()
        redis:cli "FLUSHALL"
        storage = new()
    end)
    after_each(function() storage:close() end)

    describe(":create_later", function()
        it("finds sessions by ids of every length", function()
            for _, n in ipairs { 1, 36, 256, 257, 4096 } do
                local id = ("x"):rep(n)
                assert(storage:store(make(id)))
                assert.equal(id, assert(storage:load(id)).id)
                assert.equal(id, assert(storage:load(id)).id)
            end
        end)

        it("answers invalid where the record that was seen cannot have been", function()
            local seen = make "a"
            seen.data = { print }
            for _, results in ipairs { { storage:update_if(make "a", seen) },
                                       { storage:remove_if("a", seen) },
                                       { storage:remove_if("a b", make "a") } } do
                assert.is_nil(results[1])
                assert.equal("invalid", results[3])
            end
        end)

        it("stores without waiting, and says what became of it", function()
            local said = {}
            local function note(...) said[#said + 1] = { ... } end
            assert.is_true(storage:create_later(make "later", note))
            assert.is_true(storage:create_later(make("later", "http://b:1"), note))
            assert.equal(URL, storage:resolve "later")
            assert.same({ true }, said[1])
            assert.equal("already_exists", said[2][3])
            local left = tonumber(redis:cli("PTTL " .. PREFIX .. "later"))
            assert.is_true(left > 1.4 * 7200000 and left <= 1.5 * 7200000)
        end)

        it("says what Redis has against it", function()
            local said
            redis:cli "CONFIG SET maxmemory 1"
            finally(function() redis:cli "CONFIG SET maxmemory 0" end)
            assert.is_true(storage:create_later(make "later", function(...)
                said = { ... }
            end))
            storage:resolve "another" -- takes in replies that have come
            assert.is_nil(said[1])
            assert.matches("^could not create the session: OOM", said[2])
            assert.equal("unavailable", said[3])
        end)

        it("refuses at once what can never be stored", function()
            assert.equal("invalid", select(3, storage:create_later(make "a b")))
            assert.has_error(function() storage:create_later(1) end,
                "session must be a session")
            storage:close()
            assert.equal("closed", select(3, storage:create_later(make "x")))
        end)
    end)

    describe("in Redis", function()
        it("keeps a session as ToolHive's JSON under its prefix, with 1.5 x ttl", function()
            storage = new { ttl = 100 }
            storage:store(make "a")
            local record = cjson.decode(redis:cli("GET", PREFIX .. "a"))
            assert.equal("a", record.id)
            assert.equal("mcp", record.type)
            assert.same({ backend_url = URL }, record.metadata)
            assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.?%d*Z$", record.created_at)
            local pttl = tonumber((redis:cli("PTTL", PREFIX .. "a"):match("%d+")))
            assert.is_true(pttl > 149000 and pttl <= 150000)
        end)

        it("never leaves a key without a TTL, whatever wrote it", function()
            storage:store(make "a")
            storage:create(make "b")
            storage:update(make "b")
            for _, id in ipairs { "a", "b" } do
                assert.is_true(tonumber((redis:cli("PTTL", PREFIX .. id):match("%-?%d+"))) > 0)
            end
        end)

        it("uses the prefix and the database it is told", function()
            storage = new { key_prefix = "other:", url = redis.unix_url .. "?db=3" }
            storage:store(make "a")
            assert.equal("1", (redis:cli("-n", "3", "EXISTS", "other:a"):match("%d+")))
        end)

        it("loads and rewrites a record of ToolHive without losing a digit", function()
            for text in io.lines("spec/fixtures/records/toolhive.json") do
                local id = cjson.decode(text).id
                redis:cli("SET", PREFIX .. id, text)
                local s = assert(storage:load(id))
                assert.is_true(storage:store(s))
                local again = redis:cli("GET", PREFIX .. id)
                for _, field in ipairs { "created_at", "updated_at" } do
                    local exact = '"' .. field .. '":"([^"]*)"'
                    assert.equal(text:match(exact), again:match(exact))
                end
                assert.same(cjson.decode(text), cjson.decode(again))
            end
        end)
    end)

    describe("sliding expiry", function()
        it("renews on a load only when less than ttl is left", function()
            storage = new { ttl = 100 }
            storage:store(make "a")
            redis:cli "CONFIG RESETSTAT"
            for _ = 1, 5 do storage:load("a") end
            assert.is_nil(redis:command_counts().pexpire)
            redis:cli("PEXPIRE", PREFIX .. "a", "99000")
            redis:cli "CONFIG RESETSTAT"
            storage:load("a")
            storage:load("a")
            assert.equal(1, redis:command_counts().pexpire)
            assert.is_true(tonumber((redis:cli("PTTL", PREFIX .. "a"):match("%d+"))) > 140000)
        end)

        it("gives a key that somebody left without TTL one at the first load", function()
            storage:store(make "a")
            redis:cli("PERSIST", PREFIX .. "a")
            assert.equal("a", storage:load("a").id)
            storage:ready()
            assert.is_true(tonumber((redis:cli("PTTL", PREFIX .. "a"):match("%-?%d+"))) > 0)
        end)

        it("keeps a session that is used every 0.4 x ttl for 5 x ttl; an idle one is "
           .. "gone by 1.5 x ttl", function()
            local ttl = 0.5
            storage = routing_storage.new { max_local_entries = 10, local_ttl = 60,
                                            remote = new { ttl = ttl } }
            storage:store(make "used")
            storage:store(make "idle")
            local uses = {}
            for i = 1, 12 do uses[i] = 0.4 * i * ttl end
            at(uses, function(moment)
                assert.equal(URL, storage:resolve("used"), "after " .. moment)
                if moment > 1.5 * ttl + 0.05 then
                    assert.equal("0", (redis:cli("EXISTS", PREFIX .. "idle"):match("%d+")))
                    assert.is_nil(storage:resolve("idle"))
                end
            end)
            local renewals = storage:stats().remote.renewals
            assert.is_true(renewals >= 2 and renewals <= 12, renewals .. " renewals")
        end)

        it("does not outlive max_lifetime", function()
            storage = new { ttl = 100, max_lifetime = 50 }
            storage:store(make "a")
            local pttl = tonumber((redis:cli("PTTL", PREFIX .. "a"):match("%d+")))
            assert.is_true(pttl > 49000 and pttl <= 50000)
            redis:cli "CONFIG RESETSTAT"
            storage:load("a")
            storage:load("a")
            assert.is_nil(redis:command_counts().pexpire)
            local old = make "b"
            old.created_at = os.time() - 60
            assert.equal("invalid", select(3, storage:store(old)))
        end)
    end)

    describe("under a routing_storage", function()
        it("a hit makes no Redis command", function()
            storage = routing_storage.new { max_local_entries = 10, local_ttl = 60,
                                            remote = new() }
            settle(storage)
            storage:store(make "a")
            settle(storage) -- the store comes back as an invalidation
            redis:cli "CONFIG RESETSTAT"
            for _ = 1, 1000 do
                assert.equal(URL, storage:resolve("a"))
                assert.equal("a", storage:load("a").id)
            end
            local counts = redis:command_counts()
            assert.is_nil(counts.get)
            assert.is_nil(counts.pttl)
            assert.is_nil(counts.pexpire)
        end)

        it("a change by another replica is seen within local_ttl", function()
            storage = routing_storage.new { max_local_entries = 10, local_ttl = 0.1,
                                            remote = new() }
            local replica = routing_storage.new { max_local_entries = 10, remote = new() }
            storage:store(make "a")
            replica:delete("a")
            local deadline = servers.now() + 0.1 + 0.05
            servers.wait_for(function() return not storage:resolve("a") end, 5, "the delete")
            assert.is_true(servers.now() < deadline + 0.5)
            replica:close()
        end)
    end)

    describe("errors", function()
        it("are unavailable when nobody listens, and construction is no error", function()
            storage = new { url = "redis://127.0.0.1:1/0" }
            for _, call in ipairs { function() return storage:load("a") end,
                                    function() return storage:store(make "a") end,
                                    function() return storage:delete("a") end,
                                    function() return storage:ready() end } do
                local ok, err, code = call()
                assert.is_nil(ok)
                assert.matches("127.0.0.1:1", err, 1, true)
                assert.equal("unavailable", code)
            end
        end)

        it("are unavailable for what depends on the record that was seen", function()
            local own = servers.redis()
            local away = new { url = own.unix_url }
            assert(away:store(make "a"))
            local seen = assert(away:load "a")
            own:stop()
            for _, results in ipairs { { away:update_if(make("a", "http://b:1"), seen) },
                                       { away:remove_if("a", seen) } } do
                assert.is_nil(results[1])
                assert.equal("unavailable", results[3])
            end
            away:close()
        end)

        it("are timeout within command_timeout when Redis does not answer", function()
            storage = new { command_timeout = 0.2 }
            storage:store(make "a")
            redis:pause()
            local started = servers.now()
            local ok, _, code = storage:store(make "b")
            local took = servers.now() - started
            redis:resume()
            assert.is_nil(ok)
            assert.equal("timeout", code)
            assert.is_true(took >= 0.19 and took < 1)
            servers.wait_for(function() return storage:load("a") end, 5, "recovery")
        end)

        it("are invalid for a key of another type and for a foreign record", function()
            redis:cli("LPUSH", PREFIX .. "list", "x")
            redis:cli("SET", PREFIX .. "junk", "not json")
            redis:cli("SET", PREFIX .. "other", '{"id":"b"}')
            for _, id in ipairs { "list", "junk", "other" } do
                local s, err, code = storage:load(id)
                assert.is_nil(s)
                assert.is_string(err)
                assert.equal("invalid", code)
            end
        end)

        it("are unavailable, not 'not found', when Redis refuses", function()
            redis:cli("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+ping")
            storage = new { url = "unix://guest:pw@" .. redis.socket }
            local s, err, code = storage:load("a")
            assert.is_nil(s)
            assert.matches("NOPERM", err)
            assert.equal("unavailable", code)
        end)

        it("never hold the password", function()
            storage = new { url = "unix://default:hunter2@" .. redis.socket }
            redis:cli("CONFIG", "SET", "requirepass", "other")
            local ok, err, code = storage:load("a")
            redis.password = "other"
            redis:cli("CONFIG", "SET", "requirepass", "")
            redis.password = nil
            assert.is_nil(ok)
            assert.equal("unavailable", code)
            assert.not_matches("hunter2", err)
            assert.not_matches("hunter2", cjson.encode(storage:stats()))
        end)
    end)

    it("keeps a read-only Redis's writes and reads apart", function()
        storage:store(make "a")
        redis:cli("CONFIG", "SET", "maxmemory", "1")
        local ok, err, code = storage:store(make "b")
        redis:cli("CONFIG", "SET", "maxmemory", "0")
        assert.is_nil(ok)
        assert.matches("OOM", err)
        assert.equal("unavailable", code)
        assert.equal("a", storage:load("a").id)
    end)

    describe(".new", function()
        for message, opts in pairs {
            ["opts.url is required"] = { },
            ["opts.url must begin with redis:// or unix://"] = { url = "localhost" },
            ['opts.key_prefix must be a string of visible ASCII that ends in ":"'] =
                { url = "redis://h", key_prefix = "mooring" },
            ["opts.key_prefix must be a string"] = { url = "redis://h", key_prefix = 5 },
            ["opts.ttl must be a positive number"] = { url = "redis://h", ttl = 0 },
            ["opts.command_timeout must be a positive number"] =
                { url = "redis://h", command_timeout = -1 },
            ["opts.ttl must be at most"] = { url = "redis://h", ttl = 1e300 },
            ["opts.max_lifetime must be at most"] =
                { url = "redis://h", max_lifetime = 1e300 },
            ["opts.connect_timeout must be at most 1000000 (seconds)"] =
                { url = "redis://h", connect_timeout = 1e7 },
            ["opts.transport must be"] = { url = "redis://h", transport = "smoke" },
        } do
            it("raises '" .. message .. "'", function()
                local _, err = pcall(redis_storage.new, opts)
                assert.matches(message, err, 1, true)
            end)
        end

        it("does not repeat a url, which may hold a password", function()
            local _, err = pcall(redis_storage.new, { url = "redis://u:hunter2@h:x" })
            assert.matches("opts.url must have a port", err)
            assert.not_matches("hunter2", err)
        end)
    end)
end)
