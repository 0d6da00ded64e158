-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What was found out about the last so many keys, in one worker and in bounded
-- memory. There are two generations:
--
--     young   keys since the last turn; at `size` of them it becomes old
--     old     those of the turn before; one that is asked for is young again
--
-- so between `size` and 2 * `size` keys are known, and none costs more than two
-- look-ups.

local _M = {}


---
-- @param size keys of a generation
-- @return get(key) -> value or nil, set(key, value); false is a value
function _M.new(size)
    local young, old, room = {}, {}, size

    local function set(key, value)
        if young[key] == nil then
            if room == 0 then
                young, old, room = {}, young, size
            end
            room = room - 1
        end
        young[key] = value
    end

    local function get(key)
        local value = young[key]
        if value == nil then
            value = old[key]
            if value ~= nil then
                set(key, value)
            end
        end
        return value
    end

    return get, set
end


return _M
