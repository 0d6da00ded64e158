-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The rules of MCP Streamable HTTP, revisions 2025-03-26 to 2025-11-25, seen
-- from a router (modelcontextprotocol.io, "Transports"); and of 2026-07-28,
-- which has no sessions, so that its requests go to any backend.
--
--     has Mcp-Session-Id?
--       no  POST without Mcp-Method --is it initialize?--> open a session
--           anything else --------------------------------> any backend
--       yes DELETE ---------------------------------------> end the session
--           POST without MCP-Protocol-Version, or whose id is not known:
--             is it initialize? --------------------------> open a session
--           id known -------------------------------------> its backend
--           id not known ---------------------------------> 404
--
-- Clients send MCP-Protocol-Version on everything after initialize, so the body
-- of a request of a known session is not looked at.

local answers = require "resty.mooring.router.answer"
local ending = require "resty.mooring.router.ending"
local errors = require "resty.mooring.errors"
local get_method = ngx.req.get_method
local headers = require "resty.mooring.router.headers"
local jsonrpc = require "resty.mooring.router.jsonrpc"
local opening = require "resty.mooring.router.opening"
local scripts = require "resty.mooring.router.scripts"

local clear_header = ngx.req.clear_header
local complete = headers.complete
local ngx = ngx
local set_header = ngx.req.set_header
local read_headers = headers.mcp

local _M = {}


-- Opens a session if the request is an `initialize`; else returns its body.
local function open_if_asked(router)
    local body = answers.body()
    if jsonrpc.is_initialize(body) then
        return opening.run(router, body)
    end
    return body
end


local function without_session(router, var, method)
    local body
    if method == "POST" and not var.http_mcp_method then
        body = open_if_asked(router)
    end
    return router:unpinned(var, body)
end


-- Whatever headers there are: the backend gets the very id that is looked up.
local function read_slowly(var)
    complete(var)
    local id = var.http_mcp_session_id
    if id == "" then
        clear_header("Mcp-Session-Id")
    elseif id then
        set_header("Mcp-Session-Id", id)
    end
    return id, var.http_mcp_protocol_version ~= nil
end


---
-- Decides where a request goes (access phase).
function _M.access(router, var)
    local id, has_version = read_headers()
    if not id then
        id, has_version = read_slowly(var)
    end
    local method = get_method()
    if not id or id == "" then
        return without_session(router, var, method)
    elseif method == "DELETE" then
        return ending.run(router, id)
    end

    local examined = method == "POST" and not has_version
    if examined then
        open_if_asked(router)
    end
    local reference, err, code = router.resolve_session(router.storage, id)
    if reference then
        if router.serve(router, var, id, reference, code) ~= "dropped" then
            return
        end
        code = errors.NOT_FOUND
    end
    if code == errors.NOT_FOUND and method == "POST" and not examined then
        open_if_asked(router)
    end
    return router:unresolved(id, err, code)
end


-- Clients adopt a session id from any response that has one.
local function put_right(router, id, given)
    if ngx.var.mooring_role == "internal" or ngx.ctx.mooring_carried then
        return -- on its way to the router, or bound by it
    end
    local peer = id and router.requests:peer()
    if peer and given == peer.session_id then
        ngx.header["Mcp-Session-Id"] = id -- it goes by another id there
        return
    end
    ngx.header["Mcp-Session-Id"] = nil
    router.counters:add("foreign_ids")
end


local function backend_knows_it_not(router, id)
    local var = ngx.var
    if router:is_bound(var) then
        router.disowned:add(id, router.requests:peer().reference, var.uri,
                            scripts.frozen_request(router))
    end
end


---
-- Looks at the head of a response (header filter phase).
-- @param id of the session the request was sent on for, nil for none
function _M.header_filter(router, id)
    local given = ngx.header["Mcp-Session-Id"]
    if given ~= nil and given ~= id then
        put_right(router, id, given)
    end
    if id and ngx.status == 404 then
        backend_knows_it_not(router, id)
    end
end


return _M
