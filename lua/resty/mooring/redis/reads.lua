-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Looking sessions up in Redis: GET and PTTL in one pipeline, which is one
-- round trip and, on the wire, one string.
--
--     load, resolve --> fetch --> session, seconds left --due?--> renewal
--     fetch_later       the same, without waiting and without being a use
--
-- These are methods of resty.mooring.redis_storage.

local commands = require "resty.mooring.redis.commands"
local errors = require "resty.mooring.errors"
local record = require "resty.mooring.record"

local closed = errors.closed
local decode = record.decode
local format = string.format
local is_error = commands.is_error
local not_found = errors.not_found
local refuse = commands.refuse
local reply_failure = commands.reply_failure
local type = type
local unexpected = commands.unexpected

local _M = {}

local LONGEST_KEPT = 256 -- bytes of an id, see heads_of


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


-- What stands before an id of n bytes in a GET and in the PTTL behind it (RESP:
-- "Sending commands to a Redis server").
local function make_heads(self, n)
    local length = #self.key_prefix + n
    return {
        format("*2\r\n$3\r\nGET\r\n$%d\r\n%s", length, self.key_prefix),
        format("\r\n*2\r\n$4\r\nPTTL\r\n$%d\r\n%s", length,
               self.key_prefix),
    }
end


-- So no string is made for a miss. There are few lengths of ids; those of long
-- ones are not kept.
local function heads_of(self, id)
    local n = #id
    local heads = self.heads[n]
    if not heads then
        heads = make_heads(self, n)
        if n <= LONGEST_KEPT then
            self.heads[n] = heads
        end
    end
    return heads
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

    local text, pttl
    text, pttl, code = self.transport:call_pair(heads_of(self, id), id)
    if text == nil then
        return nil, "could not load the session: " .. pttl, code
    end
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
    if self:is_due(s, left) then
        self:renew(s)
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


return _M
