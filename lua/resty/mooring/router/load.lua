-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- How loaded each backend is, as all workers of this nginx see it: requests
-- under way, and sessions bound to it.
--
--     label     a small number for a URL, the same in all workers and after a
--               reload; 0: none (1,023 URLs in the life of this nginx have one)
--     in flight counted by each worker in a row of its own (c/load.c); a worker
--               that is killed leaves nothing behind
--     sessions  those of the storage's local tier that are bound to the URL: a
--               storage counts them by tag, and the tag is a label: that of the
--               URL, or after drops that of "url#1", "url#2", "url#3", in turn
--     version   a number that moves when the set of backends has changed; each
--               request gets it for nothing when it begins
--
-- A label is only ever given to a URL somebody has configured: bindings come
-- from Redis, and whoever can write there could else use all of them up. So
-- sessions of a backend nobody has named yet are counted from the next time
-- their record is read. In the same way those of an incarnation nobody here has
-- learned of are counted with the first.
--
-- The sessions a drop has voided keep their tag until they are met or expire,
-- and nobody takes them for those since. Whoever can write to Redis can drop,
-- too: so a backend has no label for each incarnation, but four in all. Only
-- after four drops within the life of a session void ones count again.

local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local references = require "resty.mooring.router.reference"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi

local error = error
local setmetatable = setmetatable
local type = type

local _M = {}
local mt = { __index = _M }

local NONE = 0
_M.NONE = NONE

local TURNS = 4 -- successive incarnations that are told apart


---
-- Opens the table of that name, or makes it. For init_by_lua: tables made in a
-- worker are that worker's own.
-- @param name string of 1 to 255 bytes
-- @return the table; raises for another name, and when there is no memory
function _M.open(name)
    if type(name) ~= "string" or name == "" or #name > 255 then
        error("name must be a string of 1 to 255 bytes", 2)
    end
    local out = ffi.new("mr_load *[1]")
    local rc = C.mr_load_open(name, #name, out)
    if rc ~= 0 then
        error("could not open the load table: " .. mooring_ffi.strerror(rc), 2)
    end
    return setmetatable({ handle = out[0], labels = {} }, mt)
end


-- A label, made or looked for by a function of the core, and remembered: one
-- that there is, is for ever.
local function label_by(self, get, name)
    local label = self.labels[name]
    if not label then
        label = get(self.handle, name, #name)
        if label ~= NONE then
            self.labels[name] = label
        end
    end
    return label
end


---
-- The label of a backend's URL, which gets one if it has none.
-- @param url string, as configured: without fragment
-- @return integer from 1 to 1023, or 0 when no label is left
function _M.label(self, url)
    local label = label_by(self, C.mr_load_label, url)
    if label == NONE then
        log.warn_once("labels", "there have been more than 1,023 backends and ",
                      "drops of them since this nginx was started: requests ",
                      "and sessions of others are not counted until it is ",
                      "started again")
    end
    return label
end


-- What has the label that the sessions of an incarnation are counted by.
local function counted_as(url, incarnation)
    return references.format(url, incarnation % TURNS)
end


---
-- What the sessions of a backend's incarnation are counted by. It gets a label
-- if it has none; when none is left, it has that of the first.
-- @param url as for label()
-- @param incarnation integer, how often it was dropped
-- @return label, for sessions()
function _M.tag(self, url, incarnation)
    local label = self:label(url)
    local tag = label_by(self, C.mr_load_label, counted_as(url, incarnation))
    if tag == NONE then
        return label
    end
    return tag
end


-- The tag of a session by its binding: 0 unless that names a backend.
local function tag_of_binding(self, reference)
    local url, incarnation = references.parse(reference)
    if not url then
        return NONE
    end
    local tag = label_by(self, C.mr_load_find, counted_as(url, incarnation))
    if tag == NONE then
        tag = label_by(self, C.mr_load_find, url)
    end
    return tag
end


---
-- A request to the backend of that label begins: the hot path.
-- @return the version of the set of backends
function _M.begin(self, label)
    return (C.mr_load_begin(self.handle, label))
end


---
-- It has ended, in the worker it began in.
function _M.finish(self, label)
    C.mr_load_finish(self.handle, label)
end


---
-- @return how many requests are under way to that backend, of all workers
function _M.inflight(self, label)
    return (C.mr_load_inflight(self.handle, label))
end


---
-- The version of the set of backends, at first 1.
function _M.version(self)
    return (C.mr_load_version(self.handle))
end


---
-- Tells all workers that the set of backends has changed.
-- @return the new version
function _M.bump_version(self)
    return (C.mr_load_bump_version(self.handle))
end


---
-- Lets a storage count its sessions by backend. Storages that share a region
-- must use one table.
-- @param storage any; one that cannot count has no sessions
-- @return whether it can
function _M.attach(self, storage)
    self.storage = nil
    if type(storage.classify) ~= "function"
       or type(storage.tagged) ~= "function"
    then
        return false
    end
    storage:classify(function(session)
        local url = session.metadata and session.metadata.backend_url
        return url and tag_of_binding(self, url) or NONE
    end)
    self.storage = storage
    return true
end


---
-- @param tag see tag()
-- @return how many sessions this instance knows that are bound to that
--         incarnation of the backend
function _M.sessions(self, tag)
    if not self.storage or tag == NONE then
        return 0
    end
    return self.storage:tagged(tag) or 0
end


return _M
