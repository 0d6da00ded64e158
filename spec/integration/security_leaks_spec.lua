-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What must not be told: session ids (they are credentials) and passwords, in
-- no line of ours, no error, no statistics and no process title, whatever Redis
-- says and however wrong its URL is.

local cjson = require "cjson"
local proxy = require "support.proxy"
local redis_storage = require "resty.mooring.redis_storage"
local servers = require "support.servers"

-- Needs to be encoded, is a Lua pattern, and has what separates parts of a URL.
local PASSWORD, ENCODED = "s3cr%t:/@+pw", "s3cr%25t%3A%2F%40%2Bpw"

describe("secrets", function()
    local a, b

    setup(function() a, b = proxy.backend("a"), proxy.backend("b") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    local function start(url, more)
        return proxy.start { backends = { a, b }, workers = 2,
            options = ("storage = %q, %s"):format(url, more or "") }
    end

    -- All that this nginx has said: both logs, and its status.
    local function said(web)
        return web:error_log() .. servers.read_file(web.dir .. "/requests.log")
            .. cjson.encode(web:stats())
    end

    local function assert_without(secret, text)
        local at = text:find(secret, 1, true)
        assert.is_nil(at, at and text:sub(math.max(1, at - 300), at + 100))
    end

    local function owner(id)
        return id:find("^a%-") and a or b
    end

    describe("session ids", function()
        -- Redis quotes the arguments of a command it does not know, and
        -- commands are renamed on servers that somebody wants to be safe.
        for _, command in ipairs { "GET", "PTTL", "SET", "DEL", "EVAL" } do
            it("are not in the log when Redis does not know " .. command,
               function()
                local redis = servers.redis { "--rename-command", command, "" }
                local web = start(redis.url)
                local id, secret = "secret-id-0123456789", "secret-id"
                for _, backend in ipairs { a, b } do
                    proxy.rule(backend, { initialize = true, times = 9,
                        headers = { ["Mcp-Session-Id"] = id } })
                end
                web:open()
                redis:cli("SET", "mooring:session:" .. id, cjson.encode {
                    id = id, type = "mcp", created_at = "2026-01-01T00:00:00Z",
                    updated_at = "2026-01-01T00:00:00Z",
                    metadata = { backend_url = a.url },
                }, "PX", "1000000")
                if command == "EVAL" then -- a binding is removed by it
                    a:ask("stop")
                    web:call(id)
                    a:ask("start")
                else
                    web:call(id)
                    web:delete(id)
                end
                servers.wait_for(function()
                    return web:error_log():find("ERR unknown command", 1, true)
                end, 5, "the error of Redis")
                assert_without(secret, said(web))
                redis:stop()
            end)
        end

        it("are not in an error of Redis that has them", function()
            local peer = servers.node("spec/fixtures/resp_peer.mjs")
            local storage = redis_storage.new {
                url = "redis://127.0.0.1:" .. peer.port }
            for _, id in ipairs { "secret-id-1", "secret-[id]-%2" } do
                peer:ask { op = "behave",
                    answer = ("-ERR \27[31mno mooring:session:%s, no %s\r\n")
                        :format(id, id):rep(2) }
                local _, err, code = storage:load(id)
                assert.same({ "could not load the session: ERR ?[31mno "
                    .. "mooring:session:...", "unavailable" }, { err, code })
            end
            storage:close()
        end)

        it("are not in the log when Redis says what a terminal obeys, and more "
            .. "than enough", function()
            local peer = servers.node("spec/fixtures/resp_peer.mjs")
            peer:ask { op = "behave",
                answer = "-ERR \27[31m\8\1" .. ("x"):rep(5000) .. "\r\n" }
            local web = start("redis://127.0.0.1:" .. peer.port)
            assert.equal(503, web:call("secret-id").status)
            local text = said(web)
            assert.is_truthy(text:find("ERR ?[31m??x", 1, true))
            for _, secret in ipairs { "secret", "\27", "\8", ("x"):rep(1025) } do
                assert_without(secret, text)
            end
        end)

        it("are not in the log of all that can go wrong with a session",
           function()
            local redis = servers.redis()
            local web = start(redis.url)
            local id = web:open()
            for _, rule in ipairs {
                { action = "reset" }, { action = "close" }, { action = "cut" },
                { status = 404 }, { headers = { ["Mcp-Session-Id"] = "other" } },
            } do
                proxy.rule(owner(id), rule)
                web:request { id = id, body = proxy.CALL }
                id = web:open()
                proxy.rule(owner(id), rule)
                web:request { id = id, method = "DELETE" }
                id = web:open()
            end
            owner(id):ask("stop")
            web:call(id)
            owner(id):ask("start")
            for _, value in ipairs { "no JSON", '{"id":"x"}', "[]", "" } do
                redis:cli("SET", "mooring:session:secret-id", value)
                web:call("secret-id")
                web:delete("secret-id")
            end
            redis:cli("DEL", "mooring:session:secret-id")
            redis:cli("LPUSH", "mooring:session:secret-id", "x")
            web:call("secret-id")
            redis:stop()
            web:call("secret-id-2")
            web:delete("secret-id-2")
            local text = said(web)
            assert.is_truthy(text:find("invalid session record", 1, true))
            assert_without("secret-id", text)
            assert.is_nil(text:match("[^\n]*[ab]%-%d+%-%d+[^\n]*"))
        end)
    end)

    describe("session ids in the URL", function()
        -- nginx' own messages have the request line in them, and so the URL;
        -- ours must not be written where nginx adds it.
        local function ours(web)
            local lines = {}
            for line in web:error_log():gmatch("[^\n]+") do
                if line:find("mooring: ", 1, true) then
                    lines[#lines + 1] = line
                end
            end
            return table.concat(lines, "\n")
        end

        for what, options in pairs {
            ["of the option `key`"] = [[key = { arg = "session" }, unknown = "reject",]],
            ["of a policy"] = [[unknown = "reject", policy = {
                key = function(req) return req.args.session end,
                admit = function() error("admit is broken") end,
            },]],
        } do
            it(what .. ", are in no line of ours", function()
                local redis = servers.redis()
                local web = start(redis.url, options)
                local path = "/mcp?session=secret-id"
                local function call()
                    return assert(web:request { path = path, body = "{}" }).status
                end
                redis:cli("SET", "mooring:session:secret-id", "no JSON")
                assert.equal(503, call())
                redis:cli("SET", "mooring:session:secret-id", cjson.encode {
                    id = "secret-id", type = "mcp", created_at = "2026-01-01T00:00:00Z",
                    updated_at = "2026-01-01T00:00:00Z",
                    metadata = { backend_url = "http://10.255.255.1:1" },
                }, "PX", "100000")
                servers.wait_for(function()
                    call()
                    return ours(web):find("nor allowed", 1, true)
                end, 10, "a binding that is not allowed")
                redis:cli("SET", "mooring:session:secret-id", cjson.encode {
                    id = "secret-id", type = "mcp", created_at = "2026-01-01T00:00:00Z",
                    updated_at = "2026-01-01T00:00:00Z",
                    metadata = { backend_url = a.url },
                }, "PX", "100000")
                a:ask("stop")
                servers.wait_for(function() return call() == 404 end, 10, "a 404")
                a:ask("start")
                redis:stop()
                call()
                servers.wait_for(function()
                    return ours(web):find("is forgotten", 1, true)
                end, 10, "the messages")
                assert_without("secret-id", ours(web))
                web:stop()
            end)
        end
    end)

    describe("the password of Redis", function()
        local redis

        setup(function()
            redis = servers.redis { "--requirepass", PASSWORD,
                                    password = PASSWORD }
        end)

        local function url_with(password)
            return (redis.url:gsub("^redis://", function()
                return "redis://:" .. password .. "@"
            end))
        end

        local function titles(web)
            local text = ""
            for _, pid in ipairs(web:worker_pids()) do
                text = text .. servers.read_file("/proc/" .. pid .. "/cmdline")
                    .. servers.read_file("/proc/" .. pid .. "/comm")
            end
            return text .. servers.read_file("/proc/" .. web.pid .. "/cmdline")
        end

        local function assert_secret(secret, text)
            assert_without(secret, text)
            assert_without(ENCODED, text)
        end

        it("is nowhere when it is right, percent-encoded", function()
            local web = start(url_with(ENCODED))
            local id = web:open()
            assert.equal(200, web:call(id).status)
            redis:cli("CLIENT", "KILL", "TYPE", "normal")
            web:call("unknown")
            assert_secret(PASSWORD, said(web) .. titles(web))
        end)

        it("is nowhere when it is wrong", function()
            local web = start(url_with("wr0ng%25" .. ENCODED))
            assert.equal(503, select(2, web:open()).status)
            assert.equal(503, web:call("x").status)
            local text = said(web) .. titles(web)
            assert.is_truthy(text:find("WRONGPASS", 1, true))
            assert_secret("wr0ng", text)
        end)

        it("is nowhere when Redis does not know AUTH and quotes it", function()
            local other = servers.redis { "--rename-command", "AUTH", "" }
            local web = start((other.url:gsub("^redis://", function()
                return "redis://user:" .. ENCODED .. "@"
            end)))
            assert.equal(503, web:call("x").status)
            local text = said(web)
            assert.is_truthy(text:find("ERR unknown command", 1, true))
            assert_secret(PASSWORD, text)
            other:stop()
        end)

        it("is not told to who may not log in, nor in errors of Lua", function()
            local storage = redis_storage.new { url = url_with("wr0ng") }
            local _, err = storage:load("x")
            assert.matches("WRONGPASS", err)
            assert_without("wr0ng", err .. cjson.encode(storage:stats()))
            storage:close()
        end)

        for i, url in ipairs {
            "redis//user:s3cret@host:6379", "redis:/user:s3cret@host",
            "redi://user:s3cret@host", "rediss://user:s3cret@host",
            "redis://user:s3cret@ho st", "redis://user:s3cret@host:port",
            "redis://user:s3cret@host:99999", "redis://user:s3cret@host/x",
            "redis://user:s3cret@host/0?x", "redis://user:s3cret@",
            "redis://s3cret@host", "redis://user:s3cret:host:6379",
            "redis://user:s3cret", "redis://user:s3cret host",
            "unix://user:s3cret@path", "unix://s3cret@/path",
            "unix://user:s3cret@/path?db=x", "unix://user:s3cret@/path?x=1",
            "user:s3cret@host", "://user:s3cret@", "REDIS://user:s3cret@host",
        } do
            it("is not in the error of a URL with a mistake, " .. i, function()
                for _, make in ipairs {
                    function() return redis_storage.new { url = url } end,
                    function() return redis_storage.new(url) end,
                    function() return redis_storage.new { url } end,
                } do
                    local ok, err = pcall(make)
                    assert.is_false(ok)
                    assert_without("s3cret", err)
                end
            end)
        end
    end)

    it("of a backend's URL are not in the error of the configuration", function()
        local backends = require "resty.mooring.router.backends"
        for _, url in ipairs {
            "http://user:s3cret@host", "https://user:s3cret@host:80/x",
            "http://user:s3cret@[::1]:1", "ftp://user:s3cret@host",
            "http//user:s3cret@host", "user:s3cret@host",
        } do
            local _, wrong = backends.read { url }
            assert_without("s3cret", wrong)
            assert.is_truthy(wrong:find("host", 1, true)
                or wrong:find("::1", 1, true))
        end
    end)
end)
