-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Changes in two tiers. The remote decides; the local tier must never say
-- something older than it does.
--
--     store, create, update(_if)   the copy leaves --> token --> remote
--                                     done    --> copy, if the token is valid
--                                     failed, or not known --> no copy
--     delete, remove_if            the copy leaves --> remote --> what was
--                                     filled meanwhile leaves as well
--     create_later                 copy --> remote, later
--                                     refused --> the copy leaves
--
-- The copy leaves before the remote is asked, so a process may die anywhere in
-- between; and it leaves again when the outcome is not known. A fetch under way
-- meanwhile has a token that the change has made invalid.
--
-- These are methods of resty.mooring.routing_storage.

local cache = require "resty.mooring.cache"
local copies = require "resty.mooring.routing.copies"
local errors = require "resty.mooring.errors"
local fetching = require "resty.mooring.routing.fetch"
local house = require "resty.mooring.routing.house"
local mooring_ffi = require "resty.mooring.ffi"
local reads = require "resty.mooring.routing.reads"
local record = require "resty.mooring.record"
local remotes = require "resty.mooring.routing.remote"

local clock = mooring_ffi.now

local encode = record.encode
local error = error
local look = reads.look
local refuse = house.refuse
local type = type

local KEEP_URL, QUIETLY = cache.KEEP_URL, cache.QUIETLY
local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

local _M = {}


local function write(self, s, method, seen)
    if type(s) ~= "table" or type(s.id) ~= "string" then
        error("session must be a session", 2)
    end
    local id = s.id
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    local text
    text, err, code = encode(s)
    if not text then
        return nil, err, code
    end

    self.cache:invalidate(id, QUIETLY)
    local token = self.cache:token(id)
    local asked = clock()
    local ok
    ok, err, code = remotes.write(self, s, method, seen)
    if not ok then
        if not self.closed then
            self.cache:invalidate(id, QUIETLY)
        end
        return ok, err, code
    end

    local left = self.tells_expiry and self.remote:lifetime(s)
    local times = copies.times(self, asked, left)
    local kept = copies.fill(self, id, s, text, times, token, cache.PUT_BUMP)
    if not kept and self.coherence and #text <= self.max_record then
        -- Most often our own write, pushed back to us before its reply was
        -- read. The session is about to be used.
        fetching.refetch(self, id)
    end
    return true
end


---
-- Creates or overwrites a session: in the remote first; if that fails the
-- local tier does not get it.
-- @param s session
-- @return true, or nil, message, code as the remote's store
function _M.store(self, s)
    return write(self, s, "store")
end


---
-- Stores a session whose id is not taken.
-- @return as store, and already_exists
function _M.create(self, s)
    return write(self, s, "create")
end


-- The copy of a new session, which was there before the remote had been asked,
-- stays as long as nobody can say that there is no such session.
local function keep_if_possible(self, id, created, code)
    if not created and code ~= UNAVAILABLE and code ~= TIMEOUT
       and not self.closed
    then
        self.cache:invalidate(id, QUIETLY)
    end
end


---
-- create without waiting, for phases of nginx that cannot. The local tier knows
-- the session at once, and keeps it while the remote cannot say that the id is
-- taken: for callers who are sure of the session until they are told otherwise.
-- @param callback function(created, message, code), called in a timer with what
--        create would have returned
-- @return true, or nil, message, code as create: nothing is under way then
function _M.create_later(self, s, callback)
    if type(s) ~= "table" or type(s.id) ~= "string" then
        error("session must be a session", 2)
    end
    local id = s.id
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    local text
    text, err, code = encode(s)
    if not text then
        return nil, err, code
    elseif look(self, id, KEEP_URL) then
        return nil, "session already exists", errors.ALREADY_EXISTS
    end

    local left = self.tells_expiry and self.remote:lifetime(s)
    copies.fill(self, id, s, text, copies.times(self, clock(), left),
                self.cache:token(id), 0)
    local ok
    ok, err, code = remotes.create_later(self, s, function(created, said, why)
        keep_if_possible(self, id, created, why)
        callback(created, said, why)
    end)
    keep_if_possible(self, id, ok, code)
    return ok, err, code
end


---
-- Overwrites a session that is there.
-- @return as store, and not_found
function _M.update(self, s)
    return write(self, s, "update")
end


-- Removes the copy, asks the remote, and removes what was filled meanwhile.
-- The hook hears of it only when the session is really gone.
local function delete_both(self, id, ask)
    self.cache:invalidate(id, cache.DELETED)
    local held = self.cache:hold_back(id)

    local result, err, code = ask()
    if not self.closed then
        self.cache:invalidate(id, (held or not result) and QUIETLY
                                  or cache.DELETED)
    end
    if result then
        self.cache:release(held)
    end
    return result, err, code
end


---
-- Deletes a session from both tiers; an unknown id is no error.
-- @param id string
-- @return true, or nil, message, code as the remote's delete
function _M.delete(self, id)
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    return delete_both(self, id, function()
        return self.remote:delete(id)
    end)
end


---
-- Overwrites a session only while it is still as it was seen.
-- @param s session
-- @param seen session of that id as returned by load
-- @return true, false when it is another one by now or gone; or nil, message,
--         code as store
function _M.update_if(self, s, seen)
    return write(self, s, "update_if", seen)
end


---
-- Deletes a session only while it is still as it was seen.
-- @param id string
-- @param seen session as returned by load
-- @return true when it was deleted, false when it is another one by now or
--         gone; or nil, message, code as delete
function _M.remove_if(self, id, seen)
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    return delete_both(self, id, function()
        return remotes.remove_if(self, id, seen)
    end)
end


return _M
