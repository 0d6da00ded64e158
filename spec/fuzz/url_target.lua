-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- URLs of Redis: never an error, never a password in a message, and what was
-- percent-encoded comes back.

local url = require "resty.mooring.url"

local SECRET = "Hunter2Hunter2"

local function is_port(port)
    return port % 1 == 0 and port >= 1 and port <= 65535
end

local function check_target(target)
    assert((target.path == nil) ~= (target.host == nil), "host and path")
    if target.path then
        assert(target.path:sub(1, 1) == "/", "path " .. target.path)
        assert(target.port == nil, "a port with a path")
    else
        assert(#target.host > 0 and not target.host:find("[/@%s]"),
            "host " .. target.host)
        assert(is_port(target.port), "port " .. target.port)
    end
    assert(target.db % 1 == 0 and target.db >= 0 and target.db <= 65535, "db")
    for _, name in ipairs { "user", "password" } do
        assert(target[name] == nil or #target[name] > 0, name .. " is empty")
    end
end

-- Wherever the secret stands in front of the last @.
local function check_secret(input, text)
    local userinfo = input:match("^%a+://(.*)@")
    if userinfo and userinfo:find(SECRET, 1, true)
            and not input:match("[^@]*$"):find(SECRET, 1, true) then
        assert(not text:find(SECRET, 1, true), "the secret is in: " .. text)
    end
end

local function encode(text)
    return (text:gsub("[^%w]", function(c)
        return ("%%%02x"):format(c:byte())
    end))
end

-- Made of parts, it is taken apart into them.
local function check_parts(rng)
    local user, password = rng:text(10), rng:text(20)
    local port, db = rng:below(65535), rng:below(16) - 1
    local target = assert(url.parse(("redis://%s:%s@host.name:%d/%d"):format(
        encode(user), encode(password), port, db)))
    assert(target.user == (user ~= "" and user or nil), "user")
    assert(target.password == (password ~= "" and password or nil), "password")
    assert(target.host == "host.name" and target.port == port, "host and port")
    assert(target.db == db, "db")
end

local function check(input, rng)
    local target, must = url.parse(input)
    if target then
        check_target(target)
        local address = url.address(target)
        assert(url.parse((target.path and "unix://" .. target.path
            or "redis://" .. address)), "its address is none: " .. address)
        check_secret(input, address)
    else
        assert(type(must) == "string" and #must > 0, "no message")
        check_secret(input, must)
    end
    check_parts(rng)
end

return {
    name = "url",
    seeds = { "redis://127.0.0.1:6379/0", "redis://me:p%40ss%3Aw@cache.local/3",
              "redis://:" .. SECRET .. "@h", "redis://[::1]:6380/",
              "redis://u:" .. SECRET .. "@[fe80::1]:7000/15",
              "unix:///run/redis.sock?db=2", "unix://u:" .. SECRET .. "@/r.sock",
              "redis://" .. SECRET .. "@h", "rediss://h" },
    words = { "redis://", "unix://", "rediss://", "@", ":", "/", "?db=", "[",
              "]", "%", "%40", "%00", "%zz", "#", "?", ":6379", ":0", "65536",
              SECRET, "::1", "..", "\0", "\r\n", " " },
    check = check,
    large = {
        ["many @"] = function(n) return "redis://" .. ("a:b@"):rep(n / 4) end,
        ["many colons"] = function(n)
            return "redis://" .. (":"):rep(n) .. "@h"
        end,
        ["a long host"] = function(n)
            return "redis://" .. ("a."):rep(n / 2) .. "/x"
        end,
        ["a long password"] = function(n)
            return "redis://:" .. ("%40"):rep(n / 3) .. "@h"
        end,
        ["a long path"] = function(n)
            return "unix:///" .. ("a?"):rep(n / 2)
        end,
    },
}
