-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions in Redis, the truth that all replicas share.
--
--     key    <key_prefix><id>
--     value  JSON, see resty.mooring.record
--     TTL    1.5 x ttl when written, always by the very command that writes
--
-- Sliding expiry: a session lives at least `ttl` from its last use on any
-- replica and at most 1.5 x ttl. A use that finds less than `ttl` left queues
-- one PEXPIRE to 1.5 x ttl and does not wait for it. So a session in steady use
-- costs two commands per ttl, whatever its rate. (GETEX or EXPIRE on every read
-- would make every read a change, and replicas with tracked copies would evict
-- each other's for ever.)
--
-- Its methods are in
--
--     redis/reads.lua     fetch, fetch_later, load, resolve
--     redis/writes.lua    store, create, update, delete, update_if, remove_if
--     redis/renewal.lua   lifetime, is_due, renew
--     redis/commands.lua  what all of these have in common: checks, errors
--
-- and here are its options and its life: new, start, ready, close, stats.

local background = require "resty.mooring.background"
local boards = require "resty.mooring.board"
local commands = require "resty.mooring.redis.commands"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local options = require "resty.mooring.options"
local reads = require "resty.mooring.redis.reads"
local renewal = require "resty.mooring.redis.renewal"
local session = require "resty.mooring.session"
local url = require "resty.mooring.url"
local writes = require "resty.mooring.redis.writes"

local closed = errors.closed
local error = error
local find = string.find
local floor = math.floor
local format = string.format
local setmetatable = setmetatable
local type = type

local _M = { _VERSION = mooring_ffi._VERSION }
local mt = { __index = _M }


local function check_url(value)
    if type(value) ~= "string" then
        return false, "must be a string"
    end
    local target, must = url.parse(value)
    return target ~= nil, must
end


local function check_prefix(value)
    return type(value) == "string" and find(value, "^[\33-\126]*:$") ~= nil,
           "must be a string of visible ASCII that ends in \":\""
end


local OPTIONS = {
    { name = "url", check = check_url, required = true, secret = true,
      doc = "redis://[[user]:password@]host[:port][/db] or unix:///path" },
    { name = "key_prefix", check = check_prefix,
      default = "mooring:session:", doc = "key = key_prefix .. id" },
    { name = "ttl", check = options.seconds, default = 7200,
      unit = "seconds", doc = "life of an unused session" },
    { name = "max_lifetime", check = options.seconds,
      unit = "seconds", doc = "life of any session, from created_at" },
    { name = "connect_timeout", check = options.timeout, default = 0.25,
      unit = "seconds", doc = "for connecting" },
    { name = "command_timeout", check = options.timeout, default = 0.25,
      unit = "seconds", doc = "from sending a command to its reply" },
    { name = "max_id_length", check = options.integer(1, 65535),
      default = session.MAX_ID_LENGTH, unit = "bytes", doc = "longest id" },
    { name = "transport", default = "auto",
      check = options.one_of("auto", "blocking", "cosocket"),
      doc = "auto: cosocket in nginx, else blocking" },
}
_M.OPTIONS = OPTIONS


local function new_transport(name, target)
    if name == "auto" then
        name = mooring_ffi.in_nginx and "cosocket" or "blocking"
    end
    return require("resty.mooring.transport." .. name).new(target)
end


---
-- Makes a Redis storage. It connects when it is first used, so a server that
-- is down is no error here.
-- @param opts table, see OPTIONS and the README
-- @return the storage; raises naming the option that is wrong
function _M.new(opts)
    opts = options.check(OPTIONS, opts, 2)
    local target = url.parse(opts.url)
    target.connect_timeout = opts.connect_timeout
    target.command_timeout = opts.command_timeout

    return setmetatable({
        target = target,
        ttl = opts.ttl,
        ttl_ms = floor(opts.ttl * 1000 + 0.5),
        max_lifetime = opts.max_lifetime,
        max_id_length = opts.max_id_length,
        key_prefix = opts.key_prefix,
        address = url.address(target),
        db = target.db,
        user = target.user,
        transport = new_transport(opts.transport, target),
        patience = opts.connect_timeout + opts.command_timeout,
        closed = false,
        renewals = 0,
        heads = {},
    }, mt)
end


---
-- What copies of these sessions are copies of: a local tier made for another
-- server, database, user, prefix or ttl must not answer for this one.
function _M.fingerprint(self)
    return format("redis %s db=%d user=%s prefix=%s ttl=%.3f", self.address,
                  self.db, self.user or "", self.key_prefix, self.ttl)
end


-- -------------------------------------------------------------- sessions --

_M.fetch = reads.fetch
_M.fetch_later = reads.fetch_later
_M.load = reads.load
_M.resolve = reads.resolve

_M.store = writes.store
_M.create = writes.create
_M.create_later = writes.create_later
_M.update = writes.update
_M.update_if = writes.update_if
_M.delete = writes.delete
_M.remove_if = writes.remove_if

_M.lifetime = renewal.lifetime
_M.is_due = renewal.is_due
_M.renew = renewal.renew


-- ------------------------------------------------------------------- life --

---
-- Nothing to do: Redis drops what has expired by itself.
-- @return 0; or nil, message, code: closed
function _M.delete_expired(self, before)
    if type(before) ~= "number" or before ~= before then
        error("before must be a number (unix seconds)", 2)
    end
    if self.closed then
        return closed()
    end
    return 0
end


---
-- What a listener needs so that changes by others are pushed to it.
-- @return { target, key_prefix, transport }
function _M.push(self)
    return { target = self.target, key_prefix = self.key_prefix,
             transport = self.transport }
end


---
-- Runs one command that is no session's, and waits.
-- @param what it does, for messages
-- @param ... the command
-- @return reply; or nil, message, code: invalid, unavailable, timeout
function _M.ask(self, what, ...)
    return commands.run_one(self, what, ...)
end


---
-- A hash beside the sessions, see resty.mooring.board.
function _M.board(self, name)
    return boards.new(self, name)
end


---
-- Is there a connection that would take a command? Connects when there is
-- none, waiting at most connect_timeout.
-- @return true, or nil, message, code: unavailable, timeout, closed
function _M.ready(self)
    if self.closed then
        return closed()
    end
    return self.transport:ready()
end


local function warn_of_eviction(self, reply)
    local policy = type(reply) == "table" and reply[2]
    if type(policy) == "string" and find(policy, "^allkeys") then
        log.warn_once("eviction " .. self.address, "Redis at ", self.address,
                      " has maxmemory-policy ", policy, ": it may drop ",
                      "sessions that are in use here but look idle there; use ",
                      "volatile-ttl or noeviction")
    end
end


---
-- Connects in the background in this nginx worker, and warns of settings of the
-- server that cost sessions. For init_worker_by_lua; optional.
function _M.start(self)
    if self.transport.start then
        self.transport:start()
    end
    if background.available() then
        self.transport:enqueue({ "CONFIG", "GET", "maxmemory-policy" },
            function(reply) warn_of_eviction(self, reply) end)
    end
end


---
-- Closes the connection; queued renewals are sent first.
-- @return true; every later call returns closed
function _M.close(self)
    if not self.closed then
        self.closed = true
        self.transport:close()
    end
    return true
end


---
-- @return table of numbers, see the README; or nil, message, code: closed
function _M.stats(self)
    if self.closed then
        return closed()
    end
    local stats = self.transport:stats()
    stats.renewals = self.renewals
    return stats
end


return _M
