-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Changes of sessions in Redis, each in one atomic command, which also sets the
-- TTL:
--
--     store      SET PX           update_if  EVAL: GET, compare, SET PX
--     create     SET PX NX        remove_if  EVAL: GET, compare, DEL
--     update     SET PX XX        delete     DEL
--
-- What could go wrong between a look and an act (another replica binds the id
-- anew) is kept apart by acting only on the very record that was seen:
-- update_if and remove_if. After a timeout nobody knows whether the change was
-- made; it is never sent again.
--
-- These are methods of resty.mooring.redis_storage.

local commands = require "resty.mooring.redis.commands"
local errors = require "resty.mooring.errors"
local record = require "resty.mooring.record"
local renewal = require "resty.mooring.redis.renewal"

local encode = record.encode
local error = error
local is_error = commands.is_error
local milliseconds = renewal.milliseconds
local not_found = errors.not_found
local refuse = commands.refuse
local reply_failure = commands.reply_failure
local run = commands.run
local run_one = commands.run_one
local type = type
local unexpected = commands.unexpected

local _M = {}

-- Deletes KEYS[1] when it still holds ARGV[1].
local REMOVE_IF = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                  .. "return redis.call('DEL',KEYS[1]) end return 0"

-- Sets KEYS[1] to ARGV[2] for ARGV[3] ms when it still holds ARGV[1].
local UPDATE_IF = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                  .. "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1 "
                  .. "end return 0"


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
local function created(self, command, reply, err, code)
    if reply == "OK" then
        return true
    elseif reply == false then
        return nil, "session already exists", errors.ALREADY_EXISTS
    elseif reply == nil then
        return nil, "could not create the session: " .. err, code
    elseif is_error(reply) then
        return reply_failure(self, "create the session", command, reply)
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
        callback(created(self, command, ...))
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


return _M
