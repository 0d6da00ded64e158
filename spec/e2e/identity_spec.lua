-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A thief with a real MCP client: it knows the id of somebody's session, and has
-- a token of its own.

local replica = require "support.replica"
local servers = require "support.servers"
local tokens = require "support.tokens"

local UNKNOWN = "00000000-0000-4000-8000-000000000000"
local POLICY = [[
    policy = { require("resty.mooring.policy.identity").new {
        secret = "the secret of these specs", claim = "sub" }, "power_of_two" },
]]

local SSE = ([[
    include %s/lua/resty/mooring/nginx/location.conf;
    include %s/lua/resty/mooring/nginx/sse.conf;
]]):format(servers.root, servers.root)

describe("two replicas with the identity policy", function()
    local backends, a, b, clients
    local names = 0

    setup(function()
        local redis = servers.redis()
        backends = replica.backends(2)
        local function start()
            return replica.start { backends = backends, storage = redis.url, options = POLICY,
                server = "location = /sse {" .. SSE .. "} location = /messages {" .. SSE .. "}" }
        end
        a, b = start(), start()
        clients = replica.clients()
    end)
    teardown(function() servers.stop_all() end)

    -- A client that opens a session, or joins one, with somebody's token.
    local function open(who, urls, session)
        names = names + 1
        local name = who .. names
        local answer = clients:expect { op = "open", as = name, urls = urls, session = session,
            headers = { Authorization = tokens.bearer(who) } }
        return name, answer.session
    end

    local function call(name)
        return clients:ask { op = "call", as = name, tool = "counter" }
    end

    local function requests()
        local n = 0
        for _, backend in ipairs(backends) do
            n = n + (replica.inside(backend).requests.POST or 0)
        end
        return n
    end

    it("give a stolen session to nobody, through neither, and leave it to its owner", function()
        local owner, id = open("ann", { a.mcp, b.mcp })
        assert.equal(1, call(owner).value.count)
        for _, through in ipairs { a, b } do
            local before = requests()
            local stolen = call((open("eve", { through.mcp }, id)))
            local unknown = call((open("eve", { through.mcp }, UNKNOWN)))
            assert.is_false(stolen.ok)
            assert.equal(404, stolen.error.code)
            assert.same(unknown.error, stolen.error)
            assert.equal(before, requests())
        end
        for count = 2, 5 do
            assert.equal(count, call(owner).value.count)
        end
    end)

    it("give a session to another client of its owner", function()
        local one, id = open("ann", { a.mcp })
        local other = open("ann", { b.mcp }, id)
        assert.equal(1, call(one).value.count)
        assert.equal(2, call(other).value.count)
    end)

    it("do not let a thief end it", function()
        local owner, id = open("ann", { a.mcp })
        local thief = open("eve", { b.mcp }, id)
        assert.is_false(clients:ask({ op = "end", as = thief }).ok)
        assert.equal(1, call(owner).value.count)
        assert.is_true(clients:ask({ op = "end", as = owner }).ok)
        assert.is_false(call(owner).ok)
    end)

    it("do the same for sessions of the HTTP+SSE transport", function()
        local answer = clients:expect { op = "open", as = "legacy", sse = a.url .. "/sse",
            urls = { b.url }, headers = { Authorization = tokens.bearer "ann" } }
        local function post(web, id, who)
            return assert(servers.http(web.url .. "/messages?sessionId=" .. id, {
                method = "POST", body = '{"jsonrpc":"2.0","id":7,"method":"ping"}',
                headers = { ["Content-Type"] = "application/json",
                    Authorization = tokens.bearer(who) },
            }))
        end
        assert.equal(1, call("legacy").value.count)
        for _, web in ipairs { a, b } do
            local stolen, unknown = post(web, answer.session, "eve"), post(web, UNKNOWN, "eve")
            stolen.headers.date, unknown.headers.date = nil, nil
            assert.equal(404, stolen.status)
            assert.same(unknown, stolen)
            assert.equal(202, post(web, answer.session, "ann").status)
        end
        assert.equal(2, call("legacy").value.count)
        clients:expect { op = "close", as = "legacy" }
    end)
end)
