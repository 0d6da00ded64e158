-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Remote storages a user might write: plain tables with the five methods.

local record = require "resty.mooring.record"

local _M = {}

--- A remote that keeps records in a table, counts the calls of each method in
-- .calls, and fails those named in .failing = { method = { message, code } }.
-- .before(method, id), if set, runs before each call.
function _M.counting()
    local self = { records = {}, calls = {}, failing = {}, closed = 0 }

    local function method(name, fn)
        self.calls[name] = 0
        self[name] = function(_, argument)
            self.calls[name] = self.calls[name] + 1
            if self.before then
                self.before(name, type(argument) == "table" and argument.id or argument)
            end
            if self.failing[name] then
                return nil, self.failing[name][1], self.failing[name][2]
            end
            return fn(argument)
        end
    end

    method("store", function(s)
        self.records[s.id] = assert(record.encode(s))
        return true
    end)
    method("load", function(id)
        if not self.records[id] then
            return nil, "session not found", "not_found"
        end
        return record.decode(self.records[id])
    end)
    method("delete", function(id)
        self.records[id] = nil
        return true
    end)
    method("delete_expired", function(before)
        local count = 0
        for id, text in pairs(self.records) do
            if record.decode(text).updated_at < before then
                self.records[id] = nil
                count = count + 1
            end
        end
        return count
    end)
    method("close", function() return true end)

    return self
end

return _M
