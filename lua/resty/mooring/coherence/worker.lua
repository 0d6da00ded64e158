-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The listener of an nginx instance: one worker has it, any can take it over.
--
--     every worker, each tick:         is there a living owner? if not, claim
--     the owner:                       a timer, a connection, two threads:
--                                      reader, and keeper of beats and beacons
--
-- Who owns it stands in the region: owner and the time of its last beat.
--
--     owner SIGKILLed, or frozen      its beat gets old, another worker claims,
--                                     connects, bumps the epoch
--     owner told to leave (reload)    it says so in the region and goes on
--                                     listening; a worker of the new generation
--                                     connects and says when its SUBSCRIBE is
--                                     confirmed; the owner writes a beacon, and
--                                     when that has come back to it, it has
--                                     read all that was pushed before the other
--                                     began to listen: it hands over, and the
--                                     epoch stays, so the region stays warm
--     owner dies while it hands over  its beat gets old, as above
--     no successor (the last worker)  after GRACE it resigns and leaves

local election = require "resty.mooring.coherence.election"
local links = require "resty.mooring.transport.link"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local protocol = require "resty.mooring.transport.protocol"
local semaphore = require "ngx.semaphore"

local clock = mooring_ffi.now
local encode_all = protocol.encode_all
local exiting = ngx.worker.exiting
local max = math.max
local min = math.min
local ngx = ngx
local pcall = pcall
local random = math.random
local setmetatable = setmetatable
local thread = ngx.thread
local timer_at = ngx.timer.at
local tostring = tostring

local _M = {}
local mt = { __index = _M }

local TICKS_PER_LEASE = 8
local LONGEST_TICK = 0.1    -- seconds; a leaving owner is followed soon
local BEAT_PATIENCE = 0.75  -- leases without a beat: the owner is dead,
local LEAST_PATIENCE = 1000 -- but ms at least: a busy one must not flap
local GRACE = 1000          -- ms a leaving owner waits for its successor
local HANDOVER_STEP = 0.01  -- seconds
local BACKOFF_FIRST, BACKOFF_LAST = 0.05, 2 -- seconds
local RETRY_REFUSED = 30    -- seconds; somebody may grant the right meanwhile
local STEADY = 1000         -- ms a connection lasted that was of some use
local OVERDUE = 1000        -- ms after which a timer is taken for lost
local WATCH = 1e6           -- seconds
local BYTES_A_TURN = 65536  -- some 1,000 messages, which take a few ms

-- Makes each attempt of each object in this worker to own a listener another
-- one.
local attempt = 0


---
-- @param coherence of resty.mooring.coherence
-- @param target what a transport connects to
function _M.new(coherence, target)
    return setmetatable({
        coherence = coherence,
        cache = coherence.cache,
        target = target,
        tick = min(coherence.lease_ms / 1000 / TICKS_PER_LEASE, LONGEST_TICK),
        token = 0,
        owning = false,    -- a timer of this worker owns or takes over
        successor = false, -- takes over, and is not the owner yet
        stopped = false,   -- by its storage: the region is not to be touched
        complained = false,
        attempts = 0,
        due = nil,         -- when the timer was made that is to own it
        ticked = 0,
        loop = 0,          -- number of the loop of ticks
    }, mt)
end


-- ------------------------------------------------------------ one listener --

local function leaving(self)
    return self.stopped or exiting()
end


-- A socket that has bytes at every look never waits, and nothing else in this
-- worker would run. What is left is read in the next turns of the event loop:
-- the beacons behind it are late, and the lease ends by itself.
-- The clock is that of nginx, which stands still within a turn.
local function give_way(turn, bytes)
    local now = clock()
    if turn.began ~= now then
        turn.began, turn.bytes = now, 0
    end
    turn.bytes = turn.bytes + bytes
    if turn.bytes >= BYTES_A_TURN then
        ngx.sleep(0.001)
    end
end


-- Returns what is wrong, or nil.
local function send(link, commands)
    local sent
    local bytes, err = encode_all(commands)
    if bytes then
        sent, err = link:send(bytes)
    end
    return not sent and err or nil
end


-- Feeds replies to the protocol until something is wrong with them.
local function read_loop(self, link)
    local coherence, reader, turn = self.coherence, link.reader, {}
    while true do
        local bytes, err = link:receive()
        if not bytes or self.stopped then
            return err
        end
        local reply
        reply, err = reader:next()
        while reply ~= nil do
            local commands, wrong, refused = coherence:take(reply)
            if wrong then
                return wrong, refused
            elseif commands then
                err = send(link, commands)
                if err then
                    return err
                end
            end
            reply, err = reader:next()
        end
        if err then
            return err
        end
        give_way(turn, bytes)
    end
end


local function read(self, link)
    local ok, err, refused = pcall(read_loop, self, link)
    self.ended, self.refused = tostring(err), ok and refused
    self.wake:post()
end


-- While it leaves: a short sleep. Returns false when there is no more to wait
-- for.
local function stay(self, deadline)
    election.beat(self.cache, self.token)
    ngx.sleep(HANDOVER_STEP)
    return not self.ended and not self.stopped and clock() < deadline
end


-- A successor has its subscription confirmed: read up to a beacon written after
-- that, then hand over.
local function hand_over(self, successor, deadline)
    local key = self.coherence:beacon(true)
    while key do
        if self.coherence:has_arrived(key) then
            return election.grant(self.cache, self.token, successor)
        elseif not stay(self, deadline) then
            return false
        end
    end
    return false
end


-- Returns true when another worker listens now.
local function leave(self)
    local cache, deadline = self.cache, clock() + GRACE
    if self.ended or self.coherence.state ~= "live"
       or not election.leave(cache, self.token)
    then
        return false
    end
    repeat
        self.coherence:beacon()
        local successor = election.ready_successor(cache, self.token)
        if successor and hand_over(self, successor, deadline) then
            return true
        end
    until not stay(self, deadline)
    return false
end


-- A successor waits for the old owner's word, or for its death.
local function take_over(self)
    local cache = self.cache
    if self.coherence.state == "live" then
        election.ready(cache, self.token)
    end
    if election.is_owner(cache, self.token) then
        self.successor = false
        self.coherence:granted()
    elseif election.claim(cache, self.token, self.patience) then
        -- It did not live to read its last messages.
        self.successor = false
        cache:set_lease(0)
        if self.coherence.state == "live" then
            cache:bump_epoch()
        end
        self.coherence:granted()
    else
        return election.is_successor(cache, self.token)
    end
    return true
end


-- What has to be done several times a lease. Returns false when this worker is
-- no longer the one to do it.
local function keep(self)
    if self.successor then
        return take_over(self)
    end
    if not election.beat(self.cache, self.token) then
        return false
    end
    local coherence = self.coherence
    coherence:beacon()
    if coherence.forbidden then
        self.ended, self.refused = coherence.forbidden, true
    elseif coherence:is_silent() then
        self.ended = "it has been silent for too long"
    elseif coherence:is_astray() then
        self.ended = "the server is another one by now"
    end
    return true
end


-- Seconds until there is something to do again.
local function pause(self)
    if self.coherence.state ~= "live" then
        return min(HANDOVER_STEP / 2, self.tick)
    end
    return self.successor and HANDOVER_STEP or self.tick
end


-- Returns whether this worker is still the one to listen, and whether it has
-- handed over.
local function keep_on(self)
    local mine = true
    while mine and not self.ended and not leaving(self) do
        mine = keep(self)
        if mine and not self.ended then
            self.wake:wait(pause(self))
        end
    end
    local retired = mine and leaving(self) and not self.stopped
                    and not self.successor and leave(self)
    return mine, retired
end


local function serve(self, link)
    self.wake = semaphore.new(0)
    self.ended, self.refused = nil, nil
    link:set_idle()
    local err = send(link, self.coherence:connected(self.token, self.successor))
    if err then
        return err, nil, true
    end

    local reader = thread.spawn(read, self, link)
    local mine, retired = keep_on(self)
    thread.kill(reader)
    if not mine or retired then
        self.coherence:retired()
    elseif not self.stopped then
        self.coherence:lost()
    end
    return self.ended, self.refused, mine
end


-- ---------------------------------------------------------- its life cycle --

local function complain(self, err, refused)
    if refused then
        err = self.coherence:refused(err)
        if not self.complained then
            self.complained = true
            log.err(err)
        end
    elseif err and self.attempts == 0 then
        log.warn("believes no copy until it hears of changes again: ", err)
    end
end


local function backoff(self, refused)
    if refused then
        return RETRY_REFUSED
    end
    self.attempts = self.attempts + 1
    return min(BACKOFF_LAST, BACKOFF_FIRST * 2 ^ (self.attempts - 1))
           * (0.5 + random() / 2)
end


local function connect_and_serve(self)
    local link, err = links.open(self.target)
    if not link then
        return err, nil, true
    end
    if self.stopped then
        return link:close()
    end
    local since = clock()
    local refused, mine
    err, refused, mine = serve(self, link)
    link:close()
    if clock() - since > STEADY then
        self.attempts, self.complained = 0, false
    end
    return err, refused, mine
end


local listen

-- While nothing can be listened to, the owner still has to beat: the others
-- would only fail the same way.
local function retry(self, seconds)
    local deadline = clock() + seconds * 1000
    while clock() < deadline and not leaving(self) do
        if not election.beat(self.cache, self.token) then
            return false
        end
        ngx.sleep(min(self.tick, seconds))
    end
    return not leaving(self) and timer_at(0, listen, self)
end


function listen(premature, self)
    local again = false
    self.due = nil
    if not premature and not leaving(self) then
        local ok, err, refused, mine = pcall(connect_and_serve, self)
        if not ok then
            self.coherence:retired()
            err, mine = "the listener failed: " .. tostring(err), true
        end
        complain(self, err, refused)
        again = mine and not leaving(self) and not self.successor
                and retry(self, backoff(self, refused))
    end
    if not again and not self.stopped then
        election.resign(self.cache, self.token)
    end
    self.owning = again
end


local function become(self, successor)
    self.owning, self.successor, self.due = true, successor, clock()
    if not timer_at(0, listen, self) then
        self.owning = false
        election.resign(self.cache, self.token)
    end
end


-- Another number for each attempt.
local function next_token(self)
    attempt = attempt + 1
    self.token = ngx.worker.pid() * 1048576 + attempt % 1048576
    return self.token
end


-- nginx drops timers, without telling whose they are, when more than
-- lua_max_running_timers want to run.
local function look(self)
    local dropped = self.due and clock() - self.due > OVERDUE
    if self.owning and not dropped then
        return
    end
    local token = next_token(self)
    if election.claim(self.cache, token, self.patience) then
        become(self, false)
    elseif election.succeed(self.cache, token) then
        become(self, true)
    end
end


local function tick(premature, self, loop)
    if premature or loop ~= self.loop or leaving(self) then
        return
    end
    self.ticked = clock()
    look(self)
    self.coherence:follow()
    timer_at(self.tick, tick, self, loop)
end


local function begin(self)
    self.ticked, self.loop = clock(), self.loop + 1
    timer_at(0, tick, self, self.loop)
end


-- Wakes the keeper when the worker is told to leave: timers fire early then.
local function watch(premature, self)
    if not premature then
        timer_at(WATCH, watch, self)
    elseif self.wake then
        self.wake:post()
        timer_at(0, function() end) -- the post is seen to when a timer ends
    end
end


---
-- Takes part in the election in this worker.
function _M.start(self)
    self.patience = max(BEAT_PATIENCE * self.coherence.lease_ms,
                        LEAST_PATIENCE)
    timer_at(WATCH, watch, self)
    begin(self)
end


---
-- Takes part again when the timer that did was dropped.
function _M.look_after(self)
    if clock() - self.ticked > OVERDUE + 2000 * self.tick
       and not leaving(self)
    then
        begin(self)
    end
end


---
-- No longer takes part, and no longer touches the region; another worker takes
-- over.
function _M.stop(self)
    self.stopped = true
    self.coherence:close()
    election.resign(self.cache, self.token)
    if self.wake then
        self.wake:post()
    end
end


return _M
