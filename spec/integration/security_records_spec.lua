-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What somebody could put into Redis who has no business there: every such
-- value costs the requests of its own session, and nobody else anything. No
-- request goes where it names, no worker ends, no id and no Lua error is
-- logged, and the value stays for whoever wants to look at it.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

local KEY = "mooring:session:"

describe("router, poisoned values in Redis:", function()
    local a, other, redis, web, good, pids

    setup(function()
        a, other = proxy.backend("a"), proxy.backend("other")
        redis = servers.redis()
        web = proxy.start { backends = { a }, workers = 2,
            options = ("storage = %q,"):format(redis.url) }
        pids = web:worker_pids()
    end)
    before_each(function() good = good or web:open() end)
    teardown(function() servers.stop_all() end)

    local function record(id, changes)
        local fields = {
            id = id, type = "mcp", created_at = "2026-01-01T00:00:00Z",
            updated_at = "2026-01-01T00:00:00Z",
            metadata = { backend_url = other.url },
        }
        for name, value in pairs(changes or {}) do
            fields[name] = value
        end
        return fields
    end

    local function text(id, changes)
        return cjson.encode(record(id, changes))
    end

    -- Values can be too large for an argument of a program, and have NULs.
    local function set(id, value)
        local result = servers.run { "redis-cli", "-s", redis.socket, "-x",
            "SET", KEY .. id, stdin = value }
        assert.equal("OK\n", result.out)
        redis:cli("PEXPIRE", KEY .. id, "1000000")
    end

    local function assert_no_harm()
        assert.equal(0, #proxy.seen(other))
        assert.same(pids, web:worker_pids())
        local log = web:error_log()
        for _, trouble in ipairs { "poisoned-", "attempt to", "runtime error",
                                   "aborted", "[alert]", "[crit]", "[emerg]" } do
            local at = log:find(trouble, 1, true)
            assert.is_nil(at, at and log:sub(math.max(1, at - 200), at + 200))
        end
    end

    local function assert_good_one_works()
        servers.wait_for(function()
            return web:call(good).status == 200
        end, 10, "an answer of another session")
    end

    local function assert_unusable(id)
        for _, method in ipairs { "POST", "DELETE" } do
            local answer = assert(web:request { method = method, id = id,
                body = method == "POST" and proxy.CALL or nil })
            assert.equal(503, answer.status)
            assert.is_nil(answer.body:find("poisoned", 1, true))
        end
        assert.equal("1", redis:cli("EXISTS", KEY .. id))
        assert_good_one_works()
        assert_no_harm()
    end

    local VALUES = {
        ["nothing"] = "",
        ["no JSON"] = "no JSON",
        ["half a record"] = function(id) return text(id):sub(1, 50) end,
        ["a record and more"] = function(id) return text(id) .. "}" end,
        ["null"] = "null", ["a number"] = "42", ["a string"] = '"x"',
        ["an array"] = "[]", ["an empty object"] = "{}",
        ["a NUL"] = "\0", ["NULs in a record"] = function(id)
            return (text(id):gsub("mcp", "m\0p"))
        end,
        ["another encoding"] = function(id)
            return (text(id):gsub(".", "%0\0"))
        end,
        ["bytes that are no UTF-8"] = "\255\254\200",
        ["nesting without end"] = ("["):rep(100000),
        ["objects without end"] = ('{"a":'):rep(50000),
        ["nested data"] = function(id)
            return (text(id):gsub("}$", function()
                return ',"data":' .. ("["):rep(5000) .. ("]"):rep(5000) .. "}"
            end))
        end,
        ["a record of another id"] = function() return text("somebody-else") end,
        ["an id that is a number"] = function() return text(42) end,
        ["an id in an array"] = function(id) return text({ id }) end,
        ["an id with a NUL behind it"] = function(id) return text(id .. "\0") end,
        ["no times"] = function(id)
            return cjson.encode { id = id, metadata = { backend_url = other.url } }
        end,
        ["a time that is a number"] = function(id)
            return text(id, { created_at = 1e300 })
        end,
        ["a day there is not"] = function(id)
            return text(id, { updated_at = "2026-13-45T99:99:99Z" })
        end,
        ["a time of a megabyte"] = function(id)
            return text(id, { updated_at = ("2"):rep(1000000) })
        end,
        ["metadata that is a string"] = function(id)
            return text(id, { metadata = "backend_url" })
        end,
        ["metadata that is an array"] = function(id)
            return text(id, { metadata = { other.url } })
        end,
        ["a URL that is an object"] = function(id)
            return text(id, { metadata = { backend_url = { url = other.url } } })
        end,
        ["a URL that is a number"] = function(id)
            return text(id, { metadata = { backend_url = 1e308 } })
        end,
        ["no URL"] = function(id) return text(id, { metadata = { x = "y" } }) end,
        ["infinite numbers"] = function(id)
            return (text(id):gsub('"mcp"', "1e999"))
        end,
        ["a megabyte of metadata, and another host"] = function(id)
            local metadata = { backend_url = other.url }
            for i = 1, 10000 do
                metadata["key " .. i] = ("x"):rep(100)
            end
            return text(id, { metadata = metadata })
        end,
        ["a megabyte of URL"] = function(id)
            return text(id, { metadata = { backend_url = other.url
                                           .. ("x"):rep(1000000) } })
        end,
        ["more than a reply may have"] = ("x"):rep(17 * 1048576),
    }

    for what, value in pairs(VALUES) do
        it(what, function()
            local id = "poisoned-" .. what:gsub("%W", "-")
            set(id, type(value) == "function" and value(id) or value)
            assert_unusable(id)
        end)
    end

    for kind, command in pairs {
        list = { "RPUSH", "x" }, set = { "SADD", "x" }, hash = { "HSET", "id", "x" },
        ["sorted set"] = { "ZADD", "1", "x" }, stream = { "XADD", "*", "id", "x" },
        hyperloglog = { "PFADD", "x" }, ["set of bits"] = { "SETBIT", "100", "1" },
    } do
        it("a " .. kind, function()
            local id = "poisoned-" .. kind:gsub("%W", "-")
            redis:cli(command[1], KEY .. id, select(2, unpack(command)))
            redis:cli("PEXPIRE", KEY .. id, "1000000")
            assert_unusable(id)
        end)
    end

    -- (Other bad URLs: router_allow_spec.)
    for _, url in ipairs {
        "http://169.254.169.254", "http://169.254.169.254:80", "http://[fd00:ec2::254]",
        "http://metadata.google.internal", "unix:/run/docker.sock",
        "http://unix:/run/docker.sock:", "http://unix/run/docker.sock",
        "http://localhost:$redis", "http://127.0.0.1:$redis", "http://127.1:$redis",
        "http://[::ffff:127.0.0.1]:$redis", "http://2130706433:$redis",
        "http://0:$redis", "http://0.0.0.0:$redis", "http://mooring", "http://mooring_tls",
        "https://mooring", "$a@127.0.0.1:$redis", "$a/../../", "$a?x", "$a\0",
        "$a\r\nHost: evil", "$a\nX: y", "$a ", " $a", "$a#1;\r\nX: y",
        "$a#99999999999999999999", "$a#-1", "$a#1e3", "$other", "$other#", "$other#1",
        "http://127.0.0.1:$redis#;$a", "$a#;a b", "$a#;a\127", "$a#;a\0b", "$a#;\195\169",
        "$a#;a\r\nX-Evil: 1", "$a#;",
    } do
        it(("the URL %q"):format(url:sub(1, 60)), function()
            url = url:gsub("%$(%l+)", { a = a.url, other = other.url,
                                        redis = tostring(redis.port) })
            local id = "poisoned-url"
            set(id, text(id, { metadata = { backend_url = url } }))
            local before = redis:command_counts()
            assert_unusable(id)
            -- Redis has been asked by its clients only, not by HTTP.
            local after = redis:command_counts()
            assert.is_nil(after.post, cjson.encode(before))
            assert.is_nil(redis:log():find("SECURITY ATTACK", 1, true))
        end)
    end

    describe("in the states of the backends:", function()
        local STATES = "mooring:backends"

        after_each(function() redis:cli("DEL", STATES) end)

        -- A replica that knew nothing before, and one that goes on.
        local function assert_served()
            local fresh = proxy.start { backends = { a }, workers = 1,
                options = ("storage = %q,"):format(redis.url) }
            for _ = 1, 3 do
                assert.equal(200, select(2, fresh:open()).status)
            end
            assert.equal(200, fresh:call(good).status)
            assert.is_nil(fresh:error_log():find("attempt to", 1, true))
            fresh:stop()
            assert_good_one_works()
            assert_no_harm()
        end

        for what, value in pairs {
            ["no JSON"] = "x", ["nothing"] = "", ["an array"] = "[]",
            ["null"] = "null", ["a number"] = "1e308", ["a NUL"] = "\\0",
            ["nesting"] = ("["):rep(10000),
            ["an unknown state"] = '{"state":"evil","incarnation":0,"revision":9}',
            ["a state that is a table"] = '{"state":{},"incarnation":0,"revision":9}',
            ["a state that leaves its text"] =
                '{"state":"up\\",\\"x\\":\\"","incarnation":0,"revision":9}',
            ["numbers that are texts"] = '{"state":"up","incarnation":"x","revision":"y"}',
            ["negative numbers"] = '{"state":"up","incarnation":-5,"revision":-5}',
            ["fractions"] = '{"state":"up","incarnation":0.5,"revision":0.5}',
            ["no numbers"] = '{"state":"up"}',
        } do
            it(what, function()
                redis:cli("HSET", STATES, a.url, value)
                assert_served()
            end)
        end

        it("another type", function()
            redis:cli("RPUSH", STATES, "x")
            assert_served()
        end)

        it("backends that nobody has configured, and very many of them", function()
            redis:cli("EVAL", "for i = 1, 20000 do redis.call('HSET', KEYS[1], "
                .. "'http://10.9.' .. i .. '.1:80', '{\"state\":\"up\",'"
                .. " .. '\"incarnation\":1,\"revision\":1}') end", "1", STATES)
            redis:cli("HSET", STATES, other.url,
                '{"state":"up","incarnation":0,"revision":1}')
            assert_served()
        end)

        it("another backend is not dialled for its state", function()
            redis:cli("HSET", STATES, other.url,
                '{"state":"up","incarnation":3,"revision":1}')
            set("poisoned-state", text("poisoned-state",
                { metadata = { backend_url = other.url .. "#3" } }))
            assert_unusable("poisoned-state")
        end)

        it("a number of incarnations there cannot be", function()
            for _, n in ipairs { "1e308", "9007199254740993", "99999999999999999999",
                                 "1e999", "NaN", '"nan"', '"inf"', "-1e999" } do
                redis:cli("HSET", STATES, a.url,
                    '{"state":"up","incarnation":' .. n .. ',"revision":' .. n .. "}")
                local fresh = proxy.start { backends = { a }, workers = 1,
                    options = ("storage = %q, name = %q"):format(redis.url, n) }
                local id, opened = fresh:open()
                assert.equal(200, opened.status)
                assert.equal(200, fresh:call(id).status)
                assert.is_nil(fresh:error_log():find("attempt to", 1, true))
                fresh:stop()
            end
        end)
    end)

    it("a megabyte beside a good URL, which is served", function()
        local metadata = { backend_url = a.url }
        for i = 1, 10000 do
            metadata["key " .. i] = ("x"):rep(100)
        end
        set("poisoned-large", text("poisoned-large", { metadata = metadata }))
        proxy.rule(a, { body = "served", times = 3 })
        for _ = 1, 3 do
            assert.equal("served", web:call("poisoned-large").body)
        end
        assert_no_harm()
    end)

    it("a record without expiry gets one by its use", function()
        set("poisoned-eternal", text("poisoned-eternal",
            { metadata = { backend_url = a.url } }))
        redis:cli("PERSIST", KEY .. "poisoned-eternal")
        proxy.rule(a, { body = "served" })
        assert.equal("served", web:call("poisoned-eternal").body)
        servers.wait_for(function()
            return tonumber(redis:cli("PTTL", KEY .. "poisoned-eternal")) > 0
        end, 10, "a time to live")
        assert_no_harm()
    end)

    it("messages on the channel of invalidations that are none", function()
        assert.equal(200, web:call(good).status)
        for _, payload in ipairs { "", "x", KEY .. good, ("x"):rep(100000) } do
            redis:cli("PUBLISH", "__redis__:invalidate", payload)
            assert_good_one_works()
        end
        assert_no_harm()
    end)
end)
