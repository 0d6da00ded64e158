-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

-- What the store is told, and when, is up to the spec: a storage of the five
-- methods and create whose failures are switched on over HTTP.
local SWITCHED = [[
  local inner = require("resty.mooring.local_storage").new { name = "inner" }
  local dict = ngx.shared.switches
  local storage = { max_id_length = 4096 }
  for _, name in ipairs { "store", "load", "delete", "delete_expired", "close",
                          "create", "ready", "remove_if" } do
    storage[name] = function(_, ...)
      local how = dict:get(name)
      if how then return nil, "switched off", how end
      if name == "ready" then return true end
      return inner[name](inner, ...)
    end
  end
]]

describe("router, initialize", function()
    local a, b, web

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        web = proxy.start {
            backends = { a, b },
            http = "lua_shared_dict switches 100k;",
            before = SWITCHED,
            options = "storage = storage,",
            listen = "listen 127.0.0.1:$port2 http2;",
            server = [[
              location /switch {
                content_by_lua_block {
                  ngx.shared.switches:flush_all()
                  for name, code in pairs(ngx.req.get_uri_args()) do
                    ngx.shared.switches:set(name, code)
                  end
                }
              }
              location /moved/ {
                rewrite ^/moved/(.*)$ /mcp/$1 break;
                include $root/lua/resty/mooring/nginx/location.conf;
              }
              location /rewritten/ {
                rewrite ^/rewritten/(.*)$ /mcp/$1? break;
                include $root/lua/resty/mooring/nginx/location.conf;
              }
            ]],
        }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
        servers.http(web.url .. "/switch")
    end)

    local function switch(name, code)
        servers.http(web.url .. "/switch?" .. name .. "=" .. code)
    end

    local function rule_for_both(rule)
        rule.times = 1000
        proxy.rule(a, rule)
        proxy.rule(b, rule)
    end

    local function seen(method)
        local list = proxy.seen(a, method)
        for _, request in ipairs(proxy.seen(b, method)) do
            list[#list + 1] = request
        end
        return list
    end

    it("passes status, headers and body of the answer on", function()
        rule_for_both { initialize = true, status = 201, body = "hello",
            headers = { ["Mcp-Session-Id"] = "s1", ["X-One"] = "1",
                ["Set-Cookie"] = { "a=1", "b=2" }, ["Content-Type"] = "text/x",
                ["Location"] = "/elsewhere" } }
        local id, answer = web:open()
        assert.same({ "s1", 201, "hello", "1", "a=1, b=2", "text/x",
            "/elsewhere" }, {
            id, answer.status, answer.body, answer.headers["x-one"],
            answer.headers["set-cookie"], answer.headers["content-type"],
            answer.headers["location"] })
        assert.is_nil(answer.headers["mooring-outcome"])
        web:delete("s1")
    end)

    it("gives the backend the request as it came", function()
        web:open { headers = { ["X-Custom"] = "yes", ["Origin"] = "http://x",
            ["Authorization"] = "Bearer t" }, path = "/mcp?x=1" }
        local request = seen("POST")[1]
        local headers = request.headers
        assert.same({ "/mcp?x=1", proxy.INITIALIZE, "yes", "http://x",
            "Bearer t", "application/json", "127.0.0.1", "http",
            "127.0.0.1:" .. web.port }, {
            request.url, request.body, headers["x-custom"], headers.origin,
            headers.authorization, headers["content-type"],
            headers["x-forwarded-for"], headers["x-forwarded-proto"],
            headers.host })
    end)

    it("and other requests look alike to the backend", function()
        local id = web:open { headers = { ["X-Forwarded-For"] = "9.9.9.9" } }
        web:call(id, { headers = { ["X-Forwarded-For"] = "9.9.9.9" } })
        local requests = seen("POST")
        for _, request in ipairs(requests) do
            for _, name in ipairs { "mcp-protocol-version", "content-length",
                                    "mcp-session-id" } do
                request.headers[name] = nil
            end
        end
        assert.equal("9.9.9.9, 127.0.0.1",
            requests[1].headers["x-forwarded-for"])
        assert.same(requests[1].headers, requests[2].headers)
    end)

    it("knows the address of the client in both servers", function()
        local one = proxy.start { backends = { a, b }, location =
            "proxy_set_header X-Real-IP $mooring_remote_addr;" }
        one:call((one:open()))
        for _, request in ipairs(seen("POST")) do
            assert.equal("127.0.0.1", request.headers["x-real-ip"])
        end
        assert.equal(2, #seen("POST"))
        one:stop()
    end)

    it("keeps a rewrite of the location", function()
        web:open { path = "/rewritten/a%20b" }
        assert.equal("/mcp/a%20b", seen("POST")[1].url)
        a:ask("reset")
        b:ask("reset")
        web:open { path = "/moved/a%20b?c=d%20e" }
        assert.equal("/mcp/a%20b?c=d%20e", seen("POST")[1].url)
    end)

    for _, merged in ipairs { "on", "off" } do
        it("keeps a path as it was written, as all other requests do, with "
           .. "merge_slashes " .. merged, function()
            local one = proxy.start { backends = { a, b },
                http = "merge_slashes " .. merged .. ";" }
            local path = "/mcp//a/./b/../c%2fd?e=/../f"
            local id = one:open { path = path, flags = { "--path-as-is" } }
            one:request { id = id, path = path, body = proxy.CALL,
                flags = { "--path-as-is" } }
            local posts = seen("POST")
            assert.equal(path, posts[1].url)
            assert.equal(path, posts[2].url)
            one:stop()
        end)
    end

    it("passes on what the answer has several times", function()
        for _, backend in ipairs { a, b } do
            proxy.rule(backend, { initialize = true, body = "{}", headers = {
                ["mcp-session-id"] = "cookies", ["set-cookie"] = { "a=1", "b=2" } } })
        end
        local id, answer = web:open()
        assert.equal("cookies", id)
        assert.equal("a=1, b=2", answer.headers["set-cookie"])
    end)

    it("loses an id the client sends along", function()
        local id = web:open { id = "stale-id" }
        assert.not_equal("stale-id", id)
        assert.is_nil(seen("POST")[1].headers["mcp-session-id"])
        assert.equal(200, web:call(id).status)
    end)

    it("with an unknown id opens a session, also with a version header",
       function()
        local answer = web:call("stale-id", { body = proxy.INITIALIZE })
        assert.equal(200, answer.status)
        local id = answer.headers["mcp-session-id"]
        assert.equal(200, web:call(id).status)
    end)

    it("works over HTTP/2 with a stream as its answer", function()
        rule_for_both { initialize = true, action = "stream",
            headers = { ["Mcp-Session-Id"] = "h2" } }
        local stream = web:stream { method = "POST", body = proxy.INITIALIZE,
            url = "http://127.0.0.1:" .. web.port2 .. "/mcp",
            flags = { "--http2-prior-knowledge" } }
        stream:wait_for_head("HTTP/2 200")
        stream:wait_for_head("mcp-session-id: h2")
        a:ask { op = "event", data = "first" }
        b:ask { op = "event", data = "first" }
        stream:wait_for_body("data: first\n\n")
        stream:stop()
        web:delete("h2")
    end)

    it("streams its answer: each event arrives before the next is made",
       function()
        rule_for_both { initialize = true, action = "stream",
            headers = { ["Mcp-Session-Id"] = "streamed" } }
        local stream = web:stream { method = "POST", body = proxy.INITIALIZE }
        stream:wait_for_head("Mcp-Session-Id: streamed")
        local events = ""
        for n = 1, 3 do
            a:ask { op = "event", data = "event " .. n }
            b:ask { op = "event", data = "event " .. n }
            events = events .. "data: event " .. n .. "\n\n"
            stream:wait_for_body("event " .. n .. "\n\n")
            assert.equal(events, stream:body())
        end
        a:ask("end_streams")
        b:ask("end_streams")
        stream:wait()
        web:delete("streamed")
    end)

    it("is bound when the client reads the head of the answer", function()
        rule_for_both { initialize = true, action = "stream",
            headers = { ["Mcp-Session-Id"] = "early" } }
        local stream = web:stream { method = "POST", body = proxy.INITIALIZE }
        stream:wait_for_head("Mcp-Session-Id: early")
        -- 404 of the backend, which answers as it is told and knows no "early"
        assert.equal('{"error":"unknown here"}', web:call("early").body)
        stream:stop()
        web:delete("early")
    end)

    it("without an id in the answer passes through unpinned", function()
        rule_for_both { initialize = true, status = 200, body = "stateless" }
        local created = web:stats().results.created
        local id, answer = web:open()
        assert.is_nil(id)
        assert.same({ 200, "stateless" }, { answer.status, answer.body })
        assert.equal(created, web:stats().results.created)
    end)

    it("that is refused passes through, without an id", function()
        rule_for_both { initialize = true, status = 401, body = "who?",
            headers = { ["WWW-Authenticate"] = "Bearer",
                ["Mcp-Session-Id"] = "x" } }
        local id, answer = web:open()
        assert.is_nil(id)
        assert.same({ 401, "who?", "Bearer" }, { answer.status, answer.body,
            answer.headers["www-authenticate"] })
        assert.equal(404, web:call("x").status)
    end)

    for name, issued in pairs {
        ["with a space"] = "a b",
        ["too long"] = ("x"):rep(5000),
        ["twice"] = { "one", "two" },
    } do
        it("is answered 502 when the backend issues an id " .. name, function()
            rule_for_both { initialize = true,
                headers = { ["Mcp-Session-Id"] = issued } }
            local id, answer = web:open()
            assert.same({ nil, 502 }, { id, answer.status })
        end)
    end

    describe("while the store", function()
        it("is away reaches no backend and is answered 503", function()
            switch("ready", "unavailable")
            local id, answer = web:open()
            assert.same({ nil, 503, "1" },
                { id, answer.status, answer.headers["retry-after"] })
            assert.equal('{"jsonrpc":"2.0","error":{"code":-32050,'
                .. '"message":"Session store unavailable"},"id":1}',
                answer.body)
            assert.equal(0, #seen())
        end)

        for _, code in ipairs { "unavailable", "timeout", "full" } do
            it("does not take the binding (" .. code .. ") gives the client "
                .. "503 and no id, and ends the session", function()
                switch("create", code)
                local id, answer = web:open { headers = {
                    ["Authorization"] = "Bearer t" } }
                assert.same({ nil, 503 }, { id, answer.status })
                servers.wait_for(function() return #seen("DELETE") == 1 end,
                    5, "the DELETE")
                local opened, ended = seen("POST")[1], seen("DELETE")[1]
                assert.matches("^[ab]%-", ended.headers["mcp-session-id"])
                assert.equal("Bearer t", ended.headers.authorization)
                assert.equal("", ended.body)
                assert.equal(opened.url, ended.url)
            end)
        end

        it("does not take the binding, nor the backend the end of the session, it is tried "
            .. "no more", function()
            switch("create", "unavailable")
            for _, backend in ipairs { a, b } do
                proxy.rule(backend, { method = "DELETE", action = "reset", times = 10 })
            end
            local id, answer = web:open()
            assert.same({ nil, 503 }, { id, answer.status })
            servers.wait_for(function() return #seen("DELETE") == 2 end, 5,
                "both attempts of nginx")
            switch("none", "x")
            a:ask("reset")
            b:ask("reset")
            assert.equal(200, web:call((web:open())).status)
            assert.is_nil(web:error_log():find("runtime error", 1, true))
        end)

        it("cannot remove a binding a DELETE is answered 503", function()
            local id = web:open()
            switch("delete", "unavailable")
            local answer = web:delete(id)
            assert.same({ 503, "1" },
                { answer.status, answer.headers["retry-after"] })
            switch("none", "x")
            assert.equal(404, web:delete(id).status)
            assert.equal(404, web:call(id).status)
        end)

        for _, code in ipairs { "unavailable", "timeout" } do
            it("cannot be asked (" .. code .. ") no session is said to be "
                .. "unknown", function()
                local id = web:open()
                switch("load", code)
                for _, method in ipairs { "POST", "GET", "DELETE" } do
                    local answer = assert(web:request { id = id,
                        method = method, body = method == "POST" and proxy.CALL
                        or nil })
                    assert.same({ 503, "1" },
                        { answer.status, answer.headers["retry-after"] })
                end
                switch("none", "x")
                assert.equal(200, web:call(id).status)
            end)
        end

        it("holds nonsense for a session it is answered 503", function()
            switch("load", "invalid")
            assert.equal(503, web:call("fine-id").status)
        end)
    end)

    it("is answered 502 when the id is bound already, whose session lives on",
       function()
        rule_for_both { initialize = true, body = "{}",
            headers = { ["Mcp-Session-Id"] = "same" } }
        local id, first = web:open()
        assert.same({ "same", 200 }, { id, first.status })
        local again, second = web:open()
        assert.same({ nil, 502 }, { again, second.status })
        assert.equal(0, #seen("DELETE"))
        assert.matches("has issued the session id #%x+, which is bound already",
            web:error_log())
        web:delete("same")
    end)

    it("goes to the next backend when one refuses connections", function()
        a:ask("stop")
        for _ = 1, 3 do
            local id, answer = web:open()
            assert.equal("b", answer.headers["x-served-by"])
            assert.is_string(id)
        end
        a:ask("start")
        assert.equal(3, #seen("POST"))
    end)

    it("is answered 502 when no backend accepts connections", function()
        a:ask("stop")
        b:ask("stop")
        local id, answer = web:open()
        a:ask("start")
        b:ask("start")
        assert.same({ nil, 502, -32051 }, { id, answer.status,
            cjson.decode(answer.body).error.code })
    end)

    it("is not repeated when the backend resets the connection", function()
        rule_for_both { initialize = true, action = "reset" }
        local id, answer = web:open()
        assert.same({ nil, 502 }, { id, answer.status })
        assert.equal(1, #seen("POST"))
    end)

    it("is given up at the backend when the client goes", function()
        local function gone()
            return a:ask("sockets").gone + b:ask("sockets").gone
        end
        rule_for_both { initialize = true, action = "hang" }
        local before = gone()
        local stream = web:stream { method = "POST", body = proxy.INITIALIZE }
        servers.wait_for(function() return #seen("POST") == 1 end, 5,
            "the request")
        assert.equal(before, gone())
        stream:stop()
        servers.wait_for(function() return gone() == before + 1 end, 5,
            "the backend to notice")
    end)

    for _, chunked in ipairs { false, true } do
        local how = chunked and "in chunks" or "with a length"
        it("that is cut off in its body, " .. how .. ", is cut off for the client",
           function()
            rule_for_both { initialize = true, action = "cut",
                chunked = chunked, headers = { ["Mcp-Session-Id"] = "cut" } }
            local answer, err = web:request { body = proxy.INITIALIZE,
                version = false }
            assert.is_nil(answer)
            assert.matches("curl: %((18)%)", err)
            web:delete("cut")
        end)
    end

    it("comes with all challenges, and no type of nginx' own", function()
        rule_for_both { initialize = true, status = 401, headers = {
            ["WWW-Authenticate"] = { 'Bearer resource_metadata="https://a/b"',
                                     "Basic" } } }
        local answer = web:request { body = proxy.INITIALIZE, version = false }
        assert.equal(401, answer.status)
        assert.equal('Bearer resource_metadata="https://a/b", Basic',
            answer.headers["www-authenticate"])
        assert.is_nil(answer.headers["content-type"])
    end)

    it("comes as it is, in chunks of any size", function()
        local body = ("x"):rep(200000) .. "y"
        rule_for_both { initialize = true, body = body, headers = {
            ["Mcp-Session-Id"] = "large", ["Transfer-Encoding"] = "chunked" } }
        local one = proxy.start { backends = { a, b },
            location = "add_trailer X-End yes;" }
        local answer = one:request { body = proxy.INITIALIZE, version = false }
        assert.equal(200, answer.status)
        assert.is_true(answer.body == body)
        one:stop()
    end)
end)
