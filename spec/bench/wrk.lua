-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The script of wrk, see bench.load: wrk -s wrk.lua URL -- MODE SUFFIX
--
--   get          plain GETs
--   call         a tool call of one of SESSIONS sessions, in turn; the backend
--                itself refuses (421) what is not its own
--   initialize   opens a session
--   churn        calls of N sessions (SUFFIX), of which one is opened and one
--                ended every 100 requests; the backend gives the ids it is told

-- luacheck: globals wrk init request done

local SESSIONS = 500
local INITIALIZE = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":'
    .. '"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}'
local CALL = '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"count",'
    .. '"arguments":{"by":1}}}'

local requests, count, at = {}, 0, 0

-- Churn: sessions first .. next - 1 are there. Those at the edges may be on
-- their way in or out, and are not called.
local EVERY, EDGE = 100, 100
local first, next_one, head, tail = 0, 0, {}, {}

-- Both halves of a request, around the number of its session.
local function split(kind, method, body, headers)
    headers["Content-Type"] = "application/json"
    headers["Accept"] = "application/json, text/event-stream"
    head[kind], tail[kind] = wrk.format(method, nil, headers, body):match("^(.*)NUMBER(.*)$")
end

local function prepare_churn(n)
    next_one = n
    split("call", "POST", CALL, { ["Mcp-Session-Id"] = "churn-NUMBER",
                                  ["MCP-Protocol-Version"] = "2025-06-18" })
    split("open", "POST", INITIALIZE, { ["X-New-Id"] = "churn-NUMBER" })
    split("close", "DELETE", nil, { ["Mcp-Session-Id"] = "churn-NUMBER" })
end

local function churn()
    at = at + 1
    local kind, number = "call", math.random(first + EDGE, next_one - EDGE)
    if at % EVERY == 0 then
        kind, number, next_one = "open", next_one, next_one + 1
    elseif at % EVERY == EVERY / 2 then
        kind, number, first = "close", first, first + 1
    end
    return head[kind] .. number .. tail[kind]
end

local function make(body, id)
    local headers = {
        ["Content-Type"] = "application/json",
        ["Accept"] = "application/json, text/event-stream",
    }
    if id then
        headers["Mcp-Session-Id"] = id
        headers["MCP-Protocol-Version"] = "2025-06-18"
    end
    count = count + 1
    requests[count] = wrk.format("POST", nil, headers, body)
end

-- luacheck: ignore 131
function init(args)
    local mode, suffix = args[1], args[2]
    if mode == "call" then
        -- The last letter says whose session it is.
        for i = 1, SESSIONS do
            local own = (i - 1) % #suffix + 1
            make(CALL, ("%032x-%s"):format(i * 7919, suffix:sub(own, own)))
        end
    elseif mode == "churn" then
        prepare_churn(tonumber(suffix))
        request = churn -- luacheck: ignore 121
    elseif mode == "initialize" then
        make(INITIALIZE)
    else
        count = 1
        requests[1] = wrk.format("GET")
    end
end

function request()
    at = at % count + 1
    return requests[at]
end

function done(summary, latency)
    local e = summary.errors
    io.write(("RESULT %d %d %d %d %d\n"):format(summary.requests, summary.duration,
        latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
