-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local policy = require "resty.mooring.policy"
local request = require "resty.mooring.request"
local scripts = require "resty.mooring.router.scripts"
local session = require "resty.mooring.session"

describe("resty.mooring.router.scripts", function()
    it(".verdict tells on_unreachable the id, also where the policy has found it", function()
        local told
        local router = { engine = policy.compile { on_unreachable = function(_, req)
            told = req.session_id
            return "keep"
        end } }
        local s = session.new("found", { metadata = { backend_url = "http://a:1" } })
        assert.equal("keep", scripts.verdict(router, s, request.build {}))
        assert.equal("found", told)
        scripts.verdict(router, s, request.build { session_id = "sent" })
        assert.equal("sent", told)
    end)
end)
