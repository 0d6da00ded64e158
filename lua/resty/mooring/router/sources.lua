-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Where the list of backends comes from, by the kind of the option `backends`:
--
--     { "http://10.0.0.1:8080", ... }         static: read once
--     function() return { ... } end           asked again and again
--     { dns = "mcp.example", port = 8080 }    likewise, see router/dns.lua
--
-- A source that is asked again has the method read(), which may wait, and a
-- tag: a list that another configuration of this nginx left in shared memory is
-- taken over only when it came from the same source.

local backends = require "resty.mooring.router.backends"
local cjson = require "cjson"
local dns = require "resty.mooring.router.dns"
local isolated = require "resty.mooring.isolated"

local error = error
local ipairs = ipairs
local pairs = pairs
local setmetatable = setmetatable
local sort = table.sort
local tostring = tostring
local type = type

local _M = {}
local mt = { __index = _M }


local function is_dns(option)
    return type(option) == "table" and option.dns ~= nil
end


local function check_dns(option)
    local wrong = dns.check(option)
    if wrong then
        return false, wrong
    end
    local ok
    ok, wrong = backends.read { {
        url = "http://" .. option.dns, weight = option.weight,
        server_name = option.server_name,
    } }
    return ok ~= nil, wrong
end


---
-- The check of the option `backends`, for resty.mooring.options.
function _M.check(option)
    if type(option) == "function" then
        return true
    elseif is_dns(option) then
        return check_dns(option)
    end
    local peers, wrong = backends.read(option)
    return peers ~= nil, wrong
end


-- One text for one set of backends, whatever their order in the list.
local function write(peers)
    local texts = {}
    for i, peer in ipairs(peers) do
        texts[i] = cjson.encode { peer.url, peer.weight, peer.state,
                                  peer.tls_name }
    end
    sort(texts)
    return "[" .. table.concat(texts, ",") .. "]"
end


---
-- The peers of a text that read() has returned.
function _M.decode(text)
    local peers = {}
    for i, fields in ipairs(cjson.decode(text)) do
        local peer = backends.parse(fields[1])
        peer.weight, peer.state = fields[2], fields[3]
        peer.tls_name = fields[4]
        peers[i] = peer
    end
    return peers
end


-- The same address twice (two SRV records) is one backend.
local function unique(list)
    local kept, seen = {}, {}
    for _, entry in ipairs(list) do
        if not seen[entry.url] then
            seen[entry.url] = true
            kept[#kept + 1] = entry
        end
    end
    return kept
end


-- ask() of each kind: list, or nil, message. May raise, or end its timer.

local function asking_function(fn)
    return function()
        local list, err = fn()
        if list == nil then
            return nil, tostring(err or "it returned nothing")
        end
        return list
    end
end


local function asking_dns(option, level)
    local client, missing = dns.new(option)
    if not client then
        error("opts.backends " .. missing, level + 1)
    end
    return function()
        local list, err = client:read()
        return list and unique(list), err
    end
end


local function tag_of(option)
    if type(option) == "function" then
        return "function"
    end
    local parts = {}
    for name, value in pairs(option) do
        if type(value) ~= "table" and name ~= "interval" then
            parts[#parts + 1] = name .. "=" .. tostring(value)
        end
    end
    sort(parts)
    return table.concat(parts, " ")
end


---
-- @param option `backends`, checked
-- @param interval default seconds between two reads
-- @param level of the caller to blame for what is missing
-- @return { peers = array } for a static list; else an object with read(), tag,
--         interval
function _M.open(option, interval, level)
    level = (level or 1) + 1
    if type(option) == "function" then
        return setmetatable({ ask = asking_function(option), what = "function",
                              tag = tag_of(option), interval = interval }, mt)
    elseif is_dns(option) then
        return setmetatable({ ask = asking_dns(option, level),
                              what = "DNS for " .. option.dns,
                              tag = tag_of(option),
                              interval = option.interval or interval }, mt)
    end
    return { peers = backends.read(option) }
end


---
-- Asks for the list. Waits.
-- @return text that stands for it, its peers; or nil, message
function _M.read(self)
    local ok, list, err = isolated.pcall(self.ask)
    if not ok then
        return nil, tostring(list)
    elseif not list then
        return nil, err
    end
    local peers, wrong = backends.read(list)
    if not peers then
        return nil, "the list " .. wrong
    end
    return write(peers), peers
end


return _M
