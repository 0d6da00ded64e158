-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The protocol of the listener without a socket: what it asks, and what it
-- makes of each reply. With real servers: spec/integration/coherence_*.

local caches = require "resty.mooring.cache"
local clock = require("resty.mooring.ffi").now
local coherences = require "resty.mooring.coherence"

local CHANNEL = "__redis__:invalidate"
local NEVER = caches.NEVER
local TIMES = { stamp = 0, fresh_until = NEVER, expires_at = NEVER }

-- What is asked of the data connection, to be answered by hand.
local function recording_transport()
    local t = { asked = {}, reconnects = {} }
    function t:enqueue(command, callback)
        self.asked[#self.asked + 1] = { command = command, callback = callback }
        return true
    end
    function t:reconnect(why) self.reconnects[#self.reconnects + 1] = why end
    return t
end

local function pass(ms)
    local till = clock() + ms
    repeat until clock() > till
end

describe("resty.mooring.coherence", function()
    local cache, transport, coherence, doubted

    local function make(lease, key_prefix)
        return coherences.new {
            cache = cache, key_prefix = key_prefix or "mooring:session:", lease = lease or 60,
            transport = transport, on_doubt = function(id) doubted[#doubted + 1] = id end,
        }
    end

    before_each(function()
        cache = caches.new { max_entries = 100, max_record = 1000 }
        cache:set_lease(0)
        transport = recording_transport()
        doubted = {}
        coherence = make()
    end)

    after_each(function() cache:close() end)

    local function message(keys)
        if keys then
            keys.n = #keys
        end
        return { "message", CHANNEL, keys or false, n = 3 }
    end

    -- The messages of a connection up to the confirmation of SUBSCRIBE.
    local function live(inherited, info)
        coherence:connected(7, inherited or false)
        assert(coherence:take(12) == nil)
        assert(coherence:take(info or "run_id:00000000000a0000\r\n"))
        coherence:take("OK")
        coherence:take { "subscribe", CHANNEL, 1, n = 3 }
        assert.equal("live", coherence.state)
    end

    local function keys_changed(...)
        return coherence:take(message { ... })
    end

    local function put(id)
        assert.equal(0, cache:put(id, "record", 0, TIMES))
    end

    local function entry(id)
        local e = assert(cache:find(id, true))
        return { believed = e.believed ~= 0, dead = e.dead ~= 0 }
    end

    local function last_asked()
        return transport.asked[#transport.asked]
    end

    -- Writes a beacon and hears of it.
    local function prove()
        local key = assert(coherence:beacon(true))
        keys_changed(key)
        return key
    end

    describe("a new connection", function()
        it("asks who it is and which server it leads to", function()
            assert.same({ { "CLIENT", "ID" }, { "INFO", "server" } },
                        coherence:connected(7, false))
        end)

        it("has Redis push both prefixes to itself, and subscribes", function()
            coherence:connected(7, false)
            assert.is_nil(coherence:take(12))
            local commands = coherence:take("redis_version:7\r\nrun_id:abc\r\n")
            assert.same({ "CLIENT", "TRACKING", "ON", "REDIRECT", "12", "BCAST",
                          "PREFIX", "mooring:session:",
                          "PREFIX", "mooring:beacon:" .. cache:instance() .. ":" }, commands[1])
            assert.same({ "SUBSCRIBE", CHANNEL }, commands[2])
        end)

        it("is believed once SUBSCRIBE is confirmed, after an epoch and a beacon", function()
            put "old"
            live()
            assert.equal(0, cache:lease())
            cache:set_lease(NEVER) -- only to look at the epoch
            assert.is_false(entry("old").believed)
            assert.is_false(entry("old").dead)
            cache:set_lease(0)
            put "new"
            local before = clock()
            prove()
            assert.is_true(cache:lease() >= before + 60000)
            assert.is_true(cache:lease() <= clock() + 60000)
            assert.is_true(entry("new").believed)
            assert.is_false(entry("old").believed)
        end)

        it("counts the lease from before the beacon was sent", function()
            live()
            local before = clock()
            local key = coherence:beacon(true)
            pass(20)
            keys_changed(key)
            assert.is_true(cache:lease() < before + 60000 + 15)
        end)

        it("goes on when INFO is forbidden", function()
            live(false, { err = "NOPERM this user has no permissions to run 'info'" })
            prove()
            assert.is_true(cache:is_leased())
        end)

        for _, err in ipairs { "NOPERM this user has no permissions",
                               "ERR unknown command `CLIENT`",
                               "ERR Unknown subcommand or wrong number of arguments" } do
            it("is refused for good by " .. err, function()
                coherence:connected(7, false)
                assert.same({ nil, err, true }, { coherence:take { err = err } })
            end)
        end

        for _, err in ipairs { "LOADING Redis is loading the dataset in memory",
                               "BUSY Redis is busy running a script.",
                               "NOAUTH Authentication required.",
                               "ERR max number of clients reached" } do
            it("may try again after " .. err, function()
                coherence:connected(7, false)
                assert.same({ nil, err, false }, { coherence:take { err = err } })
            end)
        end

        it("is given up on a reply that is out of step", function()
            for _, odd in ipairs { { "x" }, { 12, "i", 5 }, { 12, "i", "OK", "OK" },
                                   { 12, "i", "OK", { "subscribe", CHANNEL, 1 }, "PONG" },
                                   { 12, "i", "OK", { "subscribe", CHANNEL, 1 },
                                     { "message", "another", false } } } do
                coherence = make()
                coherence:connected(7, false)
                local commands, wrong, refused
                for _, reply in ipairs(odd) do
                    commands, wrong, refused = coherence:take(reply)
                end
                assert.is_nil(commands)
                assert.is_string(wrong)
                assert.is_falsy(refused)
            end
        end)
    end)

    describe("the prefix of the beacons", function()
        -- Redis refuses prefixes one of which begins with the other.
        for _, key_prefix in ipairs { "mooring:session:", "mooring:beacon:", "s:", ":", "::",
                                      "a:b:c:", "a-beacon:", "beacon:beacon:", "beacons:" } do
            it("is apart from " .. key_prefix, function()
                local beacons = make(60, key_prefix).beacon_prefix
                assert.not_equal(key_prefix, beacons:sub(1, #key_prefix))
                assert.not_equal(beacons, key_prefix:sub(1, #beacons))
                assert.matches(":", beacons, 1, true)
            end)
        end
    end)

    describe("a message", function()
        before_each(function() live() end)

        it("about a key leaves the entry, as no hit, and tells who has it", function()
            put "a"
            put "b"
            prove()
            keys_changed("mooring:session:a", "mooring:session:absent")
            assert.same({ believed = false, dead = true }, entry "a")
            assert.same({ believed = true, dead = false }, entry "b")
            assert.same({ "a" }, doubted)
        end)

        it("about a key ends its token", function()
            local token = cache:token("a")
            keys_changed("mooring:session:a")
            assert.is_false(cache:is_valid("a", token))
        end)

        it("without keys kills all, and leaves the lease", function()
            put "a"
            prove()
            coherence:take(message(nil))
            assert.same({ believed = false, dead = true }, entry "a")
            assert.is_true(cache:is_leased())
            put "a"
            assert.same({ believed = true, dead = false }, entry "a")
        end)

        it("of very many keys has everything looked up again", function()
            put "a"
            prove()
            local keys = {}
            for i = 1, 1001 do keys[i] = "mooring:session:x" .. i end
            coherence:take(message(keys))
            assert.same({ believed = false, dead = false }, entry "a")
            assert.same({}, doubted)
        end)

        it("that has neither keys nor none is no message", function()
            live()
            for _, odd in ipairs { 7, "mooring:session:a", { err = "ERR x" } } do
                local commands, err = coherence:take { "message", CHANNEL, odd, n = 3 }
                assert.is_nil(commands)
                assert.equal("a reply that is no invalidation message", err)
            end
        end)

        it("about other keys changes nothing", function()
            put "a"
            prove()
            keys_changed("mooring:session:", "mooring:sessiona", "a", "mooring:beacon:else:1")
            assert.same({ believed = true, dead = false }, entry "a")
        end)

        it("about a beacon nobody waits for brings no lease", function()
            keys_changed(coherence.beacon_prefix .. "7.1.1")
            assert.is_false(cache:is_leased())
            local key = prove()
            cache:set_lease(0)
            keys_changed(key) -- a second time: its expiry, say
            assert.is_false(cache:is_leased())
        end)

        it("about a beacon of an earlier connection brings no lease", function()
            local key = coherence:beacon(true)
            coherence:lost()
            live()
            keys_changed(key)
            assert.is_false(cache:is_leased())
        end)

        it("about an older beacon takes nothing from the lease", function()
            local older = coherence:beacon(true)
            pass(5)
            prove()
            local lease = cache:lease()
            keys_changed(older)
            assert.equal(lease, cache:lease())
        end)
    end)

    describe("a board that is watched", function()
        local KEY = "mooring:backends"
        local told

        before_each(function()
            told = 0
            coherence:watch(KEY, function() told = told + 1 end)
        end)

        it("is a third prefix of what is pushed", function()
            coherence:connected(7, false)
            coherence:take(12)
            local commands = coherence:take("run_id:abc\r\n")
            assert.same({ "PREFIX", KEY }, { unpack(commands[1], 11) })
            assert.equal("SUBSCRIBE", commands[2][1])
        end)

        it("may have changed while nobody listened, but not over a hand-over", function()
            live()
            assert.equal(1, told)
            coherence:lost()
            live(true)
            assert.equal(1, told)
        end)

        it("has changed when a message names it, it and no other key", function()
            live()
            keys_changed(KEY)
            assert.equal(2, told)
            keys_changed("mooring:backends-of-others", "mooring:session:x")
            assert.equal(2, told)
        end)

        it("has changed before a beacon of the next message brings a lease", function()
            live()
            local before
            coherence:watch(KEY, function() before = cache:lease() end)
            local key = coherence:beacon(true)
            keys_changed(KEY)
            keys_changed(key)
            assert.is_true(cache:lease() > before)
        end)

        it("may have been read from another server than the one it is on now", function()
            coherence:data_connected()
            assert.equal(0, told)
            coherence:data_connected()
            assert.equal(1, told)
        end)

        it("is watched for all who want to know", function()
            local too = 0
            coherence:watch(KEY, function() too = too + 1 end)
            live()
            assert.same({ 1, 1 }, { told, too })
        end)

        it("may have changed with a flush, and with a message of too many keys", function()
            live()
            coherence:take(message())
            assert.equal(2, told)
            local many = {}
            for i = 1, 1001 do
                many[i] = "mooring:session:" .. i
            end
            keys_changed(unpack(many))
            assert.equal(3, told)
        end)
    end)

    describe("a loss", function()
        it("ends the lease at once", function()
            live()
            prove()
            coherence:lost()
            assert.equal(0, cache:lease())
            assert.equal(1, coherence:stats().losses)
        end)

        it("disbelieves what was filled before the next confirmation", function()
            live()
            prove()
            coherence:lost()
            local token = cache:token("a")
            coherence:connected(7, false)
            cache:put("a", "record", caches.PUT_TOKEN, TIMES, token)
            coherence:take(12)
            coherence:take("run_id:00000000000a0000")
            coherence:take("OK")
            coherence:take { "subscribe", CHANNEL, 1, n = 3 }
            prove()
            assert.is_true(cache:is_leased())
            assert.is_false(entry("a").believed)
        end)
    end)

    describe("a successor", function()
        it("brings neither epoch nor lease before it is granted", function()
            local epoch = cache:stats().epoch
            cache:set_lease(clock() + 5000)
            local lease = cache:lease()
            live(true)
            prove()
            assert.equal(epoch, cache:stats().epoch)
            assert.equal(lease, cache:lease())
            coherence:granted()
            prove()
            assert.equal(epoch, cache:stats().epoch)
            assert.is_true(cache:lease() > lease)
        end)

        it("takes nothing away when it fails", function()
            cache:set_lease(clock() + 5000)
            live(true)
            coherence:lost()
            assert.is_true(cache:is_leased())
        end)

        it("finds the lease of the one that retired", function()
            live()
            prove()
            coherence:retired()
            assert.is_true(cache:is_leased())
            assert.equal(0, coherence:stats().losses)
        end)
    end)

    describe("a beacon", function()
        it("is one SET with an expiry in the first round, and one PEXPIRE later", function()
            live()
            for i = 1, 40 do
                local key = prove()
                local asked = last_asked().command
                assert.equal(i, #transport.asked)
                if i <= 16 then
                    assert.same({ "SET", key, "", "PX" }, { unpack(asked, 1, 4) })
                    assert.is_true(tonumber(asked[5]) > 16 * 60000 / 4)
                else
                    assert.same({ "PEXPIRE", key, transport.asked[1].command[5] }, asked)
                end
            end
        end)

        it("is set anew when its key has gone, and counts from then", function()
            live()
            for _ = 1, 16 do prove() end
            local key = coherence:beacon(true)
            cache:set_lease(0)
            pass(20)
            local before = clock()
            last_asked().callback(0)
            assert.equal("SET", last_asked().command[1])
            keys_changed(key)
            assert.is_true(cache:lease() >= before + 60000)
        end)

        it("is sent four times a lease", function()
            coherence = make(0.2)
            live()
            local from = clock()
            while clock() < from + 110 do coherence:beacon() end
            assert.is_true(#transport.asked == 3 or #transport.asked == 2, #transport.asked)
        end)

        it("is not sent before the connection is confirmed", function()
            coherence:connected(7, false)
            assert.is_nil(coherence:beacon(true))
            coherence:take(12)
            assert.is_nil(coherence:beacon(true))
            assert.equal(0, #transport.asked)
        end)

        it("never takes the key of one that is still out", function()
            live()
            local seen = {}
            for _ = 1, 50 do
                local key = coherence:beacon(true)
                assert.is_true(key == nil or not seen[key])
                seen[key or ""] = true
            end
            assert.equal(16, #transport.asked)
        end)

        it("that is forbidden is told to the operator", function()
            live()
            coherence:beacon(true)
            last_asked().callback({ err = "NOPERM no permissions to access a key" })
            assert.equal("NOPERM no permissions to access a key", coherence.forbidden)
        end)

        it("refused by a replica has the data connection made anew", function()
            live()
            coherence:beacon(true)
            last_asked().callback({ err = "READONLY You can't write against a replica." })
            assert.equal(1, #transport.reconnects)
            coherence:beacon(true)
            last_asked().callback(nil, "timeout", "timeout")
            last_asked().callback("OK")
            assert.equal(1, #transport.reconnects)
            assert.is_nil(coherence.forbidden)
        end)
    end)

    describe("silence", function()
        before_each(function() coherence = make(0.01) end)

        it("of three leases after a beacon gives the connection up", function()
            live()
            assert.is_false(coherence:is_silent())
            coherence:beacon(true)
            assert.is_false(coherence:is_silent())
            pass(35)
            assert.is_true(coherence:is_silent())
        end)

        it("is over when a later beacon comes back", function()
            live()
            coherence:beacon(true)
            pass(35)
            prove()
            assert.is_false(coherence:is_silent())
        end)

        it("is not over when an earlier beacon comes back late", function()
            live()
            local first = coherence:beacon(true)
            coherence:beacon(true)
            pass(35)
            keys_changed(first)
            assert.is_true(coherence:is_silent())
        end)

        it("during the handshake gives it up, too", function()
            coherence:connected(7, false)
            assert.is_false(coherence:is_silent())
            pass(35)
            assert.is_true(coherence:is_silent())
            coherence:take(12)
            assert.is_false(coherence:is_silent())
            pass(35)
            assert.is_true(coherence:is_silent())
        end)
    end)

    describe("a data connection", function()
        local function data_connected(info)
            coherence:data_connected()
            assert.same({ "INFO", "server" }, last_asked().command)
            last_asked().callback(info)
        end

        it("may not fill before its server is known", function()
            assert.is_falsy(coherence:may_keep())
            coherence:data_connected()
            assert.is_falsy(coherence:may_keep())
            last_asked().callback("run_id:00000000000a0000")
            assert.is_true(coherence:may_keep())
        end)

        it("may not fill after a question about it was lost", function()
            data_connected("run_id:00000000000a0000")
            data_connected(nil)
            assert.is_falsy(coherence:may_keep())
        end)

        it("may fill when the server does not tell", function()
            data_connected { err = "NOPERM this user has no permissions to run 'info'" }
            assert.is_true(coherence:may_keep())
        end)

        it("to the listener's server changes nothing", function()
            live()
            put "a"
            prove()
            data_connected("run_id:00000000000a0000")
            assert.is_true(entry("a").believed)
            assert.is_false(coherence:is_astray())
            coherence:follow()
            assert.equal(0, #transport.reconnects)
        end)

        it("to another server than the listener's disbelieves all", function()
            live()
            put "a"
            prove()
            data_connected("run_id:00000000000b0000")
            assert.is_false(entry("a").believed)
            assert.equal(0, cache:lease())
            assert.is_true(coherence:is_astray())
        end)

        it("is left behind when the listener finds another server", function()
            data_connected("run_id:00000000000a0000")
            live(false, "run_id:00000000000b0000")
            assert.is_false(coherence:may_keep())
            coherence:follow()
            assert.equal(1, #transport.reconnects)
            data_connected("run_id:00000000000b0000")
            assert.is_true(coherence:may_keep())
        end)
    end)

    describe("a refusal", function()
        it("lets entries live for their own time, and names the rights", function()
            put "old"
            local text = coherence:refused("NOPERM no channel")
            assert.is_false(coherence:stats().coherent)
            assert.is_true(cache:is_unleased())
            assert.is_false(entry("old").believed)
            put "new"
            coherence:refused("NOPERM no channel")
            assert.is_true(entry("new").believed)
            for _, right in ipairs { "NOPERM no channel", "&" .. CHANNEL, "+client|tracking",
                                     "+set", "+pexpire", "~mooring:beacon:*" } do
                assert.matches(right, text, 1, true)
            end
        end)

        it("is over with the first beacon", function()
            coherence:refused("NOPERM")
            live()
            prove()
            assert.is_true(coherence:stats().coherent)
        end)
    end)

    it("touches nothing after it was closed", function()
        live()
        prove()
        coherence:close()
        assert.equal(0, cache:lease())
        coherence:data_connected()
        last_asked().callback("run_id:00000000000b0000")
        assert.is_true(cache:server() ~= 0xb)
        coherence:refused("NOPERM")
        assert.is_false(cache:is_unleased())
    end)
end)
