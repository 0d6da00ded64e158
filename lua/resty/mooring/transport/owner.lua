-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Keeps the shared connection of a cosocket transport up.
--
--     start -> timer: connect -- up ---> serve the pipeline -- lost --.
--                ^       '------ down -> fail callers at once         |
--                '----- a fresh timer, after a back-off if down <-----'
--
-- A fresh one each time, because the memory of a timer is freed only when it
-- ends. A timer inherits the configuration it is created under: `start` in
-- init_worker_by_lua gives the connection that of http { }.
--
-- `self` is the transport (transport.cosocket); here are its fields
--     running     a timer owns, or is about to make, the connection
--     connected   the connection is up and may be used
--     waiting     queue of slots: callers that wait for it
--     on_up       functions to call when it has come up
--     attempts    connections in a row that were of no use
--     timer       number of the timer that was made last
--     due         ms: when it is to start; nil once it has

local alone = require "resty.mooring.transport.alone"
local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local links = require "resty.mooring.transport.link"
local log = require "resty.mooring.log"
local slots = require "resty.mooring.transport.slot"

local exiting = ngx.worker.exiting
local fail_fast = alone.fail_fast
local min = math.min
local now = binding.now
local pairs = pairs
local pcall = pcall
local random = math.random
local timer_at = ngx.timer.at
local tostring = tostring
local worker_pid = ngx.worker.pid

local CLOSED = errors.CLOSED
local UNAVAILABLE = errors.UNAVAILABLE

-- ms an enqueued command may wait for a connection.
local MAX_UNSENT_AGE = 5000

-- Seconds between two attempts to connect: doubled from the first to the last.
local FIRST_BACKOFF = 0.05
local LAST_BACKOFF = 1

-- Seconds after which the watch timer has to be made anew.
local WATCH = 1e6

-- ms after which a timer is given up. nginx drops timers, without telling whose
-- they are, when more than lua_max_running_timers want to run.
local OVERDUE = 1000

local _M = {}

-- Transports of this worker that are running.
local running = {}
local watching = false


local function nothing()
end


-- A worker that is told to leave has its timers fire early.
local function watch(premature)
    watching = false
    if not premature then
        watching = timer_at(WATCH, watch)
        return
    end

    for self in pairs(running) do
        self.connected = false
        self.pipeline:stop()
    end
    -- They sleep on semaphores. A post is seen to when something ends the
    -- sleep of the event loop, and a timer does.
    timer_at(0, nothing)
end


local function leaving(self)
    return self.closed or exiting()
end


local function came_up(self)
    self.counters.connects = self.counters.connects + 1
    self.failure = nil
    self.connected = not leaving(self)
    for i = 1, self.connected and #self.on_up or 0 do
        self.on_up[i]()
    end
    slots.complete_all(self.waiting)
end


local function went_down(self, err)
    self.attempts = self.attempts + 1
    if not self.failure then
        log.warn(err)
    end
    fail_fast(self, err, math.huge)
    slots.complete_all(self.waiting, err, UNAVAILABLE)
    self.pipeline:fail_unsent(err .. "; it was not sent", UNAVAILABLE,
                              now() - MAX_UNSENT_AGE)
end


-- The next attempt is made at once, except when one connection after the other
-- is accepted and then of no use: that is as good as refused.
local function was_lost(self, link, err, since)
    if self.pipeline.answered or now() - since > LAST_BACKOFF * 1000 then
        self.attempts = 0
    elseif self.attempts > 0 then
        return went_down(self, "could not talk to " .. self.address .. ": "
                               .. (link.complaint or err))
    else
        self.attempts = 1
    end
    self.counters.errors = self.counters.errors + 1
    log.warn("lost the connection to ", self.address, ": ", err)
end


-- The life of one connection.
local function serve(self)
    local link, err = links.open(self.opts, true)
    if not link then
        return went_down(self, err)
    end

    came_up(self)
    local since = now()
    err = self.pipeline:run(link)
    self.connected = false
    if not leaving(self) then
        self.pipeline:resume()
    end
    if err then
        was_lost(self, link, err, since)
    end
end


-- Workers are forked with one state of random(): their pids tell them apart.
local function backoff(self)
    if not self.failure then
        return 0
    end
    local jitter = (random() + worker_pid() * 0.618034) % 1
    return min(LAST_BACKOFF, FIRST_BACKOFF * 2 ^ (self.attempts - 1))
           * (0.5 + jitter / 2)
end


local function finish(self, err)
    running[self] = nil
    self.running, self.connected = false, false
    if self.closed then
        slots.complete_all(self.waiting, "transport is closed", CLOSED)
        return self.pipeline:fail_unsent("transport is closed", CLOSED)
    end

    if self.failure then
        self.failed_until = now() + alone.BACKOFF
    end
    slots.complete_all(self.waiting, err, UNAVAILABLE)
    alone.flush(self)
end


local make_timer


local function own_connection(premature, self, timer)
    if timer ~= self.timer then
        return -- given up, and late after all
    end

    self.due = nil
    if not premature and not leaving(self) then
        local ok, err = pcall(serve, self)
        if not ok then
            self.connected = false
            err = "the transport failed: " .. tostring(err)
            slots.complete_all(self.pipeline.sent, err, UNAVAILABLE)
            went_down(self, err)
        end
    end
    if premature or leaving(self) then
        return finish(self, "the worker is exiting")
    end

    local ok, err = make_timer(self, backoff(self))
    if not ok then
        finish(self, "could not make a timer: " .. err)
    end
end


function make_timer(self, seconds)
    self.timer = self.timer + 1
    self.due = now() + seconds * 1000
    return timer_at(seconds, own_connection, self, self.timer)
end


local function start_watch()
    if watching then
        return true
    end
    local ok, err = timer_at(WATCH, watch)
    watching = ok
    return ok, err
end


---
-- Starts the connection in the background. Not in init and exit_worker.
-- @return true; or nil, message, "unavailable"
function _M.start(self)
    local ok, err = start_watch()
    if ok then
        ok, err = make_timer(self, 0)
    end
    if not ok then
        return nil, "could not make a timer: " .. err, UNAVAILABLE
    end
    self.running = true
    running[self] = true
    return true
end


---
-- Is there a timer at work, or will there be one?
function _M.is_running(self)
    if self.due and now() > self.due + OVERDUE then
        log.warn("a timer was lost, is lua_max_running_timers too small?")
        self.due, self.failure = nil, nil
        self.timer = self.timer + 1
        self.running = false
        running[self] = nil
    end
    return self.running
end


---
-- Waits until the connection is up, in phases that can.
-- @return true; or nil, message, code
function _M.await(self)
    local failure = alone.failing(self)
    if failure then
        return nil, failure, UNAVAILABLE
    end

    local opts = self.opts
    local slot = slots.acquire()
    slots.push(self.waiting, slot)
    if not slots.wait(slot, opts.connect_timeout + opts.command_timeout) then
        -- Neither up nor refused: what has no bound here is nginx' resolver.
        local err = "could not connect to " .. self.address .. ": timeout"
        fail_fast(self, err, now() + alone.BACKOFF)
        return nil, err, UNAVAILABLE
    end

    local err, code = slot.err, slot.code
    slots.release(slot)
    if err then
        return nil, err, code
    end
    return true
end


return _M
