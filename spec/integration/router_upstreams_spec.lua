-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

-- A self-signed certificate for these names.
local function certificate(names)
    local dir = servers.tmpdir()
    local result = servers.run { "openssl", "req", "-x509", "-nodes", "-days",
        "2", "-newkey", "rsa:2048", "-subj", "/CN=spec", "-addext",
        "subjectAltName=" .. names, "-keyout", dir .. "/key.pem", "-out",
        dir .. "/cert.pem" }
    assert(result.code == 0, result.err)
    return { cert = dir .. "/cert.pem", key = dir .. "/key.pem" }
end

local function serves(web, name)
    local id, opened = web:open()
    assert.equal(name, opened.headers["x-served-by"])
    assert.equal(1, cjson.decode(web:call(id).body).count)
    assert.equal(200, web:request({ body = proxy.CALL }).status)
    assert.equal(200, web:delete(id).status)
    assert.equal(404, web:call(id).status)
end

describe("router, backends given by an IPv6 address", function()
    teardown(function() servers.stop_all() end)

    it("serve sessions, and are forgotten when they are gone", function()
        local six = proxy.backend("six", { "--host=::1" })
        assert.matches("^http://%[::1%]:", six.url)
        local web = proxy.start { backends = { six } }
        serves(web, "six")
        local id = web:open()
        six:ask("stop")
        assert.equal(404, web:call(id).status)
        assert.equal(1, web:stats().results.forgotten)
    end)
end)

describe("router, backends given by name", function()
    local a, dns, web

    setup(function()
        a = proxy.backend("a")
        dns = servers.node("spec/fixtures/backends/dns.mjs")
        dns:ask { op = "name", name = "a.test", address = "127.0.0.1" }
        web = proxy.start {
            backends = { ('"http://a.test:%d"'):format(a.port) },
            http = ("resolver 127.0.0.1:%d valid=1s ipv6=off; "):format(
                dns.port) .. "resolver_timeout 500ms;",
        }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        dns:ask { op = "name", name = "a.test", address = "127.0.0.1" }
        servers.wait_for(function()
            return web:request({ body = proxy.CALL }).status == 200
        end, 5, "the name to resolve")
    end)

    it("serve sessions", function()
        serves(web, "a")
    end)

    it("that refuse connections are forgotten", function()
        local id = web:open()
        a:ask("stop")
        local status = web:call(id).status
        a:ask("start")
        assert.equal(404, status)
        assert.equal(404, web:call(id).status)
    end)

    it("whose name is gone are forgotten", function()
        local id = web:open()
        dns:ask { op = "name", name = "a.test", address = cjson.null }
        servers.wait_for(function()
            local status = web:call(id).status
            assert.is_truthy(status == 200 or status == 404)
            return status == 404
        end, 5, "a 404")
        assert.equal(502, web:request({ body = proxy.CALL }).status)
    end)

    it("whose name server is silent keep their sessions", function()
        local id = web:open()
        dns:pause()
        local status
        servers.wait_for(function()
            status = web:call(id).status
            return status ~= 200
        end, 10, "another answer than 200")
        dns:resume()
        assert.equal(502, status)
        servers.wait_for(function() return web:call(id).status == 200 end, 5,
            "the session")
    end)
end)

describe("router, backends with TLS", function()
    local pem, a
    local TLS = servers.root .. "/lua/resty/mooring/nginx/tls.conf"

    setup(function()
        pem = certificate("DNS:mcp.example")
        a = proxy.backend("a", { "--cert=" .. pem.cert, "--key=" .. pem.key })
    end)
    teardown(function() servers.stop_all() end)
    before_each(function() a:ask("reset") end)

    local function options(server_name, trusted)
        return {
            backends = { ("{ url = %q, server_name = %q }"):format(a.url,
                server_name) },
            location = trusted and ("include %s; "
                .. "proxy_ssl_trusted_certificate %s;"):format(TLS, trusted),
        }
    end

    local function start(...)
        return proxy.start(options(...))
    end

    it("serve sessions", function()
        serves(start("mcp.example", pem.cert), "a")
    end)

    it("keep their connections", function()
        local web = start("mcp.example", pem.cert)
        local id = web:open()
        web:call(id)
        local before = a:ask("sockets").accepted
        for _ = 1, 3 do
            web:call(id)
        end
        assert.equal(before, a:ask("sockets").accepted)
    end)

    it("get nothing when they show a certificate for another name", function()
        local web = start("other.example", pem.cert)
        assert.equal(502, select(2, web:open()).status)
        assert.equal(502, web:request({ body = proxy.CALL }).status)
        assert.equal(0, #proxy.seen(a))
    end)

    it("keep their sessions when the handshake fails", function()
        local web = start("mcp.example", pem.cert)
        local id = web:open()
        web:reload_with(options("other.example", pem.cert))
        assert.equal(502, web:call(id).status)
        assert.equal(502, web:delete(id).status)
        web:reload_with(options("mcp.example", pem.cert))
        assert.equal(200, web:call(id).status)
    end)

    it("get nothing when nobody vouches for their certificate", function()
        local web = start("mcp.example", certificate("DNS:mcp.example").cert)
        assert.equal(502, select(2, web:open()).status)
        assert.equal(0, #proxy.seen(a))
    end)

    it("get nothing while tls.conf is not included", function()
        local web = start("mcp.example")
        assert.equal(502, select(2, web:open()).status)
        assert.equal(502, web:request({ body = proxy.CALL }).status)
        assert.equal(0, #proxy.seen(a))
        assert.matches("include tls.conf", web:error_log())
    end)
end)

describe("router, a location with location_plain.conf", function()
    local CONF = servers.root .. "/lua/resty/mooring/nginx/"

    teardown(function() servers.stop_all() end)

    it("is one with location.conf but for three variables", function()
        local function directives(file)
            local lines = {}
            for line in servers.read_file(CONF .. file):gmatch("[^\n]+") do
                if not line:find("^#") then
                    lines[#lines + 1] = line
                end
            end
            return lines
        end
        local plain, general = directives("location_plain.conf"), directives("location.conf")
        local SAME = { ["http://mooring"] = "$mooring_upstream",
                       ["$proxy_add_x_forwarded_for"] = "$mooring_forwarded_for",
                       ["$scheme"] = "$mooring_forwarded_proto" }
        for i, line in ipairs(plain) do
            plain[i] = line:gsub("%S+;", function(value)
                local general_one = SAME[value:sub(1, -2)]
                return general_one and general_one .. ";"
            end)
        end
        assert.same(general, plain)
        assert.is_true(#plain > 15)
    end)

    it("serves sessions, tells backends of the client, and logs where requests went", function()
        local a = proxy.backend("a")
        local web = proxy.start { backends = { a }, plain = true, workers = 1 }
        serves(web, "a")
        for _, request in ipairs(proxy.seen(a)) do
            assert.same({ "http", "127.0.0.1" }, {
                request.headers["x-forwarded-proto"],
                request.headers["x-forwarded-for"] })
        end
        local id = web:open()
        assert.equal(200, web:call(id, { headers = { ["X-Forwarded-For"] = "192.0.2.1" } }).status)
        local seen = proxy.seen(a)
        assert.equal("192.0.2.1, 127.0.0.1", seen[#seen].headers["x-forwarded-for"])
        assert.equal(a.url, web:last_backend())
    end)

    it("is not replaced by a proxy_pass alone, which is answered 502", function()
        local a = proxy.backend("a")
        local web = proxy.start { backends = { a }, workers = 1, server = [[
            location = /bare { proxy_pass http://mooring; }
            location = /half {
                proxy_pass http://mooring;
                error_page 502 504 = @mooring_unreachable;
            } ]] }
        for _, path in ipairs { "/bare", "/half" } do
            assert.equal(502, web:request({ path = path, body = proxy.CALL }).status)
        end
        assert.equal(0, #proxy.seen(a))
        assert.equal(1, web:stats().results.failed)
        assert.matches('a request came to the upstream "mooring" that does not belong there',
            web:error_log(), 1, true)
    end)

    local function keeps_sessions(opts)
        local web = proxy.start(opts)
        local id, opened = web:open()
        assert.equal("a", opened.headers["x-served-by"]) -- by the internal server
        for _ = 1, 2 do
            assert.equal(502, web:call(id).status)
        end
        assert.matches("that backend needs location.conf", web:error_log())
        assert.equal(2, web:stats().results.failed)
        opts.plain = false
        web:reload_with(opts)
        local answer = web:call(id)
        assert.equal(200, answer.status)
        assert.equal(1, cjson.decode(answer.body).count)
    end

    it("sends nothing to a backend with TLS, whose sessions are kept", function()
        local pem = certificate("DNS:mcp.example")
        local a = proxy.backend("a", { "--cert=" .. pem.cert, "--key=" .. pem.key })
        keeps_sessions { plain = true, workers = 1,
            backends = { ("{ url = %q, server_name = 'mcp.example' }"):format(a.url) },
            location = ("include %stls.conf; proxy_ssl_trusted_certificate %s;"):format(
                CONF, pem.cert) }
    end)

    it("in the internal server loses no session of such a backend, either", function()
        local pem = certificate("DNS:mcp.example")
        local a = proxy.backend("a", { "--cert=" .. pem.cert, "--key=" .. pem.key })
        local opts = { workers = 1,
            backends = { ("{ url = %q, server_name = 'mcp.example' }"):format(a.url) },
            location = ("include %stls.conf; proxy_ssl_trusted_certificate %s;"):format(
                CONF, pem.cert) }
        local web = proxy.start(opts)
        local id = web:open()
        opts.plain_inside = true
        web:reload_with(opts)
        assert.equal(502, web:delete(id).status)
        assert.equal(502, select(2, web:open()).status)
        assert.equal(200, web:call(id).status)
        assert.equal(0, #proxy.seen(a, "DELETE"))
    end)

    it("sends nothing to a backend given by name, whose sessions are kept", function()
        local a = proxy.backend("a")
        local dns = servers.node("spec/fixtures/backends/dns.mjs")
        dns:ask { op = "name", name = "a.test", address = "127.0.0.1" }
        keeps_sessions { plain = true, workers = 1,
            backends = { ('"http://a.test:%d"'):format(a.port) },
            http = ("resolver 127.0.0.1:%d valid=1s ipv6=off;"):format(dns.port) }
    end)
end)

describe("router, clients with TLS", function()
    teardown(function() servers.stop_all() end)

    it("open, use and end sessions, over HTTP/1.1 and HTTP/2", function()
        local pem = certificate("DNS:proxy.example")
        local a = proxy.backend("a")
        local web = proxy.start { backends = { a },
            listen = ("listen 127.0.0.1:$port2 ssl http2; "
                .. "ssl_certificate %s; ssl_certificate_key %s;"):format(
                pem.cert, pem.key) }
        web.url = "https://127.0.0.1:" .. web.port2
        for _, version in ipairs { "--http1.1", "--http2" } do
            local function request(opts)
                opts.flags = { "--insecure", version }
                return assert(web:request(opts))
            end
            local id = request({ body = proxy.INITIALIZE, version = false })
                .headers["mcp-session-id"]
            assert.equal(200, request({ id = id, body = proxy.CALL }).status)
            assert.equal(200, request({ id = id, method = "DELETE" }).status)
            assert.equal(404, request({ id = id, body = proxy.CALL }).status)
        end
        for _, request in ipairs(proxy.seen(a)) do
            assert.same({ "https", "127.0.0.1" }, {
                request.headers["x-forwarded-proto"],
                request.headers["x-forwarded-for"] })
        end
    end)
end)
