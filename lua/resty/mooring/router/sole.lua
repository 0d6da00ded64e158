-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The one value that a request has for an argument or a cookie.
--
-- Backends read the same bytes in different ways: some take the first of two,
-- some the last; some end an argument at a ";". Routed (and admitted) by one
-- reading, a request could be served for another. So all that any of them may
-- take for that name is looked at, in the form that most readings agree on, and
-- a request that can be read in two ways has no value.
--
-- A form in which more texts are the same is safe: two sessions could become
-- one, but nobody gets past the router into another one.

local byte = string.byte
local char = string.char
local find = string.find
local gmatch = string.gmatch
local gsub = string.gsub
local lower = string.lower
local match = string.match
local sub = string.sub
local tonumber = tonumber

local _M = {}

local PLUS, QUOTE = "+", 34


local function unhex(digits)
    return char(tonumber(digits, 16))
end


-- Text with %XX decoded; nil when there is a % that decoders do not agree on.
local function decode(text)
    if not find(text, "%", 1, true) then
        return text
    elseif find(gsub(text, "%%%x%x", ""), "%", 1, true) then
        return nil
    end
    return (gsub(text, "%%(%x%x)", unhex))
end


-- Of an argument: "+" is a space.
local function decode_argument(text)
    if find(text, PLUS, 1, true) then
        text = gsub(text, "%+", " ")
    end
    return decode(text)
end


-- As PHP has names: a.b, "a b" and a[b are a_b; a[] and a[0] are in the array a
-- (also for others).
local function plain(name)
    name = gsub(name, "^([^%[]+)%[.*%].*$", "%1")
    return (gsub(name, "[ %.%[]", "_"))
end


---
-- The form in which names of arguments are compared. Some backends (and nginx'
-- $arg_name) do so without case; PHP takes no spaces before and ends at a NUL.
-- @param name decoded
function _M.argument_name(name)
    return plain(match(lower(name), "^ *([^%z]*)"))
end


-- Counts the arguments of these names. Returns how many, and the last value.
local function count(text, segments, names)
    local n, value = 0, nil
    for part in gmatch(text, segments) do
        local at = find(part, "=", 1, true)
        local name = decode_argument(at and sub(part, 1, at - 1) or part)
        if not name or names[_M.argument_name(name)] then
            n = n + 1
            value = name and (at and sub(part, at + 1) or "")
        end
    end
    return n, value
end


---
-- @param text query as written
-- @param names set of names as argument_name has them
-- @return the decoded value of the argument; nil when there is none or an empty
--         one, false when there may be several
function _M.argument(text, names)
    local n, value = count(text, "[^&]+", names)
    -- Only some take a ";" for an "&".
    if find(text, ";", 1, true) then
        local other_n, other = count(text, "[^&;]+", names)
        if other_n ~= n or other ~= value then
            return false
        end
    end
    if n == 0 or n == 1 and value == "" then
        return nil
    elseif n > 1 or not value then
        return false
    end
    return decode_argument(value) or false
end


-- Quotes are no part of a value, nor is what RFC 6265 does not allow.
-- Returns nil when backends do not agree on it.
local function cookie_value(text)
    if byte(text) == QUOTE then
        text = match(text, '^"(.*)"$')
    end
    if not text or find(text, '[^!-~]') or find(text, '[",\\]') then
        return nil
    end
    return decode(text)
end


-- Some trim more than spaces. In two steps: in one, a run of spaces would be
-- looked at once for each of its bytes.
local function trim(text)
    local first = find(text, "[!-~]")
    return first and match(text, "^.*[!-~]", first) or ""
end


-- The value of the cookies of that name: nil for none, false for several.
local function read(text, segments, name)
    local value
    for part in gmatch(text, segments) do
        local at = find(part, "=", 1, true) or #part + 1
        if plain(trim(sub(part, 1, at - 1))) == name then
            local one = cookie_value(trim(sub(part, at + 1)))
            if not one or value and one ~= value then
                return false
            end
            value = one
        end
    end
    return value
end


---
-- @param text Cookie header
-- @param name with case, as cookie_name has it
-- @return the decoded value of the cookie; nil when there is none or an empty
--         one, false when there may be several
function _M.cookie(text, name)
    local value = read(text, "[^;]+", name)
    -- Only some take a "," for a ";".
    if find(text, ",", 1, true) and read(text, "[^;,]+", name) ~= value then
        return false
    end
    if value == "" then
        return nil
    end
    return value
end


---
-- The form in which names of cookies are compared.
_M.cookie_name = plain


---
-- Is there a "#" in the URL? nginx ends the query there, but passes it on, and
-- there may be more of a query behind it.
-- @param var ngx.var
function _M.has_fragment(var)
    local uri = var.request_uri
    return uri ~= nil and find(uri, "#", 1, true) ~= nil
end


return _M
