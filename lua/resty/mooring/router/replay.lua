-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Plays the client's part of the handshake of MCP at a backend (2025-11-25,
-- "Lifecycle"): `initialize` with the body it was opened with, then
-- `notifications/initialized`.
--
--     POST initialize ---------------> 200, Mcp-Session-Id, InitializeResult
--     POST notifications/initialized -> 2xx
--
-- Through the hop, with the headers of the request that is under way: its
-- credentials are the ones that are good now. The result is read, as JSON or
-- from an event stream, since the client goes on with what it was told: a
-- backend that negotiates another protocol version is no replacement. What is
-- read is bounded in bytes and in time.

local cjson = require "cjson.safe"
local hop = require "resty.mooring.router.hop"
local http1 = require "resty.mooring.router.http1"
local jsonrpc = require "resty.mooring.router.jsonrpc"

local clock = require("resty.mooring.ffi").now
local concat = table.concat
local decode = cjson.decode
local find = string.find
local gmatch = string.gmatch
local lower = string.lower
local match = string.match
local max = math.max
local pairs = pairs
local type = type

local _M = {}

local MAX_RESULT = 262144 -- bytes
local TIMEOUT = 10000     -- ms between two parts of an answer
local INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}'

-- Of the request that is under way, not of the session.
local NOT_REPLAYED = {
    ["accept"] = true, ["accept-encoding"] = true, ["content-encoding"] = true,
    ["content-type"] = true, ["last-event-id"] = true,
    ["mcp-protocol-version"] = true,
}


---
-- The body of the `initialize` a session was opened with. Nothing else that may
-- stand there is ever sent: whoever can write to the store must not have
-- requests made with the credentials of clients.
-- @return string or nil
function _M.body_of(session)
    local data = session.data
    local body = type(data) == "table" and data.initialize
    if type(body) == "string" and jsonrpc.is_initialize(body) then
        return body
    end
end


local function headers_of(request, version)
    local headers = {
        ["Accept"] = "application/json, text/event-stream",
        ["Content-Type"] = "application/json",
        ["MCP-Protocol-Version"] = version,
    }
    for name, value in pairs(request.headers) do
        if not NOT_REPLAYED[lower(name)] then
            headers[name] = value
        end
    end
    return headers
end


-- The present request as a POST of something else.
local function post(request, body, id, version)
    local extra = {}
    for name, value in pairs(request.extra) do
        extra[name] = value
    end
    extra["Mcp-Session-Id"] = id
    return {
        inner = request.inner, method = "POST", target = request.target,
        client = request.client, headers = headers_of(request, version),
        body = body, extra = extra, timeout = TIMEOUT,
    }
end


-- ------------------------------------------------------------ the result --

-- A JSON-RPC response in a text; nil when there is none.
local function response_in(text)
    local message = decode(text)
    if type(message) == "table" and (message.result or message.error) then
        return message
    end
end


-- In what has come of an event stream. Only whole lines are looked at.
local function response_in_events(text)
    for line in gmatch(text, "([^\r\n]*)[\r\n]") do
        local data = line:match("^data: ?(.*)$")
        local message = data and response_in(data)
        if message then
            return message
        end
    end
end


-- Reads the response to `initialize`, for TIMEOUT in all. Each line of an event
-- stream is looked at once.
local function read_response(answer)
    local kind = http1.single(answer.headers, "content-type")
    local is_stream = kind and find(kind, "text/event-stream", 1, true) == 1
    local sock, parts, seen = answer.sock, {}, 0
    local deadline = clock() + TIMEOUT
    while seen <= MAX_RESULT and clock() < deadline do
        sock:settimeout(max(1, deadline - clock()))
        local part = hop.read(answer)
        if not part then
            break
        end
        seen = seen + #part
        parts[#parts + 1] = part
        if is_stream and find(part, "[\r\n]") then
            local text = concat(parts)
            local found = response_in_events(text)
            if found then
                return found
            end
            parts = { match(text, "^.*[\r\n](.*)$") }
        end
    end
    local text = concat(parts)
    return is_stream and response_in_events(text .. "\n")
           or not is_stream and response_in(text) or nil
end


-- ------------------------------------------------------------- the steps --

local function protocol_version(message)
    local result = message and message.result
    return type(result) == "table" and result.protocolVersion or nil
end


-- @return id, version; or nil, why not, outcome
local function initialize(router, request, url, body)
    local answer, err, outcome = router.hop:open(post(request, body), url)
    if not answer then
        return nil, err, outcome
    end
    local id = answer.status < 300
               and http1.single(answer.headers, "mcp-session-id")
    local version = id and protocol_version(read_response(answer))
    hop.drop(answer)
    if not id then
        return nil, "it answered " .. answer.status .. " and opened no session",
               "refused"
    elseif not version then
        return id, nil, "it gave no InitializeResult"
    end
    return id, version
end


local function initialized(router, request, url, id, version)
    local answer, err, outcome = router.hop:open(
        post(request, INITIALIZED, id, version), url)
    if not answer then
        return nil, err, outcome
    end
    hop.drop(answer)
    if answer.status >= 300 then
        return nil, "it answered " .. answer.status
                    .. " to notifications/initialized", "refused"
    end
    return true
end


---
-- Ends a session at a backend, as its client would.
-- @param request as hop.request returns it
function _M.close(router, request, url, id, version)
    local farewell = post(request, "", id, version)
    farewell.method = "DELETE"
    local answer = router.hop:open(farewell, url)
    if answer then
        hop.drop(answer)
    end
end


---
-- Opens a session at a backend. Waits.
-- @param router
-- @param request the one that is under way, as hop.request returns it
-- @param url of the backend
-- @param body of the `initialize` to be repeated
-- @param version of the protocol the client goes on with, nil: any
-- @return id of the new session, version; or nil, message, outcome ("connect":
--         nothing was sent, "refused", or as hop.open)
function _M.open(router, request, url, body, version)
    local id, negotiated, err = initialize(router, request, url, body)
    if not id then
        return nil, negotiated, err
    end
    local outcome = "refused"
    if negotiated and version and negotiated ~= version then
        err = "it speaks the protocol " .. version .. " no more"
    elseif negotiated then
        local ok
        ok, err, outcome = initialized(router, request, url, id, negotiated)
        if ok then
            return id, negotiated
        end
    end
    _M.close(router, request, url, id, negotiated or version)
    return nil, err, outcome
end


return _M
