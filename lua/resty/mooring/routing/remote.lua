-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Writing to the remote, which may be any object with the five methods of a
-- storage: what it lacks beyond these is made up for from what it has.
--
--     create, update        load, then store
--     update_if, remove_if  load, compare, then store or delete
--     create_later          create in a timer
--
-- None of this is atomic: another replica may write between the look and the
-- act, and its change is lost. So remotes that share sessions should have these
-- methods; resty.mooring.redis_storage does.
--
-- The functions take a routing storage, of which they use `remote` alone.

local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local record = require "resty.mooring.record"

local encode = record.encode
local ngx = ngx
local type = type

local NOT_FOUND = errors.NOT_FOUND
local UNAVAILABLE = errors.UNAVAILABLE

local _M = {}


-- create and update of a remote that has neither: not atomic.
local function emulate(self, s, method)
    log.warn_once("emulate", "the remote has no create and update: load and ",
                  "store are used instead, which is not atomic")
    local found, err, code = self.remote:load(s.id)
    if not found and code ~= NOT_FOUND then
        return nil, err, code
    elseif found and method == "create" then
        return nil, "session already exists", errors.ALREADY_EXISTS
    elseif not found and method == "update" then
        return errors.not_found()
    end
    return self.remote:store(s)
end


-- Is the remote's session as it was seen? For remotes that cannot compare and
-- act in one step.
local function is_as_seen(self, id, seen)
    local current, err, code = self.remote:load(id)
    if not current then
        if code == NOT_FOUND then
            return false
        end
        return nil, err, code
    end
    return encode(current) == encode(seen)
end


local function emulate_update_if(self, s, seen)
    local same, err, code = is_as_seen(self, s.id, seen)
    if not same then
        return same, err, code
    end
    return self.remote:store(s)
end


---
-- Writes a session to the remote.
-- @param method "store", "create", "update" or "update_if"
-- @param seen for update_if: the session as load has returned it
-- @return as that method of a storage
function _M.write(self, s, method, seen)
    local remote = self.remote
    if type(remote[method]) == "function" then
        return remote[method](remote, s, seen)
    elseif seen then
        return emulate_update_if(self, s, seen)
    end
    return emulate(self, s, method)
end


local function create_in_timer(_, self, s, callback)
    callback(_M.write(self, s, "create"))
end


---
-- create in the remote, without waiting.
-- @param callback function(created, message, code)
-- @return true; or nil, message, code: nothing is under way then
function _M.create_later(self, s, callback)
    local remote = self.remote
    if type(remote.create_later) == "function" then
        return remote:create_later(s, callback)
    end
    local ok, err = ngx.timer.at(0, create_in_timer, self, s, callback)
    if not ok then
        return nil, "could not make a timer: " .. err, UNAVAILABLE
    end
    return true
end


local function emulate_remove_if(self, id, seen)
    local same, err, code = is_as_seen(self, id, seen)
    if not same then
        return same, err, code
    end
    return self.remote:delete(id)
end


---
-- Deletes a session in the remote while it is as it was seen.
-- @return as remove_if of a storage
function _M.remove_if(self, id, seen)
    if type(self.remote.remove_if) == "function" then
        return self.remote:remove_if(id, seen)
    end
    return emulate_remove_if(self, id, seen)
end


return _M
