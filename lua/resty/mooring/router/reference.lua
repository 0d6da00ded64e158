-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a binding refers to: a backend, which of its incarnations, and by which
-- id the session is known there. It is a URL whose fragment says what there is
-- to say beyond the backend:
--
--     http://10.0.0.1:8080             never dropped, the client's own id
--     http://10.0.0.1:8080#2           the incarnation after the second drop
--     http://10.0.0.1:8080#2;7f3a      and it calls the session "7f3a"
--     http://10.0.0.1:8080#;7f3a       never dropped, "7f3a"
--
-- A fragment is never sent to anybody (RFC 3986, 3.5), so other readers of the
-- record see the URL of the backend. Ids may have bytes that a fragment may not
-- have; they are written as %XX.
--
-- The fragment can hold a session id, so it must not get into a log: strip().

local byte = string.byte
local char = string.char
local find = string.find
local format = string.format
local gsub = string.gsub
local match = string.match
local sub = string.sub
local tonumber = tonumber

local _M = {}

local MAX_DIGITS = 15 -- integers below 2^53

-- What may not stand in a fragment as it is.
local RESERVED = "[^%w%-%._~!%$&'%(%)%*%+,;=:@/%?]"


local function escape(c)
    return format("%%%02X", byte(c))
end


local function unescape(digits)
    return char(tonumber(digits, 16))
end


---
-- @param url of the backend, without a fragment
-- @param incarnation integer, 0 for the first
-- @param id of the session at the backend, nil when it is the client's
-- @return reference
function _M.format(url, incarnation, id)
    if not id then
        return incarnation == 0 and url or format("%s#%d", url, incarnation)
    end
    return url .. "#" .. (incarnation == 0 and "" or format("%d", incarnation))
           .. ";" .. gsub(id, RESERVED, escape)
end


-- "" -> 0; nil when it is no number as format() writes it.
local function read_incarnation(digits)
    if digits == "" then
        return 0
    elseif byte(digits, 1) ~= 48 and #digits <= MAX_DIGITS then
        return tonumber(digits)
    end
end


-- nil for an id that no client could have sent.
local function read_id(text)
    if text == "" or find(gsub(text, "%%%x%x", ""), RESERVED) then
        return nil
    end
    local id = gsub(text, "%%(%x%x)", unescape)
    return not find(id, "[^\33-\126]") and id or nil
end


---
-- @param reference string
-- @return url (whatever stands before the fragment), incarnation, id at the
--         backend or nil; or nil when the fragment makes no sense
function _M.parse(reference)
    local at = find(reference, "#", 1, true)
    if not at then
        return reference, 0
    end
    local digits, mark, rest = match(reference, "^(%d*)(;?)(.*)$", at + 1)
    local incarnation = read_incarnation(digits)
    if not incarnation then
        return nil
    end
    local url = sub(reference, 1, at - 1)
    if mark == ";" then
        local id = read_id(rest)
        if not id then
            return nil
        end
        return url, incarnation, id
    elseif rest ~= "" or incarnation == 0 then
        return nil
    end
    return url, incarnation
end


---
-- What may be logged of a reference: the URL.
function _M.strip(reference)
    local at = find(reference, "#", 1, true)
    return at and sub(reference, 1, at - 1) or reference
end


return _M
