-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A small hash in Redis beside the sessions, which all replicas read as a whole
-- and every change of which is pushed to them: what is to be known everywhere
-- and is no session.
--
-- Reading does not wait. Who is told of a change (routing_storage.watch) reads
-- the board anew; a message says nothing of what has changed.

local errors = require "resty.mooring.errors"
local keys = require "resty.mooring.keys"

local setmetatable = setmetatable
local type = type

local _M = {}
local mt = { __index = _M }


---
-- @param storage redis_storage
-- @param name of the board
function _M.new(storage, name)
    return setmetatable({
        storage = storage,
        key = keys.board(storage.key_prefix, name),
    }, mt)
end


-- A flat reply as a table.
local function fields_of(reply)
    local fields = {}
    for i = 1, reply.n or #reply, 2 do
        fields[reply[i]] = reply[i + 1]
    end
    return fields
end


---
-- Queues the reading of the whole board.
-- @param callback function(fields), a table of field to string; or
--        function(nil, message). Called once, or never when the worker leaves
-- @return true, or nil, message, code when it could not even be queued
function _M.read_later(self, callback)
    return self.storage.transport:enqueue({ "HGETALL", self.key },
        function(reply, err)
            if type(reply) ~= "table" then
                return callback(nil, err or "unexpected reply")
            elseif reply.err then
                return callback(nil, reply.err)
            end
            callback(fields_of(reply))
        end)
end


---
-- Runs a script on the board and waits.
-- @param what it does, for messages: "change the state"
-- @param script its KEYS[1] is the board
-- @param ... ARGV
-- @return reply; or nil, message, code: unavailable, timeout (the outcome is
--         not known), invalid, closed
function _M.run(self, what, script, ...)
    if self.storage.closed then
        return errors.closed()
    end
    return self.storage:ask(what, "EVAL", script, "1", self.key, ...)
end


---
-- As run, without waiting, and nobody hears of the outcome.
function _M.run_later(self, script, ...)
    return self.storage.transport:enqueue({ "EVAL", script, "1", self.key,
                                            ... })
end


return _M
