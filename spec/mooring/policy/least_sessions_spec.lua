-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local least_sessions = require "resty.mooring.policy.least_sessions"

describe("resty.mooring.policy.least_sessions", function()
    local function backends(weights, sessions)
        local list = {}
        for i, weight in ipairs(weights) do
            list[i] = { url = string.char(96 + i), weight = weight,
                sessions = sessions and sessions[i] or 0 }
        end
        return list
    end

    -- Sessions that are opened and none that ends.
    local function open(policy, list, n)
        local text = {}
        for i = 1, n do
            local backend = policy.route(nil, list)
            backend.sessions = backend.sessions + 1
            text[i] = backend.url
        end
        return table.concat(text)
    end

    for name, golden in pairs {
        ["one backend"] = { { 1 }, { 0 }, "aaaa" },
        ["equal ones in turn"] = { { 1, 1, 1 }, { 0, 0, 0 }, "abcabcabc" },
        ["those that are behind"] = { { 1, 1, 1 }, { 5, 3, 4 }, "bcbcab" },
        ["a new one until it has caught up"] = { { 1, 1 }, { 6, 0 }, "bbbbbbabab" },
        ["weights"] = { { 3, 1 }, { 0, 0 }, "abaabaaabaaa" },
        ["a heavy one that is behind"] = { { 5, 1, 1 }, { 5, 1, 2 }, "abaaaabcaaaa" },
    } do
        it("takes " .. name, function()
            local list = backends(golden[1], golden[2])
            assert.equal(golden[3], open(least_sessions.new(), list, #golden[3]))
        end)
    end

    it("takes each of those with the fewest in turn when counts stand still", function()
        local list = backends({ 1, 1, 2, 1 }, { 1, 2, 2, 1 })
        local policy, text = least_sessions.new(), ""
        for _ = 1, 9 do
            text = text .. policy.route(nil, list).url
        end
        assert.equal("acdacdacd", text)
    end)

    it("gives each backend its share of 100,000 sessions within 1 %", function()
        local weights, total = { 1, 2, 3, 7, 11 }, 24
        local list = backends(weights)
        open(least_sessions.new(), list, 100000)
        for i, weight in ipairs(weights) do
            local share = list[i].sessions * total / weight / 100000
            assert.is_true(math.abs(share - 1) < 0.01, list[i].url .. " has " .. share)
        end
    end)

    it("keeps to the shares while sessions end at random", function()
        math.randomseed(7)
        local policy, list, live = least_sessions.new(), backends { 1, 2, 4 }, {}
        for _ = 1, 30000 do
            if #live >= 700 then
                local at = math.random(#live)
                live[at].sessions = live[at].sessions - 1
                live[at] = live[#live]
                live[#live] = nil
            end
            local backend = policy.route(nil, list)
            backend.sessions = backend.sessions + 1
            live[#live + 1] = backend
        end
        for i, expected in ipairs { 100, 200, 400 } do
            assert.is_true(math.abs(list[i].sessions - expected) <= 5)
        end
    end)

    it("begins at another backend in each worker", function()
        local first = {}
        for worker = 0, 3 do
            local policy = least_sessions.new()
            policy.start("default", worker)
            first[#first + 1] = policy.route(nil, backends { 1, 1, 1 }).url
        end
        assert.same({ "a", "b", "c", "a" }, first)
    end)

    it("bears a list that changes between two calls", function()
        local policy, list = least_sessions.new(), backends { 1, 1, 1, 1 }
        assert.equal("abcd", open(policy, list, 4))
        table.remove(list, 4)
        table.remove(list, 1)
        assert.equal("bcbc", open(policy, list, 4))
        assert.equal("x", policy.route(nil, { { url = "x", weight = 1, sessions = 9 } }).url)
    end)
end)
