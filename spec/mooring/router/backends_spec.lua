-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local backends = require "resty.mooring.router.backends"

describe("resty.mooring.router.backends", function()
    describe(".parse", function()
        for url, normal in pairs {
            ["http://10.0.0.1:8080"] = "http://10.0.0.1:8080",
            ["http://10.0.0.1"] = "http://10.0.0.1:80",
            ["https://10.0.0.1"] = "https://10.0.0.1:443",
            ["HTTP://Backend.Example"] = "http://backend.example:80",
            ["http://[FD00::1]:81"] = "http://[fd00::1]:81",
            ["https://[::1]"] = "https://[::1]:443",
            ["http://a-b_c.d:1"] = "http://a-b_c.d:1",
            ["http://x:65535"] = "http://x:65535",
        } do
            it("normalises " .. url, function()
                assert.equal(normal, backends.parse(url).url)
            end)
        end

        for url, must in pairs {
            [""] = "must begin with http",
            ["10.0.0.1:80"] = "must begin with http",
            ["ftp://x"] = "must begin with http",
            ["http:/x"] = "must begin with http",
            ["http://"] = "must name a host",
            ["http://:80"] = "must name a host",
            ["http://a b"] = "must name a host",
            ["http://a\nb"] = "must name a host",
            ["http://-a"] = "must name a host",
            ["http://a..b"] = "must name a host",
            ["http://1.2.3"] = "must name a host",
            ["http://1.2.3.4.5"] = "must name a host",
            ["http://256.1.1.1"] = "must name a host",
            ["http://010.0.0.1"] = "must name a host",
            ["http://x:"] = "must have a port",
            ["http://x:0"] = "must have a port",
            ["http://x:65536"] = "must have a port",
            ["http://x:8o"] = "must have a port",
            ["http://x:1:2"] = "must have a port",
            ["http://[::1"] = "must hold an IPv6 address",
            ["http://[x]"] = "must hold an IPv6 address",
            ["http://[]"] = "must hold an IPv6 address",
            ["http://[12]"] = "must hold an IPv6 address",
            ["http://[1:::2]"] = "must hold an IPv6 address",
            ["http://[::1]x"] = "must have a port",
            ["http://x/"] = "must not have a path",
            ["http://x/mcp"] = "must not have a path",
            ["http://x?a=1"] = "must not have a query",
            ["http://x#f"] = "must not have a fragment",
            ["http://u:p@x"] = "must not have a user or password",
        } do
            it(("refuses %q"):format(url), function()
                local peer, why = backends.parse(url)
                assert.is_nil(peer)
                assert.equal(must, why:sub(1, #must))
            end)
        end

        it("tells addresses, which the balancer sets, from names, which nginx "
            .. "resolves", function()
            local function where(url)
                local peer = backends.parse(url)
                return { peer.address, peer.port, peer.upstream }
            end
            assert.same({ "10.0.0.1", 80 }, where("http://10.0.0.1"))
            assert.same({ "[::1]", 81 }, where("http://[::1]:81"))
            assert.same({ "10.0.0.1", 443, "https://mooring_tls" },
                where("https://10.0.0.1"))
            assert.same({ nil, 80, "http://x:80" }, where("http://x"))
            assert.same({ nil, 443, "https://x:443" }, where("https://x"))
        end)

        it("never makes the name of an upstream of http.conf", function()
            assert.equal("http://mooring:80",
                backends.parse("http://mooring").upstream)
        end)

        it("verifies the host's own name", function()
            assert.equal("x.y", backends.parse("https://x.y:1").tls_name)
            assert.equal("::1", backends.parse("https://[::1]").tls_name)
        end)
    end)

    describe(".read", function()
        local function fails(list, text)
            local peers, why = backends.read(list)
            assert.is_nil(peers)
            assert.is_truthy(why:find(text, 1, true), why)
        end

        it("fills in weight and state", function()
            local peers = backends.read { "http://a", { url = "https://b:1",
                weight = 3, state = "draining", server_name = "c" } }
            assert.same({ 1, "up", "a" },
                { peers[1].weight, peers[1].state, peers[1].tls_name })
            assert.same({ 3, "draining", "c" },
                { peers[2].weight, peers[2].state, peers[2].tls_name })
        end)

        it("names what is wrong with which entry", function()
            fails(nil, "must be an array of at least one backend")
            fails({}, "must be an array of at least one backend")
            fails({ "http://a", 3 }, "entry 2 must be a URL or a table")
            fails({ {} }, "entry 1 must be a URL or a table")
            fails({ "http://a/x" }, 'entry 1 ("http://a/x") must not have a '
                .. "path")
            fails({ { url = "http://a", wieght = 1 } },
                "has a field that is not known: wieght")
            fails({ { url = "http://a", weight = 0 } }, "must have a weight")
            fails({ { url = "http://a", weight = 1.5 } }, "must have a weight")
            fails({ { url = "http://a", weight = "1" } }, "must have a weight")
            fails({ { url = "http://a", weight = 1e9 } }, "must have a weight")
            fails({ { url = "http://a", state = "off" } },
                "must have a state")
            fails({ { url = "http://a", server_name = "a b" } },
                "must have a server_name")
            fails({ { url = "http://a", server_name = 5 } },
                "must have a server_name")
        end)

        it("names what makes a table another one than an array", function()
            local must = "must be an array without holes or other keys: "
            fails({ "http://a", nil, "http://b" }, must .. "entry 2 is nil")
            fails({ [2] = "http://a" }, must .. "entry 1 is nil")
            fails({ [1] = "http://a", [1e300] = "http://b" },
                must .. "entry 2 is nil")
            fails({ "http://a", x = 1 }, must .. "it has the key x")
            fails({ url = "http://a" }, must .. "it has the key url")
            for _, key in ipairs { 0, -1, 1.5, math.huge } do
                fails({ "http://a", [key] = "http://b" },
                    must .. "it has the key " .. tostring(key))
            end
            fails({ ["http://me:secret@a"] = true },
                must .. "it has the key ...@a")
        end)

        it("refuses two that mean the same", function()
            fails({ "http://a", "http://b", "HTTP://A:80" },
                'entry 3 ("http://a:80") is there twice')
        end)
    end)
end)
