-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local http1 = require "resty.mooring.router.http1"

describe("resty.mooring.router.http1", function()
    describe(".request", function()
        local function lines(request)
            request.method = request.method or "POST"
            request.target = request.target or "/mcp"
            request.body = request.body or ""
            request.extra = request.extra or {}
            local head, body = http1.request(request):match(
                "^(.-)\r\n\r\n(.*)$")
            local list = {}
            for line in head:gmatch("[^\r\n]+") do
                list[#list + 1] = line
            end
            local first = table.remove(list, 1)
            table.sort(list)
            return first, list, body
        end

        it("is HTTP/1.1 and ends the connection", function()
            local first, list, body = lines { headers = {}, body = "xy" }
            assert.equal("POST /mcp HTTP/1.1", first)
            assert.same({ "Connection: close", "Content-Length: 2" }, list)
            assert.equal("xy", body)
        end)

        it("passes headers on, also several of one name", function()
            local _, list = lines { headers = { ["X-A"] = "1",
                ["X-B"] = { "2", "3" }, Accept = "a, b" } }
            assert.same({ "Accept: a, b", "Connection: close",
                "Content-Length: 0", "X-A: 1", "X-B: 2", "X-B: 3" }, list)
        end)

        it("leaves out what belongs to the connection or the hop", function()
            local _, list = lines { method = "DELETE", headers = {
                Connection = "keep-alive", ["Keep-Alive"] = "1", TE = "x",
                ["Transfer-Encoding"] = "chunked", Upgrade = "h2c",
                ["Content-Length"] = "9", Expect = "100-continue",
                Host = "evil", ["MCP-SESSION-ID"] = "old",
                ["Mooring-Secret"] = "s", ["mooring-backend"] = "b",
                ["X-Forwarded-For"] = "1", ["Proxy-Connection"] = "x",
            }, extra = { Host = "h" } }
            assert.same({ "Connection: close", "Host: h" }, list)
        end)

        it("drops what could be mistaken for two headers", function()
            local _, list = lines { method = "GET", headers = {
                ["X-A"] = "1\r\nX-Evil: 1", ["X-B"] = { "ok", "a\nb" },
                ["X-C\r\nX-Evil"] = "1", ["X D"] = "1", ["X-E"] = "a\0b",
                ["X-F"] = "a\rb",
            }, extra = { ["Mcp-Session-Id"] = "x\ny" } }
            assert.same({ "Connection: close", "X-B: ok" }, list)
        end)
    end)

    describe(".parse_head", function()
        it("takes no time that grows with the square of the spaces in a value", function()
            -- it was 17 s; a backend chooses what it sends
            local spaces = (" "):rep(65536)
            local started = os.clock()
            local head = http1.parse_head("HTTP/1.1 200 OK\r\na: x" .. spaces .. "y" .. spaces
                                          .. "\r\nb:" .. spaces .. "\r\n\r\n")
            assert.is_true(os.clock() - started < 1)
            assert.equal(200, head.status)
        end)

        it("reads status and headers", function()
            local head = http1.parse_head("HTTP/1.1 201 Made\r\n"
                .. "Content-Type: a/b\r\nX-Empty:\r\nSet-Cookie: a=1\r\n"
                .. "set-cookie: b=2; c: d\r\nX-Space:  x  y \r\n")
            assert.equal(201, head.status)
            assert.same({ "a/b", name = "Content-Type" },
                head.headers["content-type"])
            assert.same({ "a=1", "b=2; c: d", name = "Set-Cookie" },
                head.headers["set-cookie"])
            assert.equal("", head.headers["x-empty"][1])
            assert.equal("x  y", head.headers["x-space"][1])
        end)

        it("leaves out headers of the connection and of nginx", function()
            local head = http1.parse_head("HTTP/1.1 200 OK\r\nServer: x\r\n"
                .. "Date: y\r\nConnection: close\r\nTransfer-Encoding: z")
            assert.same({}, head.headers)
        end)

        it("bears more names than it remembers, and odd ones", function()
            for i = 1, 600 do
                local head = http1.parse_head("HTTP/1.1 200 OK\r\nX-" .. i
                    .. ": a\r\nX(" .. i .. "): b")
                assert.equal("a", head.headers["x-" .. i][1])
                assert.equal("b", head.headers["x(" .. i .. ")"][1])
            end
        end)

        it("tells whether the body comes in chunks", function()
            assert.is_true(http1.parse_head("HTTP/1.1 200 OK\r\nA: b\r\n"
                .. "transfer-encoding: Chunked\r\nC: d").chunked)
            assert.is_false(http1.parse_head("HTTP/1.1 200 OK\r\n"
                .. "X-Transfer-Encoding: chunked\r\n").chunked)
        end)

        it("bears a status line alone", function()
            assert.same({ status = 204, headers = {}, chunked = false },
                http1.parse_head("HTTP/1.1 204 No Content"))
            assert.same({ status = 200, headers = {}, chunked = false },
                http1.parse_head("HTTP/1.1 200"))
        end)

        for _, text in ipairs { "", "x", "HTTP/2 200", "HTTP/1.1 20",
                                "HTTP/1.1 200 OK\r\nno colon",
                                "HTTP/1.1 200 OK\r\na b: c",
                                "HTTP/1.1 200 OK\r\na: b\nc: d",
                                "HTTP/1.1 200 OK\r\na: b\rc: d" } do
            it(("refuses %q"):format(text), function()
                assert.is_nil(http1.parse_head(text))
            end)
        end
    end)

    describe(".chunk_size", function()
        for line, size in pairs { ["0"] = 0, ["1a"] = 26, ["FFF "] = 4095,
                                  ["10;name=value"] = 16, ["000"] = 0 } do
            it(("of %q is %d"):format(line, size), function()
                assert.equal(size, http1.chunk_size(line))
            end)
        end
        for _, line in ipairs { "", "x", "-1", "0x10", "1 2", " 1",
                                "1000000000000" } do
            it(("refuses %q"):format(line), function()
                assert.is_nil(http1.chunk_size(line))
            end)
        end
    end)

    it(".single tells none from one from several", function()
        local headers = { a = { "1" }, b = { "1", "2" } }
        assert.equal("1", http1.single(headers, "a"))
        assert.is_false(http1.single(headers, "b"))
        assert.is_nil(http1.single(headers, "c"))
    end)

    describe(".normalize", function()
        for path, wanted in pairs {
            ["/"] = { "/", "/" }, ["/a"] = { "/a", "/a" },
            ["/a/"] = { "/a/", "/a/" }, ["//a//b"] = { "/a/b", "//a//b" },
            ["/a/./b/../c"] = { "/a/c", "/a/c" },
            ["/a/.."] = { "/", "/" }, ["/a/b/.."] = { "/a/", "/a/" },
            ["/a/."] = { "/a/", "/a/" }, ["/a/..b/...c"] = { "/a/..b/...c",
                                                            "/a/..b/...c" },
            ["/a//../b"] = { "/b", "/a/b" }, ["/../a"] = { "/a", "/a" },
        } do
            it(("makes %q what nginx makes it"):format(path), function()
                assert.equal(wanted[1], http1.normalize(path, true))
                assert.equal(wanted[2], http1.normalize(path, false))
            end)
        end
    end)

    it(".escape_path writes any path into a request line", function()
        assert.equal("/a%20b%3Fc%23%25%C3%A9%0D%0A/x;y=1,2:@!$&'()*+~-._",
            http1.escape_path("/a b?c#%\195\169\r\n/x;y=1,2:@!$&'()*+~-._"))
    end)
end)
