-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Cookies and headers of clients, as policies see them, the ids in cookies and
-- arguments, and where the id of a legacy session is found in URLs that backends
-- and clients have written.

-- What nginx has for it; %XX and "+" as ngx.unescape_uri.
local function unescape(text)
    return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex)
        return string.char(tonumber(hex, 16))
    end))
end

rawset(_G, "ngx", rawget(_G, "ngx")
    or { unescape_uri = unescape })

local request = require "resty.mooring.request"
local sole = require "resty.mooring.router.sole"
local sse_id = require "resty.mooring.router.sse_id"

local rep = string.rep

local function trim(text)
    return (text:gsub("^%s+", ""):reverse():gsub("^%s+", ""):reverse())
end

-- RFC 6265, 4.2.1, the first of each name.
local function naive_cookies(text)
    local cookies = {}
    for pair in (text .. ";"):gmatch("(.-);") do
        local at = pair:find("=", 1, true)
        local name = at and trim(pair:sub(1, at - 1))
        if name and name ~= "" and not name:find("%s") and not cookies[name] then
            cookies[name] = trim(pair:sub(at + 1))
        end
    end
    return cookies
end

local function check_cookies(input)
    local got = request.build({ headers = { Cookie = input } }).cookies
    local want = naive_cookies(input)
    for name, value in pairs(want) do
        assert(got[name] == value, ("cookie %q is %q, not %q"):format(name,
            tostring(got[name]), value))
    end
    for name in pairs(got) do
        assert(want[name], "no cookie: " .. name)
    end
end

local ARG, PATH = sse_id.new(nil), sse_id.new { path = "/messages/" }

local function check_endpoint(input)
    for _, where in ipairs { ARG, PATH } do
        local id, path = where:of_endpoint(input, "/sse/a", "host")
        assert(path or id == nil, "an id at another host")
        assert(not id or (type(id) == "string" and id ~= ""), "an id of nothing")
        assert(not path or path:sub(1, 1) == "/", "a path that is none")
        assert(not path or not (path .. "/"):find("/../", 1, true), "dots: "
            .. tostring(path))
    end
end

-- How often the name is there for the simplest of parsers.
local function naive_count(text, separator, name)
    local n, value = 0, nil
    for part in (text .. separator):gmatch("(.-)" .. separator) do
        if part:sub(1, #name + 1) == name .. "=" then
            n, value = n + 1, part:sub(#name + 2)
        end
    end
    return n, value
end

local function check_sole(input)
    local n, value = naive_count(input, "&", "a")
    local got = sole.argument(input, { a = true })
    if n > 0 and not (n == 1 and value == "") then
        assert(got == (n == 1 and unescape(value)) or got == false, "argument a")
    end
    for _, cookie in ipairs { "a", "session" } do
        n, value = naive_count(input, ";", cookie)
        got = sole.cookie(input, cookie)
        if n > 0 and value:find("^[%w]+$") then
            assert(got == value or got == false, "cookie " .. cookie)
        end
        assert(not got or not got:find("[;]") or input:find("%%3[bB]"), "no value")
    end
end

local function check(input)
    check_cookies(input)
    check_sole(input)
    check_endpoint(input)
end

return {
    name = "request",
    seeds = { "a=1; b=2", "session=7c1a ;x = y z ; a=b=c;;=;=x", "a=1; a=2",
              "/messages?sessionId=7c1a", "http://host/messages/7c1a?x=y#f",
              "//other/messages/7c1a", "../messages/./%2e%2e/a?session_id=b" },
    words = { "=", ";", "; ", " ", "\t", "a", "?", "&", "sessionId=", "session_id=a",
              "%", "%73essionId=", "..", "/../", "/./", "/", "//", "http://host", "#",
              "/messages/", "+", "%2f", "%00", ":80" },
    check = check,
    large = {
        ["spaces in a cookie"] = function(n) return "a=x" .. rep(" ", n) .. "y" end,
        ["spaces before"] = function(n) return rep(" ", n) .. "x" end,
        ["spaces in a name"] = function(n) return "a" .. rep(" ", n) .. "b=c" end,
        ["cookies"] = function(n) return rep("a=1;", n / 4) end,
        ["equal signs"] = function(n) return rep("=", n) end,
        ["a long segment"] = function(n) return "/" .. rep("a", n) .. "/" end,
        ["segments"] = function(n) return rep("/a", n / 2) end,
        ["dots"] = function(n) return rep("/..", n / 3) end,
        ["arguments"] = function(n) return "/a?" .. rep("a&", n / 2) end,
    },
}
