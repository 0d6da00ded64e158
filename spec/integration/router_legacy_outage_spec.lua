-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The HTTP+SSE transport while Redis is away, and while nginx is reloaded.

local proxy = require "support.proxy"
local servers = require "support.servers"

local SSE = [[
    include $root/lua/resty/mooring/nginx/location.conf;
    include $root/lua/resty/mooring/nginx/sse.conf;
]]
local EVENT = "event: endpoint\ndata: /messages?sessionId=%s\n\n"

describe("router, HTTP+SSE", function()
    local a, redis, one, two, opts
    local names = 0

    setup(function()
        a, redis = proxy.backend("a"), servers.redis()
        opts = {
            backends = { a }, workers = 2,
            server = "location /sse {" .. SSE .. "} location /messages {" .. SSE
                .. "}",
            options = ("storage = %q,"):format(redis.url),
        }
        one, two = proxy.start(opts), proxy.start(opts)
    end)
    teardown(function() servers.stop_all() end)
    before_each(function() a:ask("reset") end)

    local function new_id()
        names = names + 1
        return "session-" .. names
    end

    local function is_stored(id)
        return redis:cli("EXISTS", "mooring:session:" .. id) == "1"
    end

    -- A stream whose backend has not said yet which session it is.
    local function begin(web)
        proxy.rule(a, { method = "GET", action = "stream" })
        local stream = web:stream { url = web.url .. "/sse" }
        stream:wait_for_head("HTTP/1.1 200")
        return stream
    end

    local function name(stream, id)
        a:ask { op = "write", data = EVENT:format(id) }
        stream:wait_for_body(id)
    end

    local function open(web)
        local id = new_id()
        local stream = begin(web)
        name(stream, id)
        servers.wait_for(function() return is_stored(id) end, 5, "the session")
        return stream, id
    end

    local function status(web, id)
        return assert(web:request { path = "/messages?sessionId=" .. id,
            body = proxy.CALL }).status
    end

    local function await_status(web, id, expected)
        local last
        servers.wait_for(function()
            last = status(web, id)
            return last == expected, last
        end, 15, expected .. " for " .. id)
    end

    local function await_gone(id)
        servers.wait_for(function() return not is_stored(id) end, 15,
            "the session to be removed")
    end

    local function await_ready(...)
        for _, web in ipairs { ... } do
            servers.wait_for(function()
                return web:request({ path = "/sse", version = false,
                    body = proxy.INITIALIZE }).status == 200
                    and web:stats().storage.coherence.coherent
            end, 15, "Redis to be used again")
        end
    end

    describe("while Redis is away", function()
        it("opens no session and asks no backend", function()
            redis:stop()
            servers.wait_for(function()
                return not one:stats().storage.remote.connected
            end, 5, "the loss to be noticed")
            local answer = assert(two:request { method = "GET",
                path = "/sse" })
            assert.equal(503, answer.status)
            assert.is_string(answer.headers["retry-after"])
            assert.equal(0, #proxy.seen(a))
            redis:start()
            await_ready(one, two)
        end)

        it("serves the sessions that are known", function()
            local stream, id = open(one)
            assert.equal(200, status(one, id))
            redis:pause()
            for _ = 1, 4 do
                assert.equal(200, status(one, id))
            end
            assert.equal(503, status(two, id))
            redis:resume()
            await_ready(one, two)
            assert.equal(200, status(two, id))
            stream:stop()
            await_gone(id)
        end)

        it("stores a session once Redis is back that it could not", function()
            local id = new_id()
            local stream = begin(one)
            redis:stop()
            name(stream, id)
            await_status(two, id, 503)
            redis:start()
            await_status(two, id, 200)
            await_status(one, id, 200)
            stream:stop()
            await_gone(id)
            await_ready(one, two)
        end)

        it("goes on trying to store a session whose write has failed", function()
            local function failures()
                local _, n = one:error_log():gsub("could not store the session", "")
                return n
            end
            local id, before = new_id(), failures()
            local stream = begin(one)
            redis:stop()
            servers.wait_for(function()
                return not one:stats().storage.remote.connected
            end, 5, "the loss to be noticed")
            name(stream, id)
            servers.wait_for(function() return failures() > before end, 15,
                "the write to fail")
            -- This replica knows its session, the others cannot.
            assert.equal(200, status(one, id))
            assert.equal(503, status(two, id))
            redis:start()
            await_status(two, id, 200)
            assert.is_true(is_stored(id))
            stream:stop()
            await_gone(id)
            await_ready(one, two)
        end)

        it("finds a write of its own whose outcome it did not know", function()
            local id = new_id()
            local stream = begin(one)
            local orphans = one:stats().results.orphans
            redis:pause()
            name(stream, id)
            servers.wait_for(function()
                return one:error_log():find("could not store the session", 1,
                    true)
            end, 15, "the write to fail")
            redis:resume()
            await_status(two, id, 200)
            await_ready(one, two)
            await_status(one, id, 200)
            a:ask { op = "event", data = "go on" }
            stream:wait_for_body("go on")
            assert.equal(orphans, one:stats().results.orphans)
            stream:stop()
            await_gone(id)
        end)

        it("removes a session once Redis is back that has ended", function()
            local stream, id = open(one)
            redis:pause()
            stream:stop()
            servers.wait_for(function()
                return a:ask({ op = "event", data = "x" }).streams == 0
            end, 5, "the stream to end")
            redis:resume()
            await_gone(id)
            await_status(one, id, 404)
            await_status(two, id, 404)
            await_ready(one, two)
        end)
    end)

    it("keeps open streams and their sessions through a reload", function()
        local stream, id = open(one)
        one:reload_with(opts)
        for _, web in ipairs { one, two, one, two } do
            assert.equal(200, status(web, id))
        end
        a:ask { op = "event", data = "still there" }
        stream:wait_for_body("still there")
        stream:stop()
        await_gone(id)
        await_status(one, id, 404)
        servers.wait_for(function() return #one:worker_pids(true) == 0 end, 10,
            "the old worker to leave")
    end)
end)
