-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions that are not MCP's: whatever header, cookie or argument the option
-- `key` names keeps its requests together. With unknown = "bind" the first
-- request of a key binds it; of several first requests at once, through any
-- replica, one does and the others follow it.

local binding = require "resty.mooring.router.binding"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"

local _M = {}

-- A binding may vanish between the create that lost and the look that follows.
local ATTEMPTS = 3


-- The backend of a key that is not known yet.
local function bind(router, id)
    for _ = 1, ATTEMPTS do
        local peer = router.policy:pick()
        if not peer then
            return router:refuse("no_backend")
        end
        local ok, err, code = binding.create(router, id, peer.url)
        if ok then
            router.counters:add("created")
            return peer.url
        elseif code ~= errors.ALREADY_EXISTS then
            return nil, err, code
        end
        local url
        url, err, code = router.resolve_session(router.storage, id)
        if url or code ~= errors.NOT_FOUND then
            return url, err, code
        end
    end
    log.warn_limited("bind", "could not bind the key ", log.id(id),
                     ": it comes and goes")
    return nil, "could not bind the key", errors.UNAVAILABLE
end


---
-- Decides where a request goes (access phase).
function _M.access(router, var)
    local id = var[router.id_variable]
    if not id or id == "" then
        return router:unpinned(var)
    end
    local url, err, code = router.resolve_session(router.storage, id)
    if not url and code == errors.NOT_FOUND and router.unknown == "bind" then
        url, err, code = bind(router, id)
    end
    if not url then
        return router:unresolved(id, err, code)
    end
    return router:proxy(var, id, url, code)
end


---
-- Responses are the backends' own business.
function _M.header_filter()
end


return _M
