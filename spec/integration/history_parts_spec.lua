-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a run of history.driver is made of, beside the checker: the schedule of
-- faults and the files operations are recorded in.

local history = require "history.history"
local report = require "history.report"
local schedule = require "history.schedule"
local servers = require "support.servers"

describe("history.schedule", function()
    local function drawn(seed)
        local lines = {}
        report.schedule(schedule.draw(seed, 60, "all"), function(line)
            lines[#lines + 1] = line
        end)
        return table.concat(lines, "\n")
    end

    it("draws the same faults from the same seed", function()
        assert.equal(drawn(7), drawn(7))
        assert.not_equal(drawn(7), drawn(8))
    end)

    it("ends every fault that lasts, before the run does", function()
        local begun = {}
        for _, action in ipairs((schedule.draw(7, 60, "all"))) do
            assert.is_true(action.at <= 59)
            if action.what == action.fault.begin then
                begun[action.fault] = true
            end
            if action.what == action.fault.finish then
                begun[action.fault] = nil
            end
        end
        for fault in pairs(begun) do
            assert.is_nil(fault.finish)
        end
    end)
end)

describe("history.history", function()
    teardown(function() servers.stop_all() end)

    it("reads what it has recorded", function()
        local dir = servers.tmpdir()
        local record = history.recorder(dir, "r1-77")
        record:write("store", "a", "v1", function() return true end)
        record:write("update", "a", "v2", function()
            return nil, "no reply, the outcome is unknown", "unavailable"
        end)
        record:write("create", "b", "v3", function()
            return nil, "not connected", "unavailable"
        end)
        record:write("remove_if", "b", "v3", function() return false end)
        assert.equal("session", record:load("load", "a", function()
            return "v1", nil, "stale", "session"
        end))
        record:load("resolve", "b", function()
            return nil, "session not found", "not_found"
        end)
        assert.is_false(history.is_complete(dir, "r1-77"))
        record:close()
        assert.is_true(history.is_complete(dir, "r1-77"))

        local ops = history.read(dir).ops
        local seen = {}
        for i, op in ipairs(ops) do
            assert.is_true(op.inv <= op.resp)
            assert.equal("r1", op.replica)
            seen[i] = ("%s %s %s %s %s"):format(op.kind, op.id, op.value or "-",
                op.code, tostring(op.stale))
        end
        assert.same({
            "store a v1 ok nil", "update a v2 unknown nil",
            "create b v3 failed nil", "remove_if b v3 changed nil",
            "load a v1 ok true", "resolve b - not_found false",
        }, seen)
    end)

    it("keeps what a killed process has begun", function()
        local dir = servers.tmpdir()
        servers.write_file(dir .. "/r2-5",
            "B 1 store a v1 10.000\nE 1 11.000 ok\nB 2 delete a - 12.000\nE 2 1")
        local driver = history.recorder(dir, "driver")
        driver:dead("r2-5")
        driver:close()

        local ops = history.read(dir).ops
        assert.equal(2, #ops)
        assert.is_nil(ops[2].resp)
        assert.is_nil(ops[2].code)
        assert.is_true(ops[2].died > 12)
    end)
end)
