-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, event streams", function()
    local a, redis, web
    local TTL = 1 -- seconds
    local opts

    setup(function()
        a, redis = proxy.backend("a"), servers.redis()
        opts = {
            backends = { a }, workers = 1,
            options = ("storage = %q, session_ttl = %d,"):format(redis.url,
                TTL),
        }
        web = proxy.start(opts)
    end)
    teardown(function() servers.stop_all() end)
    before_each(function() a:ask("reset") end)

    local function key(id)
        return "mooring:session:" .. id
    end

    local function open_stream(id)
        local stream = web:stream { id = id }
        stream:wait_for_head("HTTP/1.1 200")
        return stream
    end

    -- Longer than a session lives that nobody uses: 1.5 x ttl.
    local function outlive(seconds)
        local start = servers.now()
        servers.wait_for(function()
            return servers.now() - start > seconds
        end, seconds + 1)
    end

    it("pass each event on before the next is made", function()
        local id = web:open()
        local stream = open_stream(id)
        for n = 1, 5 do
            assert.equal(1, a:ask({ op = "event", data = "e" .. n }).streams)
            stream:wait_for_body("data: e" .. n .. "\n\n")
        end
        a:ask("end_streams")
        stream:wait()
        assert.equal("data: e1\n\ndata: e2\n\ndata: e3\n\ndata: e4\n\n"
            .. "data: e5\n\n", stream:body())
    end)

    it("pass as answers to a POST just so", function()
        local id = web:open()
        proxy.rule(a, { method = "POST", action = "stream",
            headers = { ["Mcp-Session-Id"] = id } })
        local stream = web:stream { id = id, method = "POST",
            body = proxy.CALL }
        stream:wait_for_head("Mcp-Session-Id: " .. id)
        for n = 1, 3 do
            a:ask { op = "event", data = "e" .. n }
            stream:wait_for_body("data: e" .. n .. "\n\n")
        end
        a:ask("end_streams")
        stream:wait()
    end)

    it("that are open keep their session, those that ended do not", function()
        local id, ended = web:open(), web:open()
        local stream, other = open_stream(id), open_stream(ended)
        other:stop()
        servers.wait_for(function() return web:stats().streams == 1 end, 5,
            "the end of one stream")
        outlive(1.5 * TTL + 1)
        assert.equal("1", redis:cli("EXISTS", key(id)))
        servers.wait_for(function()
            return redis:cli("EXISTS", key(ended)) == "0"
        end, 3, "the other session to expire")
        assert.equal(200, web:call(id).status)
        assert.equal(404, web:call(ended).status)
        stream:stop()
    end)

    it("are known by their type, however it is written", function()
        local id = web:open()
        for count, kind in ipairs { "TEXT/Event-Stream;charset=utf-8",
            "text/event-streams", "text/event-strea", "text/plain" }
        do
            proxy.rule(a, { method = "POST", action = "stream",
                headers = { ["content-type"] = kind } })
            local stream = web:stream { id = id, method = "POST",
                body = proxy.CALL }
            stream:wait_for_head("HTTP/1.1 200")
            assert.equal(count == 1 and 1 or 0, web:stats().streams, kind)
            a:ask("end_streams")
            stream:wait()
        end
    end)

    it("keep their session also in a worker that has to leave", function()
        local id = web:open()
        local stream = open_stream(id)
        web:reload_with(opts)
        outlive(1.5 * TTL + 1)
        assert.equal(1, #web:worker_pids(true))
        assert.equal("1", redis:cli("EXISTS", key(id)))
        a:ask { op = "event", data = "late" }
        stream:wait_for_body("data: late\n\n")
        assert.equal(200, web:call(id).status)

        stream:stop()
        servers.wait_for(function() return #web:worker_pids(true) == 0 end, 3,
            "the old worker to leave")
        servers.wait_for(function()
            return redis:cli("EXISTS", key(id)) == "0"
        end, 3, "the session to expire")
    end)

    it("are told apart, two of one session", function()
        local id = web:open()
        local one, two = open_stream(id), open_stream(id)
        assert.equal(2, web:stats().streams)
        one:stop()
        servers.wait_for(function() return web:stats().streams == 1 end, 5,
            "the end of one stream")
        outlive(1.5 * TTL + 0.5)
        assert.equal("1", redis:cli("EXISTS", key(id)))
        two:stop()
    end)

    it("end at the backend when the client goes", function()
        local id = web:open()
        local stream = open_stream(id)
        stream:stop()
        servers.wait_for(function()
            return a:ask({ op = "event", data = "x" }).streams == 0
        end, 5, "the backend to notice")
    end)
end)
