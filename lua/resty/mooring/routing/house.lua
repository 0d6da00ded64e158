-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What every call on a routing storage begins with, and the work that is done
-- beside the calls: expired copies are swept, and the listener is looked after.
--
--     in nginx   a timer in each worker, which start() arms, or the second
--                request that comes by
--     elsewhere  a little in each call that is no hit
--
-- A worker may die at any turn of the sweep: others, and the next call, go on.
--
-- The functions take a routing storage, of which they use
--     cache, listener, closed, started, requests, max_id_length

local background = require "resty.mooring.background"
local errors = require "resty.mooring.errors"
local session = require "resty.mooring.session"

local closed = errors.closed
local error = error
local invalid_id = session.invalid_id
local ngx = ngx
local type = type

local _M = {}

local SWEEP_INTERVAL = 0.1
local SWEEP_PER_CALL = 4


local function sweep(self)
    if self.closed then
        return false
    end
    return self.cache:sweep_turn()
end


---
-- Begins the background work of this worker, once.
function _M.arm(self)
    if not self.started and background.available() then
        self.started = true
        background.every(SWEEP_INTERVAL, self, sweep, true)
        if self.listener then
            self.listener:start()
        end
    end
end


-- Timers would keep an object for ever that is one request's own (with
-- lua_code_cache off): so a second request has to come by first.
local function is_lasting(self)
    if ngx.get_phase() == "init_worker" then
        return true
    end
    local ctx = ngx.ctx
    if not ctx[self] then
        ctx[self] = true
        self.requests = self.requests + 1
    end
    return self.requests > 1
end


-- Where there are no timers, each call sweeps a little.
local function keep_house(self)
    if self.started then
        if self.listener then
            self.listener:look_after()
        end
        return
    end
    if background.available() and is_lasting(self) then
        _M.arm(self)
    else
        self.cache:sweep(SWEEP_PER_CALL)
    end
end


---
-- What every call begins with. It keeps house as well.
-- @param level optional, of the caller to blame for an id that is no string
-- @return nil, message, code: closed, invalid; or nothing when all is well
function _M.refuse(self, id, level)
    if type(id) ~= "string" then
        error("id must be a string", (level or 2) + 1)
    end
    if self.closed then
        return closed()
    end
    local wrong = invalid_id(id, self.max_id_length)
    if wrong then
        return nil, wrong, errors.INVALID
    end
    keep_house(self)
end


return _M
