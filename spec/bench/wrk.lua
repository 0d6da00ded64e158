-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The script of wrk, see bench.load: wrk -s wrk.lua URL -- MODE SUFFIX
--
--   get          plain GETs
--   call         a tool call of one of SESSIONS sessions, in turn; the backend
--                itself refuses (421) what is not its own
--   initialize   opens a session

-- luacheck: globals wrk init request done

local SESSIONS = 500
local INITIALIZE = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":'
    .. '"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}'
local CALL = '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"count",'
    .. '"arguments":{"by":1}}}'

local requests, count, at = {}, 0, 0

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
    io.write(("RESULT %d %d %d %d\n"):format(summary.requests, summary.duration,
        latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
