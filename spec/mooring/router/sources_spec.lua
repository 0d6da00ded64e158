-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local sources = require "resty.mooring.router.sources"

-- A resolver that could be made; the real one needs nginx.
local function with_resolver(fn)
    package.preload["resty.dns.resolver"] = function() return {} end
    local ok, err = pcall(fn)
    package.preload["resty.dns.resolver"] = nil
    package.loaded["resty.dns.resolver"] = nil
    assert(ok, err)
end

describe("resty.mooring.router.sources", function()
    describe(".check", function()
        it("takes a list, a function and a DNS name", function()
            assert.is_true((sources.check { "http://a" }))
            assert.is_true((sources.check(function() end)))
            assert.is_true((sources.check { dns = "a.b", port = 80 }))
            assert.is_true((sources.check { dns = "a.b", port = 443,
                type = "AAAA", scheme = "https", server_name = "x",
                interval = 0.5, timeout = 2, weight = 3,
                nameservers = { "10.0.0.1", "[::1]:53" } }))
            assert.is_true((sources.check { dns = "_a._tcp.b", type = "SRV" }))
        end)

        for text, option in pairs {
            ["must be an array of at least one backend"] = {},
            ["has a field that is not known: name"] = { dns = "a", port = 1,
                name = "x" },
            [".dns must be a full name"] = { dns = "a b", port = 1 },
            [".port must be a port"] = { dns = "a" },
            [".port must not be there: SRV records have one"] = { dns = "a",
                type = "SRV", port = 1 },
            ['.type must be "A", "AAAA" or "SRV"'] = { dns = "a", type = "MX" },
            ['.scheme must be "http" or "https"'] = { dns = "a", port = 1,
                scheme = "ftp" },
            [".interval must be a positive number of seconds"] = { dns = "a",
                port = 1, interval = 0 },
            [".timeout must be a positive number of seconds"] = { dns = "a",
                port = 1, timeout = "1" },
            ['.nameservers must be an array of "address" or "address:port"'] = {
                dns = "a", port = 1, nameservers = {} },
        } do
            it("says: " .. text, function()
                assert.same({ false, text }, { sources.check(option) })
            end)
        end

        it("says what is wrong with a weight or a name for all of DNS",
           function()
            assert.matches("must have a weight",
                select(2, sources.check { dns = "a", port = 1, weight = 0 }))
            assert.matches("must have a server_name", select(2, sources.check {
                dns = "a", port = 1, server_name = "a b" }))
        end)
    end)

    describe(".open", function()
        it("reads a static list once", function()
            local source = sources.open({ "http://a" }, 5)
            assert.equal("http://a:80", source.peers[1].url)
            assert.is_nil(source.read)
        end)

        it("raises when the module for DNS is not there", function()
            local loaders = package.loaders
            package.loaders = { function(name) return "\n\tno " .. name end }
            local ok, err = pcall(sources.open, { dns = "a", port = 1 }, 5)
            package.loaders = loaders
            assert.is_false(ok)
            assert.matches("opts.backends needs the module resty.dns.resolver "
                .. "(lua-resty-dns; in Debian and Ubuntu the package "
                .. "lua-nginx-dns)", err, 1, true)
        end)

        it("tells sources apart, but not by how often they are asked",
           function()
            with_resolver(function()
                local function tag(option)
                    option.nameservers = { "10.0.0.1" }
                    return sources.open(option, 5).tag
                end
                local one = tag { dns = "a", port = 1 }
                assert.equal(one, tag { dns = "a", port = 1, interval = 9 })
                assert.not_equal(one, tag { dns = "a", port = 2 })
                assert.not_equal(one, tag { dns = "b", port = 1 })
                assert.not_equal(one, sources.open(function() end, 5).tag)
            end)
        end)
    end)

    describe(":read", function()
        local function read(list)
            return sources.open(function() return list end, 5):read()
        end

        it("has one text for one set of backends, in any order", function()
            local text, peers = read { "http://a",
                { url = "HTTP://B:80", weight = 2 } }
            assert.equal(text, (read { { url = "http://b", weight = 2 },
                { url = "http://a:80", state = "active" } }))
            assert.not_equal(text, (read { "http://a", "http://b" }))
            assert.equal(2, #peers)
        end)

        it("gives back from the text what was read", function()
            local text = read { { url = "https://10.0.0.1:1", weight = 7,
                state = "draining", server_name = "x.y" } }
            local peer = sources.decode(text)[1]
            assert.same({ "https://10.0.0.1:1", "10.0.0.1", 1, true, 7,
                "draining", "x.y" }, { peer.url, peer.address, peer.port,
                peer.tls, peer.weight, peer.state, peer.tls_name })
        end)
    end)
end)
