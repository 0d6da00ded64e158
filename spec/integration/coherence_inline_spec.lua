-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Coherence in plain LuaJIT, where nothing happens between the calls.

local election = require "resty.mooring.coherence.election"
local log = require "resty.mooring.log"
local redis_storage = require "resty.mooring.redis_storage"
local routing_storage = require "resty.mooring.routing_storage"
local servers = require "support.servers"
local session = require "resty.mooring.session"

local wait_for = servers.wait_for

local URL = "http://x:1"
local KEY = "mooring:session:"

describe("a routing storage in plain LuaJIT", function()
    local redis, storage

    local function open(opts)
        opts = opts or {}
        storage = routing_storage.new {
            max_local_entries = 100, coherence_lease = opts.lease or 2,
            local_ttl = opts.local_ttl, serve_stale = opts.serve_stale,
            remote = redis_storage.new {
                url = opts.url or redis.unix_url, connect_timeout = 0.2, command_timeout = 0.3,
            },
        }
        return storage
    end

    setup(function() redis = servers.redis() end)
    teardown(function() servers.stop_all() end)
    before_each(function() redis:cli("FLUSHALL") end)
    after_each(function() storage:close() end)

    local function store(id, url)
        assert(storage:store(session.new(id, { metadata = { backend_url = url or URL } })))
    end

    local function is_hit(id)
        return storage.cache:url(id) ~= nil
    end

    -- Uses a session until it is a hit.
    local function warm(id)
        wait_for(function()
            storage:resolve(id)
            return storage:stats().coherence.coherent and is_hit(id)
        end, 5, "a hit")
    end

    local function count(command)
        return redis:command_counts()[command] or 0
    end

    it("sees in the next call what others did more than a millisecond ago", function()
        open()
        for i = 1, 20 do
            local id = "a" .. i
            store(id)
            warm(id)
            redis:cli("DEL", KEY .. id)
            servers.nap(0.002)
            assert.equal("not_found", select(3, storage:resolve(id)))
        end
        store("b")
        warm("b")
        redis:cli("FLUSHALL")
        servers.nap(0.002)
        assert.equal("not_found", select(3, storage:resolve("b")))
    end)

    it("asks Redis nothing for a hit, and writes two beacons a second at most", function()
        open()
        store("a")
        warm("a")
        local gets, beacons = count("get"), count("set") + count("pexpire")
        local from = servers.now()
        while servers.now() < from + 1.5 do
            for _ = 1, 1000 do
                assert(storage:resolve("a"))
            end
        end
        beacons = count("set") + count("pexpire") - beacons
        assert.equal(gets, count("get"))
        assert.is_true(beacons >= 1 and beacons <= 4, beacons)
        assert.is_true(storage:stats().coherence.coherent)
    end)

    it("that was idle for longer than the lease misses first, and is right", function()
        open { lease = 0.1 }
        store("a")
        store("b")
        warm("a")
        warm("b")
        redis:cli("DEL", KEY .. "a")
        servers.nap(0.15)
        local gets = count("get")
        assert.equal(URL, storage:resolve("b"))
        assert.is_true(count("get") > gets)
        assert.equal("not_found", select(3, storage:resolve("a")))
        warm("b")
    end)

    it("finds a session that others make where it has just found none", function()
        open()
        store("a")
        warm("a")
        assert.equal("not_found", select(3, storage:resolve("b")))
        local gets = count("get")
        assert.equal("not_found", select(3, storage:resolve("b")))
        assert.equal(gets, count("get"))
        local record = redis:cli("GET", KEY .. "a"):gsub('"a"', '"b"')
        redis:cli("SET", KEY .. "b", record)
        servers.nap(0.002)
        assert.equal(URL, storage:resolve("b"))
    end)

    it("listens with a password and in a database of its own", function()
        local locked = servers.redis { "--requirepass", "secret", password = "secret" }
        finally(function() locked:stop() end)
        open { url = ("redis://:secret@127.0.0.1:%d/3"):format(locked.port) }
        store("a")
        warm("a")
        locked:cli("-n", "3", "DEL", KEY .. "a")
        servers.nap(0.002)
        assert.equal("not_found", select(3, storage:resolve("a")))
    end)

    it("is right and whole again after its listener was killed", function()
        open()
        store("a")
        warm("a")
        assert.equal("1", redis:cli("CLIENT KILL TYPE pubsub"))
        redis:cli("SET", KEY .. "a", (redis:cli("GET", KEY .. "a"):gsub("x:1", "new:1")))
        servers.nap(0.002)
        assert.equal("http://new:1", storage:resolve("a"))
        warm("a")
    end)

    describe("whose listener meets with trouble", function()
        local warn

        before_each(function() warn = stub(log, "warn") end)
        after_each(function() warn:revert() end)

        -- Uses a session until a condition holds.
        local function use_until(condition, what)
            wait_for(function()
                storage:resolve("a")
                return condition()
            end, 10, what)
        end

        local function proxied(opts)
            local proxy = servers.node("spec/fixtures/redis_proxy.mjs",
                                       { "--upstream=" .. redis.port })
            finally(function() proxy:stop() end)
            opts.url = "redis://127.0.0.1:" .. proxy.port
            open(opts)
            return proxy
        end

        it("makes another connection when it hears nothing", function()
            local proxy = proxied { lease = 0.1 }
            store("a")
            warm("a")
            proxy:ask { op = "hold", kind = "listener", dir = "down", only = "now" }
            use_until(function() return #warn.calls > 0 end, "the complaint")
            assert.matches("it has been silent for too long", warn.calls[1].vals[1], 1, true)
            assert.equal(1, storage:stats().coherence.losses)
            warm("a")
        end)

        it("makes another connection when one breaks before it has asked", function()
            local proxy = proxied {}
            proxy:ask { op = "reset", kind = "listener", text = "run_id" }
            use_until(function() return storage.coherence.connections == 1 end, "it to connect")
            wait_for(function() return proxy:ask("state").resets == 1 end, 5, "the reset")
            use_until(function() return #warn.calls > 0 end, "the complaint")
            assert.equal(0, storage:stats().coherence.losses)
            store("a")
            warm("a")
            assert.stub(warn).was_called(1)
        end)

        it("asks Redis each time, and complains once, while it is not let in", function()
            local locked = servers.redis { "--requirepass", "one", password = "one" }
            finally(function() locked:stop() end)
            open { url = ("redis://:one@127.0.0.1:%d"):format(locked.port) }
            store("a")
            warm("a")
            for complaints = 1, 2 do
                -- Who has been let in stays.
                locked:cli("CONFIG SET requirepass two")
                locked.password = "two"
                assert.equal("1", locked:cli("CLIENT KILL TYPE pubsub"))
                local tries = storage.coherence.connections + 3
                use_until(function() return storage.coherence.connections >= tries end, "tries")
                assert.stub(warn).was_called(complaints)
                assert.is_false(storage:stats().coherence.coherent)
                assert.equal(URL, storage:resolve("a"))
                locked:cli("CONFIG SET requirepass one")
                locked.password = "one"
                warm("a")
            end
        end)

        it("leaves it to a process that has taken this one for dead, until that dies", function()
            local OTHER = 4711
            open { lease = 60 }
            store("a")
            warm("a")
            election.resign(storage.cache, storage.listener.token)
            assert.is_true(election.claim(storage.cache, OTHER, 0))
            use_until(function() return not storage:stats().coherence.listening end, "the end")
            wait_for(function() return redis:cli("CLIENT LIST TYPE pubsub") == "" end)
            assert.equal(0, storage:stats().coherence.losses)

            election.resign(storage.cache, OTHER)
            use_until(function() return storage:stats().coherence.listening end, "a listener")
            assert.stub(warn).was_not_called()
            warm("a")
        end)
    end)

    it("may be used by the callbacks of what it does later", function()
        open()
        store("a")
        warm("a")
        local url
        assert(storage:create_later(session.new("b"), function()
            servers.nap(0.002)
            url = storage:resolve("a")
        end))
        wait_for(function()
            storage:resolve("a") -- a hit: nothing else takes replies in
            return url
        end, 5, "the callback")
        assert.equal(URL, url)
    end)

    it("follows when its server has become a replica, and another the master", function()
        local one, two = servers.redis(), servers.redis()
        local proxy = servers.node("spec/fixtures/redis_proxy.mjs", { "--upstream=" .. one.port })
        finally(function()
            proxy:stop()
            one:stop()
            two:stop()
        end)
        open { url = "redis://127.0.0.1:" .. proxy.port }
        store("a")
        warm("a")
        one:cli("REPLICAOF 127.0.0.1 " .. servers.free_port())
        proxy:ask { op = "upstream", port = two.port }
        assert.equal("unavailable", select(3, storage:store(session.new("b"))))
        store("b", "http://two:1")
        assert.matches("two", two:cli("GET", KEY .. "b"), 1, true)
        assert.equal("not_found", select(3, storage:resolve("a")))
        warm("b")
        two:cli("DEL", KEY .. "b")
        servers.nap(0.002)
        assert.equal("not_found", select(3, storage:resolve("b")))
    end)

    it("serves what it knows while Redis is away, and nothing it must not", function()
        local other = servers.redis()
        finally(function() other:stop() end)
        open { url = other.unix_url, lease = 0.1 }
        store("a")
        warm("a")
        other:kill()
        wait_for(function() return not storage:stats().coherence.coherent end)
        local from = servers.now()
        for _ = 1, 100 do
            assert.same({ URL, nil, "stale" }, { storage:resolve("a") })
            assert.equal("unavailable", select(3, storage:resolve("unknown")))
        end
        assert.is_true(servers.now() - from < 1)
        other:start() -- without its data
        wait_for(function() return select(3, storage:resolve("a")) == "not_found" end)
        store("a")
        warm("a")
    end)

    it("believes for local_ttl where it may not listen", function()
        redis:cli("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels")
        open { url = ("redis://app:pw@127.0.0.1:%d"):format(redis.port), local_ttl = 0.2 }
        store("a")
        wait_for(function()
            storage:resolve("a")
            return is_hit("a")
        end)
        assert.is_false(storage:stats().coherence.coherent)
        redis:cli("DEL", KEY .. "a")
        assert.equal(URL, storage:resolve("a"))
        local from = servers.now()
        wait_for(function() return select(3, storage:resolve("a")) == "not_found" end, 1)
        assert.is_true(servers.now() - from < 0.3)
    end)

    it("believes for local_ttl where it may write no beacon", function()
        redis:cli("ACL", "SETUSER", "half", "on", ">pw", "~" .. KEY .. "*", "+@all", "&*")
        local err = stub(log, "err")
        open { url = ("redis://half:pw@127.0.0.1:%d"):format(redis.port), local_ttl = 0.2,
               lease = 0.5 }
        store("a")
        wait_for(function()
            storage:resolve("a")
            return #err.calls > 0
        end, 5, "the complaint")
        assert.is_false(storage:stats().coherence.coherent)
        assert.equal(URL, storage:resolve("a"))
        redis:cli("DEL", KEY .. "a")
        wait_for(function() return select(3, storage:resolve("a")) == "not_found" end, 1)
        -- It is said once, however often it is tried.
        local deadline = servers.now() + 1
        wait_for(function()
            storage:resolve("a")
            return servers.now() > deadline
        end, 2)
        assert.stub(err).was_called(1)
        err:revert()
    end)

    it("takes no longer than configured with a server that says nothing", function()
        local server = servers.node("spec/fixtures/resp_peer.mjs")
        finally(function() server:stop() end)
        for _, peer in ipairs { { answer = "" }, { answer = "+OK\r\n", interval = 1000 },
                                { answer = "garbage\r\n" }, { answer = "+OK\r\n" } } do
            peer.op = "behave"
            server:ask(peer)
            open { url = "redis://127.0.0.1:" .. server.port }
            for _ = 1, 2 do
                for _, method in ipairs { "resolve", "delete" } do
                    local from = servers.now()
                    storage[method](storage, "a")
                    assert.is_true(servers.now() - from < 0.2 + 0.3 + 0.1,
                                   method .. " " .. servers.now() - from)
                end
            end
            storage:close()
        end
    end)

    it("is closed when it was closed", function()
        open()
        store("a")
        warm("a")
        storage:close()
        for _, method in ipairs { "resolve", "load", "delete" } do
            servers.nap(0.002)
            assert.equal("closed", select(3, storage[method](storage, "a")))
        end
        assert.equal("closed", select(3, storage:store(session.new("a"))))
        wait_for(function() return redis:cli("CLIENT LIST TYPE pubsub") == "" end)
    end)

    describe("that was forked", function()
        local LEASE = 0.3
        local process, out

        local function put(url)
            local text = '{"id":"k","type":"mcp","created_at":"2026-01-01T00:00:00Z",'
                .. '"updated_at":"2026-01-01T00:00:00Z","metadata":{"backend_url":"%s"}}'
            redis:cli("SET", KEY .. "k", text:format(url), "PX", "100000000")
        end

        -- The last line of a process, as { pid, time, answer }.
        local function last(who)
            local found
            for pid, time, answer in servers.read_file(out)
                    :gmatch(who .. " (%d+) ([%d.]+) (%S+)\n") do
                found = { tonumber(pid), tonumber(time), answer }
            end
            return found
        end

        -- All of those processes give that answer in time, and stay with it.
        local function assert_all_say(answer, ...)
            local from = servers.now()
            for _, who in ipairs { ... } do
                wait_for(function()
                    local line = last(who)
                    return line and line[3] == answer, line and line[3]
                end, 3, who .. " to say " .. answer)
            end
            assert.is_true(servers.now() - from < LEASE + 0.2, servers.now() - from)
        end

        before_each(function()
            open() -- for after_each
            put("http://v:1")
            out = servers.tmpdir() .. "/out"
            process = servers.spawn {
                os.getenv("LUAJIT") or "luajit", servers.root .. "/spec/fixtures/forked.lua",
                redis.unix_url, LEASE, out = out,
                env = { LUA_PATH = servers.lua_path, LUA_CPATH = servers.lua_cpath },
            }
            wait_for(function() return last("parent") and last("child") end, 10, "both")
        end)

        it("shares what it knows, and listens once for all", function()
            assert_all_say("http://v:1", "parent", "child")
            wait_for(function()
                local _, n = redis:cli("CLIENT LIST TYPE pubsub"):gsub("name=", "")
                return n == 1, n
            end, 2, "one listener")
            for version = 2, 5 do
                put("http://v:" .. version)
                assert_all_say("http://v:" .. version, "parent", "child")
            end
            process:kill()
        end)

        it("has the other process listen when one dies", function()
            for _, victim in ipairs { "parent", "child" } do
                local survivor = victim == "parent" and "child" or "parent"
                if victim == "child" then
                    process = servers.spawn {
                        os.getenv("LUAJIT") or "luajit",
                        servers.root .. "/spec/fixtures/forked.lua", redis.unix_url, LEASE,
                        out = out, env = { LUA_PATH = servers.lua_path,
                                           LUA_CPATH = servers.lua_cpath },
                    }
                    servers.write_file(out, "")
                    wait_for(function() return last("parent") and last("child") end, 10)
                end
                servers.run { "kill", "-KILL", last(victim)[1] }
                for version = 1, 3 do
                    put("http://" .. victim .. ":" .. version)
                    assert_all_say("http://" .. victim .. ":" .. version, survivor)
                end
                wait_for(function()
                    return redis:cli("CLIENT LIST TYPE pubsub"):find("addr=", 1, true)
                end, 5, "the survivor to listen")
                put("http://at-last:1")
                assert_all_say("http://at-last:1", survivor)
                process:kill()
            end
        end)
    end)
end)
