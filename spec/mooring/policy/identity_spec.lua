-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local identity = require "resty.mooring.policy.identity"
local session = require "resty.mooring.session"
local tokens = require "support.tokens"

describe("resty.mooring.policy.identity", function()
    local SECRET = "a secret of 16 bytes or more"

    local function by(user)
        return { headers = { ["X-User"] = user } }
    end

    local function policy(opts)
        opts = opts or {}
        opts.secret = opts.secret or SECRET
        if not opts.claim and not opts.value then
            opts.header = "X-User"
        end
        return identity.new(opts)
    end

    -- A session that was bound by someone.
    local function bound(p, req, id)
        local s = session.new(id or "s1")
        p.on_bind(s, req)
        return s
    end

    it("admits who has opened the session, and nobody else", function()
        local p = policy()
        local s = bound(p, by "ann")
        assert.is_true(p.admit(s, by "ann"))
        for _, other in ipairs { "bob", "an", "ann ", "Ann", "annn", "nobody" } do
            -- and does not get used to who tries again
            for _ = 1, 3 do
                assert.is_false(p.admit(s, by(other)))
            end
            assert.is_true(p.admit(s, by "ann"))
        end
        assert.is_false(p.admit(s, by(nil)))
        assert.is_false(p.admit(s, by ""))
    end)

    it("admits the owner through another replica with the same secret only", function()
        local s = bound(policy(), by "ann")
        assert.is_true(policy().admit(s, by "ann"))
        assert.is_false(policy({ secret = "another secret, as long" }).admit(s, by "ann"))
    end)

    it("stores a digest that shows neither the caller nor the secret", function()
        local owner = bound(policy(), by "ann"):get_metadata("owner")
        assert.matches("^%x+$", owner)
        assert.equal(64, #owner)
        assert.is_nil(owner:find("ann", 1, true))
    end)

    it("stores another digest for each session of a caller", function()
        local p = policy()
        local one, two = bound(p, by "ann", "s1"), bound(p, by "ann", "s2")
        assert.not_equal(one:get_metadata("owner"), two:get_metadata("owner"))
        -- and so one that was copied from a session of one's own opens nothing
        two:set_metadata("owner", bound(p, by "eve", "s1"):get_metadata("owner"))
        assert.is_false(p.admit(two, by "eve"))
    end)

    it("tells sessions and callers apart whose names make the same text together", function()
        local p = policy()
        local s = bound(p, by "bc", "a")
        local other = session.new("ab", { metadata = s.metadata })
        assert.is_false(p.admit(other, by "c"))
    end)

    it("refuses sessions without an owner, or with one that is none", function()
        local p = policy()
        for _, owner in ipairs { false, "", "x", ("0"):rep(64), ("0"):rep(63) } do
            local s = session.new("s1", { metadata = { owner = owner or nil } })
            assert.is_false(p.admit(s, by "ann"))
            assert.is_false(p.admit(s, by(nil)))
        end
    end)

    it("refuses an owner that only begins with the right digest", function()
        local p = policy()
        local s = bound(p, by "ann")
        local owner = s:get_metadata("owner")
        for _, other in ipairs { owner .. "0", owner:sub(1, -2), owner:upper() .. " " } do
            s:set_metadata("owner", other)
            assert.is_false(p.admit(s, by "ann"))
        end
    end)

    it("knows more sessions than it remembers", function()
        local p, sessions = policy(), {}
        for i = 1, 4500 do
            sessions[i] = bound(p, by("user" .. i), "s" .. i)
        end
        for _ = 1, 2 do
            for i = 1, 4500 do
                assert(p.admit(sessions[i], by("user" .. i)))
                assert(not p.admit(sessions[i], by("user" .. i + 1)))
            end
        end
    end)

    describe("with a caller that cannot be told", function()
        it("opens a session that nobody gets into", function()
            local p = policy()
            local s = bound(p, by(nil))
            assert.is_nil(s:get_metadata("owner"))
            assert.is_false(p.admit(s, by(nil)))
            assert.is_false(p.admit(s, by "ann"))
        end)

        it("takes away an owner that was there before", function()
            local p = policy()
            local s = bound(p, by "eve")
            p.on_bind(s, by(nil))
            assert.is_false(p.admit(s, by "eve"))
        end)

        it("opens one for all such callers with anonymous = true", function()
            local p = policy { anonymous = true }
            local s = bound(p, by(nil))
            assert.is_true(p.admit(s, by(nil)))
            assert.is_false(p.admit(s, by "ann"))
            assert.is_false(p.admit(bound(p, by "ann"), by(nil)))
            assert.is_false(p.admit(session.new("s1"), by(nil)))
        end)
    end)

    it("can go by a claim, which stays the same in the next token", function()
        local p = policy { claim = "sub" }
        local function with(claims)
            return { headers = { Authorization = "Bearer " .. tokens.make(claims) } }
        end
        local s = bound(p, with '{"sub":"ann","exp":1}')
        assert.is_true(p.admit(s, with '{"exp":2,"sub":"ann"}'))
        assert.is_false(p.admit(s, with '{"sub":"bob","exp":1}'))
        assert.is_false(p.admit(s, { headers = { Authorization = "Bearer opaque" } }))
    end)

    it("refuses when the caller's function throws", function()
        local broken = false
        local p = policy { value = function() return broken and error("no") or "ann" end }
        local s = bound(p, {})
        assert.is_true(p.admit(s, {}))
        broken = true
        assert.is_false(p.admit(s, {}))
        assert.has_error(function() p.on_bind(session.new("s2"), {}) end, "no")
    end)

    it("signs with the first of several secrets and knows all", function()
        local old, new = "the secret of last year", "the secret of this year"
        local s = bound(policy { secret = old }, by "ann")
        local both = policy { secret = { new, old } }
        assert.is_true(both.admit(s, by "ann"))
        assert.is_false(both.admit(s, by "bob"))
        assert.is_true(policy({ secret = new }).admit(bound(both, by "ann"), by "ann"))
        assert.is_false(policy({ secret = old }).admit(bound(both, by "ann"), by "ann"))
    end)

    it("compares in a time that does not tell where two digests differ", function()
        -- What can be shown without a clock: the comparison makes the same steps.
        local steps
        local function count(owner)
            local p, s = policy(), session.new("s1", { metadata = { owner = owner } })
            steps = 0
            jit.off()
            jit.flush()
            debug.sethook(function() steps = steps + 1 end, "", 1)
            p.admit(s, by "ann")
            debug.sethook()
            jit.on()
            return steps
        end
        local right = bound(policy(), by "ann"):get_metadata("owner")
        local function turned(at)
            local digit = right:sub(at, at) == "0" and "1" or "0"
            return right:sub(1, at - 1) .. digit .. right:sub(at + 1)
        end
        local expected = count(turned(1))
        assert.is_true(expected > 64)
        for _, at in ipairs { 2, 32, 63, 64 } do
            assert.equal(expected, count(turned(at)))
        end
    end)

    it("names a wrong option, never showing the secret", function()
        local must = "opts.secret must be a string of at least 16 bytes, or an array of these"
        for _, wrong in ipairs {
            { { header = "X-User" }, "opts.secret is required and"
                .. must:gsub("^opts%.secret", "") },
            { { header = "X-User", secret = "too short" }, must },
            { { header = "X-User", secret = {} }, must },
            { { header = "X-User", secret = { 1234567890123456 } }, must },
            { { header = "X-User", secret = { SECRET, "too short" } }, must },
            { { secret = SECRET }, "opts must have one of header, cookie, arg, claim, "
                .. "remote_addr, value" },
            { { secret = SECRET, claim = "sub", key = "" },
                'opts.key must be a non-empty string, got ""' },
        } do
            local ok, err = pcall(function() identity.new(wrong[1]) end)
            assert.is_false(ok)
            assert.equal(wrong[2], (err:gsub("^.-:%d+: ", "")))
            assert.matches("^%S*identity_spec%.lua:%d+: ", err)
        end
    end)
end)
