-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The answers a router makes itself, all of them JSON-RPC errors. A browser
-- shows a page neither status nor body of an answer without CORS headers, so
-- these have them; what backends answer has their own.

local jsonrpc = require "resty.mooring.router.jsonrpc"

local find = string.find
local ngx = ngx
local type = type

local _M = {}

local MAX_FILE = 262144 -- bytes read of a body nginx has put into a file

-- What is answered, by the kind of trouble. `count` is the value of
-- $mooring_result (see resty.mooring.router.counters) where it is another word.
local ANSWERS = {
    not_found = { 404, jsonrpc.SESSION_NOT_FOUND, "Session not found" },
    forgotten = { 404, jsonrpc.SESSION_NOT_FOUND, "Session not found",
                  count = "unreachable" },
    moved = { 503, jsonrpc.BACKEND_FAILED, "Backend unreachable, try again",
              count = "unreachable", retry = "1" },
    unreachable = { 502, jsonrpc.BACKEND_FAILED, "Backend unreachable" },
    no_backend = { 503, jsonrpc.BACKEND_FAILED, "No backend available",
                   count = "unreachable", retry = "1" },
    failed = { 502, jsonrpc.BACKEND_FAILED, "Backend failed" },
    timeout = { 504, jsonrpc.BACKEND_FAILED, "Backend timed out",
                count = "failed" },
    not_allowed = { 503, jsonrpc.BACKEND_FAILED,
                    "The session's backend may not be contacted", retry = "1" },
    unavailable = { 503, jsonrpc.STORE_UNAVAILABLE,
                    "Session store unavailable", retry = "1" },
    invalid = { 400, jsonrpc.INVALID_REQUEST, "Invalid session id" },
}


---
-- The check of the option `cors_origin`, for resty.mooring.options.
function _M.check_origin(origin)
    local ok = origin == false
               or type(origin) == "string" and find(origin, "^[!-~]+$") ~= nil
    return ok, "must be an origin, \"*\" or false"
end


local function read_file(path)
    local file = io.open(path, "rb")
    if not file then
        return nil
    end
    local text = file:read(MAX_FILE + 1)
    file:close()
    return text and #text <= MAX_FILE and text or nil
end


---
-- The body of the request. Waits for it.
-- @return string ("" for none), or nil when it is larger than 256 KiB and so
--         nothing a router has to look into; is it in memory?
function _M.body()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if body then
        return body, true
    end
    local path = ngx.req.get_body_file()
    if path then
        return read_file(path), false
    end
    return "", true
end


-- A body on disk is not read for its id alone.
local function request_id()
    if ngx.req.get_method() ~= "POST" then
        ngx.req.discard_body()
        return nil
    end
    local body, in_memory = _M.body()
    return in_memory and jsonrpc.request_id(body) or nil
end


local function allow_origin(header, origin)
    if not origin then
        return
    end
    header["Access-Control-Allow-Origin"] = origin
    header["Access-Control-Expose-Headers"] = "Mcp-Session-Id, WWW-Authenticate"
    if origin ~= "*" then
        header["Vary"] = "Origin"
    end
end


---
-- Answers the request with an error and ends it.
-- @param router
-- @param kind one of ANSWERS
function _M.send(router, kind)
    local answer = ANSWERS[kind]
    router:note(answer.count or kind)
    local body = jsonrpc.error_body(answer[2], answer[3], request_id())
    local header = ngx.header
    ngx.status = answer[1]
    header["Content-Type"] = "application/json"
    header["Content-Length"] = #body
    header["Retry-After"] = answer.retry
    allow_origin(header, router.cors_origin)
    ngx.print(body)
    return ngx.exit(ngx.HTTP_OK)
end


return _M
