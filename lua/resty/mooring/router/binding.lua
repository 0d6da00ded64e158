-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Bindings as the router makes and unmakes them. A binding is made once, with
-- `create`; it is unmade because a backend is gone only while it is the one
-- that was seen: another replica may have bound the id anew.

local errors = require "resty.mooring.errors"
local scripts = require "resty.mooring.router.scripts"
local session = require "resty.mooring.session"
local store = require "resty.mooring.router.store"

local find = string.find

local _M = {}

local MAX_ENDPOINT = 256 -- bytes


---
-- Why the router's storage would not take this id; nil when it would.
function _M.invalid_id(router, id)
    return session.invalid_id(id, router.storage.max_id_length)
end


-- The path that speaks for the session. A 404 says that the session is gone
-- only there: /mcp/favicon.ico says nothing.
local function endpoint_of(path)
    if path and #path <= MAX_ENDPOINT and not find(path, "[^\33-\126]") then
        return path
    end
end


---
-- A session bound to a backend, not stored yet.
-- @param router
-- @param id valid
-- @param reference of the backend, see resty.mooring.router.reference
-- @param path that speaks for the session, nil when it does not matter
-- @param kind optional, type of the session
function _M.session(router, id, reference, path, kind)
    return session.new(id, {
        type = kind or router.session_type,
        metadata = { backend_url = reference, endpoint = endpoint_of(path) },
    })
end


-- With what policies add to it; without, when the storage does not take that.
local function create_scripted(router, id, reference, path, body)
    local engine = router.engine
    local s = _M.session(router, id, reference, path)
    engine:on_bind(s, scripts.request(router, body))
    local ok, err, code = router.create_session(router.storage, s)
    if not ok and code == errors.INVALID then
        engine:blame_on_bind(err)
        return router.create_session(router.storage,
                                     _M.session(router, id, reference, path))
    end
    return ok, err, code
end


---
-- Binds a session to a backend.
-- @param router
-- @param id valid
-- @param reference of the backend, see resty.mooring.router.reference
-- @param path that the request came for, nil when it does not matter
-- @param body of the request, where it was read
-- @return true, or nil, message, code as create of the storage
function _M.create(router, id, reference, path, body)
    if router.engine.has.on_bind then
        return create_scripted(router, id, reference, path, body)
    end
    return router.create_session(router.storage,
                                 _M.session(router, id, reference, path))
end


---
-- Is this the path the session was opened at? Yes where that is not known.
function _M.is_endpoint(s, path)
    local endpoint = s.metadata.endpoint
    return endpoint == nil or endpoint == path
end


---
-- Removes the binding of a session whose backend is gone, or that has ended.
-- Waits for the store.
-- @param id string
-- @param reference what it was bound to when that was seen
-- @param condition optional function(session): false keeps the binding
-- @param event optional, what is counted: "forgotten"
-- @return true when there is no such binding any more, false when there is
--         another one; or nil, message, code
function _M.forget(router, id, reference, condition, event)
    local storage = router.storage
    local s, err, code = storage:load(id)
    if not s then
        if code == errors.NOT_FOUND then
            return true
        end
        return nil, err, code
    end
    if s.metadata.backend_url ~= reference
       or condition and not condition(s)
    then
        return false
    end
    local removed
    removed, err, code = store.remove_if(storage, id, s)
    if removed then
        router.counters:add(event or "forgotten")
    end
    return removed, err, code
end


return _M
