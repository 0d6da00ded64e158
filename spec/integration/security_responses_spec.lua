-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A backend of bad will: whatever bytes it answers with, a client reads one
-- whole answer to each of its requests on a connection, and the answers to
-- later ones are not the backend's to write. On the way of the router's own
-- (initialize, DELETE) as on that of nginx.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

local ID = "known-session"
local EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Evil: 1\r\n\r\nsmuggled"

describe("router, a backend of bad will", function()
    local raw, odd, redis, web

    setup(function()
        raw = servers.node("spec/fixtures/backends/raw_backend.mjs")
        odd = servers.node("spec/fixtures/backends/odd_client.mjs")
        redis = servers.redis()
        web = proxy.start { backends = { raw }, workers = 1,
            read_timeout = "300ms",
            options = ("storage = %q,"):format(redis.url) }
    end)
    teardown(function() servers.stop_all() end)

    local function bind()
        redis:cli("SET", "mooring:session:" .. ID, cjson.encode {
            id = ID, type = "mcp", created_at = "2026-01-01T00:00:00Z",
            updated_at = "2026-01-01T00:00:00Z",
            metadata = { backend_url = raw.url },
        }, "PX", "1000000")
    end

    local function request(method, id, body, close)
        return ("%s /mcp HTTP/1.1\r\nHost: x\r\n%s%sContent-Length: %d\r\n%s\r\n%s")
            :format(method, id and "Mcp-Session-Id: " .. id .. "\r\n" or "",
                id and "MCP-Protocol-Version: 2025-06-18\r\n" or "", #body,
                close and "Connection: close\r\n" or "", body)
    end

    local WAYS = {
        initialize = request("POST", nil, proxy.INITIALIZE),
        ["a DELETE"] = request("DELETE", ID, ""),
        ["a request of a session"] = request("POST", ID, proxy.CALL),
        ["a request without session"] = request("POST", nil, proxy.CALL),
    }
    local LAST = request("POST", "nobody-knows", proxy.CALL, true)

    -- Takes one response off the text, as a strict client does.
    local function take(text)
        local head, rest = text:match("^(HTTP/1%.1 %d%d%d [^\r\n]*\r\n.-\r\n)\r\n(.*)$")
        if not head then
            return nil, "no head: " .. text
        end
        local answer = { status = tonumber(head:match(" (%d+)")), head = head,
                         headers = {} }
        for name, value in head:gmatch("\r\n([^:\r\n]+): ?([^\r\n]*)") do
            name = name:lower()
            if answer.headers[name] and (name == "content-length"
                                         or name == "transfer-encoding") then
                return nil, "two " .. name
            end
            answer.headers[name] = value
        end
        local length = answer.headers["content-length"]
        if answer.status < 200 then
            return nil, "no final answer"
        elseif answer.status == 204 or answer.status == 304 then
            return answer, rest
        elseif answer.headers["transfer-encoding"] then
            if length then
                return nil, "two lengths"
            end
            local body = ""
            while true do
                local size, behind = rest:match("^(%x+)\r\n(.*)$")
                if not size then
                    answer.cut = true
                    return answer, ""
                end
                local n = tonumber(size, 16)
                body = body .. behind:sub(1, n)
                rest = behind:sub(n + 3)
                if n == 0 then
                    break
                end
            end
            answer.body = body
            return answer, rest
        elseif length then
            if not length:find("^%d+$") then
                return nil, "length " .. length
            end
            length = tonumber(length)
            answer.cut = #rest < length
            answer.body = rest:sub(1, length)
            return answer, rest:sub(length + 1)
        end
        answer.body = rest -- up to the end of the connection
        return answer, ""
    end

    -- What a client reads that sends the request of a way and another one.
    local function read(way, text, keep)
        redis:cli("FLUSHALL")
        bind()
        raw:ask { op = "answer", text = text, ["end"] = not keep }
        local all = odd:ask({ op = "send", port = web.port, timeout = 10000,
                              text = WAYS[way] .. LAST }).answer
        if all == "" then
            return { headers = {} }, nil, all -- nothing at all
        end
        local first, rest = take(all)
        assert.is_table(first, rest)
        if rest == "" then -- the connection ended with the first answer
            return first, nil, all
        end
        local last, left = take(rest)
        assert.is_table(last, tostring(left) .. " in " .. all)
        assert.equal("", left)
        assert.equal(404, last.status, all)
        assert.matches('"Session not found"', last.body, 1, true)
        return first, last, all
    end

    local function head(...)
        return "HTTP/1.1 200 OK\r\n" .. table.concat({ ... }, "\r\n") .. "\r\n\r\n"
    end

    local ANSWERS = {
        ["a body longer than it says"] =
            head("Content-Length: 4") .. "four" .. EVIL,
        ["an empty body that is none"] = head("Content-Length: 0") .. EVIL,
        ["two lengths, the first one true"] =
            head("Content-Length: 4", "Content-Length: 40") .. "four" .. EVIL,
        ["two lengths, the last one true"] =
            head("Content-Length: 400", "Content-Length: 4") .. "four" .. EVIL,
        ["two lengths in one"] = head("Content-Length: 4, 40") .. "four" .. EVIL,
        ["a negative length"] = head("Content-Length: -4") .. "four" .. EVIL,
        ["a length with a sign"] = head("Content-Length: +4") .. "four" .. EVIL,
        ["a length in hexadecimal"] = head("Content-Length: 0x4") .. "four" .. EVIL,
        ["a length beyond 2^64"] =
            head("Content-Length: 18446744073709551620") .. "four" .. EVIL,
        ["a length and chunks"] =
            head("Content-Length: 4", "Transfer-Encoding: chunked")
            .. "4\r\nfour\r\n0\r\n\r\n" .. EVIL,
        ["chunks and a length"] =
            head("Transfer-Encoding: chunked", "Content-Length: 4")
            .. "4\r\nfour\r\n0\r\n\r\n" .. EVIL,
        ["chunks and more"] =
            head("Transfer-Encoding: chunked") .. "4\r\nfour\r\n0\r\n\r\n" .. EVIL,
        ["a chunk with a strange size"] =
            head("Transfer-Encoding: chunked") .. "0x4\r\nfour\r\n0\r\n\r\n" .. EVIL,
        ["an unknown encoding"] =
            head("Transfer-Encoding: xchunked") .. "4\r\nfour\r\n0\r\n\r\n" .. EVIL,
        ["two encodings"] =
            head("Transfer-Encoding: chunked", "Transfer-Encoding: identity")
            .. "4\r\nfour\r\n0\r\n\r\n" .. EVIL,
        ["no length at all"] = head("X-A: b") .. "four" .. EVIL,
        ["a status without body, and one"] =
            "HTTP/1.1 204 No Content\r\n\r\n" .. EVIL,
        ["304 with a body"] =
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nfour" .. EVIL,
        ["an early hint"] =
            "HTTP/1.1 103 Early Hints\r\nX-Evil: 1\r\n\r\n" .. EVIL,
        ["100 and then an answer"] = "HTTP/1.1 100 Continue\r\n\r\n" .. EVIL,
        ["another protocol"] = "HTTP/1.1 101 Switching Protocols\r\n"
            .. "Upgrade: evil\r\nConnection: Upgrade\r\n\r\n" .. EVIL,
        ["no HTTP"] = "SSH-2.0-OpenSSH_9.2\r\n\r\n" .. EVIL,
        ["HTTP/0.9"] = "<html>" .. EVIL,
        ["a status of two digits"] = "HTTP/1.1 20 OK\r\n\r\n" .. EVIL,
        ["a status of four digits"] = "HTTP/1.1 2000 OK\r\n\r\n" .. EVIL,
        ["a head that never ends"] = "HTTP/1.1 200 OK\r\n" .. ("X-A: b\r\n"):rep(9000),
        ["nothing"] = "",
        ["a folded line"] = "HTTP/1.1 200 OK\r\nX-A: b\r\n Content-Length: 40\r\n"
            .. "Content-Length: 4\r\n\r\nfour" .. EVIL,
        ["a bare carriage return"] = "HTTP/1.1 200 OK\r\nX-A: b\rX-Evil: 1\r\n"
            .. "Content-Length: 4\r\n\r\nfour" .. EVIL,
        ["bare line feeds"] = "HTTP/1.1 200 OK\nX-A: b\nContent-Length: 4\n\nfour"
            .. EVIL,
        ["a NUL in a header"] = head("X-A: b\0c", "Content-Length: 4") .. "four" .. EVIL,
        ["a name with a space"] =
            head("Content-Length : 40", "Content-Length: 4") .. "four" .. EVIL,
        ["a header without name"] = head(": b", "Content-Length: 4") .. "four" .. EVIL,
        ["headers of the connection"] = head("Connection: X-A, close",
            "Keep-Alive: timeout=1", "Trailer: X-Evil", "Upgrade: h2c",
            "Content-Length: 4") .. "four" .. EVIL,
    }

    -- (nginx makes no difference between requests with and without session)
    for _, way in ipairs { "initialize", "a DELETE", "a request of a session" } do
        describe("that answers " .. way .. " with", function()
            for what, text in pairs(ANSWERS) do
                it(what .. ", writes one answer at most", function()
                    for _, keep in ipairs { false, true } do
                        local first, _, all = read(way, text, keep)
                        assert.is_nil(first.headers["x-evil"], all)
                    end
                end)
            end
        end)
    end

    describe("that issues the session id", function()
        for what, id in pairs {
            ["with a control character"] = "a\1b", ["with DEL"] = "a\127b",
            ["with a tab"] = "a\tb", ["with a space"] = "a b",
            ["with a byte of UTF-8"] = "a\195\169", ["that is too long"] = ("x"):rep(4097),
            ["with a bare carriage return"] = "a\rSet-Cookie: x=1",
            ["twice"] = "a\r\nMcp-Session-Id: b", ["that is empty"] = "",
        } do
            it(what .. ", hands it to no client and binds nothing", function()
                local first = read("initialize",
                    head("Mcp-Session-Id: " .. id, "Content-Length: 4") .. "four")
                assert.is_nil(first.headers["mcp-session-id"], first.head)
                assert.is_nil(first.headers["set-cookie"])
                assert.equal("mooring:session:" .. ID,
                    redis:cli("--scan", "--pattern", "mooring:session:*"))
            end)
        end

        it("in an answer to another request, hands it to no client", function()
            for _, way in ipairs { "a DELETE", "a request of a session",
                                   "a request without session" } do
                local first = read(way, head("Mcp-Session-Id: another",
                    "Content-Length: 4") .. "four")
                assert.equal(200, first.status)
                assert.is_nil(first.headers["mcp-session-id"])
            end
        end)
    end)

    for _, path in ipairs { "/mcp", "/status" } do
        it("cannot redirect inside nginx to " .. path, function()
            for way in pairs(WAYS) do
                local first = read(way, head("X-Accel-Redirect: " .. path,
                    "X-Accel-Buffering: yes", "X-Accel-Expires: 100",
                    "Content-Length: 4") .. "four")
                assert.same({ 200, "four" }, { first.status, first.body })
                for name in pairs(first.headers) do
                    assert.is_nil(name:find("^x%-accel"), name)
                end
            end
        end)
    end

    it("speaks another protocol with nobody but a client that asks for one", function()
        local ask = "GET /mcp HTTP/1.1\r\nHost: x\r\n%s\r\n"
        raw:ask { op = "answer", text = ANSWERS["another protocol"], ["end"] = true }
        local function send(headers)
            return odd:ask({ op = "send", port = web.port, timeout = 10000,
                             text = ask:format(headers) }).answer
        end
        assert.matches("^HTTP/1.1 101 .*smuggled$",
            send("Connection: Upgrade\r\nUpgrade: evil\r\n"))
        assert.matches("^HTTP/1.1 502 ", send("Connection: close\r\n"))
    end)

    it("cannot play the internal server", function()
        for way in pairs(WAYS) do
            for _, outcome in ipairs { "connect", "timeout", "refused" } do
                local first = read(way, head("Mooring-Outcome: " .. outcome,
                    "mooring-outcome: x", "Content-Length: 4") .. "four")
                assert.same({ 200, "four" }, { first.status, first.body })
                assert.is_nil(first.headers["mooring-outcome"])
            end
        end
    end)

    it("is told neither the secret nor what the internal server is told", function()
        for way in pairs(WAYS) do
            read(way, head("Content-Length: 0"))
            local requests = raw:ask("seen").requests
            assert.equal(1, #requests)
            assert.is_nil(requests[1]:lower():find("mooring", 1, true), requests[1])
        end
    end)
end)
