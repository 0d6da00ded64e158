-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A run: two replicas of two workers over one Redis, a schedule of faults, a
-- third party that writes to Redis directly, and the check of what was recorded.
--
--     replica 1 ---> proxy.mjs ---.
--     replica 2 -------------------+--> Redis <--- the third party (this one)
--
-- Only the first replica has the bad wire, since it hides from its workers that
-- a Redis refuses connections.
--
-- Barriers. A write of unknown outcome may be in a buffer on its way to Redis,
-- and takes effect when Redis reads it: all commands of connections that are
-- gone, too. So once Redis has answered promptly for SETTLE, many turns of its
-- loop, whatever was given up before that time has been executed or never will.

local binding = require "resty.mooring.ffi"
local blocking = require "resty.mooring.transport.blocking"
local checker = require "history.checker"
local cjson = require "cjson"
local faults = require "history.faults"
local history = require "history.history"
local record = require "resty.mooring.record"
local report = require "history.report"
local schedule = require "history.schedule"
local servers = require "support.servers"
local session = require "resty.mooring.session"

local now = binding.C.mr_now

local _M = {}
local Run = {}
Run.__index = Run

local SETTLE = 1200          -- ms
local PROMPT = 100         -- ms
local THIRD_PARTY = 0.3    -- seconds between two of its writes, at most
local BURST = 3            -- of its writes before and after each action
local CALM_IDS = 6         -- sessions that are only loaded: renewal keeps them
local PREFIX = "mooring:session:"

local CONF = [[
    lua_socket_log_errors off;
    init_by_lua_block {
        app = require("history.app").new {
            replica = "$replica", dir = "$history", url = "$url",
            ids = $ids, calm = $calm, entries = $entries, until_ms = $until_ms,
            lease = $lease, ttl = $ttl, seed = $seed, bug = "$bug",
        }
    }
    init_worker_by_lua_block { app:start_worker() }
    server {
        listen 127.0.0.1:$port;
        location / { content_by_lua_block { app:answer() } }
    }
]]

local DEFAULTS = {
    seconds = 60, seed = 1, profile = "all", bug = "", ids = 50, lease = 1,
    ttl = 8, say = function() end,
}

-- --------------------------------------------------------------- beginning --

-- The second replica has room for fewer sessions than there are: copies are
-- evicted. (Where all are, no wrong one would last long enough to be noticed.)
local function start_replica(self, n, url)
    local opts = self.opts
    return servers.nginx {
        conf = CONF, workers = 2, log_level = "warn",
        vars = {
            replica = "r" .. n, history = self.dir, url = url, ids = opts.ids,
            calm = CALM_IDS, entries = math.floor(opts.ids * (n == 1 and 1.2 or 0.9)),
            until_ms = ("%.0f"):format(self.until_ms), lease = opts.lease,
            ttl = opts.ttl, seed = opts.seed, bug = opts.bug,
        },
    }
end


local function start_servers(self)
    self.redis = servers.redis { "--enable-debug-command", "local" }
    local wire = servers.tmpdir() .. "/wire.sock"
    self.wire = servers.node("spec/history/proxy.mjs",
        { wire, self.redis.socket })
    self.connection = blocking.new {
        path = self.redis.socket, connect_timeout = 0.25,
        command_timeout = 0.25,
    }
    self.until_ms = now() + 1000 * (self.opts.seconds + 0.5)
    self.replicas = {
        start_replica(self, 1, "unix://" .. wire),
        start_replica(self, 2, self.redis.unix_url),
    }
end


---
-- Starts the servers of a run.
-- @param opts { seconds =, seed = integer, profile = of history.schedule, bug =
--        of history.bugs or "", ids = count, lease =, ttl = seconds, say =
--        function(text): progress }
function _M.new(opts)
    local self = setmetatable({ opts = setmetatable(opts, {
        __index = DEFAULTS }) }, Run)
    self.dir = servers.tmpdir()
    self.record = history.recorder(self.dir, "driver")
    self.random = schedule.random(opts.seed + 1)
    self.written = 0
    start_servers(self)
    return self
end


-- -------------------------------------------------------- Redis, directly --

--- One command: the reply, or nil, message, code.
function Run:command(...)
    local replies, err, code = self.connection:call { { ... } }
    if not replies then
        return nil, err, code
    end
    local reply = replies[1]
    if type(reply) == "table" and reply.err then
        return nil, reply.err, "unavailable"
    end
    return reply
end


--- Faults say so when Redis cannot answer, or can again.
function Run:redis_is_away(away)
    self.away, self.calm_since = away, nil
end


-- Asks Redis whether it is there, and writes a barrier when it has been for
-- long enough.
local function watch(self)
    if self.away then
        return
    end
    local asked = now()
    if self:command("PING") ~= "PONG" or now() - asked > PROMPT then
        self.calm_since = nil
        return
    end
    self.calm_since = self.calm_since or asked
    if asked - self.calm_since >= SETTLE then
        self.record:barrier(self.calm_since, now())
        self.calm_since = asked
    end
end


-- A value that nobody has written before, and the record that holds it.
local function new_value(self, id)
    self.written = self.written + 1
    local value = ("http://third.%d/%s"):format(self.written, id)
    return value, record.encode(session.new(id,
        { metadata = { backend_url = value } }))
end


local function lifetime(self)
    return tostring(self.opts.ttl * 1500)
end


local function set(self, id)
    local value, text = new_value(self, id)
    self.record:write("set", id, value, function()
        return self:command("SET", PREFIX .. id, text, "PX", lifetime(self))
    end)
end


-- Writes sessions and other keys in one turn of the server.
local MANY = [[
    for i = 1, #KEYS do
        redis.call("SET", KEYS[i], ARGV[i + 2], "PX", ARGV[1])
    end
    for i = 1, ARGV[2] do
        redis.call("SET", KEYS[1] .. "-" .. i, "", "PX", ARGV[1])
    end
    return 1]]

---
-- Writes `count` sessions and so many other keys at once.
function Run:set_many(count, others)
    local keys, texts = {}, {}
    local function command()
        local words = { "EVAL", MANY, tostring(count) }
        for _, key in ipairs(keys) do
            words[#words + 1] = key
        end
        words[#words + 1] = lifetime(self)
        words[#words + 1] = tostring(others)
        for _, text in ipairs(texts) do
            words[#words + 1] = text
        end
        return self:command(unpack(words))
    end

    -- All of them begin before the command and end after it.
    local function write(i)
        if i > count then
            return command()
        end
        local id = ("s%02d"):format(self.opts.ids - i)
        local value, text = new_value(self, id)
        keys[i], texts[i] = PREFIX .. id, text
        local reply, err, code
        self.record:write("set", id, value, function()
            reply, err, code = write(i + 1)
            return reply, err, code
        end)
        return reply, err, code
    end
    write(1)
end


local function del(self, id)
    self.record:write("del", id, nil, function()
        return self:command("DEL", PREFIX .. id)
    end)
end


---
-- Writes the sessions that nobody else writes.
function Run:set_calm()
    for i = 0, CALM_IDS - 1 do
        set(self, "calm" .. i)
    end
end


-- One write or two in short succession to any id: those that the replicas seldom
-- write are as likely as others.
local function disturb(self)
    local random = self.random
    local id = ("s%02d"):format(random:one_of(self.opts.ids) - 1)
    local count = random:next() < 0.6 and 2 or 1
    for i = 1, count do
        local write = random:next() < 0.25 and del or set
        write(self, id)
        if i < count then
            servers.nap(random:between(0.002, 0.03))
        end
    end
    self.disturb_at = now() + 1000 * random:between(0.02, THIRD_PARTY)
end


-- ----------------------------------------------------------------- the run --

-- What is written around a fault is what can be missed because of it.
local function burst(self)
    for _ = 1, self.away and 0 or BURST do
        set(self, ("s%02d"):format(self.random:one_of(self.opts.ids) - 1))
    end
end


local function perform(self, action)
    burst(self)
    self.record:fault("%s", report.action(action))
    faults[action.what](self, action)
    burst(self)
end


local function drive(self)
    local actions, start, i = self.actions, now(), 1
    self.disturb_at = 0
    self:set_calm()
    while now() < self.until_ms do
        if actions[i] and now() - start >= actions[i].at * 1000 then
            perform(self, actions[i])
            i = i + 1
        elseif not self.away and now() >= self.disturb_at then
            disturb(self)
        else
            watch(self)
            servers.nap(0.01)
        end
    end
    while actions[i] do -- nothing is left frozen
        perform(self, actions[i])
        i = i + 1
    end
end


--- The workers of a replica, as Nginx:worker_pids().
function Run:worker_pids(n)
    local replica = self.replicas[n]
    return servers.wait_for(function()
        -- One that ends while they are looked at is neither there nor not.
        local ok, pids = pcall(replica.worker_pids, replica)
        return ok and pids
    end, 5, "the workers of a replica")
end


-- All workers have written what they have to write.
local function await_workers(self)
    for n = 1, #self.replicas do
        for _, pid in ipairs(self:worker_pids(n)) do
            local name = ("r%d-%d"):format(n, pid)
            servers.wait_for(function()
                return history.is_complete(self.dir, name)
            end, 10, "the end of " .. name)
        end
    end
    self.record:close()
end


local function ask_replicas(self)
    self.stats, self.logs = {}, {}
    for n, replica in ipairs(self.replicas) do
        self.logs[n] = replica:error_log()
        local answer = assert(servers.http(replica.url .. "/"))
        self.stats[n] = assert(cjson.decode(answer.body), answer.body)
    end
end


--- Runs the schedule to its end.
-- @return the history as recorded
function Run:drive()
    local opts = self.opts
    self.actions, self.faults = schedule.draw(opts.seed, opts.seconds,
        opts.profile)
    report.schedule(self.actions, opts.say)
    drive(self)
    await_workers(self)
    ask_replicas(self)
    self.history = history.read(self.dir)
    return self.history
end


-- What does not show in the history: memory, and Lua errors.
local function check_replica(self, result, n)
    local wrong = self.stats[n].wrong
    local raised = self.logs[n]:match("[^\n]*lua entry thread aborted[^\n]*")
                   or self.logs[n]:match("[^\n]*history: a thread failed[^\n]*")
    local function complain(rule, text)
        table.insert(result.violations, { rule = rule, text = "replica " .. n
            .. ": " .. text, ops = {} })
    end
    if wrong then
        complain("region", "the region is damaged: " .. wrong)
    end
    if raised then
        complain("error", raised)
    end
end


--- Checks what was recorded.
-- @return as history.checker.check, and in its stats faults, and what the
--         replicas have counted: hits, epochs, repairs
function Run:check()
    local result = checker.check(self.history,
        { lease = self.opts.lease * 1000 })
    local stats = result.stats
    stats.faults = self.faults
    stats.hits, stats.epochs, stats.repairs = 0, 0, 0
    for n, replica in ipairs(self.stats) do
        local counts = replica["local"]
        stats.hits = stats.hits + counts.hits
        stats.epochs = stats.epochs + counts.epoch
        stats.repairs = stats.repairs + counts.repairs
        check_replica(self, result, n)
    end
    return result
end


--- Stops the servers.
function Run:stop()
    self.connection:close()
    for _, replica in ipairs(self.replicas) do
        replica:stop()
    end
    self.wire:stop()
    self.redis:stop()
end


--- A whole run: starts, drives, stops and checks.
-- @return result of check(), the run
function _M.run(opts)
    local self = _M.new(opts)
    local ok, err = pcall(self.drive, self)
    self:stop()
    if not ok then
        error(err, 0)
    end
    return self:check(), self
end


return _M
