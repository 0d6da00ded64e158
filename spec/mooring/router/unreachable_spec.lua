-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local unreachable = require "resty.mooring.router.unreachable"

describe("resty.mooring.router.unreachable.outcome", function()
    for _, case in ipairs {
        { "502", "-", "connect" },
        { "504", "-", "connect" },
        { "502", "0.001", "broken" },
        { "504", "0.000", "timeout" },
        { "502, 502", "0.000, -", "connect" },
        { "502, 502", "-, 0.000", "broken" },
        { "502, 504", "0.000, 0.004", "timeout" },
        { "502 : 502", "0.000 : -", "connect" },
        { nil, nil, "connect" },
    } do
        it(("is %s for status %s and connect time %s"):format(case[3],
            tostring(case[1]), tostring(case[2])), function()
            assert.equal(case[3], unreachable.outcome(case[1], case[2]))
        end)
    end
end)
