-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Who has got hold of the id of somebody else's session learns nothing with it,
-- not even that there is such a session: what a policy does not admit is
-- answered byte for byte as an id that does not exist.

local proxy = require "support.proxy"
local servers = require "support.servers"

local OPTIONS = [[storage = %q,
    policy = require("resty.mooring.policy.identity").new {
        header = "X-User", secret = "a secret of the spec" },]]

describe("router, an id that is not the caller's", function()
    local a, b, odd, redis, replicas

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        odd = servers.node("spec/fixtures/backends/odd_client.mjs")
    end)
    teardown(function() servers.stop_all() end)

    before_each(function()
        a:ask("reset")
        b:ask("reset")
        redis = servers.redis()
        replicas = {}
        for i = 1, 2 do
            replicas[i] = proxy.start { backends = { a, b },
                                        options = OPTIONS:format(redis.url) }
        end
    end)
    after_each(function()
        for _, web in ipairs(replicas) do
            web:stop()
        end
        redis:stop()
    end)

    local function open()
        return (replicas[1]:open { headers = { ["X-User"] = "alice" } })
    end

    local function as(user, web, id)
        return web:call(id, { headers = { ["X-User"] = user } })
    end

    -- All that is sent to the client, without the time.
    local function bytes(web, request, id)
        local answer = odd:ask { op = "send", port = web.port, timeout = 10000,
            text = (request:gsub("%$id", (id:gsub("%%", "%%%%")))) }.answer
        assert.is_true(#answer > 0)
        return (answer:gsub("\r\nDate: [^\r\n]+", ""))
    end

    -- An id like that one which nobody has.
    local function like(id)
        return (id:gsub("%d+$", function(n) return ("9"):rep(#n) end))
    end

    local function request(line, body, ...)
        return line .. " HTTP/1.1\r\nHost: x\r\nMcp-Session-Id: $id\r\n"
            .. "X-User: mallory\r\nConnection: close\r\n"
            .. table.concat({ ... }, "\r\n") .. (select("#", ...) > 0 and "\r\n" or "")
            .. (body and ("Content-Length: %d\r\n\r\n%s"):format(#body, body)
                or "\r\n")
    end

    local VERSION = "MCP-Protocol-Version: 2025-06-18"
    local REQUESTS = {
        ["a request"] = request("POST /mcp", proxy.CALL, VERSION),
        ["a request without version"] = request("POST /mcp", proxy.CALL),
        ["a notification"] = request("POST /mcp",
            '{"jsonrpc":"2.0","method":"notifications/x"}', VERSION),
        ["no body"] = request("POST /mcp", "", VERSION),
        ["no JSON"] = request("POST /mcp", "{", VERSION),
        ["chunks"] = request("POST /mcp", nil, VERSION,
            "Transfer-Encoding: chunked") .. ("%x\r\n%s\r\n0\r\n\r\n")
            :format(#proxy.CALL, proxy.CALL),
        ["a body that goes on disk"] = request("POST /mcp", '{"jsonrpc":"2.0",'
            .. '"id":1,"method":"x","params":"' .. ("x"):rep(100000) .. '"}', VERSION),
        ["GET"] = request("GET /mcp"),
        ["GET with Last-Event-ID"] = request("GET /mcp", nil, "Last-Event-ID: 1"),
        ["HEAD"] = request("HEAD /mcp"),
        ["OPTIONS"] = request("OPTIONS /mcp", nil, "Origin: https://x"),
        ["PUT"] = request("PUT /mcp", "x"),
        ["DELETE"] = request("DELETE /mcp"),
        ["DELETE of another path"] = request("DELETE /mcp/x"),
        ["DELETE with a body"] = request("DELETE /mcp", "x"),
        ["HTTP/1.0"] = (request("POST /mcp", proxy.CALL, VERSION)
            :gsub("HTTP/1.1", "HTTP/1.0")),
        ["nobody's name"] = (request("GET /mcp"):gsub("X%-User[^\r]*\r\n", "")),
    }

    it("is answered as one that does not exist, on all replicas", function()
        local id = open()
        for what, text in pairs(REQUESTS) do
            for _, web in ipairs(replicas) do
                local forbidden = bytes(web, text, id)
                assert.equal(bytes(web, text, like(id)), forbidden, what)
                assert.matches("^HTTP/1.1 404 ", forbidden)
            end
        end
        -- It was none of the backends' business, and the session is alive.
        assert.equal(1, #proxy.seen(a) + #proxy.seen(b))
        for _, web in ipairs(replicas) do
            assert.equal(200, as("alice", web, id).status)
            assert.equal(404, as("mallory", web, id).status)
        end
        assert.equal("1", redis:cli("EXISTS", "mooring:session:" .. id))
    end)

    it("is answered as one that does not exist, after its end", function()
        local id = open()
        for _, web in ipairs(replicas) do
            as("alice", web, id)
        end
        local before = bytes(replicas[2], REQUESTS["a request"], id)
        assert.equal(200, replicas[1]:request { method = "DELETE", id = id,
            headers = { ["X-User"] = "alice" } }.status)
        assert.equal(404, as("alice", replicas[2], id).status)
        assert.equal(before, bytes(replicas[2], REQUESTS["a request"], id))
    end)

    it("opens a session of the caller's own with initialize, as any", function()
        local id = open()
        local answer = assert(replicas[2]:request { id = id, version = false,
            body = proxy.INITIALIZE, headers = { ["X-User"] = "mallory" } })
        assert.equal(200, answer.status)
        assert.not_equal(id, answer.headers["mcp-session-id"])
        assert.equal(404, as("mallory", replicas[2], id).status)
        assert.equal(404, as("alice", replicas[1],
            answer.headers["mcp-session-id"]).status)
    end)

    it("is answered 503 as any while Redis is away, though it is known here",
       function()
        local id = open()
        for _, web in ipairs(replicas) do
            assert.equal(200, as("alice", web, id).status)
        end
        redis:stop()
        for _, web in ipairs(replicas) do
            servers.wait_for(function()
                return web:stats().storage.coherence.coherent == false
            end, 10, "the loss of Redis to be noticed")
            for what, text in pairs(REQUESTS) do
                assert.equal(bytes(web, text, like(id)), bytes(web, text, id), what)
            end
            assert.equal(200, as("alice", web, id).status)
        end
    end)

    it("is refused as any when no session can have it", function()
        for _, id in ipairs { "a b", ("x"):rep(4097), "\195\169" } do
            local answer = bytes(replicas[1], REQUESTS["a request"], id)
            assert.matches("^HTTP/1.1 400 ", answer)
            assert.matches('"Invalid session id"', answer, 1, true)
            assert.is_nil(answer:find(id, 1, true))
        end
    end)
end)
