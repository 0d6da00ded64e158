-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Heads of answers, and requests made of any headers: nothing of one field ever
-- becomes another field, or the end of the head.

local http1 = require "resty.mooring.router.http1"

local rep = string.rep

local NOT_PASSED = {}
for _, name in ipairs { "connection", "keep-alive", "te", "trailer", "upgrade",
                        "proxy-authenticate", "proxy-authorization",
                        "proxy-connection", "transfer-encoding", "date",
                        "server" } do
    NOT_PASSED[name] = true
end

local function check_headers(headers)
    for known, values in pairs(headers) do
        assert(known == values.name:lower(), "the name of " .. known)
        assert(not known:find("[:%s]"), "name " .. known)
        assert(not NOT_PASSED[known], known .. " is passed on")
        assert(#values > 0, "no value")
        for _, value in ipairs(values) do
            assert(not value:find("[\r\n]"), "a line end in " .. known)
            assert(not value:find("^[ \t]") and not value:find("[ \t]$"),
                "space around the value of " .. known)
        end
        local single = http1.single(headers, known)
        assert(single == (#values == 1 and values[1]), "single")
    end
end

local function check_head(input)
    local head = http1.parse_head(input)
    if head == nil then
        return
    end
    assert(head.status >= 0 and head.status <= 999
        and head.status % 1 == 0, "status")
    assert(input:find("^HTTP/1%.%d %d%d%d"), "no status line")
    check_headers(head.headers)
end

--------------------------------------------------------------- requests ---

local NAMES = { "Accept", "X-Test", "Mcp-Session-Id", "Connection", "Host",
                "mooring-secret", "Content-Length", "X\r\nInjected", "", "a b",
                "Transfer-Encoding", "expect", "Mooring-Peer", "X:Y", "\0" }

local function random_headers(rng, input)
    local headers = {}
    for _ = 1, rng:below(6) do
        local from = rng:below(#input + 1)
        local value = input:sub(from, from + rng:below(60))
        headers[rng:pick(NAMES)] = rng:once_in(3) and { value, input:sub(1, 30) }
            or value
    end
    return headers
end

-- Lines of the head, and the body.
local function take_apart(text)
    local head, body = text:match("^(.-)\r\n\r\n(.*)$")
    local lines = {}
    for line in (head .. "\r\n"):gmatch("(.-)\r\n") do
        lines[#lines + 1] = line
    end
    return lines, body
end

local function count(headers)
    local n = 0
    for _, value in pairs(headers) do
        n = n + (type(value) == "table" and #value or 1)
    end
    return n
end

local function check_request(input, rng)
    local headers = random_headers(rng, input)
    local extra = { ["Mooring-Hop"] = input:sub(1, 40) }
    local lines, body = take_apart(http1.request {
        method = "POST", target = "/mcp?x=1", headers = headers,
        extra = extra, body = input,
    })
    assert(body == input, "the body")
    assert(lines[1] == "POST /mcp?x=1 HTTP/1.1", lines[1])
    assert(lines[#lines] == "Connection: close", lines[#lines])
    assert(#lines <= count(headers) + 4, "more lines than headers")

    local lengths = 0
    for i = 2, #lines do
        local name, value = lines[i]:match("^([^:%s]+): (.*)$")
        assert(name, "no header: " .. lines[i])
        assert(not value:find("[%z\r\n]"), "bytes in the value of " .. name)
        local known = name:lower()
        assert(known ~= "transfer-encoding" and known ~= "host"
            and known ~= "mooring-secret" and known ~= "mooring-peer",
            name .. " came through")
        lengths = lengths + (known == "content-length" and 1 or 0)
    end
    assert(lengths == 1, lengths .. " lengths")
end

local function check_path(input)
    local escaped = http1.escape_path(input)
    assert(not escaped:find("[%z\1-\32\127-\255?#\"<>\\^`{|}]"), escaped)
    local again = escaped:gsub("%%(%x%x)", function(hex)
        return string.char(tonumber(hex, 16))
    end)
    assert(again == input, "another path: " .. escaped)
end

local function check(input, rng)
    check_head(input)
    check_request(input, rng)
    check_path(input)
end

return {
    name = "http1",
    seeds = {
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            .. "Mcp-Session-Id: 7c1a4f2e\r\nConnection: close\r\n",
        "HTTP/1.0 404 Not Found\r\nA: 1\r\na:2\r\nSet-Cookie: x=1; Path=/\r\n",
        "HTTP/1.1 204\r\n",
        "/a b/../%2F?x#y",
    },
    words = { "HTTP/1.1 ", "200", "\r\n", "\n", "\r", "\r\n\r\n", ": ", ":",
              " ", "\t", "Connection: close", "Transfer-Encoding: chunked",
              "Content-Length: 5", "Mcp-Session-Id: x", "mooring-secret: 1",
              "\0", "\r\n folded", "Server: x", "Date: y" },
    check = check,
    large = {
        ["many headers"] = function(n)
            return "HTTP/1.1 200 OK\r\n" .. rep("a: b\r\n", n / 6)
        end,
        ["a long value"] = function(n)
            return "HTTP/1.1 200 OK\r\na: " .. rep("x", n)
        end,
        ["spaces in a value"] = function(n)
            return "HTTP/1.1 200 OK\r\na: x" .. rep(" ", n) .. "y\r\n"
        end,
        ["spaces behind a value"] = function(n)
            return "HTTP/1.1 200 OK\r\na: x" .. rep(" \t", n / 2) .. "\r\n"
        end,
        ["a long name"] = function(n)
            return "HTTP/1.1 200 OK\r\n" .. rep("a", n) .. "\r\n"
        end,
        ["many line ends"] = function(n)
            return "HTTP/1.1 200 OK" .. rep("\r\n", n / 2)
        end,
        ["a long status line"] = function(n)
            return "HTTP/1.1 200 " .. rep("OK", n / 2)
        end,
    },
}
