-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local rendezvous = require "resty.mooring.policy.rendezvous"

describe("resty.mooring.policy.rendezvous", function()
    local KEYS = 20000

    local function backends(weights)
        local list = {}
        for i, weight in ipairs(weights) do
            list[i] = { url = "http://10.0.0." .. i .. ":8080", weight = weight }
        end
        return list
    end

    local policy = rendezvous.new { header = "X-Tenant" }

    local function place(tenant, list)
        return policy.route({ headers = { ["X-Tenant"] = tenant } }, list).url
    end

    -- Where each of n tenants is.
    local function places(list, n)
        local found = {}
        for i = 1, n or KEYS do
            found[i] = place("tenant-" .. i, list)
        end
        return found
    end

    local function counts(found)
        local count = {}
        for _, url in ipairs(found) do
            count[url] = (count[url] or 0) + 1
        end
        return count
    end

    -- An upgrade that changed these would send all tenants elsewhere.
    it("has golden places", function()
        local equal, weighted = {}, {}
        for i = 1, 20 do
            equal[i] = place("tenant-" .. i, backends { 1, 1, 1, 1, 1 }):match("%.(%d):")
            weighted[i] = place("tenant-" .. i, backends { 1, 2, 4 }):match("%.(%d):")
        end
        assert.equal("22515314433144332443", table.concat(equal))
        assert.equal("32332323233133332333", table.concat(weighted))
    end)

    it("sends the same value to the same backend, whatever the order of the list", function()
        local list = backends { 1, 2, 3, 4, 5 }
        local before = places(list, 1000)
        for i = 1, 4 do
            table.insert(list, table.remove(list, i))
        end
        assert.same(before, places(list, 1000))
        assert.same(before, (function()
            local again = rendezvous.new { arg = "t" }
            local found = {}
            for i = 1, 1000 do
                found[i] = again.route({ args = { t = "tenant-" .. i } }, list).url
            end
            return found
        end)())
    end)

    for _, weights in ipairs { { 1, 1, 1, 1, 1 }, { 1, 2, 3, 7, 11 }, { 100, 1, 100 } } do
        it("gives shares of 100,000 values as the weights " .. table.concat(weights, ",")
            .. " within 1 %", function()
            local total = 0
            for _, weight in ipairs(weights) do
                total = total + weight
            end
            local list = backends(weights)
            local count = counts(places(list, 100000))
            for i, weight in ipairs(weights) do
                local share = (count[list[i].url] or 0) / 100000
                assert.is_true(math.abs(share - weight / total) < 0.01,
                    list[i].url .. " has " .. share)
            end
        end)
    end

    for _, n in ipairs { 2, 3, 5, 10, 50 } do
        it("moves 1/" .. n .. " of the values when one of " .. n
            .. " backends leaves, none between the others", function()
            local list = backends((function()
                local weights = {}
                for i = 1, n do
                    weights[i] = 1
                end
                return weights
            end)())
            local before = places(list)
            local gone = table.remove(list, math.ceil(n / 2)).url
            local after, moved = places(list), {}
            for i = 1, KEYS do
                if before[i] == gone then
                    moved[#moved + 1] = after[i]
                else
                    assert.equal(before[i], after[i])
                end
            end
            local share = #moved / KEYS
            assert.is_true(math.abs(share - 1 / n) <= 0.02, "moved " .. share)
            -- The others inherit evenly.
            local expected = #moved / (n - 1)
            for _, backend in ipairs(list) do
                local inherited = counts(moved)[backend.url] or 0
                assert.is_true(math.abs(inherited - expected) < 5 * math.sqrt(expected),
                    backend.url .. " has inherited " .. inherited)
            end
        end)
    end

    it("moves values only to a backend whose weight grows", function()
        local list = backends { 2, 3, 4 }
        local before = places(list)
        list[2].weight = 6
        local after, moved = places(list), 0
        for i = 1, KEYS do
            if before[i] ~= after[i] then
                assert.equal(list[2].url, after[i])
                moved = moved + 1
            end
        end
        -- From 3/9 to 6/12 of all.
        assert.is_true(math.abs(moved / KEYS - (6 / 12 - 3 / 9)) < 0.01)
    end)

    it("leaves a request without the value to the next policy", function()
        local list = backends { 1, 1 }
        assert.is_nil(policy.route({ headers = {} }, list))
        assert.is_nil(policy.route({ headers = { ["X-Tenant"] = "" } }, list))
    end)

    it("goes by the address of the client if asked to", function()
        local by_address, list = rendezvous.new { remote_addr = true }, backends { 1, 1, 1, 1 }
        local found = {}
        for i = 1, 40 do
            found[i] = by_address.route({ remote_addr = "192.0.2." .. i }, list).url
        end
        local different = 0
        for _ in pairs(counts(found)) do
            different = different + 1
        end
        assert.equal(4, different)
    end)

    it("names a wrong option", function()
        for _, wrong in ipairs {
            { nil, "opts must have one of header, cookie, arg, claim, remote_addr, value" },
            { { header = "a", arg = "b" }, "opts must have only one of header, cookie, arg, "
                .. "claim, remote_addr, value" },
            { { header = 1 }, "opts.header must be a non-empty string, got 1" },
            { { remote_addr = false }, "opts.remote_addr must be true, got false" },
            { { tenant = "a" }, "opts.tenant is not an option (known are header, cookie, arg, "
                .. "claim, remote_addr, value)" },
        } do
            local ok, err = pcall(function() rendezvous.new(wrong[1]) end)
            assert.is_false(ok)
            assert.equal(wrong[2], (err:gsub("^.-:%d+: ", "")))
            assert.matches("^%S*rendezvous_spec%.lua:%d+: ", err)
        end
    end)
end)
