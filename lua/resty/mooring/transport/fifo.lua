-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Queues of any values but nil, as tables: an empty one begins at 1 again, so
-- that a queue which is emptied now and then stays an array.
--
--     { first = 3, last = 4, [3] = ..., [4] = ... }

local _M = {}


---
-- A queue of values, false among them.
function _M.new()
    return { first = 1, last = 0 }
end


---
-- How many values there are.
function _M.size(fifo)
    return fifo.last - fifo.first + 1
end


---
-- Puts a value behind all others.
function _M.push(fifo, value)
    local last = fifo.last + 1
    fifo.last = last
    fifo[last] = value
end


---
-- Takes the value that came first. Not for an empty queue.
function _M.pop(fifo)
    local first = fifo.first
    local value = fifo[first]
    fifo[first] = nil
    if first == fifo.last then
        fifo.first, fifo.last = 1, 0
    else
        fifo.first = first + 1
    end
    return value
end


return _M
