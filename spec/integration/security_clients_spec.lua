-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Clients of bad will, byte by byte (see also router_safety_spec): no header or
-- request of theirs is written by an id, whichever way it comes; the backends
-- never see more requests than the client got answers to; what is between the
-- two servers of this nginx is not to be had from outside.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, ids and headers of bad will", function()
    local a, b, other, odd, web

    setup(function()
        a, b, other = proxy.backend("a"), proxy.backend("b"), proxy.backend("other")
        odd = servers.node("spec/fixtures/backends/odd_client.mjs")
        web = proxy.start { backends = { a, b }, workers = 1, http = [[
                server {
                    listen 127.0.0.1:$port3;
                    include $root/lua/resty/mooring/nginx/internal.conf;
                    location / { include $root/lua/resty/mooring/nginx/location.conf; }
                }]],
            listen = "listen 127.0.0.1:$port2 http2;" }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    local function seen()
        local list = proxy.seen(a)
        for _, request in ipairs(proxy.seen(b)) do
            list[#list + 1] = request
        end
        return list
    end

    local function send(text, port, timeout)
        return odd:ask { op = "send", text = text, port = port or web.port,
                         timeout = timeout or 10000 }.answer
    end

    local function assert_well()
        local log = web:error_log()
        for _, trouble in ipairs { "attempt to", "runtime error", "aborted",
                                   "[alert]", "[crit]" } do
            local at = log:find(trouble, 1, true)
            assert.is_nil(at, at and log:sub(at, at + 300))
        end
        assert.equal(0, #proxy.seen(other))
    end

    it("an id with any byte there is", function()
        for byte = 0, 255 do
            local id = "x" .. string.char(byte) .. "y"
            local answer = send("POST /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                .. "Mcp-Session-Id: " .. id .. "\r\nContent-Length: 0\r\n\r\n")
            local status = tonumber(answer:match("^HTTP/1%.1 (%d+)"))
            local expected = byte >= 33 and byte <= 126 and 404 or 400
            -- nginx ends a header at a line feed: "y" is then no header at all.
            assert.equal(byte == 10 and 404 or expected, status, "byte " .. byte)
        end
        assert.equal(0, #seen())
        assert_well()
    end)

    describe("over HTTP/2:", function()
        local function ask(...)
            return odd:ask { op = "h2", port = web.port2, body = proxy.INITIALIZE,
                headers = { { ":method", "POST" }, { ":scheme", "http" },
                            { ":authority", "x" }, { ":path", "/mcp" },
                            { "content-type", "application/json" }, ... } }
        end

        it("an initialize as it should be is answered", function()
            local answer = ask()
            assert.equal("DATA", answer.ended)
            assert.is_truthy(answer.answer:find('"result"', 1, true))
            assert.equal(1, #seen())
        end)

        for what, header in pairs {
            ["a line break in an id"] = { "mcp-session-id", "x\r\nx-evil: 1" },
            ["a line feed in an id"] = { "mcp-session-id", "x\nx-evil: 1" },
            ["a NUL in an id"] = { "mcp-session-id", "x\0y" },
            ["a line break in a header"] = { "x-any", "x\r\nx-evil: 1" },
            ["a line feed in a header"] = { "x-any", "x\nx-evil: 1" },
            ["a line break in a name"] = { "x-any\r\nx-evil", "1" },
            ["a colon in a name"] = { "x-any: 1\r\nx-evil", "1" },
            ["a space in a name"] = { "x-evil ", "1" },
            ["a name in capitals"] = { "X-Evil", "1" },
            ["two lengths"] = { "content-length", "5" },
            ["chunks, which there are none of"] = { "transfer-encoding", "chunked" },
            ["headers of the connection"] = { "connection", "x-forwarded-for" },
            ["the secret of the internal server"] = { "mooring-backend", "x y" },
            ["a backend"] = { "mooring-backend", "http://127.0.0.1:1" },
            ["an outcome"] = { "mooring-outcome", "connect" },
        } do
            it(what, function()
                ask(header)
                for _, request in ipairs(seen()) do
                    assert.equal("/mcp", request.url)
                    for name in pairs(request.headers) do
                        assert.is_nil(name:find("evil", 1, true))
                        assert.is_nil(name:find("^mooring"))
                        assert.not_equal("transfer-encoding", name)
                    end
                end
                assert.is_true(#seen() <= 1)
                assert_well()
            end)
        end

        for what, path in pairs {
            ["a request"] = "/mcp HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /mcp",
            ["a header"] = "/mcp HTTP/1.1\r\nX-Evil: 1", ["a space"] = "/mcp x",
            ["a line feed"] = "/mcp\nX-Evil: 1",
            ["a NUL"] = "/mcp\0", ["an encoded line break"] = "/mcp/%0d%0aX-Evil:%201",
        } do
            it(what .. " in the path", function()
                odd:ask { op = "h2", port = web.port2, body = proxy.INITIALIZE,
                    headers = { { ":method", "POST" }, { ":scheme", "http" },
                                { ":authority", "x" }, { ":path", path } } }
                for _, request in ipairs(seen()) do
                    assert.is_nil(request.headers["x-evil"])
                    assert.is_nil(request.url:find("[%c ]"))
                end
                assert.is_true(#seen() <= 1)
                assert_well()
            end)
        end
    end)

    describe("a second request inside the first:", function()
        local INNER = "POST /mcp HTTP/1.1\r\nHost: inner\r\nContent-Length: 2\r\n\r\n{}"

        local function chunked(body)
            return ("%x\r\n%s\r\n0\r\n\r\n"):format(#body, body)
        end

        local BODY = proxy.INITIALIZE
        local WAYS = {
            ["a length and chunks"] = { "Content-Length: 4\r\nTransfer-Encoding: chunked",
                chunked(BODY) },
            ["chunks and a length"] = { "Transfer-Encoding: chunked\r\nContent-Length: 999",
                "0\r\n\r\n" },
            ["chunks with a space before the colon"] = { "Transfer-Encoding : chunked\r\n"
                .. "Content-Length: " .. #BODY, BODY },
            ["chunks after a tab"] = { "Transfer-Encoding:\tchunked", chunked(BODY) },
            ["chunks after a vertical tab"] = { "Transfer-Encoding: \vchunked\r\n"
                .. "Content-Length: " .. #BODY, BODY },
            ["x-chunked"] = { "Transfer-Encoding: xchunked\r\nContent-Length: " .. #BODY,
                BODY },
            ["chunked twice"] = { "Transfer-Encoding: chunked, chunked", chunked(BODY) },
            ["identity and chunked"] = { "Transfer-Encoding: identity\r\n"
                .. "Transfer-Encoding: chunked", chunked(BODY) },
            ["chunked in a folded line"] = { "X-Any: 1\r\n Transfer-Encoding: chunked\r\n"
                .. "Content-Length: " .. #BODY, BODY },
            ["chunked behind a line feed"] = { "X-Any: 1\nTransfer-Encoding: chunked",
                chunked(BODY) },
            ["two lengths"] = { "Content-Length: " .. #BODY .. "\r\nContent-Length: 4", BODY },
            ["a length with a comma"] = { "Content-Length: 4, " .. #BODY, BODY },
            ["a length with a sign"] = { "Content-Length: +" .. #BODY, BODY },
            ["a negative length"] = { "Content-Length: -1", BODY },
            ["a length with a space inside"] = { "Content-Length: 1 2", BODY },
            ["a length that is too short"] = { "Content-Length: 4", BODY },
            ["no length"] = { "X-Any: 1", "" },
            ["a chunk of a wrong size"] = { "Transfer-Encoding: chunked",
                "4\r\n" .. BODY .. "\r\n0\r\n\r\n" },
            ["a chunk of an immense size"] = { "Transfer-Encoding: chunked",
                "ffffffffffffffff1\r\n" .. BODY .. "\r\n0\r\n\r\n" },
            ["a chunk with an extension"] = { "Transfer-Encoding: chunked",
                ("%x;x=\"\r\n\"\r\n%s\r\n0\r\n\r\n"):format(#BODY, BODY) },
            ["chunks with line feeds only"] = { "Transfer-Encoding: chunked",
                ("%x\n%s\n0\n\n"):format(#BODY, BODY) },
            ["a trailer"] = { "Transfer-Encoding: chunked\r\nTrailer: Mcp-Session-Id",
                ("%x\r\n%s\r\n0\r\nMcp-Session-Id: x\r\nHost: trailer\r\n\r\n")
                    :format(#BODY, BODY) },
            ["an expectation"] = { "Expect: 100-continue\r\nContent-Length: " .. #BODY, BODY },
            ["an upgrade"] = { "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                .. "HTTP2-Settings: AAMAAABk\r\nContent-Length: " .. #BODY, BODY },
        }

        -- What of the answers the client gets is final.
        local function answers_in(text)
            local n = 0
            for status in text:gmatch("HTTP/1%.1 (%d%d%d) ") do
                n = n + (status >= "200" and 1 or 0)
            end
            return n
        end

        for what, way in pairs(WAYS) do
            for _, id in ipairs { "", "Mcp-Session-Id: x\r\n" } do
                it(what .. (id == "" and "" or ", in one with a session"), function()
                    local answers = answers_in(send("POST /mcp HTTP/1.1\r\nHost: outer\r\n"
                        .. id .. way[1] .. "\r\n\r\n" .. way[2] .. INNER, nil, 400))
                    local requests = seen()
                    assert.is_true(#requests <= answers,
                        cjson.encode { answers, requests })
                    for _, request in ipairs(requests) do
                        assert.is_nil(request.headers["transfer-encoding"])
                        assert.not_equal("trailer", request.headers.host)
                        assert.is_true(request.headers["content-length"] == nil
                            or tonumber(request.headers["content-length"]) == #request.body)
                    end
                    assert_well()
                end)
            end
        end
    end)

    it("an internal server that listens on a port serves nobody", function()
        local secret = ("0"):rep(32)
        for _, headers in ipairs {
            "", "Mooring-Backend: " .. other.url .. "\r\n",
            "Mooring-Backend: " .. secret .. " " .. other.url .. "\r\n",
        } do
            local answer = send("POST /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                .. headers .. "Content-Length: 0\r\n\r\n", web.port3)
            assert.matches("^HTTP/1.1 403 ", answer)
        end
        assert.equal(0, #seen())
        assert_well()
    end)

    it("an id that a policy has made of an argument writes no header", function()
        local scripted = proxy.start { backends = { a }, workers = 1, options = [[
            policy = {
                key = function(req) return req.args.id end,
                on_bind = function(session, req)
                    session:set_metadata("note", "a\r\nX-Evil: 1\0\"}")
                end,
            },]] }
        for _, id in ipairs { "a%0d%0aX-Evil:%201", "a%00b", "a%20b", "%ff", "%0a",
                              ("x"):rep(5000) } do
            local answer = assert(scripted:request { path = "/mcp?id=" .. id, body = "{}" })
            assert.equal(400, answer.status, id)
            assert.is_nil(answer.headers["x-evil"])
        end
        assert.equal(0, #proxy.seen(a))
        for _ = 1, 2 do
            assert.equal(200, assert(scripted:request {
                path = "/mcp?id=good", body = "{}" }).status)
        end
        for _, request in ipairs(proxy.seen(a)) do
            assert.is_nil(request.headers["x-evil"])
        end
        assert.is_nil(scripted:error_log():find("attempt to", 1, true))
        scripted:stop()
    end)
end)
