-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, requests of MCP sessions", function()
    local a, b, web

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        web = proxy.start {
            backends = { a, b },
            listen = "listen 127.0.0.1:$port2 http2;",
        }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    local function owner(id)
        return id:find("^a%-") and a or b
    end

    local function error_of(answer)
        local body = cjson.decode(answer.body)
        return body.error.code, body.error.message, body.id
    end

    it("go to the backend that opened the session", function()
        for _ = 1, 3 do
            local id, opened = web:open()
            assert.equal(200, opened.status)
            for n = 1, 3 do
                local answer = web:call(id)
                assert.equal(200, answer.status)
                assert.same({ owner(id).name, n, id }, {
                    answer.headers["x-served-by"],
                    cjson.decode(answer.body).count,
                    answer.headers["mcp-session-id"],
                })
            end
        end
    end)

    it("open sessions on all backends in turn", function()
        local count = { a = 0, b = 0 }
        for _ = 1, 4 do
            local _, opened = web:open()
            local name = opened.headers["x-served-by"]
            count[name] = count[name] + 1
        end
        assert.same({ a = 2, b = 2 }, count)
    end)

    it("keep path and query as the client wrote them", function()
        local id = web:open()
        local path = "/mcp/a%2Fb;c=1?x=%20y&z="
        assert.equal(path, cjson.decode(web:call(id, { path = path }).body).url)
        web:open { path = path }
        local last = 0
        for _, backend in ipairs { a, b } do
            for _, request in ipairs(proxy.seen(backend, "POST")) do
                last = last + (request.url == path and 1 or 0)
            end
        end
        assert.equal(2, last)
    end)

    it("have a body that the router does not read", function()
        local id = web:open()
        -- An initialize with the version header is none that a client sends.
        local answer = web:call(id, { body = proxy.INITIALIZE })
        assert.equal(id, web:request({ id = id, body = proxy.CALL })
            .headers["mcp-session-id"])
        assert.not_equal("created", web:results()[#web:results()])
        assert.equal(owner(id).name, answer.headers["x-served-by"])
    end)

    describe("of an unknown session", function()
        local function unknown(opts)
            opts.id = opts.id or "nobody-knows"
            return assert(web:request(opts))
        end

        it("are answered 404 with code -32001", function()
            local answer = unknown { body = proxy.CALL }
            assert.equal(404, answer.status)
            assert.equal("application/json", answer.headers["content-type"])
            assert.equal('{"jsonrpc":"2.0","error":{"code":-32001,'
                .. '"message":"Session not found"},"id":7}', answer.body)
        end)

        it("reach no backend", function()
            unknown { body = proxy.CALL }
            unknown { method = "GET" }
            unknown { method = "DELETE" }
            assert.equal(0, #proxy.seen(a) + #proxy.seen(b))
        end)

        for name, id in pairs {
            ["a string"] = '"a-\\u00e9\\"b"',
            ["an integer"] = "12",
            ["an integer beyond 2^53"] = "9007199254740993",
            ["a negative number"] = "-1",
            ["a fraction"] = "1.50",
        } do
            it("have their id echoed as it was written: " .. name, function()
                local answer = unknown {
                    body = '{"id": ' .. id .. ' ,"jsonrpc":"2.0","method":"x"}',
                }
                assert.equal(404, answer.status)
                assert.equal(id, answer.body:match('"id":(.-)}$'))
            end)
        end

        for name, body in pairs {
            ["no id"] = '{"jsonrpc":"2.0","method":"notifications/x"}',
            ["a null id"] = '{"jsonrpc":"2.0","id":null,"method":"x"}',
            ["a batch"] = '[{"jsonrpc":"2.0","id":1,"method":"x"}]',
            ["no JSON"] = '{"id":1',
            ["an empty body"] = "",
        } do
            it("with " .. name .. " get an answer without id", function()
                local answer = unknown { body = body }
                assert.equal(404, answer.status)
                assert.is_nil(answer.body:find('"id"', 1, true))
                assert.equal(-32001, (error_of(answer)))
            end)
        end

        it("with a body on disk get an answer without id", function()
            local body = '{"jsonrpc":"2.0","id":1,"method":"x","params":"'
                .. ("x"):rep(100000) .. '"}'
            local answer = unknown { body = body }
            assert.equal(404, answer.status)
            assert.is_nil(cjson.decode(answer.body).id)
        end)

        it("are answered 404 also for GET and DELETE", function()
            for _, method in ipairs { "GET", "DELETE" } do
                local answer = unknown { method = method }
                assert.equal(404, answer.status)
                assert.equal(-32001, (error_of(answer)))
            end
        end)

        it("leave the connection usable when they have a body", function()
            local flags = { "-X", "PUT", "-H", "Mcp-Session-Id: nobody-knows",
                "--data-binary", ("x"):rep(3000), web.mcp,
                "--next", "-sS", "-o", "/dev/null", "-w",
                "%{http_code} %{num_connects}", web.url .. "/status" }
            local result = servers.run { "curl", "-sS", "-o", "/dev/null",
                "-w", "%{http_code} ", unpack(flags) }
            assert.equal("404 200 0", result.out)
        end)

        it("have CORS headers on the answer", function()
            local answer = unknown { body = proxy.CALL }
            assert.equal("*", answer.headers["access-control-allow-origin"])
            assert.equal("Mcp-Session-Id, WWW-Authenticate",
                answer.headers["access-control-expose-headers"])
        end)
    end)

    describe("with an id that cannot exist", function()
        for name, id in pairs {
            ["that is too long"] = ("x"):rep(4097),
            ["with a space"] = "a b",
            ["with a byte over 0x7E"] = "caf\195\169",
        } do
            it("are answered 400, " .. name, function()
                local answer = web:call(id)
                assert.equal(400, answer.status)
                assert.same({ -32600, "Invalid session id", 7 },
                    { error_of(answer) })
                assert.equal(400, web:delete(id).status)
            end)
        end

        it("are without session when it is empty", function()
            local answer = web:call("")
            assert.equal(200, answer.status)
            assert.is_nil(cjson.decode(answer.body).count)
        end)
    end)

    it("with several ids are one session to the router and the backend, or "
        .. "refused", function()
        local id = web:open()
        local answer = assert(web:request {
            body = proxy.CALL,
            headers = { ["Mcp-Session-Id"] = { id, "another" } },
        })
        if answer.status == 400 then
            return -- nginx 1.23 and later: it takes them for "first, second"
        end
        assert.equal(200, answer.status)
        local seen = proxy.seen(owner(id), "POST")
        local ids = {}
        local raw = seen[#seen].raw
        for i = 1, #raw, 2 do
            if raw[i]:lower() == "mcp-session-id" then
                ids[#ids + 1] = raw[i + 1]
            end
        end
        assert.same({ id }, ids)
    end)

    for what, more in pairs { ["a few"] = 3, ["as many as are listed"] = 57, ["more"] = 80 } do
        it("are found among " .. what .. " other headers, however they are written", function()
            local id = web:open()
            for _, name in ipairs { "Mcp-Session-Id", "mcp-session-id", "MCP-SESSION-ID" } do
                local headers = { [name] = id }
                for i = 1, more do
                    headers["X-Other-" .. i] = "mcp-session-id"
                end
                local answer = assert(web:request { body = proxy.CALL, headers = headers })
                assert.same({ 200, id }, { answer.status, answer.headers["mcp-session-id"] })
                -- no MCP-Protocol-Version: could be an `initialize`
                answer = assert(web:request { body = proxy.INITIALIZE, headers = headers,
                                              version = false })
                assert.equal(200, answer.status)
                assert.not_equal(id, answer.headers["mcp-session-id"])
            end
        end)
    end

    it("have the id that the router has looked up, also where _ is allowed for -", function()
        local strange = proxy.start {
            backends = { a, b }, http = "underscores_in_headers on;", workers = 1,
        }
        local one, two = strange:open(), strange:open()
        for _, ids in ipairs { { one, two }, { two, one } } do
            local answer = assert(strange:request { body = proxy.CALL, headers = {
                ["Mcp-Session-Id"] = ids[1], ["Mcp_Session_Id"] = ids[2] } })
            local to = answer.status == 200 and answer.headers["mcp-session-id"]
            local seen = proxy.seen(owner(to or one), "POST")
            if to then
                assert.equal(owner(to).name, answer.headers["x-served-by"])
                assert.equal(to, seen[#seen].headers["mcp-session-id"])
            else
                assert.equal(400, answer.status) -- "first, second"
            end
        end
        local alone = assert(strange:request { body = proxy.CALL,
            headers = { ["Mcp_Session_Id"] = one } })
        assert.same({ 200, one }, { alone.status, alone.headers["mcp-session-id"] })
    end)

    describe("without an id", function()
        it("go to any backend and are not pinned", function()
            local names = {}
            for _ = 1, 4 do
                local answer = assert(web:request { body = proxy.CALL })
                names[answer.headers["x-served-by"]] = true
            end
            assert.same({ a = true, b = true }, names)
        end)

        for name, body in pairs {
            ["a batch that holds one"] = "[" .. proxy.INITIALIZE .. "]",
            ["no JSON"] = "initialize",
            ["JSON that is cut off"] = proxy.INITIALIZE:sub(1, -2),
            ["another method"] = '{"method":"initialized","initialize":1}',
            ["a deep nest"] = ('{"initialize":'):rep(2000) .. "1"
                .. ("}"):rep(2000),
        } do
            it("are no initialize with " .. name, function()
                local created = web:stats().results.created
                local answer = assert(web:request {
                    body = body, version = false })
                assert.equal(200, answer.status)
                assert.equal(created, web:stats().results.created)
            end)
        end

        it("are an initialize however it is written", function()
            local created = web:stats().results.created
            local id = web:open { body = ' {"id":1,\n"method":'
                .. '"\\u0069nitialize"} ' }
            assert.is_string(id)
            assert.equal(created + 1, web:stats().results.created)
        end)

        it("are an initialize with a body on disk up to 256 KiB", function()
            local pad = ',"pad":"' .. ("x"):rep(200000) .. '"}'
            assert.is_string((web:open { body = proxy.INITIALIZE:sub(1, -2)
                .. pad }))
            pad = ',"pad":"' .. ("x"):rep(300000) .. '"}'
            assert.is_nil((web:open { body = proxy.INITIALIZE:sub(1, -2)
                .. pad }))
        end)

        it("are not looked into when they carry Mcp-Method", function()
            local created = web:stats().results.created
            local answer = assert(web:request {
                body = proxy.INITIALIZE, version = "2026-07-28",
                headers = { ["Mcp-Method"] = "initialize" } })
            assert.equal(200, answer.status)
            assert.equal(created, web:stats().results.created)
        end)
    end)

    describe("over HTTP/2", function()
        local function h2(opts)
            opts.flags = { "--http2-prior-knowledge",
                "-w", "%{http_version}" }
            local url = web.url
            web.url = "http://127.0.0.1:" .. web.port2
            local answer, err = web:request(opts)
            web.url = url
            return assert(answer, err)
        end

        it("open, use and end a session", function()
            local answer = h2 { body = proxy.INITIALIZE, version = false }
            assert.equal(200, answer.status)
            local id = answer.headers["mcp-session-id"]
            answer = h2 { id = id, body = proxy.CALL }
            assert.equal(owner(id).name, answer.headers["x-served-by"])
            assert.equal(200, h2({ id = id, method = "DELETE" }).status)
            answer = h2 { id = id, body = proxy.CALL }
            assert.equal(404, answer.status)
            assert.equal(7, cjson.decode(answer.body).id)
        end)
    end)

    describe("over HTTP/1.0 without a Host", function()
        local NO_HOST = { "--http1.0", "-H", "Host:" }

        -- Each kind of request, over a server with these lines; the Hosts that
        -- backends have seen.
        local function hosts(lines, plain)
            local old = proxy.start { backends = { a, b }, listen = lines, plain = plain,
                                      workers = 1 }
            local id = old:open { flags = NO_HOST }
            assert.is_string(id)
            assert.equal(200, old:call(id, { flags = NO_HOST }).status)
            assert.equal(200, assert(old:request { body = proxy.CALL, flags = NO_HOST }).status)
            assert.equal(200, assert(old:request { id = id, method = "DELETE",
                                                   flags = NO_HOST }).status)
            local list = {}
            for _, backend in ipairs { a, b } do
                for _, request in ipairs(proxy.seen(backend)) do
                    list[request.headers.host] = (list[request.headers.host] or 0) + 1
                end
            end
            old:stop()
            return list, "127.0.0.1:" .. old.port
        end

        for _, plain in ipairs { false, true } do
            local by = plain and ", from location_plain.conf" or ""
            it("name this server to the backend" .. by, function()
                assert.same({ ["mcp.example"] = 4 },
                    (hosts("server_name mcp.example;", plain)))
            end)

            for _, lines in ipairs { "", "server_name _;", "server_name *.example.com;",
                                  "server_name www.example.*;", "server_name localhost;" } do
                it(("name the address of this server with %q%s"):format(lines, by), function()
                    local found, address = hosts(lines, plain)
                    assert.same({ [address] = 4 }, found)
                end)
            end
        end

        it("name this server also with more headers than are usual", function()
            local old = proxy.start { backends = { a, b }, workers = 1,
                                      listen = "server_name mcp.example;" }
            local flags = { unpack(NO_HOST) }
            for i = 1, 70 do
                flags[#flags + 1] = "-H"
                flags[#flags + 1] = "X-Number-" .. i .. ": " .. i
            end
            local id = old:open { flags = flags }
            assert.equal(200, old:call(id, { flags = flags }).status)
            for _, request in ipairs(proxy.seen(owner(id))) do
                assert.equal("mcp.example", request.headers.host)
            end
            old:stop()
        end)

        it("open a session also where nginx has looked for their Host before", function()
            local old = proxy.start { backends = { a, b }, workers = 1,
                listen = 'server_name mcp.example; if ($http_host = "evil") { return 403; }' }
            local id = old:open { flags = NO_HOST }
            assert.equal("mcp.example", proxy.seen(owner(id))[1].headers.host)
            old:stop()
        end)

        it("name this server where the Host is what a session is found by", function()
            for _, options in ipairs {
                'key = { header = "Host" },',
                "policy = { key = function(req) return req.headers.host end }, unknown = 'bind',",
            } do
                local old = proxy.start { backends = { a }, workers = 1, options = options,
                                          listen = "server_name mcp.example;" }
                proxy.rule(a, { body = "ok", times = 2 })
                for _ = 1, 2 do
                    assert.equal(200, old:request({ method = "GET", flags = NO_HOST }).status)
                end
                assert.same({ 1, 1 }, { old:stats().results.created,
                                        old:stats().results.bound - 1 })
                assert.equal("mcp.example", proxy.seen(a)[2].headers.host)
                a:ask("reset")
                old:stop()
            end
        end)

        it("name this server when they have no header at all", function()
            local old = proxy.start { backends = { a }, workers = 1,
                                      listen = "server_name mcp.example;" }
            proxy.rule(a, { body = "ok" })
            local answer = servers.http(old.mcp, { flags = {
                "--http1.0", "-H", "Host:", "-H", "User-Agent:", "-H", "Accept:" } })
            assert.equal(200, answer.status)
            local headers = proxy.seen(a)[1].headers
            assert.equal("mcp.example", headers.host)
            assert.is_nil(headers.accept or headers["user-agent"])
            old:stop()
        end)

        it("name this server for sessions that are not MCP's", function()
            local old = proxy.start { backends = { a }, workers = 1,
                                      listen = "server_name mcp.example;",
                                      options = 'key = { header = "X-User" },' }
            proxy.rule(a, { body = "ok", times = 10 })
            for _, user in ipairs { "ann", "ann", "" } do
                local answer = old:request { method = "GET", headers = { ["X-User"] = user },
                                             flags = NO_HOST }
                assert.equal(200, answer.status)
            end
            for _, request in ipairs(proxy.seen(a)) do
                assert.equal("mcp.example", request.headers.host)
            end
            assert.equal(3, #proxy.seen(a))
            old:stop()
        end)

        it("name an address of IPv6 in brackets", function()
            local old = proxy.start { backends = { a }, workers = 1,
                                      listen = "listen [::1]:$port2;" }
            old.url = "http://[::1]:" .. old.port2
            assert.equal(200, select(2, old:open { flags = NO_HOST }).status)
            assert.equal("[::1]:" .. old.port2, proxy.seen(a)[1].headers.host)
            old:stop()
        end)

        it("name no address where there is none", function()
            local old = proxy.start { backends = { a }, workers = 1,
                                      listen = "listen unix:$dir/outer.sock;" }
            local flags = { "--unix-socket", old.dir .. "/outer.sock", unpack(NO_HOST) }
            assert.equal(200, select(2, old:open { flags = flags }).status)
            assert.equal("unix", proxy.seen(a)[1].headers.host)
            old:stop()
        end)

        it("name the host of the request line", function()
            local id = web:open { flags = { "--http1.0", "-H", "Host:", "--request-target",
                                            "http://other.example/mcp" } }
            local seen = proxy.seen(owner(id))
            assert.equal("other.example", seen[1].headers.host)
        end)
    end)

    describe("that end it", function()
        it("reach its backend, and it is unknown before the answer is read",
           function()
            local id = web:open()
            assert.equal(200, web:delete(id).status)
            assert.equal(1, #proxy.seen(owner(id), "DELETE"))
            assert.equal(404, web:call(id).status)
            assert.equal(1, #proxy.seen(owner(id), "POST"))
        end)

        it("also end it when the backend does not know it", function()
            local id = web:open()
            owner(id):ask("reset")
            assert.equal(404, web:delete(id).status)
            local answer = web:call(id)
            assert.equal(-32001, (error_of(answer)))
            assert.equal(0, #proxy.seen(owner(id), "POST"))
        end)

        for _, status in ipairs { 405, 403, 500, 503 } do
            it("do not when the backend answers " .. status, function()
                local id = web:open()
                proxy.rule(owner(id), { method = "DELETE", status = status,
                    headers = { ["X-Why"] = "because" }, body = "no" })
                local answer = web:delete(id)
                assert.same({ status, "because", "no" },
                    { answer.status, answer.headers["x-why"], answer.body })
                assert.equal(200, web:call(id).status)
            end)
        end
    end)
end)
