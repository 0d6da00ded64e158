-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- router:drain(url), :undrain, :set_down and :drop, for a location of one's own.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, methods for operators", function()
    local a, b, web

    -- router:drain(url) and so on, in a location of its own.
    local METHODS = [[
        location = /do { content_by_lua_block {
            local args = ngx.req.get_uri_args()
            local url = args.url
            if args.wrong then url = 5 end
            local ran, ok, err, code = pcall(router[args.method], router, url)
            ngx.say(require("cjson").encode { ran = ran, ok = ok, err = err, code = code })
        } }
    ]]

    local function state_of(backend)
        for _, each in ipairs(web:stats().backends) do
            if each.url == backend.url then
                return each.state
            end
        end
    end

    -- Opens sessions until each of these backends has one.
    local function open_on(...)
        local ids = {}
        for _, backend in ipairs { ... } do
            servers.wait_for(function()
                local id, answer = web:open()
                ids[answer.headers["x-served-by"]] = id
                return ids[backend.name]
            end, 10, "a session at " .. backend.name)
        end
        return ids
    end

    local function served_by(answer)
        return answer.headers["x-served-by"]
    end

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        web = proxy.start { backends = { a, b }, server = METHODS,
            options = 'storage = "local",' }
    end)
    teardown(function() servers.stop_all() end)

    local function call(method, url, more)
        local answer = assert(servers.http(("%s/do?method=%s&url=%s%s"):format(web.url,
            method, url, more or "")))
        return cjson.decode(answer.body)
    end

    for method, state in pairs { drain = "draining", set_down = "down" } do
        it("take a backend out of the choice with " .. method .. ", and back with undrain",
           function()
            assert.same({ ran = true, ok = true }, call(method, a.url))
            assert.equal(state, state_of(a))
            for _ = 1, 4 do
                assert.equal("b", served_by(select(2, web:open())))
            end
            assert.same({ ran = true, ok = true }, call("undrain", a.url))
            assert.equal("up", state_of(a))
            open_on(a, b)
        end)
    end

    it("end the sessions of a backend with drop", function()
        local ids = open_on(a, b)
        assert.same({ ran = true, ok = true }, call("drop", a.url))
        assert.equal(404, web:call(ids.a).status)
        assert.equal("b", served_by(web:call(ids.b)))
        open_on(a)
    end)

    it("say that there is no such backend", function()
        for _, method in ipairs { "drain", "undrain", "set_down", "drop" } do
            local said = call(method, "http://10.9.9.9:1")
            assert.same({ true, "there is no such backend", "not_found" },
                { said.ran, said.err, said.code })
            assert.is_nil(said.ok)
        end
    end)

    it("raise for what is no URL, and blame the caller", function()
        local said = call("drain", a.url, "&wrong=1")
        assert.is_false(said.ran)
        assert.matches("url must be a string", said.ok, 1, true)
    end)
end)
