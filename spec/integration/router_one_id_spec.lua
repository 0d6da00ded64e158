-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The router must not look up, and a policy not admit, another id than the one
-- the backend reads in the same request. Alice has the session "alice1", mallory
-- has "mal"; every request here is mallory's, and of those that could be read as
-- alice's none may arrive.

local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, one id of a request:", function()
    local a, web

    setup(function() a = proxy.backend("a") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        proxy.rule(a, { body = "ok", times = 10000 })
    end)
    after_each(function()
        web:stop()
        web = nil
    end)

    local function start(key, opts)
        opts = opts or {}
        opts.backends = { a }
        opts.options = ([[
            key = %s,
            policy = require("resty.mooring.policy.identity").new {
                secret = "the secret of these specs", header = "X-Caller",
            },
        ]]):format(key)
        web = proxy.start(opts)
    end

    local function ask(caller, opts)
        local headers = { ["X-Caller"] = caller }
        for name, value in pairs(opts.headers or {}) do
            headers[name] = value
        end
        return assert(web:request { method = "GET", version = false,
            path = opts.path, headers = headers, flags = opts.flags or { "-g" } }).status
    end

    local function arrived() return #proxy.seen(a) end

    -- `with(text)` makes the request; texts by the status that mallory gets.
    local function is_kept(with, statuses)
        for status, texts in pairs(statuses) do
            for _, text in ipairs(texts) do
                local before = arrived()
                assert.same({ text, status }, { text, ask("mallory", with(text)) })
                assert.equal(before + (status == 200 and 1 or 0), arrived())
            end
        end
    end

    describe("an argument", function()
        local function query(text) return { path = "/mcp?" .. text } end

        before_each(function()
            start '{ arg = "tok" }'
            assert.equal(200, ask("alice", query "tok=alice1"))
            assert.equal(200, ask("mallory", query "tok=mal"))
        end)

        it("is decoded, whatever way it is written", function()
            is_kept(query, { [404] = {
                "tok=alice1", "tok=alice%31", "t%6fk=alice1", "a=b&%74ok=%61lice1",
                "TOK=alice1", "tok[]=alice1", "tok%5B0%5D=alice1", "+tok=alice1",
                "x=tok&tok=alice1", "a;b&tok=alice1",
            } })
            for _, text in ipairs { "tok=alice%31", "t%6Fk=%61lice1", "Tok=alice1" } do
                assert.equal(200, ask("alice", query(text)))
            end
            assert.equal(2, web:stats().results.created)
        end)

        it("that is there twice is refused, in any disguise", function()
            is_kept(query, { [400] = {
                "tok=mal&tok=alice1", "tok=alice1&tok=mal", "tok=&tok=alice1",
                "tok&tok=alice1", "tok=mal&t%6fk=alice1", "tok=mal&TOK=alice1",
                "tok=mal&tok[]=alice1", "tok=mal&tok=mal",
            } })
            assert.equal(8, web:stats().results.invalid)
        end)

        it("behind a separator that not everybody takes for one is refused", function()
            is_kept(query, { [400] = {
                "a;tok=alice1", "a=b;tok=alice1", "tok=mal;tok=alice1", "tok=mal;x",
                "a;t%6fk=alice1",
            } })
        end)

        it("behind a # is refused", function()
            for _, target in ipairs { "/mcp?tok=mal#&tok=alice1", "/mcp#?tok=alice1" } do
                local before = arrived()
                assert.equal(400, ask("mallory",
                    { flags = { "--request-target", target } }))
                assert.equal(before, arrived())
            end
        end)

        it("that is no text or cannot be an id is refused", function()
            is_kept(query, { [400] = {
                "tok=alice1%", "tok=alice1%zz", "t%u006fk=alice1", "tok=a+b",
                "tok=alice1%00", "tok=alice1%20", "tok=%C3%A9",
            } })
        end)

        it("is not found in other names and values", function()
            is_kept(query, { [200] = {
                "tok=mal", "tok=m%61l", "a=tok&tok=mal&b=100%", "tokens=alice1",
                "x=tok=alice1", "mytok=alice1", "tok=", "tok", "a=b;c&tok=mal",
                "q=a+b&tok=mal", "tok.x=alice1",
            } })
        end)
    end)

    it("an argument whose name has a _ is that of PHP, too", function()
        start '{ arg = "my_tok" }'
        local function query(text) return { path = "/mcp?" .. text } end
        assert.equal(200, ask("alice", query "my_tok=alice1"))
        is_kept(query, {
            [404] = { "my.tok=alice1", "my+tok=alice1", "my[tok=alice1" },
            [400] = { "my_tok=mal&my.tok=alice1" },
            [200] = { "my_tok=mal.x", "my-tok=alice1" },
        })
    end)

    describe("a cookie", function()
        local function cookie(text) return { headers = { Cookie = text } } end

        before_each(function()
            start '{ cookie = "sid" }'
            assert.equal(200, ask("alice", cookie "sid=alice1"))
            assert.equal(200, ask("mallory", cookie "sid=mal"))
        end)

        it("has a name with case, and a value that may be quoted", function()
            is_kept(cookie, { [404] = {
                "sid=alice1", "SID=mal; sid=alice1", "sid=alice1; SID=mal",
                'sid="alice1"', "a=b; sid=alice1 ; c=d", "a=b;sid = alice1",
                "x=sid; sid=alice1", "xsid=mal; sid=alice1", "sid=alice1; sid=alice1",
                'sid=alice1; sid="alice1"', "\194\160sid=alice1", "sid[]=alice1",
            } })
            assert.equal(200, ask("alice", cookie 'a=b; sid="alice1"'))
        end)

        it("is decoded, as some backends do", function()
            is_kept(cookie, {
                [404] = { "sid=alic%651", 'sid="%61lice1"' },
                [400] = { "sid=alic%65; sid=alice1", "sid=alice1%", "sid=a%20b",
                          "sid=alice1\\", "sid=alice1\tx", "sid=alice1 x" },
            })
            assert.equal(200, ask("alice", cookie "sid=alic%651"))
        end)

        it("that is there with two values is refused", function()
            is_kept(cookie, { [400] = {
                "sid=mal; sid=alice1", "sid=alice1; sid=mal", "sid=; sid=alice1",
                "sid; sid=alice1", 'x="; sid=mal; "; sid=alice1',
            } })
            assert.equal(400, ask("mallory",
                { headers = { Cookie = { "sid=mal", "sid=alice1" } } }))
        end)

        it("that not everybody reads alike is refused", function()
            is_kept(cookie, { [400] = {
                "a=b, sid=alice1", "a=b,sid=alice1", "sid=mal, sid=alice1",
                'sid="alic\\1451"', 'sid="alice1x', "sid=two words",
            } })
        end)

        it("is not found in other names and values", function()
            is_kept(cookie, { [200] = {
                "sid=mal", "SID=alice1", "xsid=alice1", "sid2=alice1; sid=mal",
                "x=sid=alice1", 'a="b, c"; sid=mal', "sid=", "sid", "a=b",
                "a=100%; sid=mal",
            } })
        end)
    end)

    it("a cookie whose name has a _ is that of PHP, too", function()
        start '{ cookie = "my_sid" }'
        local function cookie(text) return { headers = { Cookie = text } } end
        assert.equal(200, ask("alice", cookie "my_sid=alice1"))
        is_kept(cookie, {
            [404] = { "my.sid=alice1" },
            [400] = { "my_sid=mal; my.sid=alice1" },
            [200] = { "my_sid=mal.x", "a=b" },
        })
    end)

    describe("a header", function()
        local function seen()
            local requests = proxy.seen(a)
            return requests[#requests].headers
        end

        it("that is there twice is passed on once, as it was looked up", function()
            start '{ header = "X-User" }'
            assert.equal(200, ask("alice", { headers = { ["X-User"] = "alice1" } }))
            assert.equal("alice1", seen()["x-user"])
            -- nginx from 1.23 makes "mal, alice1" of them, which is no id
            local status = ask("mallory",
                { headers = { ["X-User"] = { "mal", "alice1" } } })
            assert.is_true(status == 200 and seen()["x-user"] == "mal"
                or status == 400)
            assert.not_equal(200, ask("mallory",
                { headers = { ["X-User"] = { "alice1", "mal" } } }))
            status = ask("mallory", { headers = { ["X-User"] = { "", "alice1" } } })
            assert.is_true(status == 200 and seen()["x-user"] == nil
                or status >= 400)
        end)

        it("is found among more headers than are listed", function()
            start '{ header = "X-User" }'
            local headers = { ["X-User"] = "alice1" }
            for i = 1, 70 do
                headers["X-" .. i] = "a"
            end
            assert.equal(200, ask("alice", { headers = headers }))
            assert.equal("alice1", seen()["x-user"])
            assert.equal(404, ask("mallory", { headers = headers }))
        end)

        it("is the only one of its name, also with _ for -", function()
            start('{ header = "X-User" }', { http = "underscores_in_headers on;" })
            assert.equal(200, ask("alice", { headers = { ["X-User"] = "alice1" } }))
            assert.equal(404, ask("mallory", { headers = { X_User = "alice1" } }))
            local status = ask("mallory",
                { flags = { "-H", "X-User: mal", "-H", "X_User: alice1" } })
            assert.is_true(status == 200 and seen()["x-user"] == "mal"
                and seen().x_user == nil or status == 400)
        end)
    end)

    it("a policy's own key goes before one that is ambiguous", function()
        web = proxy.start { backends = { a }, options = [[
            key = { arg = "tok" },
            policy = { key = function(req)
                return req.headers["X-Own"] or req.session_id == false and "false"
            end },
        ]] }
        local twice = "/mcp?tok=a&tok=b"
        assert.equal(400, ask(nil, { path = twice }))
        assert.equal(200, ask(nil, { path = twice, headers = { ["X-Own"] = "c" } }))
        assert.equal(200, ask(nil, { path = "/mcp?tok=a" }))
    end)
end)
