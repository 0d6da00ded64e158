-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Open event streams are a use of their session: a client that listens for
-- hours without a request of its own must find its session afterwards. Each
-- worker knows the streams that are open through it and looks their sessions
-- up from time to time, which is all a storage needs to keep them.
--
-- Timers end early when a worker has to leave, its streams do not. So the work
-- goes on in that last call of the timer for as long as there are streams.

local isolated = require "resty.mooring.isolated"
local log = require "resty.mooring.log"

local min = math.min
local ngx = ngx
local pairs = pairs
local pcall = pcall
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local MAX_INTERVAL = 60 -- seconds
local LEAVING_STEP = 1  -- seconds an old worker may outlive its last stream


---
-- @param use function(id): shows a use of the session to the storage; waits
-- @param ttl seconds a session lives without use
function _M.new(use, ttl)
    return setmetatable({
        use = use,
        interval = min(ttl / 3, MAX_INTERVAL),
        open = {},  -- id -> number of streams
        count = 0,
    }, mt)
end


---
-- A stream of this session has begun.
function _M.add(self, id)
    self.open[id] = (self.open[id] or 0) + 1
    self.count = self.count + 1
end


---
-- A stream of this session has ended.
function _M.remove(self, id)
    local left = (self.open[id] or 0) - 1
    self.open[id] = left > 0 and left or nil
    self.count = self.count - 1
end


local function use_all(self)
    local ids, n = {}, 0
    for id in pairs(self.open) do
        n = n + 1
        ids[n] = id
    end
    -- A copy: streams come and go while the storage is waited for.
    for i = 1, n do
        if self.open[ids[i]] then
            self.use(ids[i])
        end
    end
end


local function stay(self)
    local next_use = ngx.now() + self.interval
    while self.count > 0 do
        ngx.sleep(min(LEAVING_STEP, self.interval))
        ngx.update_time()
        if ngx.now() >= next_use then
            next_use = ngx.now() + self.interval
            use_all(self)
        end
    end
end


local function tick(premature, self)
    local ok, err
    if premature then
        ok, err = pcall(stay, self)
    else
        ok, err = isolated.pcall(use_all, self)
    end
    if not ok then
        log.warn_limited("streams", "could not look after open streams: ", err)
    end
    if not premature then
        ngx.timer.at(self.interval, tick, self)
    end
end


---
-- Begins in this worker. For init_worker_by_lua.
function _M.start(self)
    ngx.timer.at(self.interval, tick, self)
end


return _M
