-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions that are not MCP's: whatever header, cookie or argument the option
-- `key` names keeps its requests together. With unknown = "bind" the first
-- request of a key binds it; of several first requests at once, through any
-- replica, one does and the others follow it.

local binding = require "resty.mooring.router.binding"
local choice = require "resty.mooring.router.choice"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local scripts = require "resty.mooring.router.scripts"

local _M = {}

-- A binding may vanish between the create that lost and the look that follows.
local ATTEMPTS = 3


-- One that is not admitted is known, and stays whose it is.
local function is_unknown(err, code)
    return code == errors.NOT_FOUND and err ~= scripts.NOT_ADMITTED
end


-- The backend of a key that is not known yet.
local function bind(router, id)
    for _ = 1, ATTEMPTS do
        local peer = choice.pick(router, scripts.request(router))
        if not peer then
            return router:refuse("no_backend")
        end
        local reference = peer.reference
        local ok, err, code = binding.create(router, id, reference)
        if ok then
            router.counters:add("created")
            return reference
        elseif code ~= errors.ALREADY_EXISTS then
            return nil, err, code
        end
        reference, err, code = router.resolve_session(router.storage, id)
        if reference or not is_unknown(err, code) then
            return reference, err, code
        end
    end
    log.warn_limited("bind", "could not bind the key ", log.id(id),
                     ": it comes and goes")
    return nil, "could not bind the key", errors.UNAVAILABLE
end


-- The backend of a key whose own was dropped: as if it had never been bound.
local function bind_anew(router, id, reference)
    if router.unknown ~= "bind" then
        return nil, nil, errors.NOT_FOUND
    end
    local forgotten, err, code = binding.forget(router, id, reference)
    if forgotten == nil then
        return nil, err, code
    end
    return bind(router, id)
end


---
-- Decides where a request of a session goes.
-- @param id nil or "" for a request that belongs to none; false for one whose
--        id the backend may read in another way
function _M.serve(router, var, id)
    if id == false then
        return router:refuse("invalid")
    elseif not id or id == "" then
        return router:unpinned(var)
    end
    local reference, err, code = router.resolve_session(router.storage, id)
    if reference then
        if router:proxy(var, id, reference, code) ~= "dropped" then
            return
        end
        reference, err, code = bind_anew(router, id, reference)
    elseif router.unknown == "bind" and is_unknown(err, code) then
        reference, err, code = bind(router, id)
    end
    if not reference then
        return router:unresolved(id, err, code)
    elseif router:proxy(var, id, reference, code) == "dropped" then
        return router:refuse("moved") -- once more, meanwhile
    end
end


---
-- Decides where a request goes (access phase).
function _M.access(router, var)
    return _M.serve(router, var, router.read_id(var, true))
end


---
-- Responses are the backends' own business.
function _M.header_filter()
end


return _M
