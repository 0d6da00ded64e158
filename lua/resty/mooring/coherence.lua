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
--     confirmed on a new connection the epoch is bumped, which disbelieves
--     every entry, and only then does a beacon bring a new lease. The other
--     order would let a fill from between the two connections be believed.
--   * Messages are late (a hiccup): the lease ends by itself, no message is
--     lost, and the next beacon brings it back without an epoch.
--   * A beacon is late: each has a key of its own among RING, the message says
--     which, and a connection is given up long before the ring has gone around.
--     The keys carry a number that is new for each connection.
--   * Connections of one instance lead to different servers (a master was
--     replaced, its address moved, but not every connection broke): what is
--     fetched from one would be believed on the word of another. So each
--     connection asks for the server's run_id. The last one to be made is taken
--     to be right: the epoch is bumped, all that lead elsewhere are given up,
--     and what they still fetch is not kept.
--   * Two listeners (one was thought dead): both read every message in order,
--     so what either of them proves is true.
--   * A huge message (a script that writes 100,000 keys): bumping the epoch
--     once is cheaper than that many removals, and as right.

local clock = require("resty.mooring.ffi").now
local keys = require "resty.mooring.keys"
local replies = require "resty.mooring.coherence.replies"

local format = string.format
local is_refusal = replies.is_refusal
local kind_of = replies.kind_of
local max = math.max
local server_of = replies.server_of
local setmetatable = setmetatable
local sub = string.sub
local type = type

local _M = {}
local mt = { __index = _M }

local CHANNEL = "__redis__:invalidate"
local MANY = 1000 -- keys of one message

-- Beacons a lease, and leases after which one is missed, or the answer to a
-- command, and the connection is given up. Their product is below RING, so that
-- no message about the last use of a beacon's key is taken for one about the
-- next. What is left of the keys goes by itself, after more than one round.
local BEACONS_PER_LEASE, PATIENCE = 4, 3
local RING = 16
local BEACON_LIFE = 60000 -- ms

-- Beginnings of errors that a server of the wrong role answers with.
local WRONG_ROLE = { READONLY = true, MASTERDOWN = true }


---
-- @param opts table
--        cache       the local tier
--        key_prefix  of the sessions
--        lease       seconds
--        transport   of the data: beacons are written by it
--        on_doubt    function(id): a session that is kept here has changed
-- @return what one nginx instance or process knows of its coherence
function _M.new(opts)
    local lease_ms, root = opts.lease * 1000, keys.beacons(opts.key_prefix)
    return setmetatable({
        cache = opts.cache,
        key_prefix = opts.key_prefix,
        beacon_root = root,
        beacon_prefix = root .. opts.cache:instance() .. ":",
        beacon_life = format("%d", max(BEACON_LIFE, RING * lease_ms)),
        lease_ms = lease_ms,
        transport = opts.transport,
        on_doubt = opts.on_doubt,
        connections = 0,
        state = "lost",    -- "id", "server", "tracking", "subscribing", "live"
        asked_at = 0,      -- when the last command of a connection was sent
        outstanding = {},  -- beacon key -> { number =, queued = time }
        beacons = 0,       -- of this connection
        proved = 0,        -- number of the last one that has come back
        sent_at = {},      -- number of a beacon in the ring -> when it was sent
        beacon_at = nil,
        forbidden = nil,   -- why beacons cannot be written
        server = 0,        -- that the connection leads to
        data_server = nil, -- that the data connection leads to; nil: not known
        messages = 0,
        invalidations = 0,
        losses = 0,
    }, mt)
end


---
-- Has a board watched, before anything is connected; by several, if it is one.
-- @param on_change function(): it has changed, or may have; must not wait
function _M.watch(self, key, on_change)
    local others = self.on_board
    self.board = key
    self.on_board = others and function() others() on_change() end or on_change
end


-- The board has changed, or may have.
local function board_changed(self)
    if self.board then
        self.on_board()
    end
end


-- ------------------------------------------------------------ the servers --

local function note_server(self, server)
    if server ~= 0 and not self.closed then
        self.cache:set_server(server)
    end
end


---
-- A data connection was made: which server does it lead to?
function _M.data_connected(self)
    if self.was_connected then
        board_changed(self) -- it may have been read from another server
    end
    self.was_connected, self.data_server = true, nil
    self.transport:enqueue({ "INFO", "server" }, function(reply)
        if reply ~= nil then
            self.data_server = server_of(reply)
            note_server(self, self.data_server)
        end
    end)
end


---
-- May what the data connection fetches be kept?
function _M.may_keep(self)
    local server = self.data_server
    return server == 0 or server ~= nil and server == self.cache:server()
end


---
-- Has another connection of this instance found another server since the data
-- connection was made? Then that is made anew.
function _M.follow(self)
    local server = self.data_server
    if server and server ~= 0 and server ~= self.cache:server() then
        self.transport:reconnect("the server is another one by now")
    end
end


---
-- Does the listener's connection lead to another server than one made since?
function _M.is_astray(self)
    return self.state == "live" and self.server ~= 0
           and self.server ~= self.cache:server()
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
    self.asked_at = clock()
    self.inherited = inherited
    self.prefix = format("%s%.0f.%d.", self.beacon_prefix, token,
                         self.connections)
    self.outstanding = {}
    self.beacons, self.proved, self.forbidden = 0, 0, nil
    return { { "CLIENT", "ID" }, { "INFO", "server" } }
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


---
-- The connection is not needed any more: another one listens.
function _M.retired(self)
    self.state = "lost"
end


---
-- The storage is closed, and the region is not to be touched any more.
function _M.close(self)
    self:lost()
    self.closed = true
end


-- From now on every change is pushed to this connection. What was filled before
-- is not covered; what will be filled takes its token after the bump.
local function confirmed(self)
    self.state = "live"
    if not self.inherited then
        self.cache:bump_epoch()
        board_changed(self)
    end
end


---
-- The other listener has handed over: from now on beacons bring leases.
function _M.granted(self)
    self.inherited = false
end


-- --------------------------------------------------------------- messages --

local function extend_lease(self, queued)
    local cache, lease = self.cache, queued + self.lease_ms
    if lease > cache:lease() or not cache:is_leased() then
        cache:set_lease(lease)
    end
end


local function beacon_arrived(self, key)
    local beacon = self.outstanding[key]
    if beacon then
        self.outstanding[key] = nil
        self.proved = max(self.proved, beacon.number)
        if not self.inherited then
            extend_lease(self, beacon.queued)
        end
    end
end


-- Returns the id of a session that is kept here and has changed.
local function key_changed(self, key)
    local key_prefix, beacon_prefix = self.key_prefix, self.beacon_prefix
    if sub(key, 1, #beacon_prefix) == beacon_prefix then
        beacon_arrived(self, key)
    elseif key == self.board then
        board_changed(self)
    elseif sub(key, 1, #key_prefix) == key_prefix then
        self.invalidations = self.invalidations + 1
        local id = sub(key, #key_prefix + 1)
        return id ~= "" and self.cache:doubt(id) and id or nil
    end
end


-- Whoever fetches the doubted ones is told when all doubts are over: each ends
-- the tokens of other keys, too.
local function keys_changed(self, names)
    self.messages = self.messages + 1
    if not names or names.n > MANY then
        board_changed(self)
    end
    if not names then
        return self.cache:flush() -- FLUSHALL or FLUSHDB: all are dead
    elseif names.n > MANY then
        return self.cache:bump_epoch()
    end
    local doubted = {}
    for i = 1, names.n do
        if type(names[i]) == "string" then
            doubted[#doubted + 1] = key_changed(self, names[i])
        end
    end
    for i = 1, self.on_doubt and #doubted or 0 do
        self.on_doubt(doubted[i])
    end
end


-- An array, or nil for all of them.
local function are_keys(names)
    return names == false or type(names) == "table" and names.n ~= nil
end


local STEPS = {}

function STEPS.id(self, reply)
    if type(reply) ~= "number" then
        return nil, "CLIENT ID is not answered with a number"
    end
    self.state, self.client = "server", format("%.0f", reply)
end

function STEPS.server(self, reply)
    self.server = server_of(reply)
    note_server(self, self.server)
    self.state = "tracking"
    local tracking = { "CLIENT", "TRACKING", "ON", "REDIRECT", self.client,
                       "BCAST", "PREFIX", self.key_prefix,
                       "PREFIX", self.beacon_prefix }
    if self.board then
        tracking[#tracking + 1] = "PREFIX"
        tracking[#tracking + 1] = self.board
    end
    return { tracking, { "SUBSCRIBE", CHANNEL } }
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
       or reply[2] ~= CHANNEL or not are_keys(reply[3])
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
    local state = self.state
    if type(reply) == "table" and reply.err and state ~= "server" then
        return nil, reply.err, state ~= "live" and is_refusal(reply.err)
    end
    self.asked_at = clock()
    return STEPS[state](self, reply)
end


-- ---------------------------------------------------------------- beacons --

-- What went wrong with the writing of a beacon.
local function beacon_failed(self, reply)
    local kind = kind_of(reply)
    if kind == "NOPERM" then
        self.forbidden = reply.err
    elseif WRONG_ROLE[kind] then
        self.transport:reconnect(reply.err)
    end
end


local function set_beacon(self, key)
    self.transport:enqueue({ "SET", key, "", "PX", self.beacon_life },
                           function(reply) beacon_failed(self, reply) end)
end


-- PEXPIRE rather than SET, because it still works when Redis is out of memory;
-- a key that is not there has to be made.
local function send_beacon(self, key, beacon)
    if beacon.number <= RING then
        return set_beacon(self, key)
    end
    self.transport:enqueue({ "PEXPIRE", key, self.beacon_life }, function(reply)
        if reply == 0 and self.outstanding[key] == beacon then
            beacon.queued = clock()
            return set_beacon(self, key)
        end
        beacon_failed(self, reply)
    end)
end


local function is_due(self, now)
    return self.beacons == 0
           or now - self.beacon_at >= self.lease_ms / BEACONS_PER_LEASE
end


---
-- Sends a beacon when the connection is confirmed and one is due; `always` does
-- not look at the time.
-- @return the key of the beacon, or nil
function _M.beacon(self, always)
    local now = clock()
    if self.state ~= "live" or self:is_astray()
       or not always and not is_due(self, now)
       or self.beacons - self.proved >= RING
    then
        return nil
    end
    local number = self.beacons + 1
    local key = self.prefix .. number % RING
    local beacon = { number = number, queued = now }
    self.beacon_at, self.beacons = now, number
    self.outstanding[key] = beacon
    self.sent_at[number % RING] = now
    send_beacon(self, key, beacon)
    return key
end


---
-- Has a beacon come back?
function _M.has_arrived(self, key)
    return self.outstanding[key] == nil
end


---
-- Has a beacon failed to come back, or a command to be answered, for so long
-- that the connection is to be given up?
function _M.is_silent(self)
    local since = self.asked_at
    if self.state == "live" then
        local oldest = self.proved + 1
        if oldest > self.beacons then
            return false
        end
        since = self.sent_at[oldest % RING]
    end
    return clock() - since > PATIENCE * self.lease_ms
end


-- --------------------------------------------------------------- fallback --

---
-- Redis will not push to us: entries are believed for their local_ttl only.
-- @param err what it says
-- @return string for the operator
function _M.refused(self, err)
    if not self.closed and not self.cache:is_unleased() then
        -- On both sides: a copy that is filled meanwhile counts on a lease.
        self.cache:bump_epoch()
        self.cache:set_lease(self.cache.NEVER)
        self.cache:bump_epoch()
    end
    return replies.refusal(err, CHANNEL, self.beacon_root)
end


---
-- @return table: coherent (changes reach this instance in time, in any of its
--         workers), and of this worker: listening, messages, invalidations
--         (keys in them), losses (of a connection that was listening)
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
