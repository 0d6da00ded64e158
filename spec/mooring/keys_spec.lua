-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local keys = require "resty.mooring.keys"

describe("resty.mooring.keys", function()
    for prefix, expected in pairs {
        ["mooring:session:"] = { "mooring:beacon:", "mooring:backends" },
        ["a:b:c:"] = { "a:b:beacon:", "a:b:backends" },
        ["x:"] = { "x-beacon:", "x-backends" },
        [":"] = { "-beacon:", "-backends" },
        ["mooring:beacon:"] = { "mooring:beacons:", "mooring:backends" },
        ["mooring:backends:"] = { "mooring:beacon:", "mooring:backends_" },
        ["mooring:backends_:"] = { "mooring:beacon:", "mooring:backends__" },
    } do
        it("are beside the sessions of " .. prefix, function()
            assert.same(expected, { keys.beacons(prefix), keys.board(prefix, "backends") })
        end)

        it("do not overlap, since Redis refuses that: " .. prefix, function()
            local all = { prefix, keys.beacons(prefix), keys.board(prefix, "backends") }
            for i, one in ipairs(all) do
                for j, other in ipairs(all) do
                    assert.is_true(i == j or one:sub(1, #other) ~= other, one .. " " .. other)
                end
            end
        end)
    end
end)
