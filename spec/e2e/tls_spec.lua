-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- TLS between client and replica, and between replica and server.

local cjson = require "cjson"
local replica = require "support.replica"
local servers = require "support.servers"

-- A self-signed certificate for 127.0.0.1.
local function certificate()
    local dir = servers.tmpdir()
    local result = servers.run { "openssl", "req", "-x509", "-nodes", "-days",
        "2", "-newkey", "rsa:2048", "-subj", "/CN=127.0.0.1", "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:mcp.example", "-keyout",
        dir .. "/key.pem", "-out", dir .. "/cert.pem" }
    assert(result.code == 0, result.err)
    return { cert = dir .. "/cert.pem", key = dir .. "/key.pem" }
end

local INITIALIZE = cjson.encode {
    jsonrpc = "2.0", id = 1, method = "initialize",
    params = {
        protocolVersion = "2025-06-18", capabilities = cjson.decode("{}"),
        clientInfo = { name = "curl", version = "8" },
    },
}
local COUNT = cjson.encode {
    jsonrpc = "2.0", id = 2, method = "tools/call",
    params = { name = "counter" },
}

describe("TLS", function()
    local pem, clients

    setup(function()
        pem = certificate()
        clients = replica.clients { NODE_EXTRA_CA_CERTS = pem.cert }
    end)

    teardown(function() servers.stop_all() end)

    local function open(name, web)
        return clients:expect {
            op = "open", as = name, urls = { web.mcp },
        }.session
    end

    local function call(name)
        return clients:expect { op = "call", as = name, tool = "counter" }.value
    end

    local function start_secure()
        return replica.start {
            backends = replica.backends(2),
            listen = "ssl http2",
            server = ("ssl_certificate %s; ssl_certificate_key %s;"):format(
                pem.cert, pem.key),
        }
    end

    -- A replica in front of HTTPS servers that trusts this certificate.
    local function start_inside(trusted)
        local backends = replica.backends(2, "--cert=" .. pem.cert,
            "--key=" .. pem.key)
        local list = {}
        for i, backend in ipairs(backends) do
            list[i] = ('{ url = %q, server_name = "mcp.example" }'):format(
                backend.url)
        end
        return replica.start {
            backends = list,
            location = "include " .. servers.root
                .. "/lua/resty/mooring/nginx/tls.conf;"
                .. "proxy_ssl_trusted_certificate " .. trusted .. ";",
        }, backends
    end

    it("from the client carries sessions", function()
        local web = start_secure()
        assert.matches("^https:", web.mcp)
        open("secure", web)
        local server = call("secure").server
        assert.same({ count = 2, server = server }, call("secure"))
        clients:expect { op = "end", as = "secure" }
    end)

    it("with HTTP/2 carries sessions", function()
        local web = start_secure()
        local function request(method, session, body)
            return assert(servers.http(web.mcp, {
                method = method, body = body,
                flags = { "--http2", "--cacert", pem.cert },
                headers = {
                    ["Content-Type"] = "application/json",
                    Accept = "application/json, text/event-stream",
                    ["Mcp-Session-Id"] = session,
                },
            }))
        end
        local opened = request("POST", nil, INITIALIZE)
        assert.equal(200, opened.status)
        assert.equal("2", opened.version)
        local session = opened.headers["mcp-session-id"]
        local answer = request("POST", session, COUNT)
        assert.equal(200, answer.status)
        assert.matches('"count":1', answer.body, 1, true)
        assert.equal(200, request("DELETE", session).status)
        assert.equal(404, request("POST", session, COUNT).status)
    end)

    it("to the servers carries sessions", function()
        local web = start_inside(pem.cert)
        open("inside", web)
        local server = call("inside").server
        assert.same({ count = 2, server = server }, call("inside"))
        clients:expect { op = "end", as = "inside" }
    end)

    it("to a server that cannot prove who it is carries nothing", function()
        local web, backends = start_inside(certificate().cert)
        local answer = clients:ask {
            op = "open", as = "fooled", urls = { web.mcp },
        }
        assert.equal(502, answer.error.code)
        for _, backend in ipairs(backends) do
            assert.same({}, replica.inside(backend).requests)
        end
    end)
end)
