-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The HTTP+SSE transport with backends that do something else, policies that
-- get in the way, and operators.

local proxy = require "support.proxy"
local servers = require "support.servers"

local SSE = [[
    include $root/lua/resty/mooring/nginx/location.conf;
    include $root/lua/resty/mooring/nginx/sse.conf;
]]
local SERVER = "location /sse {" .. SSE .. "} location /messages {" .. SSE
    .. "} location = /admin { content_by_lua_block { router:admin() } }"
local EVENT = "event: endpoint\ndata: %s\n\n"

describe("router, HTTP+SSE, odd ones", function()
    local a, web

    local function start(options, more)
        local opts = { backends = { a }, server = SERVER,
                       options = 'storage = "local", ' .. (options or "") }
        for name, value in pairs(more or {}) do
            opts[name] = value
        end
        return proxy.start(opts)
    end

    setup(function()
        a = proxy.backend("a")
        web = start()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function() a:ask("reset") end)

    local function get(router)
        return assert(router:request { method = "GET", path = "/sse" })
    end

    -- A stream that begins with that; the process, too.
    local function begin(router, body)
        proxy.rule(a, { method = "GET", action = "stream", body = body })
        return router:stream { url = router.url .. "/sse" }
    end

    local function open(router, id)
        local stream = begin(router, EVENT:format("/messages?sessionId=" .. id))
        stream:wait_for_body(id)
        return stream
    end

    local function post(router, id)
        return assert(router:request { path = "/messages?sessionId=" .. id, body = proxy.CALL })
    end

    it("answers 503 to a stream while no backend takes sessions", function()
        local away = start("", {
            backends_lua = ('{ { url = %q, state = "draining" } }'):format(a.url) })
        local answer = get(away)
        assert.same({ 503, "1" }, { answer.status, answer.headers["retry-after"] })
        assert.equal(0, #proxy.seen(a))
    end)

    it("passes an answer on that is no stream, and binds nothing", function()
        local body = EVENT:format("/messages?sessionId=none-1")
        for _, rule in ipairs {
            { status = 200, headers = { ["content-type"] = "text/plain" } },
            { status = 405, headers = { ["content-type"] = "text/event-stream" } },
        } do
            rule.body = body
            proxy.rule(a, rule)
            local answer = get(web)
            assert.same({ rule.status, body }, { answer.status, answer.body })
            assert.equal(404, post(web, "none-1").status)
        end
    end)

    it("passes a stream on that ends before it names a session", function()
        proxy.rule(a, { body = "event: endpoint\ndata: /messages?sessionId=none-2",
            headers = { ["content-type"] = "text/event-stream" } })
        assert.equal(200, get(web).status)
        assert.equal(404, post(web, "none-2").status)
    end)

    it("cuts a stream that names several sessions", function()
        local stream = begin(web, EVENT:format("/messages?sessionId=one&sessionId=two"))
        stream:wait()
        assert.equal("", stream:body())
        assert.matches("there are several", web:error_log(), 1, true)
        assert.equal(404, post(web, "one").status)
    end)

    it("answers 404 for a session whose backend was dropped", function()
        local stream = open(web, "dropped-1")
        assert.equal(200, post(web, "dropped-1").status)
        local dropped = assert(servers.http(web.url .. "/admin?do=drop&backend=" .. a.url,
            { method = "POST" }))
        assert.equal(200, dropped.status)
        assert.equal(404, post(web, "dropped-1").status)
        stream:stop()
    end)

    it("binds a session without what on_bind makes of it, if that cannot be stored",
       function()
        local wrong = start([[policy = {
            on_bind = function(session) session.metadata.owner = { "a table" } end,
        },]])
        local stream = open(wrong, "wrong-1")
        assert.equal(200, post(wrong, "wrong-1").status)
        assert.matches("on_bind", wrong:error_log(), 1, true)
        stream:stop()
        wrong:wait_for_count("ended", 1)
    end)

    it("asks on_unreachable of a policy with the id of the URL", function()
        local keeping = start([[max_fails = 0, policy = {
            on_unreachable = function(_, req)
                return req.session_id == "kept-1" and "keep" or "forget"
            end,
        },]])
        -- Other workers would know of an open stream that it has ended.
        local first, second = open(keeping, "kept-1"), open(keeping, "forgotten-1")
        assert.equal(200, post(keeping, "kept-1").status)
        proxy.rule(a, { method = "POST", status = 404, times = 2 })
        assert.equal(404, post(keeping, "kept-1").status)
        assert.equal(404, post(keeping, "forgotten-1").status)
        keeping:wait_for_count("forgotten", 1)
        assert.equal(200, post(keeping, "kept-1").status)
        assert.equal(404, post(keeping, "forgotten-1").status)
        first:stop()
        second:stop()
    end)
end)
