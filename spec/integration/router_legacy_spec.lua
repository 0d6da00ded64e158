-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The HTTP+SSE transport, MCP 2024-11-05.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

local SSE = [[
    include $root/lua/resty/mooring/nginx/location.conf;
    include $root/lua/resty/mooring/nginx/sse.conf;
]]
local LOCATIONS = "location /sse {" .. SSE .. "} location /messages {" .. SSE
    .. "}"
local EVENT = "event: endpoint\ndata: %s\n\n"

describe("router, HTTP+SSE", function()
    local a, b, redis, one, two

    local function start(options, more)
        local opts = {
            backends = { a, b }, workers = 2, server = LOCATIONS,
            options = ("storage = %q, session_ttl = 30, %s"):format(redis.url,
                options or ""),
        }
        for name, value in pairs(more or {}) do
            opts[name] = value
        end
        return proxy.start(opts)
    end

    setup(function()
        a, b, redis = proxy.backend("a"), proxy.backend("b"), servers.redis()
        one, two = start(), start()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    local function key(id)
        return "mooring:session:" .. id
    end

    local function count(web, name)
        return web:stats().results[name]
    end

    -- The next GET that a backend gets opens a stream with this beginning.
    local function plan(body, headers, backend)
        a:ask("reset")
        b:ask("reset")
        for _, each in ipairs(backend and { backend } or { a, b }) do
            proxy.rule(each, { method = "GET", action = "stream", body = body,
                headers = headers })
        end
    end

    -- Opens a stream; returns it and what its body begins with.
    local function open(web, url, headers)
        local body = EVENT:format(url)
        plan(body, headers)
        local stream = web:stream { url = web.url .. "/sse" }
        stream:wait_for_body(body)
        return stream
    end

    local function post(web, path, headers)
        return assert(web:request { path = path, body = proxy.CALL,
            headers = headers })
    end

    -- The backend a stream came from.
    local function server_of(stream)
        return stream:head():match("\n< X%-Served%-By: (%a)")
            or stream:head():match("\n< x%-served%-by: (%a)")
    end

    local function wait_until_bound(id)
        servers.wait_for(function()
            return redis:cli("EXISTS", key(id)) == "1"
        end, 5, "the session to be stored")
    end

    local function wait_until_gone(id)
        servers.wait_for(function()
            return redis:cli("EXISTS", key(id)) == "0"
        end, 10, "the session to be removed")
    end

    it("sends POSTs to the backend of their stream, on any replica", function()
        for n = 1, 6 do
            local path = "/messages?sessionId=plain-" .. n
            local stream = open(one, path)
            for _, web in ipairs { one, two, one, two } do
                local answer = post(web, path)
                assert.equal(200, answer.status)
                assert.equal(server_of(stream), answer.headers["x-served-by"])
            end
            stream:stop()
            wait_until_gone("plain-" .. n)
        end
    end)

    it("spreads streams over the backends", function()
        local streams, found = {}, {}
        for n = 1, 8 do
            streams[n] = open(one, "/messages?sessionId=spread-" .. n)
            found[server_of(streams[n])] = true
        end
        assert.same({ a = true, b = true }, found)
        for _, stream in ipairs(streams) do
            stream:stop()
        end
    end)

    it("knows the ids of other servers' arguments and forms of URL", function()
        local host = one.url:match("^http://(.*)$")
        for n, url in ipairs {
            "/messages/?session_id=form-%d", "messages?sessionId=form-%d",
            "http://" .. host .. "/messages?sessionId=form-%d",
            "//" .. host .. "/messages?a=b&sessionId=form-%d&c=d#x",
            "/messages?sessionId=form%%2D%d", "?sessionId=form-%d",
        } do
            local id = "form-" .. n
            local stream = open(one, url:format(n))
            wait_until_bound(id)
            assert.equal(server_of(stream), post(two,
                "/messages?sessionId=" .. id).headers["x-served-by"])
            stream:stop()
            wait_until_gone(id)
        end
    end)

    it("reads an endpoint event that comes byte by byte", function()
        plan(": hello\r\n\r\n")
        local stream = one:stream { url = one.url .. "/sse" }
        stream:wait_for_body(": hello")
        local text = "event: endpoint\r\ndata: /messages?sessionId=slow\r\n\r\n"
        for i = 1, #text do
            a:ask { op = "write", data = text:sub(i, i) }
            b:ask { op = "write", data = text:sub(i, i) }
            stream:wait_for_body(text:sub(1, i))
        end
        wait_until_bound("slow")
        assert.equal(server_of(stream),
            post(two, "/messages?sessionId=slow").headers["x-served-by"])
        stream:stop()
    end)

    it("asks backends for streams without compression", function()
        plan(EVENT:format("/messages?sessionId=packed"))
        local stream = one:stream { url = one.url .. "/sse",
            flags = { "-H", "Accept-Encoding: gzip" } }
        stream:wait_for_body("packed")
        local requests = proxy.seen(a, "GET")
        if #requests == 0 then
            requests = proxy.seen(b, "GET")
        end
        assert.is_nil(requests[1].headers["accept-encoding"])
        stream:stop()
    end)

    it("lets streams pass that name no session here", function()
        local before = count(one, "unpinned")
        for n, body in ipairs {
            "data: hello\n\n",
            EVENT:format("http://elsewhere.example/messages?sessionId=other-1"),
            EVENT:format("/messages?token=other-2"),
            ":" .. ("x"):rep(16384) .. "\n" .. EVENT:format(
                "/messages?sessionId=other-3"),
        } do
            plan(body)
            local stream = one:stream { url = one.url .. "/sse" }
            stream:wait_for_body(body:sub(-10))
            stream:stop()
            servers.wait_for(function()
                return count(one, "unpinned") == before + n
            end, 5, "the end of the stream")
        end
        assert.equal("", redis:cli("KEYS", "mooring:session:other*"))
        plan(EVENT:format("/messages?sessionId=other-4"),
            { ["content-encoding"] = "gzip" })
        local stream = one:stream { url = one.url .. "/sse" }
        stream:wait_for_body("other-4")
        stream:stop()
    end)

    it("takes the session away when its stream ends", function()
        local path = "/messages?sessionId=ended"
        local stream = open(one, path)
        assert.equal(200, post(two, path).status)
        a:ask("end_streams")
        b:ask("end_streams")
        stream:wait()
        wait_until_gone("ended")
        assert.equal(404, post(one, path).status)
        assert.equal(404, post(two, path).status)
    end)

    it("refuses an unknown id with 404, after a while", function()
        local asked = servers.now()
        local answer = post(one, "/messages?sessionId=nobody")
        assert.equal(404, answer.status)
        assert.matches('"code":-32001', answer.body, 1, true)
        assert.is_true(servers.now() - asked >= 0.24)
    end)

    it("waits for a session that is about to be stored elsewhere", function()
        local record = '{"id":"%s","type":"sse","created_at":'
            .. '"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z",'
            .. '"metadata":{"backend_url":"%s"}}'
        for n = 1, 5 do
            local id = "late-" .. n
            -- In Redis' own time: 50 ms after the request is on its way.
            local late = servers.spawn { "sh", "-c", ("sleep 0.05; exec "
                .. "redis-cli -s %s SET %s '%s' PX 60000"):format(redis.socket,
                key(id), record:format(id, a.url)), out = "/dev/null" }
            local answer = post(two, "/messages?sessionId=" .. id)
            late:wait(5)
            -- A machine that is busy may take longer than the router waits.
            if answer.status == 200 then
                return
            end
        end
        error("five times 404")
    end)

    it("refuses a request that names two sessions", function()
        local path = "/messages?sessionId=two"
        local stream = open(one, path)
        for _, query in ipairs {
            "&sessionId=two", "&session%49d=other", "&session_id=two",
            "&sessionid=two", ";sessionId=other",
        } do
            assert.equal(400, post(one, path .. query).status)
        end
        assert.equal(400, post(one, path,
            { ["Mcp-Session-Id"] = "other" }).status)
        assert.equal(400, one:request { body = proxy.CALL, flags = {
            "--request-target", path .. "#&sessionId=other" } }.status)
        assert.equal(0, #proxy.seen(a, "POST") + #proxy.seen(b, "POST"))
        stream:stop()
    end)

    it("cuts a stream whose id is another session's", function()
        local path = "/messages?sessionId=twice"
        local stream = open(one, path)
        wait_until_bound("twice")
        local mine = post(one, path).headers["x-served-by"]
        -- The instance knows, and nothing of the stream reaches the client ...
        plan(EVENT:format(path))
        local second = one:stream { url = one.url .. "/sse" }
        second:wait()
        assert.equal("", second:body())
        -- ... or only the store does, and the stream ends with its next event.
        plan(EVENT:format(path))
        local third = two:stream { url = two.url .. "/sse" }
        third:wait_for_body("twice")
        two:wait_for_count("orphans", 1)
        a:ask { op = "event", data = "secret" }
        b:ask { op = "event", data = "secret" }
        third:wait()
        assert.is_nil(third:body():find("secret", 1, true))
        -- The session that was there first is still there.
        for _, web in ipairs { one, two } do
            assert.equal(mine, post(web, path).headers["x-served-by"])
        end
        stream:stop()
        wait_until_gone("twice")
    end)

    it("forgets a session whose backend is gone", function()
        local path = "/messages?sessionId=gone"
        local stream = open(one, path)
        local backend = server_of(stream) == "a" and a or b
        wait_until_bound("gone")
        backend:ask("stop")
        stream:wait()
        wait_until_gone("gone")
        assert.equal(404, post(two, path).status)
        backend:ask("start")
    end)

    it("forgets a session that its backend answers 404 for", function()
        local path = "/messages?sessionId=disowned"
        local stream = open(one, path)
        wait_until_bound("disowned")
        proxy.rule(a, { method = "POST", status = 404 })
        proxy.rule(b, { method = "POST", status = 404 })
        assert.equal(404, post(two, path).status)
        wait_until_gone("disowned")
        stream:stop()
    end)

    it("opens no stream at a backend that is down", function()
        a:ask("stop")
        for n = 1, 4 do
            local stream = one:stream { url = one.url .. "/sse" }
            stream:wait_for_head("HTTP/1.1 200")
            assert.equal("b", server_of(stream), n)
            stream:stop()
        end
        a:ask("start")
    end)

    it("binds a session to the backend that answered, where it is not the first choice",
       function()
        local web = start('policy = { route = function(_, backends) return backends[1] end },')
        a:ask("stop")
        local path = "/messages?sessionId=second-choice"
        plan(EVENT:format(path), nil, b)
        local stream = web:stream { url = web.url .. "/sse" }
        stream:wait_for_body("second-choice")
        wait_until_bound("second-choice")
        assert.equal(b.url, cjson.decode(redis:cli("GET", key("second-choice")))
            .metadata.backend_url)
        assert.equal("b", post(web, path).headers["x-served-by"])
        stream:stop()
        wait_until_gone("second-choice")
        a:ask("start")
        web:stop()
    end)

    it("serves Streamable HTTP in the same location", function()
        local answer = assert(one:request { path = "/sse",
            body = proxy.INITIALIZE, version = false })
        local id = assert(answer.headers["mcp-session-id"])
        for _, web in ipairs { one, two } do
            local again = assert(web:request { path = "/sse", id = id,
                body = proxy.CALL })
            assert.equal(200, again.status)
            assert.equal(answer.headers["x-served-by"],
                again.headers["x-served-by"])
        end
        local stream = two:stream { url = two.url .. "/sse", id = id }
        stream:wait_for_head("HTTP/1.1 200")
        assert.equal(answer.headers["x-served-by"], server_of(stream))
        stream:stop()
        assert.equal(200, assert(one:request { path = "/sse", id = id,
            method = "DELETE" }).status)
        assert.equal(404, assert(two:request { path = "/sse", id = id,
            body = proxy.CALL }).status)
    end)

    it("has an id in the path where sse_id says so", function()
        local web = start('sse_id = { path = "/messages/" },')
        local path = "/messages/in-the-path"
        local stream = open(web, path)
        wait_until_bound("in-the-path")
        assert.equal(server_of(stream), post(web, path)
            .headers["x-served-by"])
        assert.equal(404, post(web, "/messages/in-the-air").status)
        local log = servers.read_file(web.dir .. "/requests.log")
        assert.matches('"POST /messages/- HTTP/1.1" 200', log, 1, true)
        assert.is_nil(log:find("in-the", 1, true))
        stream:stop()
        wait_until_gone("in-the-path")
        web:stop()
    end)

    it("works in the replica's own memory", function()
        local web = start('storage = "local",')
        local path = "/messages?sessionId=at-home"
        local stream = open(web, path)
        for _ = 1, 8 do
            assert.equal(server_of(stream), post(web, path)
                .headers["x-served-by"])
        end
        stream:stop()
        servers.wait_for(function() return count(web, "ended") == 1 end, 5,
            "the session to be removed")
        assert.equal(404, post(web, path).status)
        web:stop()
    end)

    it("asks the policy where to, what to note, and whom to admit", function()
        local web = start([[policy = {
            route = function(_, backends) return backends[2] end,
            on_bind = function(session, req)
                session.metadata.owner = req.headers["X-Owner"]
            end,
            admit = function(session, req)
                return req.session_id == "owned"
                    and session.metadata.owner == req.headers["X-Owner"]
            end,
        },]])
        local path = "/messages?sessionId=owned"
        plan(EVENT:format(path))
        local stream = web:stream { url = web.url .. "/sse",
            flags = { "-H", "X-Owner: me" } }
        stream:wait_for_body("owned")
        assert.equal("b", server_of(stream))
        for _ = 1, 3 do
            assert.equal(200, post(web, path, { ["X-Owner"] = "me" }).status)
        end
        local asked = servers.now()
        local refused = post(web, path, { ["X-Owner"] = "you" })
        assert.is_true(servers.now() - asked >= 0.24)
        local unknown = post(web, "/messages?sessionId=nobody")
        assert.same({ unknown.status, unknown.body },
            { refused.status, refused.body })
        web:wait_for_count("refused", 1)
        stream:stop()
        wait_until_gone("owned")
        web:stop()
    end)

    it("cuts a stream whose session there is no room for", function()
        local web = start('storage = "local", max_local_sessions = 1,')
        local stream = open(web, "/messages?sessionId=room-1")
        plan(EVENT:format("/messages?sessionId=room-2"))
        local other = web:stream { url = web.url .. "/sse" }
        other:wait()
        assert.equal("", other:body())
        assert.equal(200, post(web, "/messages?sessionId=room-1").status)
        web:wait_for_count("orphans", 1)
        stream:stop()
        web:stop()
    end)

    it("works with a storage of five methods", function()
        local web = start('storage = shelf,', { workers = 1, before = [[
            local sessions = {}
            shelf = {
                store = function(_, s) sessions[s.id] = s return true end,
                load = function(_, id)
                    if sessions[id] then return sessions[id] end
                    return nil, "session not found", "not_found"
                end,
                delete = function(_, id) sessions[id] = nil return true end,
                delete_expired = function() return 0 end,
                close = function() return true end,
            }
        ]] })
        local path = "/messages?sessionId=on-the-shelf"
        local stream = open(web, path)
        assert.equal(server_of(stream), post(web, path)
            .headers["x-served-by"])
        stream:stop()
        web:wait_for_count("ended", 1)
        assert.equal(404, post(web, path).status)
        web:stop()
    end)

    it("keeps a session while its stream is open", function()
        local web = start("session_ttl = 2,")
        local path = "/messages?sessionId=kept"
        local stream = open(web, path)
        wait_until_bound("kept")
        local start_time = servers.now()
        servers.wait_for(function()
            return servers.now() - start_time > 4
        end, 8)
        assert.equal(200, post(web, path).status)
        assert.equal(1, web:stats().streams)
        stream:stop()
        wait_until_gone("kept")
        servers.wait_for(function() return web:stats().streams == 0 end, 5,
            "the end of the stream")
        web:stop()
    end)

    it("counts and logs without an id", function()
        local web = start(nil, { backends = { a } })
        local path = "/messages?sessionId=loud-and-clear"
        local stream = open(web, path)
        assert.equal(200, post(web, path).status)
        a:ask("stop")
        stream:wait()
        post(web, path)
        a:ask("start")
        plan(EVENT:format(path .. "%20"), nil, a)
        web:stream({ url = web.url .. "/sse" }):wait()
        local log = servers.read_file(web.dir .. "/requests.log")
        assert.is_nil(log:find("loud", 1, true))
        assert.same({ "bound", "not_found" }, { web:results()[1],
            web:results()[3] })
        web:wait_for_count("created", 1)
        servers.wait_for(function()
            return web:error_log():find("id that is not usable", 1, true)
        end, 5, "a message")
        for line in web:error_log():gmatch("[^\n]+") do
            if line:find("mooring:", 1, true) then
                assert.is_nil(line:find("loud", 1, true), line)
            end
        end
        web:stop()
    end)
end)
