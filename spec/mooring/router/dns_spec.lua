-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- With a resolver that answers from a table: lua-resty-dns needs nginx, where
-- spec/integration/router_members_spec.lua asks a real name server.

local dns = require "resty.mooring.router.dns"

local TYPES = { A = 1, AAAA = 28, SRV = 33 }

-- { ["name kind"] = answers, or a text: what has gone wrong }
local function with_resolver(zone, fn)
    local resolver = { asked = {} }
    function resolver:new(opts)
        self.opts = opts
        if zone.broken then
            return nil, zone.broken
        end
        return { query = function(_, name, opts_of_query)
            for kind, number in pairs(TYPES) do
                if number == opts_of_query.qtype then
                    table.insert(self.asked, name .. " " .. kind)
                    local answers = zone[name .. " " .. kind] or {}
                    if type(answers) == "string" then
                        return nil, answers
                    end
                    return answers
                end
            end
        end }
    end
    package.preload["resty.dns.resolver"] = function() return resolver end
    local ok, err = pcall(fn, resolver)
    package.preload["resty.dns.resolver"] = nil
    package.loaded["resty.dns.resolver"] = nil
    if not ok then
        error(err, 0)
    end
end

local function address(kind, value, name)
    return { type = TYPES[kind], address = value, name = name }
end

local function service(target, priority)
    return { type = TYPES.SRV, target = target, priority = priority or 0, weight = 5,
             port = 8080 }
end

local function read(zone, opts)
    local list, err, asked
    with_resolver(zone, function(resolver)
        opts.nameservers = { "10.0.0.2" }
        list, err = dns.new(opts):read()
        asked = resolver.asked
    end)
    return list, err, asked
end

local function urls(list)
    local texts = {}
    for i, entry in ipairs(list) do
        texts[i] = entry.url
    end
    return texts
end

describe("resty.mooring.router.dns", function()
    describe(".check", function()
        for text, opts in pairs {
            [".dns must be a full name"] = { dns = 5, port = 1 },
            [".dns must be a full name "] = { dns = ("a."):rep(127), port = 1 },
            [".port must be a port"] = { dns = "a", port = 1.5 },
            [".port must be a port "] = { dns = "a", port = 0 },
            ['.nameservers must be an array of "address" or "address:port"'] =
                { dns = "a", port = 1, nameservers = "10.0.0.1" },
            ['.nameservers must be an array of "address" or "address:port" '] =
                { dns = "a", port = 1, nameservers = { 5 } },
            ['.nameservers must be an array of "address" or "address:port"  '] =
                { dns = "a", port = 1, nameservers = { "" } },
        } do
            it("says: " .. text, function()
                assert.equal(text:match("^(.-) *$"), dns.check(opts))
            end)
        end

        it("takes the scheme http", function()
            assert.is_nil(dns.check { dns = "a", port = 1, scheme = "http" })
        end)
    end)

    describe(".new", function()
        it("asks the name servers that are given, of every form", function()
            with_resolver({}, function(resolver)
                dns.new({ dns = "a", port = 1, nameservers = {
                    "10.0.0.2:5353", "10.0.0.2", "[fd00::2]:5353", "fd00::2",
                } }):read()
                assert.same({ { "10.0.0.2", 5353 }, { "10.0.0.2", 53 }, { "[fd00::2]", 5353 },
                              { "[fd00::2]", 53 } }, resolver.opts.nameservers)
            end)
        end)

        it("asks those of /etc/resolv.conf else, or says that there are none", function()
            local expected = {}
            for line in io.lines("/etc/resolv.conf") do
                expected[#expected + 1] = line:match("^%s*nameserver%s+(%S+)")
            end
            with_resolver({}, function(resolver)
                local client, missing = dns.new { dns = "a", port = 1 }
                if #expected == 0 then
                    assert.matches("/etc/resolv.conf has none", missing, 1, true)
                    return
                end
                client:read()
                assert.equal(#expected, #resolver.opts.nameservers)
            end)
        end)
    end)

    describe(":read", function()
        it("names the servers of https by the name that was asked for", function()
            local list = assert(read({ ["a.test A"] = { address("A", "10.0.0.1") } },
                { dns = "a.test.", port = 443, scheme = "https" }))
            assert.same({ { url = "https://10.0.0.1:443", server_name = "a.test" } }, list)
        end)

        it("names them as it is told", function()
            local list = assert(read({ ["a.test A"] = { address("A", "10.0.0.1") } },
                { dns = "a.test", port = 443, scheme = "https", server_name = "b", weight = 7 }))
            assert.same({ { url = "https://10.0.0.1:443", server_name = "b", weight = 7 } },
                list)
        end)

        it("names the servers of SRV records by their targets", function()
            local zone = {
                ["a.test SRV"] = { service "One.test", service "two.test" },
                ["one.test A"] = { address("A", "10.0.0.1") },
                ["two.test A"] = { address("A", "10.0.0.2") },
            }
            local list = assert(read(zone, { dns = "a.test", type = "SRV", scheme = "https" }))
            assert.same({
                { url = "https://10.0.0.1:8080", server_name = "one.test", weight = 5 },
                { url = "https://10.0.0.2:8080", server_name = "two.test", weight = 5 },
            }, list)
            list = assert(read(zone, { dns = "a.test", type = "SRV", server_name = "b",
                                       weight = 9 }))
            assert.same({ "b", 9 }, { list[2].server_name, list[2].weight })
        end)

        it("takes all addresses that come with SRV records, of both kinds", function()
            local list, _, asked = read({ ["a.test SRV"] = {
                service "one.test", address("A", "10.0.0.1", "one.test"),
                address("AAAA", "fd00::1", "ONE.test"),
            } }, { dns = "a.test", type = "SRV" })
            assert.same({ "http://10.0.0.1:8080", "http://[fd00::1]:8080" }, urls(list))
            assert.same({ "a.test SRV" }, asked)
        end)

        it("asks for IPv6 addresses of a target that has no others", function()
            local list = read({
                ["a.test SRV"] = { service "one.test" },
                ["one.test AAAA"] = { address("AAAA", "fd00::1") },
            }, { dns = "a.test", type = "SRV" })
            assert.same({ "http://[fd00::1]:8080" }, urls(list))
        end)

        it("leaves out the target that means: there is no such service", function()
            assert.same({}, (read({ ["a.test SRV"] = { service "" } },
                { dns = "a.test", type = "SRV" })))
        end)

        it("leaves out what is no address of the kind", function()
            local list = read({ ["a.test A"] = {
                { type = 5, cname = "b.test" }, address("A", "10.0.0.1"),
            } }, { dns = "a.test", port = 1 })
            assert.same({ "http://10.0.0.1:1" }, urls(list))
        end)

        for what, case in pairs {
            ["an answer to A"] = { { ["a.test A"] = "timeout" }, { port = 1 }, "timeout" },
            ["an answer to SRV"] = { { ["a.test SRV"] = "timeout" }, { type = "SRV" },
                                     "timeout" },
            ["an address of a target"] = { { ["a.test SRV"] = { service "one.test" } },
                                           { type = "SRV" }, "no address for one.test" },
            ["an answer for a target"] = { { ["a.test SRV"] = { service "one.test" },
                ["one.test A"] = "timeout", ["one.test AAAA"] = "refused" },
                { type = "SRV" }, "refused" },
            ["a socket"] = { { broken = "no socket" }, { port = 1 }, "no socket" },
            ["the name"] = { { ["a.test A"] = { errcode = 3, errstr = "name error" } },
                             { port = 1 }, "name error for a.test" },
        } do
            it("says what is wrong without " .. what, function()
                case[2].dns = "a.test"
                local list, err = read(case[1], case[2])
                assert.is_nil(list)
                assert.equal(case[3], err)
            end)
        end
    end)
end)
