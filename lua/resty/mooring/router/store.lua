-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The router's view of its storage: which object the option `storage` means,
-- and what the router needs beyond the five methods every storage has.

local errors = require "resty.mooring.errors"
local local_storage = require "resty.mooring.local_storage"
local log = require "resty.mooring.log"
local redis_storage = require "resty.mooring.redis_storage"
local routing_storage = require "resty.mooring.routing_storage"
local url = require "resty.mooring.url"

local concat = table.concat
local ipairs = ipairs
local ngx = ngx
local type = type

local _M = {}

local METHODS = { "store", "load", "delete", "delete_expired", "close" }
local MUST = 'must be "local", a redis:// or unix:// URL, or a storage'


local function check_object(storage)
    local missing = {}
    for _, name in ipairs(METHODS) do
        if type(storage[name]) ~= "function" then
            missing[#missing + 1] = name
        end
    end
    return #missing == 0, "must have the method "
                          .. concat(missing, " and ")
end


---
-- The check of the option `storage`, for resty.mooring.options.
function _M.check(storage)
    if type(storage) == "table" then
        return check_object(storage)
    elseif type(storage) ~= "string" then
        return false, MUST
    elseif storage == "local" then
        return true
    end
    local target, must = url.parse(storage)
    return target ~= nil, must
end


-- A storage that somebody else has made.
local function hook_into(storage, on_evict)
    if type(storage.add_hook) == "function" then
        storage:add_hook(on_evict)
    else
        log.warn("on_evict of the policy will not be called: the storage has ",
                 "no add_hook")
    end
end


---
-- Opens what the option `storage` means.
-- @param opts the router's options, checked
-- @param on_evict function(session, reason), or nil
-- @return a storage
function _M.open(opts, on_evict)
    local storage = opts.storage
    local name = "router:" .. opts.name
    if type(storage) == "table" then
        if on_evict then
            hook_into(storage, on_evict)
        end
        return storage
    elseif storage == "local" then
        storage = local_storage.new {
            name = name,
            max_entries = opts.max_local_sessions,
            ttl = opts.session_ttl,
            on_evict = on_evict,
        }
        storage.limited_by = "max_local_sessions"
        return storage
    end
    return routing_storage.new {
        name = name,
        max_local_entries = opts.max_local_entries,
        on_evict = on_evict,
        remote = redis_storage.new {
            url = storage,
            ttl = opts.session_ttl,
        },
    }
end


-- ------------------------------------------------ storages of five methods --

local function load_url(storage, id)
    local s, err, code = storage:load(id)
    if not s then
        return nil, err, code
    end
    local backend_url = s.metadata and s.metadata.backend_url
    if not backend_url then
        return nil, "the session has no backend_url", errors.INVALID
    end
    return backend_url, err, code
end


local function store_new(storage, session)
    log.warn_once("router create", "the storage has no create: load and store ",
                  "are used instead, which is not atomic")
    local s, err, code = storage:load(session.id)
    if s then
        return nil, "session already exists", errors.ALREADY_EXISTS
    elseif code ~= errors.NOT_FOUND then
        return nil, err, code
    end
    return storage:store(session)
end


---
-- resolve(storage, id) of any storage: its own, or one over load.
function _M.resolver(storage)
    return type(storage.resolve) == "function" and storage.resolve or load_url
end


---
-- create(storage, session) of any storage: its own, or one over load and store.
function _M.creator(storage)
    return type(storage.create) == "function" and storage.create or store_new
end


local function create_in_timer(_, storage, session, callback)
    callback(_M.creator(storage)(storage, session))
end


---
-- create without waiting, in any phase of a request.
-- @param callback function(created, message, code): what create would have
--        returned; called here or in a timer, once if this returns true
-- @return true, or nil, message, code when there is nothing to wait for
function _M.create_later(storage, session, callback)
    if type(storage.create_later) == "function" then
        return storage:create_later(session, callback)
    end
    local ok, err = ngx.timer.at(0, create_in_timer, storage, session, callback)
    if not ok then
        return nil, "could not make a timer: " .. err, errors.UNAVAILABLE
    end
    return true
end


---
-- Could the storage take a new session now?
-- @return true, or nil, message, code; a storage that cannot tell is ready
function _M.ready(storage)
    if type(storage.ready) ~= "function" then
        return true
    end
    return storage:ready()
end


---
-- Lets the storage begin its background work in this worker.
function _M.start(storage)
    if type(storage.start) == "function" then
        storage:start()
    end
end


---
-- Removes a binding only while it is the one that was seen.
-- @param seen session as load has returned it
-- @return true, false when there is another one by now; or nil, message, code
function _M.remove_if(storage, id, seen)
    if type(storage.remove_if) == "function" then
        return storage:remove_if(id, seen)
    end
    return storage:delete(id)
end


return _M
