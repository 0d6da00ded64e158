-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local health = require "resty.mooring.router.health"

describe("resty.mooring.router.health", function()
    local URL = "http://10.0.0.1:80"

    -- A trial that another worker makes, one of our own, a dictionary that is full.
    for what, case in pairs {
        ["lets one request try"] = { { true, nil }, true },
        ["lets no second one try"] = { { false, "exists" }, false },
        ["lets a request try that cannot be noted"] = { { nil, "no memory" }, true },
    } do
        it(":claim_trial " .. what, function()
            local self = health.new {
                prefix = "x", max_fails = 1, fail_timeout = 10,
                dict = { safe_add = function() return case[1][1], case[1][2] end },
            }
            assert.equal(case[2], self:claim_trial(URL))
        end)
    end
end)
