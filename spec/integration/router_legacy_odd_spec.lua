-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The HTTP+SSE transport with backends that do something else, policies that
-- get in the way, and operators.

local cjson = require "cjson"
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

    it("passes what is not of the transport to any backend, where there is no MCP", function()
        local keyed = start('key = { header = "X-User" },')
        for _ = 1, 2 do
            local answer = assert(keyed:request { path = "/sse", body = proxy.CALL,
                                                  headers = { ["X-User"] = "ann" } })
            assert.equal(200, answer.status)
        end
        local results = keyed:stats().results
        assert.same({ 2, 0 }, { results.unpinned, results.created })
    end)

    it("has no business in the internal server, which answers 502 then", function()
        local wrong = start("", { location =
            "include $root/lua/resty/mooring/nginx/sse.conf;" })
        local id, answer = wrong:open()
        assert.same({ nil, 502 }, { id, answer.status })
        assert.equal(0, #proxy.seen(a))
        assert.equal(200, assert(wrong:request { body = proxy.CALL }).status)
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

    it("binds a session without what on_bind adds to it, if that is too much", function()
        local large = start([[policy = {
            on_bind = function(session) session.metadata.large = ("x"):rep(100000) end,
        },]])
        local stream = open(large, "large-1")
        assert.equal(200, post(large, "large-1").status)
        assert.equal(1, large:stats().policies.inline.on_bind.errors)
        stream:stop()
        large:wait_for_count("ended", 1)
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

    -- A storage whose answers are up to the spec. The dictionary `notes` has how
    -- a create answers, by the id of the session, and counts the creates.
    describe("with a store that", function()
        local STORE = [[
            local errors = require "resty.mooring.errors"
            local new_session = require("resty.mooring.session").new
            local inner = require("resty.mooring.local_storage").new { name = "inner" }
            local notes = ngx.shared.notes
            local how = {
                -- it is written, but nobody learns of that
                lost = function(s)
                    inner:create(s)
                    notes:delete(s.id)
                    return nil, "lost", errors.TIMEOUT
                end,
                -- as lost, and somebody else has had the id before
                taken = function(s)
                    inner:store(new_session(s.id, {
                        metadata = { backend_url = "http://127.0.0.1:1" } }))
                    notes:delete(s.id)
                    return nil, "lost", errors.TIMEOUT
                end,
                -- likewise, and that session is gone again when it is looked for
                fleeting = function(s)
                    if notes:incr("tries " .. s.id, 1, 0) == 1 then
                        return nil, "lost", errors.TIMEOUT
                    end
                    return nil, "taken", errors.ALREADY_EXISTS
                end,
                away = function(s)
                    if ngx.worker.exiting() then
                        notes:incr("leaving " .. s.id, 1, 0)
                    end
                    return nil, "away", errors.UNAVAILABLE
                end,
                picky = function(s)
                    if s.metadata.note then
                        return nil, "what a note", errors.INVALID
                    end
                    return inner:create(s)
                end,
                -- away at first
                late = function(s)
                    if notes:incr("tries " .. s.id, 1, 0) == 1 then
                        return nil, "away", errors.UNAVAILABLE
                    elseif s.metadata.note then
                        return nil, "what a note", errors.INVALID
                    end
                    return inner:create(s)
                end,
                stubborn = function()
                    return nil, "what a session", errors.INVALID
                end,
                slow = function(s)
                    while not notes:get("go") do
                        ngx.sleep(0.005)
                    end
                    return nil, "what a note", errors.INVALID
                end,
            }
            shelf = { create = function(_, s)
                notes:incr("creates " .. s.id, 1, 0)
                local act = how[notes:get(s.id)]
                if act then return act(s) end
                return inner:create(s)
            end }
            for _, name in ipairs { "store", "load", "delete", "delete_expired", "close" } do
                shelf[name] = function(_, ...) return inner[name](inner, ...) end
            end
        ]]
        local NOTES = [[ location = /note { content_by_lua_block {
            local notes = ngx.shared.notes
            for name, value in pairs(ngx.req.get_uri_args()) do
                notes:set(name, value)
            end
            local all = {}
            for _, name in ipairs(notes:get_keys(0)) do all[name] = notes:get(name) end
            ngx.say(require("cjson").encode(all))
        } } ]]
        local shelved

        local function options()
            return { before = STORE, http = "lua_shared_dict notes 100k;",
                     server = SERVER .. NOTES, workers = 1 }
        end

        before_each(function()
            shelved = start([[storage = shelf, policy = {
                on_bind = function(session) session.metadata.note = "n" end,
            },]], options())
        end)
        after_each(function() shelved:stop() end)

        local function note(query)
            local answer = assert(servers.http(shelved.url .. "/note?" .. query))
            return cjson.decode(answer.body)
        end

        local function open_noted(id, how)
            note(id .. "=" .. how)
            return open(shelved, id)
        end

        local function await_status(id, status)
            servers.wait_for(function() return post(shelved, id).status == status end, 10,
                status .. " for " .. id)
        end

        it("has taken a session without saying so, it is kept", function()
            local stream = open_noted("lost-1", "lost")
            servers.wait_for(function() return note("")["creates lost-1"] == 2 end, 10,
                "the second attempt")
            assert.equal(200, post(shelved, "lost-1").status)
            a:ask { op = "event", data = "go on" }
            stream:wait_for_body("go on")
            assert.equal(0, shelved:stats().results.orphans)
            stream:stop()
            shelved:wait_for_count("ended", 1)
            assert.equal(404, post(shelved, "lost-1").status)
        end)

        for _, how in ipairs { "taken", "fleeting" } do
            it("knows the id as another's, the stream is cut (" .. how .. ")", function()
                local stream = open_noted(how .. "-1", how)
                shelved:wait_for_count("orphans", 1)
                a:ask { op = "event", data = "go on" }
                stream:wait()
                assert.is_nil(stream:body():find("go on", 1, true))
                assert.matches("which is bound already", shelved:error_log(), 1, true)
                assert.equal(2, note("")["creates " .. how .. "-1"])
            end)
        end

        for how, when in pairs { picky = "later", late = "after an outage" } do
            it("finds fault with a session " .. when
                .. ", it is given it without what on_bind has added", function()
                local id = how .. "-1"
                local stream = open_noted(id, how)
                await_status(id, 200)
                assert.equal(1, shelved:stats().policies.inline.on_bind.errors)
                assert.equal(0, shelved:stats().results.orphans)
                a:ask { op = "event", data = "go on" }
                stream:wait_for_body("go on")
                stream:stop()
                shelved:wait_for_count("ended", 1)
            end)
        end

        it("takes a session in no way, its stream is cut", function()
            local stream = open_noted("stubborn-1", "stubborn")
            shelved:wait_for_count("orphans", 1)
            a:ask { op = "event", data = "go on" }
            stream:wait()
            assert.is_nil(stream:body():find("go on", 1, true))
            assert.equal(2, note("")["creates stubborn-1"])
            assert.equal(1, shelved:stats().policies.inline.on_bind.errors)
        end)

        it("finds fault with a session that has ended, it is not given it again", function()
            local stream = open_noted("slow-1", "slow")
            stream:stop()
            servers.wait_for(function()
                return a:ask({ op = "event", data = "x" }).streams == 0
            end, 5, "the stream to end")
            note("go=1")
            servers.wait_for(function()
                return shelved:stats().policies.inline.on_bind.errors == 1
            end, 5, "the answer")
            assert.equal(404, post(shelved, "slow-1").status)
            assert.equal(1, note("")["creates slow-1"])
        end)

        it("is away, it is asked once more for each session by a worker that leaves", function()
            local streams = { open_noted("away-1", "away"), open_noted("away-2", "away") }
            servers.wait_for(function()
                local notes = note("")
                return (notes["creates away-1"] or 0) + (notes["creates away-2"] or 0) > 2
            end, 10, "a first and a second attempt")
            shelved:reload()
            servers.wait_for(function()
                local notes = note("")
                return notes["leaving away-1"] and notes["leaving away-2"]
            end, 10, "the last attempts")
            for _, stream in ipairs(streams) do
                stream:stop()
            end
        end)
    end)
end)
