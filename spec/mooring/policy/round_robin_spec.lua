-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local round_robin = require "resty.mooring.policy.round_robin"

describe("resty.mooring.policy.round_robin", function()
    local function backends(weights)
        local list = {}
        for i, weight in ipairs(weights) do
            list[i] = { url = string.char(96 + i), weight = weight }
        end
        return list
    end

    local function picks(policy, list, n)
        local text = {}
        for i = 1, n do
            text[i] = policy.route(nil, list).url
        end
        return table.concat(text)
    end

    -- What a real nginx 1.22 answers to twenty requests in a row.
    for _, golden in ipairs {
        { { 1 }, "aaaaaaaaaaaaaaaaaaaa" },
        { { 1, 1 }, "abababababababababab" },
        { { 1, 1, 1 }, "abcabcabcabcabcabcab" },
        { { 5, 1, 1 }, "aabacaaaabacaaaabaca" },
        { { 3, 2, 1 }, "abacbaabacbaabacbaab" },
        { { 1, 2, 4 }, "cbcacbccbcacbccbcacb" },
        { { 4, 4, 2 }, "abcababcababcababcab" },
    } do
        it("spreads weights " .. table.concat(golden[1], ",") .. " as nginx",
           function()
            assert.equal(golden[2], picks(round_robin.new(),
                backends(golden[1]), #golden[2]))
        end)
    end

    it("gives each backend its share in every whole round", function()
        math.randomseed(42)
        for _ = 1, 50 do
            local weights, total = {}, 0
            for i = 1, math.random(1, 6) do
                weights[i] = math.random(1, 9)
                total = total + weights[i]
            end
            local text = picks(round_robin.new(), backends(weights), total)
            for i, weight in ipairs(weights) do
                assert.equal(weight, select(2, text:gsub(
                    string.char(96 + i), "")))
            end
        end
    end)

    it("keeps to the weights within 1 % over 100,000 picks", function()
        local weights, total, count = { 7, 5, 3, 2, 1, 1 }, 19, {}
        local policy, list = round_robin.new(), backends(weights)
        for _ = 1, 100000 do
            local url = policy.route(nil, list).url
            count[url] = (count[url] or 0) + 1
        end
        for i, weight in ipairs(weights) do
            local share = 100000 * weight / total
            assert.near(share, count[string.char(96 + i)], share / 100)
        end
    end)

    it("bears a list that changes between two calls", function()
        local policy, list = round_robin.new(), backends { 1, 1, 1 }
        assert.equal("ab", picks(policy, list, 2))
        table.remove(list, 3)
        local text = picks(policy, list, 10)
        assert.equal(5, select(2, text:gsub("a", "")))
        list[3] = { url = "new", weight = 1 }
        assert.matches("new", picks(policy, list, 3))
    end)

    -- What is in use. A full collection halves the table of strings at most, and
    -- compiled code is not what is counted.
    local function in_use()
        local least, count = math.huge, collectgarbage("count")
        while count < least do
            least = count
            collectgarbage()
            count = collectgarbage("count")
        end
        return least
    end

    it("forgets backends that are gone, in bounded memory", function()
        jit.off()
        jit.flush()
        local policy = round_robin.new()
        local before = in_use()
        for i = 1, 50000 do
            policy.route(nil, {
                { url = "http://10.0.0." .. i, weight = 1 },
                { url = "http://10.0.1." .. i, weight = 1 },
            })
        end
        local grown = in_use() - before
        jit.on()
        assert.is_true(grown < 100, grown .. " KiB")
    end)

    it("begins with another backend in each worker", function()
        local list = backends { 1, 1, 1 }
        local first = {}
        for worker = 0, 3 do
            local policy = round_robin.new()
            policy.start("router", worker)
            first[#first + 1] = picks(policy, list, 2)
        end
        assert.same({ "ab", "bc", "ca", "ab" }, first)
    end)
end)
