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
-- What could go wrong between a look and an act (another replica binds the id
-- anew) is kept apart by acting only on the very record that was seen:
-- remove_if is one EVAL.

local background = require "resty.mooring.background"
local boards = require "resty.mooring.board"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local options = require "resty.mooring.options"
local record = require "resty.mooring.record"
local session = require "resty.mooring.session"
local url = require "resty.mooring.url"

local wall_clock = mooring_ffi.C.mr_time

local closed = errors.closed
local decode = record.decode
local encode = record.encode
local error = error
local find = string.find
local floor = math.floor
local format = string.format
local invalid_id = session.invalid_id
local match = string.match
local min = math.min
local not_found = errors.not_found
local setmetatable = setmetatable
local sub = string.sub
local type = type

local _M = { _VERSION = mooring_ffi._VERSION }
local mt = { __index = _M }

local LONGEST_KEPT = 256 -- bytes of an id, see read_commands
local HEADROOM = 1.5 -- written with this many times the ttl

-- Deletes KEYS[1] when it still holds ARGV[1].
local REMOVE_IF = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                  .. "return redis.call('DEL',KEYS[1]) end return 0"

-- Sets KEYS[1] to ARGV[2] for ARGV[3] ms when it still holds ARGV[1].
local UPDATE_IF = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                  .. "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1 "
                  .. "end return 0"


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
    { name = "ttl", check = options.positive, default = 7200,
      unit = "seconds", doc = "life of an unused session" },
    { name = "max_lifetime", check = options.positive,
      unit = "seconds", doc = "life of any session, from created_at" },
    { name = "connect_timeout", check = options.positive, default = 0.25,
      unit = "seconds", doc = "for connecting" },
    { name = "command_timeout", check = options.positive, default = 0.25,
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
        gets = {},
        pttls = {},
    }, mt)
end


---
-- What copies of these sessions are copies of: a local tier made for another
-- server, database, user, prefix or ttl must not answer for this one.
function _M.fingerprint(self)
    return format("redis %s db=%d user=%s prefix=%s ttl=%.3f", self.address,
                  self.db, self.user or "", self.key_prefix, self.ttl)
end


-- ---------------------------------------------------------------- replies --

local KINDS = {
    WRONGTYPE = errors.INVALID,
}
local CONFIGURATION = { NOAUTH = true, NOPERM = true, WRONGPASS = true }

-- Another server may have the master's role, and its address, by now.
local WRONG_ROLE = { READONLY = true, MASTERDOWN = true }


-- What an error says, without the id of the session it is about.
local function without_id(self, text, command)
    local prefix = self.key_prefix
    for i = 2, #command do
        local arg = command[i]
        local at = sub(arg, 1, #prefix) == prefix
                   and find(text, sub(arg, #prefix + 1), 1, true)
        if at then
            return sub(text, 1, at - 1) .. "..."
        end
    end
    return text
end


-- An error reply as the three results of a failed call.
local function reply_failure(self, what, command, reply)
    local err = without_id(self, reply.err, command)
    local kind = match(err, "^(%u+)") or ""
    if CONFIGURATION[kind] then
        log.warn_limited("redis " .. kind, "Redis at ", self.address,
                         " refuses us, check url and ACL: ", err)
    elseif WRONG_ROLE[kind] then
        self.transport:reconnect(err)
    end
    return nil, "could not " .. what .. ": " .. err,
           KINDS[kind] or errors.UNAVAILABLE
end


local function is_error(reply)
    return type(reply) == "table" and reply.err ~= nil
end


-- Runs commands; the first error reply is the error of all.
local function run(self, what, commands)
    local replies, err, code = self.transport:call(commands)
    if not replies then
        return nil, "could not " .. what .. ": " .. err, code
    end
    for i = 1, #commands do
        if is_error(replies[i]) then
            return reply_failure(self, what, commands[i], replies[i])
        end
    end
    return replies
end


local function run_one(self, what, ...)
    local replies, err, code = run(self, what, { { ... } })
    if not replies then
        return nil, err, code
    end
    return replies[1]
end


-- A reply that does not belong to the command: whether it was executed, nobody
-- can say.
local function unexpected(what)
    return nil, "could not " .. what .. ": unexpected reply",
           errors.UNAVAILABLE
end


-- ---------------------------------------------------------------- checks --

-- What every call begins with: nil, message, code; or nothing when all is well.
local function refuse(self, id, level)
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
end


-- ----------------------------------------------------------------- writes --

---
-- How long a session is kept that is written or renewed now.
-- @return seconds; 0 or less when it is older than max_lifetime
function _M.lifetime(self, s)
    local seconds = self.ttl * HEADROOM
    if self.max_lifetime then
        seconds = min(seconds, s.created_at + self.max_lifetime - wall_clock())
    end
    return seconds
end


local function milliseconds(seconds)
    return format("%d", floor(seconds * 1000 + 0.5))
end


-- SET as a command, or nil, message, code.
local function set_command(self, s, condition, level)
    if type(s) ~= "table" or type(s.id) ~= "string" then
        error("session must be a session", level)
    end
    local _, err, code = refuse(self, s.id)
    if code then
        return nil, err, code
    end

    local text
    text, err, code = encode(s)
    if not text then
        return nil, err, code
    end
    local lifetime = self:lifetime(s)
    if lifetime < 0.001 then
        return nil, "invalid session: older than max_lifetime", errors.INVALID
    end
    return { "SET", self.key_prefix .. s.id, text, "PX",
             milliseconds(lifetime), condition }
end


-- SET of any kind: true; false when the condition is not met; or the three
-- results of a failed call.
local function write(self, s, what, condition)
    local command, err, code = set_command(self, s, condition, 4)
    if not command then
        return nil, err, code
    end
    local replies
    replies, err, code = run(self, what, { command })
    local reply = replies and replies[1]
    if reply == "OK" then
        return true
    elseif reply == false and condition then
        return false
    elseif reply == nil then
        return nil, err, code
    end
    return unexpected(what)
end


---
-- Creates or overwrites a session.
-- @param s session
-- @return true, or nil, message, code: invalid, unavailable, timeout (the
--         outcome is unknown), closed
function _M.store(self, s)
    local ok, err, code = write(self, s, "store the session")
    return ok, err, code -- no tail call: the level of an error counts frames
end


---
-- Stores a session whose id is not taken, in one atomic command.
-- @return as store, and already_exists
function _M.create(self, s)
    local reply, err, code = write(self, s, "create the session", "NX")
    if reply == nil then
        return nil, err, code
    elseif reply == false then
        return nil, "session already exists", errors.ALREADY_EXISTS
    end
    return true
end


-- The results of create for the reply to an enqueued SET.
local function created(self, reply, err, code)
    if reply == "OK" then
        return true
    elseif reply == false then
        return nil, "session already exists", errors.ALREADY_EXISTS
    elseif reply == nil then
        return nil, "could not create the session: " .. err, code
    elseif is_error(reply) then
        return reply_failure(self, "create the session", reply)
    end
    return unexpected("create the session")
end


---
-- create without waiting, in every phase of nginx that has timers.
-- @param callback function(created, message, code), called in a timer with what
--        create would have returned
-- @return true, or nil, message, code when it could not even be queued
function _M.create_later(self, s, callback)
    local command, err, code = set_command(self, s, "NX", 3)
    if not command then
        return nil, err, code
    end
    return self.transport:enqueue(command, function(...)
        callback(created(self, ...))
    end)
end


---
-- Overwrites a session that is there, in one atomic command: an update that
-- comes late does not bring back a deleted session.
-- @return as store, and not_found
function _M.update(self, s)
    local reply, err, code = write(self, s, "update the session", "XX")
    if reply == nil then
        return nil, err, code
    elseif reply == false then
        return not_found()
    end
    return true
end


---
-- Deletes a session; an unknown id is no error.
-- @param id string
-- @return true, or nil, message, code: invalid, unavailable, timeout, closed
function _M.delete(self, id)
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    local reply
    reply, err, code = run_one(self, "delete the session", "DEL",
                               self.key_prefix .. id)
    if reply == nil then
        return nil, err, code
    elseif type(reply) ~= "number" then
        return unexpected("delete the session")
    end
    return true
end


-- The record as it was seen.
local function seen_text(seen)
    if seen._record then
        return seen._record
    end
    return encode(seen)
end


---
-- Overwrites a session only while its record is still the one that was seen.
-- @param s session
-- @param seen session of that id as returned by load
-- @return true, false when there is another one by now or none; or nil,
--         message, code as store
function _M.update_if(self, s, seen)
    local command, err, code = set_command(self, s, nil, 3)
    if not command then
        return nil, err, code
    end
    local text
    text, err, code = seen_text(seen)
    if not text then
        return nil, err, code
    end
    local reply
    reply, err, code = run_one(self, "update the session", "EVAL", UPDATE_IF,
                               "1", command[2], text, command[3], command[5])
    if reply == nil then
        return nil, err, code
    elseif type(reply) ~= "number" then
        return unexpected("update the session")
    end
    return reply == 1
end


---
-- Deletes a session only while its record is still the one that was seen.
-- @param id string
-- @param seen session as returned by load
-- @return true when it was deleted, false when there is another one by now or
--         none; or nil, message, code as delete
function _M.remove_if(self, id, seen)
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    local text
    text, err, code = seen_text(seen)
    if not text then
        return nil, err, code
    end
    local reply
    reply, err, code = run_one(self, "remove the session", "EVAL", REMOVE_IF,
                               "1", self.key_prefix .. id, text)
    if reply == nil then
        return nil, err, code
    elseif type(reply) ~= "number" then
        return unexpected("remove the session")
    end
    return reply == 1
end


---
-- Is it time to renew a session that is in use?
-- @param s session
-- @param left seconds until its record expires
-- False also where a renewal would gain nothing because max_lifetime is near:
-- it would still be a change to every replica that holds a copy.
function _M.is_due(self, s, left)
    return left < self.ttl and self:lifetime(s) - left > self.ttl / 20
end


---
-- Queues the renewal of a session in use and returns at once.
-- @param s session
-- @param callback optional function(renewed): true, false when there is no
--        such session any more, nil when the outcome is not known
-- @return true, or nil, message, code when it could not even be queued
function _M.renew(self, s, callback)
    if self.closed then
        return closed()
    end
    local lifetime = self:lifetime(s)
    self.renewals = self.renewals + 1
    return self.transport:enqueue(
        { "PEXPIRE", self.key_prefix .. s.id, milliseconds(lifetime) },
        callback and function(reply)
            if reply == 1 or reply == 0 then
                callback(reply == 1)
            else
                callback(nil)
            end
        end)
end


-- ------------------------------------------------------------------ reads --

-- What GET and PTTL of one pipeline say: as fetch.
local function read_record(id, text, pttl)
    if not text or pttl == -2 then
        return not_found()
    end
    if type(text) ~= "string" or type(pttl) ~= "number" then
        return unexpected("load the session")
    end
    local s, err, code = decode(text, id)
    if not s then
        return nil, err, code
    end
    return s, pttl > 0 and pttl / 1000 or 0
end


local READ = "load the session"


-- An array is no reply to either command.
local function read_failure(self, id, text, pttl)
    local key = self.key_prefix .. id
    if is_error(text) then
        return reply_failure(self, READ, { "GET", key }, text)
    elseif is_error(pttl) then
        return reply_failure(self, READ, { "PTTL", key }, pttl)
    end
    return unexpected(READ)
end


-- What stands before an id of n bytes in a GET and in the PTTL behind it.
local function make_heads(self, n)
    local length = #self.key_prefix + n
    return format("*2\r\n$3\r\nGET\r\n$%d\r\n%s", length, self.key_prefix),
           format("\r\n*2\r\n$4\r\nPTTL\r\n$%d\r\n%s", length,
                  self.key_prefix)
end


-- GET and PTTL on the wire (RESP: "Sending commands to a Redis server"). This
-- is what a miss sends: one string, and no table, is made for it. There are few
-- lengths of ids; those of long ones are not kept.
local function read_commands(self, id)
    local n = #id
    local get, pttl = self.gets[n], self.pttls[n]
    if not get then
        get, pttl = make_heads(self, n)
        if n <= LONGEST_KEPT then
            self.gets[n], self.pttls[n] = get, pttl
        end
    end
    return get .. id .. pttl .. id .. "\r\n"
end


---
-- Reads a session without showing a use of it.
-- @param id string
-- @param level optional, of the caller to blame for an id that is no string
-- @return session, seconds until its record expires (0: has no TTL); or nil,
--         message, code: not_found, invalid, unavailable, timeout, closed
function _M.fetch(self, id, level)
    local _, err, code = refuse(self, id, level)
    if code then
        return nil, err, code
    end

    local replies
    replies, err, code = self.transport:call_encoded(read_commands(self, id), 2)
    if not replies then
        return nil, "could not load the session: " .. err, code
    end
    local text, pttl = replies[1], replies[2]
    if type(text) == "table" or type(pttl) == "table" then
        return read_failure(self, id, text, pttl)
    end
    return read_record(id, text, pttl)
end


---
-- As fetch, without waiting.
-- @param callback function(session, left or message, code), as fetch returns
-- @return true, or nil, message, code when it could not even be queued
function _M.fetch_later(self, id, callback)
    if self.closed then
        return closed()
    end
    local key = self.key_prefix .. id
    local text
    local ok, err, code = self.transport:enqueue({ "GET", key }, function(reply)
        text = reply
    end)
    if not ok then
        return nil, err, code
    end
    return self.transport:enqueue({ "PTTL", key }, function(pttl)
        if text == nil or pttl == nil or is_error(text) or is_error(pttl) then
            return callback(nil, "could not load the session",
                            errors.UNAVAILABLE)
        end
        callback(read_record(id, text, pttl))
    end)
end


---
-- Loads a session; it is in use, so it will not expire for another ttl.
-- @param id string
-- @param level as for fetch
-- @return session, or nil, message, code as fetch
function _M.load(self, id, level)
    local s, left, code = _M.fetch(self, id, (level or 2) + 1)
    if not s then
        return nil, left, code
    end
    if _M.is_due(self, s, left) then
        _M.renew(self, s)
    end
    return s
end


---
-- The backend_url of a session.
-- @param id string
-- @return string, or nil, message, code as load, and invalid for a session
--         that has no backend_url
function _M.resolve(self, id)
    local s, err, code = _M.load(self, id, 3)
    if not s then
        return nil, err, code
    end
    local backend_url = s.metadata.backend_url
    if not backend_url then
        return nil, "the session has no backend_url", errors.INVALID
    end
    return backend_url
end


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
    return run_one(self, what, ...)
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
