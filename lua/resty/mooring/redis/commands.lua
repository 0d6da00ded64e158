-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What every call on a Redis storage begins and ends with: the checks, the
-- command, and what its reply means where it is not what was hoped for.
--
--     refuse --> run --> transport --> replies
--                                        '--error--> nil, message, code
--
-- An error of Redis never says more to callers than it says about the server:
-- the id of the session is cut off. Errors that a newer connection may not have
-- (the server is no master any more) make the transport connect anew; a timeout
-- or a lost connection leaves open whether the command was executed, and its
-- message says so.
--
-- The functions take a Redis storage, of which they use
--     transport, address, key_prefix, max_id_length, closed

local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local session = require "resty.mooring.session"

local closed = errors.closed
local error = error
local find = string.find
local invalid_id = session.invalid_id
local match = string.match
local sub = string.sub
local type = type

local _M = {}


---
-- What every call begins with.
-- @param level optional, of the caller to blame for an id that is no string
-- @return nil, message, code: closed, invalid; or nothing when all is well
function _M.refuse(self, id, level)
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


---
-- An error reply as the three results of a failed call.
-- @param what could not be done, for the message
-- @param command that the reply is to
function _M.reply_failure(self, what, command, reply)
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


---
-- Is a reply an error?
function _M.is_error(reply)
    return type(reply) == "table" and reply.err ~= nil
end


---
-- Runs commands and waits; the first error reply is the error of all.
-- @param commands array of arrays of strings
-- @return array of replies; or nil, message, code: invalid, unavailable,
--         timeout
function _M.run(self, what, commands)
    local replies, err, code = self.transport:call(commands)
    if not replies then
        return nil, "could not " .. what .. ": " .. err, code
    end
    for i = 1, #commands do
        if _M.is_error(replies[i]) then
            return _M.reply_failure(self, what, commands[i], replies[i])
        end
    end
    return replies
end


---
-- Runs one command and waits.
-- @param ... the command
-- @return reply; or nil, message, code as run
function _M.run_one(self, what, ...)
    local replies, err, code = _M.run(self, what, { { ... } })
    if not replies then
        return nil, err, code
    end
    return replies[1]
end


---
-- A reply that does not belong to the command: whether it was executed, nobody
-- can say.
-- @return nil, message, "unavailable"
function _M.unexpected(what)
    return nil, "could not " .. what .. ": unexpected reply",
           errors.UNAVAILABLE
end


return _M
