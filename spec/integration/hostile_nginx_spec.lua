-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The hostile Redis of hostile_redis_spec.lua, met by the workers of an nginx:
-- every request is answered with what it asked for or with an error, no worker
-- dies or grows without end, and all is well again once Redis is.

local servers = require "support.servers"
local storage_app = require "support.storage_app"

local BEHAVIOURS = {
    "integer", "array", "nested", "deep_session", "other_session", "long_error",
    "http", "garbage", "resp3", "bad_length", "negative_length", "huge_bulk",
    "impossible_bulk", "huge_array", "impossible_array", "eight_arrays",
    "endless_nesting", "endless_string", "endless_line", "endless_length",
    "endless_array", "trickle", "half", "half_and_close", "silence", "close", "twice",
    "late", "one_behind", "endless_replies", "endless_nils",
}
local CODES = { not_found = true, already_exists = true, unavailable = true,
                timeout = true, invalid = true }
local URL = "http://10.0.0.1:8080"
local PEAK = 200 -- MB: two replies of 16 MB at once, and their trees

local function peak(pid)
    local text = servers.read_file(("/proc/%d/status"):format(pid))
    return tonumber(text:match("VmHWM:%s*(%d+)")) / 1024
end

describe("nginx with a hostile Redis", function()
    local peer, app, pids

    setup(function()
        peer = servers.node("spec/fixtures/hostile_redis.mjs")
        app = storage_app.start {
            url = "redis://127.0.0.1:" .. peer.port,
            redis = "connect_timeout = 0.2, command_timeout = 0.2",
            routing = "coherence_lease = 0.5, negative_ttl = 0, serve_stale = false",
        }
        pids = app.nginx:worker_pids()
    end)

    teardown(function() servers.stop_all() end)

    local function ask(op, id)
        local answer = app:ask { op = op, id = id, url = URL }
        if answer.value == nil then
            assert(type(answer.err) == "string" and CODES[answer.code],
                ("%s: nil, %s, %s"):format(op, tostring(answer.err), tostring(answer.code)))
        elseif op == "load" or op == "resolve" then
            assert.equal(URL, answer.value)
        else
            assert.is_true(answer.value)
        end
        return answer.value
    end

    for _, as in ipairs(BEHAVIOURS) do
        it("answers while each reply is: " .. as, function()
            servers.wait_for(function() return ask("store", "a") end, 20, "a Redis")
            assert.is_nil(peer:ask({ op = "behave", as = as }).error)
            for _, op in ipairs { "load", "store", "resolve", "create", "delete" } do
                ask(op, op == "create" and "c" or "a")
            end
            assert.is_nil(peer:ask({ op = "behave", as = "sane" }).error)
            servers.wait_for(function()
                return ask("store", "b") and ask("load", "b")
            end, 20, "the session to be found again")
            assert.same(pids, app.nginx:worker_pids())
            for _, pid in ipairs(pids) do
                assert.is_true(peak(pid) < PEAK, ("%d MB"):format(peak(pid)))
            end
        end)
    end
end)
