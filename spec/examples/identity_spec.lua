-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local examples = require "support.examples"
local proxy = require "support.proxy"
local servers = require "support.servers"
local tokens = require "support.tokens"

describe("identity.lua", function()
    local ANN = { Authorization = tokens.bearer "ann" }
    local EVE = { Authorization = tokens.bearer "eve" }
    local a, b, redis, one, two

    -- A replica: nginx with the policy, over the same Redis and backends.
    local function replica()
        return proxy.start {
            backends = { a, b },
            workers = 2,
            main = "env MOORING_SECRET;",
            env = { MOORING_SECRET = "the secret of these specs" },
            options = ("storage = %q, policy = { %q, \"least_sessions\" },")
                :format(redis.url, examples.path "identity.lua"),
        }
    end

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        redis = servers.redis()
        one, two = replica(), replica()
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    -- Status line, headers and body as they come over the wire, but for the date.
    local function answer(web, method, id, headers, body)
        local argv = { "curl", "-sS", "-i", "-X", method, web.mcp,
            "-H", "Content-Type: application/json",
            "-H", "Accept: application/json, text/event-stream",
            "-H", "MCP-Protocol-Version: " .. proxy.VERSION, "-H", "Mcp-Session-Id: " .. id }
        for name, value in pairs(headers) do
            argv[#argv + 1] = "-H"
            argv[#argv + 1] = name .. ": " .. value
        end
        if body then
            argv[#argv + 1] = "--data-binary"
            argv[#argv + 1] = body
        end
        return (servers.run(argv).out:gsub("\r\nDate: [^\r]*", ""))
    end

    local function is_refused(web, id, headers)
        for _, method in ipairs { "POST", "GET", "DELETE" } do
            local body = method == "POST" and proxy.CALL or nil
            local unknown = answer(web, method, "nobody-knows", headers, body)
            assert.matches("^HTTP/1.1 404 Not Found\r\n", unknown)
            assert.matches("Session not found", unknown, 1, true)
            assert.equal(unknown, answer(web, method, id, headers, body))
        end
    end

    it("answers a stolen id as an unknown one, on both replicas, by every method", function()
        local id = one:open { headers = ANN }
        is_refused(one, id, EVE)
        is_refused(two, id, EVE)
        is_refused(two, id, {})
        is_refused(two, id, { Authorization = "Bearer 2YotnFZFEjr1zCsicMWpAA" })
    end)

    it("lets no refused request reach a backend", function()
        local id = one:open { headers = ANN }
        local before = #proxy.seen(a) + #proxy.seen(b)
        is_refused(one, id, EVE)
        is_refused(two, id, EVE)
        assert.equal(before, #proxy.seen(a) + #proxy.seen(b))
    end)

    it("admits the owner on both replicas, whoever tries meanwhile", function()
        local id = one:open { headers = ANN }
        for _ = 1, 3 do
            for _, web in ipairs { one, two } do
                assert.equal(200, web:call(id, { headers = ANN }).status)
                is_refused(web, id, EVE)
            end
        end
        assert.equal(200, two:request({ id = id, method = "DELETE", headers = ANN }).status)
        assert.equal(404, one:call(id, { headers = ANN }).status)
    end)

    it("admits the owner with the next token", function()
        local id = one:open { headers = ANN }
        local renewed = { Authorization = "Bearer " .. tokens.make('{"exp":2,"sub":"ann"}') }
        assert.equal(200, two:call(id, { headers = renewed }).status)
    end)

    it("opens a session of her own for who comes with another's id", function()
        local id = one:open { headers = ANN }
        local answered = assert(two:request { id = id, body = proxy.INITIALIZE, version = false,
            headers = EVE })
        assert.equal(200, answered.status)
        local own = answered.headers["mcp-session-id"]
        assert.not_equal(id, own)
        assert.equal(200, one:call(own, { headers = EVE }).status)
        assert.equal(404, one:call(own, { headers = ANN }).status)
        assert.equal(200, one:call(id, { headers = ANN }).status)
    end)

    it("stores nothing that tells who the owner is", function()
        local id = one:open { headers = ANN }
        local record = redis:cli("GET", "mooring:session:" .. id)
        assert.matches('"owner":"%x+"', record)
        assert.is_nil(record:find("ann", 1, true))
    end)

    it("fails in no call", function()
        one:open { headers = ANN }
        for _, web in ipairs { one, two } do
            assert.is_nil(web:error_log():find("failed in", 1, true))
        end
    end)

    it("stops the start when there is no secret", function()
        assert.has_error(function() require("resty.mooring.testing")
            .policy(examples.path "identity.lua") end)
    end)
end)
