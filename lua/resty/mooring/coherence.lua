-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Coherence of the local tier with Redis: what a listener connection says and
-- hears. Bytes are moved by coherence.worker (nginx) and coherence.inline
-- (plain LuaJIT); the time and the local tier are all that is touched here.
--
-- Redis is asked to push the name of every key below our prefix that changes
-- (CLIENT TRACKING in broadcasting mode, redirected to the very connection that
-- asks, which works in RESP2). That makes the local tier right for as long as
-- the messages arrive, so the second half of the work is to know that they do:
--
--     data connection    PEXPIRE beacon k  ----------> Redis
--     (queued at t0)                                     | pushes, in the order
--     listener           lease := t0 + coherence_lease <-' of what it executes
--
-- When the message about our own write arrives, every message about a write
-- that was acknowledged before t0 has arrived before it. So hits are believed
-- until t0 + coherence_lease and no longer. A PING would prove only a socket: a
-- demoted master, a cut-off replica and a connection whose SUBSCRIBE was
-- refused all answer PONG for ever.
--
-- What can go wrong:
--   * Messages are lost (the connection broke, we were cut off as a slow
--     reader): the lease ends at once, and once TRACKING and SUBSCRIBE are
--     confirmed on a new connection the epoch is bumped, which disbelieves every
--     entry, and only then does a beacon bring a new lease. The other order
--     would let a fill from between the two connections be believed.
--   * Messages are late (a hiccup): the lease ends by itself, no message is
--     lost, and the next beacon brings it back without an epoch.
--   * A beacon is late: each has a key of its own among RING, the message says
--     which, and a connection is given up before the ring has gone around.
--     The keys carry a number that is new for each connection.
--   * Two listeners (one was thought dead): both read every message in order,
--     so what either of them proves is true.
--   * A huge message (a script that writes 100,000 keys): bumping the epoch once
--     is cheaper than that many removals, and as right.

local clock = require("resty.mooring.ffi").now

local format = string.format
local match = string.match
local setmetatable = setmetatable
local sub = string.sub
local type = type

local _M = {}
local mt = { __index = _M }

local CHANNEL = "__redis__:invalidate"
local RING = 16
local BEACON_LIFE = "60000" -- ms; what is left behind goes by itself
local MANY = 1000           -- keys of one message

-- Beacons a lease, and leases without one after which the connection is given
-- up; their product has to stay below RING.
local BEACONS_PER_LEASE, PATIENCE = 4, 3


-- A prefix for the beacons that is neither below the sessions' nor above it:
-- Redis refuses overlapping ones. "mooring:session:" -> "mooring:beacon:".
local function beacon_root(key_prefix)
    local parent = match(key_prefix, "^(.*:)[^:]*:$")
    if parent then
        local root = parent .. "beacon:"
        return root ~= key_prefix and root or parent .. "beacons:"
    end
    return sub(key_prefix, 1, -2) .. "-beacon:"
end


---
-- @param opts table
--        cache       the local tier
--        key_prefix  of the sessions
--        lease       seconds
--        transport   of the data: beacons are written by it
--        on_doubt    function(id): a session that is kept here has changed
-- @return what one nginx instance or process knows of its coherence
function _M.new(opts)
    return setmetatable({
        cache = opts.cache,
        key_prefix = opts.key_prefix,
        beacon_prefix = beacon_root(opts.key_prefix)
                        .. opts.cache:instance() .. ":",
        lease_ms = opts.lease * 1000,
        transport = opts.transport,
        on_doubt = opts.on_doubt,
        connections = 0,
        state = "lost",   -- "id", "tracking", "subscribing", "live"
        outstanding = {}, -- beacon key -> when it was queued
        unproved = nil,   -- when the first beacon since the last proof was sent
        beacons = 0,
        messages = 0,
        invalidations = 0,
        losses = 0,
    }, mt)
end


-- ------------------------------------------------------- the connection --

---
-- A connection was made (and is authenticated).
-- @param token number of the listener, no other in this instance has it
-- @param inherited boolean: another listener is alive and will hand over, so
--        nothing was missed
-- @return array of commands to send
function _M.connected(self, token, inherited)
    self.connections = self.connections + 1
    self.state = "id"
    self.inherited = inherited
    self.prefix = format("%s%.0f.%d.", self.beacon_prefix, token,
                         self.connections)
    self.outstanding = {}
    self.beacons = 0
    return { { "CLIENT", "ID" } }
end


---
-- The connection is gone, or is given up. What was pushed to it may be lost.
function _M.lost(self)
    if self.state == "live" then
        self.losses = self.losses + 1
        if not self.inherited then
            self.cache:set_lease(0)
        end
    end
    self.state = "lost"
end


-- From now on every change is pushed to this connection. What was filled before
-- is not covered; what will be filled takes its token after the bump.
local function confirmed(self)
    self.state = "live"
    self.unproved = nil
    if not self.inherited then
        self.cache:bump_epoch()
    end
end


---
-- The other listener has handed over: from now on beacons bring leases.
function _M.granted(self)
    self.inherited = false
end


-- --------------------------------------------------------------- messages --

local function beacon_arrived(self, key)
    local queued = self.outstanding[key]
    if queued then
        self.outstanding[key] = nil
        self.unproved = nil
        if not self.inherited then
            local lease = queued + self.lease_ms
            if lease > self.cache:lease() or not self.cache:is_leased() then
                self.cache:set_lease(lease)
            end
        end
    end
end


local function key_changed(self, key)
    local key_prefix, beacon_prefix = self.key_prefix, self.beacon_prefix
    if sub(key, 1, #beacon_prefix) == beacon_prefix then
        return beacon_arrived(self, key)
    end
    if sub(key, 1, #key_prefix) == key_prefix then
        self.invalidations = self.invalidations + 1
        local id = sub(key, #key_prefix + 1)
        if id ~= "" and self.cache:doubt(id) and self.on_doubt then
            self.on_doubt(id)
        end
    end
end


local function keys_changed(self, keys)
    self.messages = self.messages + 1
    if not keys then
        return self.cache:flush() -- FLUSHALL or FLUSHDB: all are dead
    end
    if keys.n > MANY then
        return self.cache:bump_epoch()
    end
    for i = 1, keys.n do
        if type(keys[i]) == "string" then
            key_changed(self, keys[i])
        end
    end
end


local STEPS = {}

function STEPS.id(self, reply)
    if type(reply) ~= "number" then
        return nil, "CLIENT ID is not answered with a number"
    end
    self.state = "tracking"
    return { { "CLIENT", "TRACKING", "ON", "REDIRECT", format("%.0f", reply),
               "BCAST", "PREFIX", self.key_prefix,
               "PREFIX", self.beacon_prefix },
             { "SUBSCRIBE", CHANNEL } }
end

function STEPS.tracking(self, reply)
    if reply ~= "OK" then
        return nil, "CLIENT TRACKING is not answered with OK"
    end
    self.state = "subscribing"
end

function STEPS.subscribing(self, reply)
    if type(reply) ~= "table" or reply[1] ~= "subscribe" then
        return nil, "SUBSCRIBE is not confirmed"
    end
    confirmed(self)
end

function STEPS.live(self, reply)
    if type(reply) ~= "table" or reply[1] ~= "message"
       or reply[2] ~= CHANNEL
    then
        return nil, "a reply that is no invalidation message"
    end
    keys_changed(self, reply[3])
end


---
-- Takes the next reply of the connection.
-- @return array of commands to send, or nil;
--         or nil, message, refused: the connection is to be closed; refused is
--         true when Redis will not track for us at all
function _M.take(self, reply)
    if type(reply) == "table" and reply.err then
        return nil, reply.err, self.state ~= "live"
    end
    return STEPS[self.state](self, reply)
end


-- ---------------------------------------------------------------- beacons --

-- The first round of the ring makes the keys. After that it is PEXPIRE, because
-- that still works when Redis is out of memory.
local function send_beacon(self, key)
    local outstanding, transport = self.outstanding, self.transport
    local set = { "SET", key, "", "PX", BEACON_LIFE }
    outstanding[key] = clock()
    if self.beacons <= RING then
        return transport:enqueue(set)
    end
    transport:enqueue({ "PEXPIRE", key, BEACON_LIFE }, function(reply)
        if reply == 0 and outstanding[key] then
            outstanding[key] = clock()
            transport:enqueue(set)
        end
    end)
end


---
-- Sends a beacon when the connection is confirmed and one is due; `always` does
-- not look at the time.
-- @return the key of the beacon, or nil
function _M.beacon(self, always)
    local now = clock()
    if self.state ~= "live" or not always and self.beacon_at
       and now - self.beacon_at < self.lease_ms / BEACONS_PER_LEASE
       and self.beacons > 0
    then
        return nil
    end
    self.beacon_at = now
    self.unproved = self.unproved or now
    self.beacons = self.beacons + 1
    local key = self.prefix .. self.beacons % RING
    send_beacon(self, key)
    return key
end


---
-- Has a beacon come back?
function _M.has_arrived(self, key)
    return self.outstanding[key] == nil
end


---
-- Have beacons failed to come back for so long that the connection is to be
-- given up?
function _M.is_silent(self)
    return self.state == "live" and self.unproved ~= nil
           and clock() - self.unproved > PATIENCE * self.lease_ms
end


-- --------------------------------------------------------------- fallback --

---
-- Redis will not push to us: entries are believed for their local_ttl only.
function _M.refused(self)
    if not self.cache:is_unleased() then
        self.cache:bump_epoch()
        self.cache:set_lease(self.cache.NEVER)
    end
end


---
-- @return table of numbers and booleans
function _M.stats(self)
    return {
        coherent = self.cache:is_leased(),
        listening = self.state == "live",
        messages = self.messages,
        invalidations = self.invalidations,
        losses = self.losses,
    }
end


return _M
