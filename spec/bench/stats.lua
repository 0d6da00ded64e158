-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The statistics of rounds: medians and extremes, nothing that assumes a shape
-- of the noise. A list has one number for each round.

local floor = math.floor
local sort = table.sort

local _M = {}

function _M.median(list)
    local sorted = {}
    for i = 1, #list do
        sorted[i] = list[i]
    end
    sort(sorted)
    local n = #sorted
    local half = floor(n / 2)
    if n % 2 == 1 then
        return sorted[half + 1]
    end
    return (sorted[half] + sorted[half + 1]) / 2
end

--- @return { median =, min =, max = }, or nil for an empty list
function _M.summary(list)
    if not list or #list == 0 then
        return nil
    end
    local low, high = list[1], list[1]
    for i = 2, #list do
        low, high = math.min(low, list[i]), math.max(high, list[i])
    end
    return { median = _M.median(list), min = low, max = high }
end

--- The summary of a[i] / b[i]: of what was measured in the same round.
function _M.ratio(a, b)
    local ratios = {}
    for i = 1, math.min(#a, #b) do
        ratios[i] = a[i] / b[i]
    end
    return _M.summary(ratios)
end

--- The values of one field of a list of tables.
function _M.pluck(list, field)
    local values = {}
    for i = 1, #list do
        values[i] = list[i][field]
    end
    return values
end

return _M
