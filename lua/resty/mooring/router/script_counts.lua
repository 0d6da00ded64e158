-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- How often the functions of policies were called, failed, and how long they
-- took, in all workers. The engine counts in this one; what is new goes into
-- the shared dictionary once a second, as in router/counters.lua, where it
-- outlives workers and reloads. What finds no room there stays this worker's.

local add_to = require("resty.mooring.router.counters").add_to
local ipairs = ipairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local FIELDS = { "calls", "errors", "seconds" }


---
-- @param dict ngx.shared dictionary, or nil: then one worker's counts it is
-- @param prefix of the keys
-- @param engine see resty.mooring.script.engine
function _M.new(dict, prefix, engine)
    return setmetatable({ dict = dict, prefix = prefix .. ":policy:",
                          engine = engine, told = {} }, mt)
end


local function key_of(self, slot, field)
    return self.prefix .. slot.key .. ":" .. field
end


---
-- Adds what is new to the shared counts.
function _M.flush(self)
    local dict, told = self.dict, self.told
    if not dict then
        return
    end
    for _, slot in ipairs(self.engine.slots) do
        for _, field in ipairs(FIELDS) do
            local key = key_of(self, slot, field)
            local new = slot[field] - (told[key] or 0)
            if new ~= 0 and add_to(dict, key, new) then
                told[key] = slot[field]
            end
        end
    end
end


---
-- @return table of policy name to table of function name to { calls, errors,
--         seconds }, over all workers (others' as of their last second)
function _M.totals(self)
    self:flush()
    local totals, dict = self.engine:stats(), self.dict
    for _, slot in ipairs(dict and self.engine.slots or {}) do
        local counts = totals[slot.policy][slot.name]
        for _, field in ipairs(FIELDS) do
            counts[field] = dict:get(key_of(self, slot, field))
                            or counts[field]
        end
    end
    return totals
end


return _M
