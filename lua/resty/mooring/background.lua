-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Recurring work inside an nginx worker. In plain LuaJIT there is no event loop
-- and the same work is done in small portions on calls of the storage.

local ngx = ngx

local _M = {}

local TIMERLESS = { init = true, init_worker = false, exit_worker = true }


---
-- May a timer be armed here? Not in plain LuaJIT, not in nginx' master.
function _M.available()
    if not (ngx and ngx.timer and ngx.get_phase) then
        return false
    end
    return not TIMERLESS[ngx.get_phase()] and not ngx.worker.exiting()
end


---
-- Calls fn(owner) every `interval` seconds for as long as it returns true, the
-- worker lives, and the owner is in use. When it returns a number it is called
-- again after that many seconds.
-- @param first_worker_only boolean: one worker of the instance does it
-- @return true when the work goes on in this worker
function _M.every(interval, owner, fn, first_worker_only)
    if first_worker_only and ngx.worker.id() ~= 0 then
        return false
    end

    local weak = setmetatable({ owner = owner }, { __mode = "v" })
    local function tick(premature)
        local alive = weak.owner
        local again = not premature and alive and fn(alive)
        if again then
            ngx.timer.at(again == true and interval or again, tick)
        end
    end

    return (ngx.timer.at(interval, tick))
end


return _M
