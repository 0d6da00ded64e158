-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The `endpoint` event in any bytes, divided anywhere: the same is found as by
-- a reader that has the whole text, and nothing beyond what may be kept.

local sse = require "resty.mooring.router.sse"

local rep = string.rep

-- The data of the first endpoint event of a text, line by line as the standard
-- says it.
local function naive(text)
    text = text:sub(1, sse.MAX_BYTES)
    text = text:gsub("^\239\187\191", ""):gsub("\r\n", "\n"):gsub("\r", "\n")
    text = text:match("^.*\n") or ""
    local event, data = "", nil
    for line in text:gmatch("([^\n]*)\n") do
        if line == "" then
            if event == "endpoint" and data and data ~= "" then
                return data
            end
            event, data = "", nil
        else
            local colon = line:find(":", 1, true)
            local name = colon and line:sub(1, colon - 1) or line
            local value = colon and line:sub(colon + 1) or ""
            if value:sub(1, 1) == " " then
                value = value:sub(2)
            end
            if name == "event" then
                event = value
            elseif name == "data" then
                data = data and data .. "\n" .. value or value
            end
        end
    end
end

local function divided(input, rng)
    local parser, at = sse.new(), 1
    local longest = rng:pick { 1, 2, 7, 100, 20000 }
    repeat
        local to = rng:once_in(10) and at - 1 or at + rng:below(longest) - 1
        local data, over = parser:feed(input:sub(at, to))
        if data or over then
            return data, over
        end
        at = math.max(at, to + 1)
    until at > #input
end

local function check(input, rng)
    local want = naive(input)
    for _ = 1, 2 do
        local data, over = divided(input, rng)
        assert(data == want, ("%q, not %q"):format(tostring(data), tostring(want)))
        assert(not over or #input >= sse.MAX_BYTES, "gives up too soon")
        assert(data or over or #input < sse.MAX_BYTES, "goes on too long")
    end
end

return {
    name = "sse",
    seeds = {
        "event: endpoint\ndata: /messages?sessionId=7c1a\n\n",
        "\239\187\191: hello\r\n\r\nevent:endpoint\r\ndata:/a\rdata: b\r\r",
        "retry: 1\nevent\ndata\n\nid: 1\nevent: endpoint\nevent: message\ndata: x\n\n",
        "event: endpoint\n" .. rep("data: 0123456789\n", 1000) .. "\n",
    },
    words = { "event: endpoint", "event:", "event", "data: ", "data:", "data", "\n",
              "\r", "\r\n", "\n\n", "\r\r", ":", ": ", " ", "\239\187\191", "endpoint" },
    check = check,
    large = {
        ["one line"] = function(n) return rep("x", n) end,
        ["line ends"] = function(n) return rep("\r", n) end,
        ["lines of data"] = function(n) return rep("data: x\n", n / 8) end,
    },
}
