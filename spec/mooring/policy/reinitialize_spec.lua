-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local reinitialize = require "resty.mooring.policy.reinitialize"
local testing = require "resty.mooring.testing"

local BODY = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}'
local CALL = '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{}}'

describe("resty.mooring.policy.reinitialize", function()
    local function bind(opts, body, data)
        local engine = testing.policy(reinitialize.new(opts))
        local session = testing.session("x")
        session.data = data
        local req = testing.request { method = "POST", body = body,
            headers = { Authorization = "secret" } }
        engine:on_bind(session, req)
        return session, engine:on_unreachable(session, req)
    end

    it("keeps the initialize request, and nothing of its headers", function()
        local session, verdict = bind(nil, BODY)
        assert.same({ initialize = BODY }, session.data)
        assert.equal("reinitialize", verdict)
    end)

    it("leaves what others have put into the session", function()
        local session = bind(nil, BODY, { mine = 1 })
        assert.same({ mine = 1, initialize = BODY }, session.data)
        local other, verdict = bind(nil, BODY, "a string")
        assert.equal("a string", other.data)
        assert.equal("forget", verdict)
    end)

    it("has no opinion about a session it cannot open anew", function()
        for _, case in ipairs {
            { nil, nil }, { nil, CALL }, { { max_body = #BODY - 1 }, BODY },
        } do
            local session, verdict = bind(case[1], case[2])
            assert.is_nil(session.data)
            assert.equal("forget", verdict)
        end
        assert.equal("reinitialize",
            select(2, bind({ max_body = #BODY }, BODY)))
    end)

    it("has no opinion about a session whose data somebody has spoiled", function()
        local session, verdict = bind(nil, CALL, { initialize = 5 })
        assert.same({ initialize = 5 }, session.data)
        assert.equal("forget", verdict)
    end)

    it("watches answers unless it is told not to", function()
        assert.is_true(testing.policy("reinitialize").watches_answers)
        assert.is_falsy(testing.policy(reinitialize.new { restarts = false })
            .watches_answers)
    end)

    it("names the option that is wrong", function()
        assert.error_matches(function() reinitialize.new { max_body = 0 } end,
            "opts.max_body must be")
        assert.error_matches(function() reinitialize.new { restarts = 1 } end,
            "opts.restarts must be")
        assert.error_matches(function() reinitialize.new { max = 1 } end,
            "opts.max is not")
    end)
end)
