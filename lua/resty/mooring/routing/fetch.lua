-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Misses: from the remote into the local tier.
--
--     miss --> known not to be there? ----------------> not found
--          --> is a fetch of the id under way here? --> join it (its token
--          |                                            must still be valid)
--          '-> token, remote, fill
--
-- What can go wrong: the session is deleted or overwritten, here or elsewhere,
-- between the question and the answer. Then the token is no longer valid: the
-- answer goes to those who asked before that, and is not kept; who comes after
-- it asks anew. Or the request whose fetch was joined is killed (its client has
-- gone): the others wait no longer than a fetch may take, and ask then.
--
-- The functions take a routing storage.

local copies = require "resty.mooring.routing.copies"
local errors = require "resty.mooring.errors"
local mooring_ffi = require "resty.mooring.ffi"
local record = require "resty.mooring.record"

local clock = mooring_ffi.now
local copy = record.copy
local encode = record.encode
local fill = copies.fill
local not_found = errors.not_found
local error = error
local ngx = ngx
local pcall = pcall
local setmetatable = setmetatable

local NOT_FOUND = errors.NOT_FOUND

local _M = {}

-- Background fetches: at most so many at once, and so many a second.
local REFETCH_RATE, REFETCH_BURST = 200, 200


-- --------------------------------------------------------------- the remote --

-- A remote that says how long a record has to live, and leaves its renewal to
-- us.
local function keep(self, id, s, left, asked, token)
    if self.remote:is_due(s, left) then
        -- A copy: what renews looks at it later, and this one is the caller's.
        copies.fill_and_renew(self, id, copy(s), asked, token)
    else
        fill(self, id, s, s._record, copies.times(self, asked, left), token,
             0)
    end
end


local function ask_with_expiry(self, id, token)
    local asked = clock()
    local s, left, code = self.remote:fetch(id)
    if not s then
        return nil, left, code
    end
    keep(self, id, s, left, asked, token)
    return s
end


local function ask_plainly(self, id, token)
    local asked = clock()
    local s, err, code = self.remote:load(id)
    if not s then
        return nil, err, code
    end
    local text = encode(s)
    if text then
        fill(self, id, s, text, copies.times(self, asked), token, 0)
    end
    return copy(s) -- who knows whether the remote keeps it
end


local function ask(self, id, token)
    local how = self.tells_expiry and ask_with_expiry or ask_plainly
    local s, err, code = how(self, id, token)
    if not s and code == NOT_FOUND and not self.closed then
        copies.vanish(self, id, token)
        self.negative:add(id, token)
    end
    return s, err, code
end


-- -------------------------------------------------------------- one flight --

local semaphore = ngx and ngx.get_phase and pcall(require, "ngx.semaphore")
                  and require "ngx.semaphore"

local CAN_WAIT = { rewrite = true, access = true, content = true, timer = true }


-- Flights that have landed and that nobody has joined, for reuse.
local MAX_POOLED = 256
local pool, pooled = {}, 0


local function new_flight(self, id)
    local flight = pool[pooled]
    if flight then
        pool[pooled] = nil
        pooled = pooled - 1
        flight.done, flight.err, flight.code = false, nil, nil
    else
        flight = { waiting = 0, done = false, landed = nil, session = nil,
                   err = nil, code = nil, token = nil, since = 0 }
    end
    -- A joiner looks at the token of a flight under way only, so it can be used
    -- again with the flight.
    flight.token = self.cache:token(id, flight.token)
    flight.since = clock()
    return flight
end


-- Waits for a fetch of another request. Returns false when that has not ended
-- in time, or true and the results of the fetch.
local function join(self, flight)
    flight.landed = flight.landed or semaphore.new(0)
    flight.waiting = flight.waiting + 1
    if not flight.landed:wait(self.patience) and not flight.done then
        flight.waiting = flight.waiting - 1
        return false
    end
    return true, flight.session, flight.err, flight.code
end


-- Those who have joined get a session that the first one does not have.
local function tell(flight, ok, s, err, code)
    if ok then
        flight.session = s and copy(s)
        flight.err, flight.code = err, code
    else
        flight.err, flight.code = "the fetch failed", errors.UNAVAILABLE
    end
    flight.landed:post(flight.waiting)
end


local function land(self, id, flight, ok, s, err, code)
    if self.flights[id] == flight then
        self.flights[id] = nil
    end
    flight.done = true
    if flight.waiting > 0 then
        tell(flight, ok, s, err, code)
    elseif pooled < MAX_POOLED then
        pooled = pooled + 1
        pool[pooled] = flight
    end
end


-- A remote of the user's may raise an error; that is his to see, but the others
-- are not to wait for its result.
local function fly_guarded(self, id, flight)
    local ok, s, err, code = pcall(ask, self, id, flight.token)
    land(self, id, flight, ok, s, err, code)
    if not ok then
        error(s, 0)
    end
    return s, err, code
end


-- A remote of ours raises none. What follows a wait under a pcall is never
-- compiled, and that is most of a miss.
local function fly(self, id)
    local flight = new_flight(self, id)
    self.flights[id] = flight
    if not self.tells_expiry then
        return fly_guarded(self, id, flight)
    end
    local s, err, code = ask(self, id, flight.token)
    land(self, id, flight, true, s, err, code)
    return s, err, code
end


local function is_joinable(self, id, flight)
    return flight and self.cache:is_valid(id, flight.token)
           and clock() - flight.since < self.patience * 1000
end


---
-- Makes the table of the fetches under way. One whose request was killed is
-- never taken out of it; the collector does that.
function _M.flights()
    return setmetatable({}, { __mode = "v" })
end


local function join_or_fly(self, id)
    local flight = self.flights[id]
    if is_joinable(self, id, flight) then
        local ended, s, err, code = join(self, flight)
        if ended then
            return s and copy(s), err, code
        elseif self.closed then
            return errors.closed()
        end
    end
    return fly(self, id)
end


---
-- Fetches a session and keeps a copy.
-- @return session, the caller's own; or nil, message, code
function _M.fetch(self, id)
    if self.negative:has(id) then
        return not_found()
    elseif semaphore and CAN_WAIT[ngx.get_phase()] then
        return join_or_fly(self, id)
    end
    return ask(self, id, self.cache:token(id))
end


-- --------------------------------------------------------------- refetching --

-- A token bucket: is there a share left?
local function may_refetch(self)
    local now = clock()
    local passed = (now - (self.refetched_at or 0)) / 1000
    self.refetched_at = now
    self.refetch_share = math.min(REFETCH_BURST, passed * REFETCH_RATE
                                  + (self.refetch_share or REFETCH_BURST))
    if self.refetch_share < 1 then
        return false
    end
    self.refetch_share = self.refetch_share - 1
    return true
end


---
-- Fetches in the background a session whose copy was doubted, so that the next
-- use is a hit again, or the hook hears that it is gone. This is no use of the
-- session and does not renew it, or replicas would keep it alive for ever.
function _M.refetch(self, id)
    if self.closed or not may_refetch(self) then
        return
    end
    local token, asked = self.cache:token(id), clock()
    self.remote:fetch_later(id, function(s, left, code)
        if self.closed then
            return
        elseif s and left > 0 then
            fill(self, id, s, s._record, copies.times(self, asked, left),
                 token, 0)
        elseif code == NOT_FOUND then
            copies.vanish(self, id, token)
        end
    end)
end


return _M
