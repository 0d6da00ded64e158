-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local hash = require "resty.mooring.hash"
local power_of_two = require "resty.mooring.policy.power_of_two"
local servers = require "support.servers"

describe("resty.mooring.policy.power_of_two", function()
    teardown(function() servers.stop_all() end)

    local function backends(weights, inflight)
        local list = {}
        for i, weight in ipairs(weights) do
            list[i] = { url = string.char(96 + i), weight = weight,
                inflight = inflight and inflight[i] or 0 }
        end
        return list
    end

    -- A policy that draws these numbers.
    local function drawing(...)
        local numbers, at = { ... }, 0
        return power_of_two.new { random = function()
            at = at + 1
            return numbers[at]
        end }
    end

    for name, golden in pairs {
        ["the one with less in flight"] = { { 1, 1, 1 }, { 2, 1, 0 }, { 0.1, 0.1 }, "b" },
        ["the first one drawn of equals"] = { { 1, 1, 1 }, { 1, 1, 0 }, { 0.4, 0.1 }, "b" },
        ["no third one, be it idle"] = { { 1, 1, 1 }, { 2, 3, 0 }, { 0.1, 0.1 }, "a" },
        ["a heavy one with more in flight"] = { { 1, 9 }, { 1, 5 }, { 0.05, 0.5 }, "b" },
        ["a light one when the heavy one is full"] = { { 1, 9 }, { 1, 10 }, { 0.5, 0.5 }, "a" },
        ["the second one among those left"] = { { 1, 2, 1 }, { 9, 9, 0 }, { 0.3, 0.6 }, "c" },
        ["the only one"] = { { 3 }, { 7 }, { 0.999 }, "a" },
        ["the last one at the very end"] = { { 1, 1, 1 }, { 5, 4, 3 }, { 0.999, 0.999 }, "c" },
    } do
        it("takes " .. name, function()
            local policy = drawing(unpack(golden[3]))
            assert.equal(golden[4], policy.route(nil, backends(golden[1], golden[2])).url)
        end)
    end

    it("bears a random source that answers 1", function()
        local policy = power_of_two.new { random = function() return 1 end }
        assert.equal("b", policy.route(nil, backends({ 1, 1 }, { 1, 0 })).url)
    end)

    it("draws two different ones, each as its weight is", function()
        local weights, total = { 1, 2, 3, 7, 11 }, 24
        local list, count = backends(weights), {}
        local policy = power_of_two.new { random = hash.random(42) }
        for _ = 1, 100000 do
            local url = policy.route(nil, list).url
            count[url] = (count[url] or 0) + 1
        end
        for i, weight in ipairs(weights) do
            local share = count[list[i].url] / 100000
            assert.is_true(math.abs(share - weight / total) < 0.01, list[i].url .. " has " .. share)
        end
    end)

    it("gives each backend its share of 100,000 requests within 1 % under load", function()
        local weights, total = { 1, 2, 3, 7, 11 }, 24
        local list, count, under_way = backends(weights), {}, {}
        local policy = power_of_two.new { random = hash.random(43) }
        for i = 1, 100000 do
            local ended = under_way[i - 480]
            if ended then
                ended.inflight = ended.inflight - 1
            end
            local backend = policy.route(nil, list)
            backend.inflight = backend.inflight + 1
            under_way[i] = backend
            count[backend.url] = (count[backend.url] or 0) + 1
        end
        for i, weight in ipairs(weights) do
            local share = count[list[i].url] * total / weight / 100000
            assert.is_true(math.abs(share - 1) < 0.01, list[i].url .. " has " .. share)
        end
    end)

    -- Mitzenmacher: the fullest of n bins is log log n / log 2 above the mean,
    -- whereas with one choice it is of the order of sqrt(m log n / n).
    it("keeps the fullest of 100 backends within 4 of the mean", function()
        local list, one_choice = {}, {}
        for i = 1, 100 do
            list[i] = { url = "b" .. i, weight = 1, inflight = 0 }
            one_choice[i] = 0
        end
        local random = hash.random(1)
        local policy = power_of_two.new { random = random }
        for _ = 1, 100000 do
            local backend = policy.route(nil, list)
            backend.inflight = backend.inflight + 1
            local at = math.floor(random() * 100) + 1
            one_choice[at] = one_choice[at] + 1
        end
        local most = 0
        for _, backend in ipairs(list) do
            most = math.max(most, backend.inflight)
        end
        assert.is_true(most <= 1004, "the fullest has " .. most)
        assert.is_true(math.max(unpack(one_choice)) > 1050)
    end)

    it("draws other numbers in each worker of a real nginx", function()
        local nginx = servers.nginx { workers = 4, conf = [[
            init_by_lua_block {
                policy = require("resty.mooring.policy.power_of_two").new()
                backends = {}
                for i = 1, 64 do
                    backends[i] = { url = i, weight = 1, inflight = 0 }
                end
            }
            init_worker_by_lua_block {
                local drawn = {}
                for i = 1, 8 do
                    drawn[i] = policy.route(nil, backends).url
                end
                ngx.log(ngx.WARN, "drawn: ", table.concat(drawn, " "), ".")
            }
        ]] }
        local seen, n = {}, 0
        servers.wait_for(function()
            seen, n = {}, 0
            for drawn in nginx:error_log():gmatch("drawn: ([%d ]+)%.") do
                n = n + (seen[drawn] and 0 or 1)
                seen[drawn] = true
            end
            return n == 4
        end, 10, "four workers that drew different numbers")
    end)

    it("names a wrong option", function()
        assert.has_error(function() power_of_two.new { random = 1 } end,
            "opts.random must be a function, got 1")
    end)
end)
