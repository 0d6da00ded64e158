-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- pcall for functions of others in a timer. What pcall does not catch is
-- ngx.exit: it ends the timer it is called in, with all that was to be done
-- there. So the function is called in a timer of its own, while that of the
-- caller waits:
--
--     caller   |---- waits for `done`, looks now and then at `alive` ----|
--     timer         |---- fn ----| results, posts `done`
--     its guard     |- waits for `alive`, which counts those who wait: when
--                      the timer ends early, so does the guard

local ngx = ngx
local pcall = pcall
local select = select
local unpack = unpack

local semaphore = ngx and ngx.get_phase and pcall(require, "ngx.semaphore")
                  and require "ngx.semaphore"

local _M = {}

local LOOK = 0.25   -- seconds
local FOREVER = 1e6 -- seconds

local ENDED = "it has ended its timer, as ngx.exit does"
local DROPPED = "lua_max_running_timers are not enough"


local function keep(call, ...)
    call.n = select("#", ...)
    for i = 1, call.n do
        call[i] = select(i, ...)
    end
end


local function guard(call)
    call.alive:wait(FOREVER)
end


local function run(_, call, fn, x)
    if call.is_given_up then
        return
    end
    local thread = ngx.thread.spawn(guard, call)
    call.has_begun = true
    keep(call, pcall(fn, x))
    ngx.thread.kill(thread)
    call.done:post()
end


-- Why there will be no results; nil while there may be.
local function failure(call)
    if not call.has_begun then
        call.is_given_up = true
        return DROPPED
    end
    return call.alive:count() == 0 and ENDED or nil
end


---
-- Calls fn(x), and survives whatever it does where that is possible: in timers.
-- Waits for it, and elsewhere is pcall.
-- @return as pcall
function _M.pcall(fn, x)
    if not semaphore or ngx.get_phase() ~= "timer" or ngx.worker.exiting() then
        return pcall(fn, x)
    end
    local call = { done = semaphore.new(), alive = semaphore.new() }
    if not ngx.timer.at(0, run, call, fn, x) then
        return pcall(fn, x)
    end
    while true do
        call.done:wait(LOOK)
        if call.n then
            return unpack(call, 1, call.n)
        end
        local wrong = failure(call)
        if wrong then
            return false, wrong
        end
    end
end


return _M
