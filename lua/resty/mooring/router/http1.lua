-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- HTTP/1.1 as text, for the hop to this very nginx (resty.mooring.router.hop):
-- only what nginx itself writes is read. No sockets in here.
--
-- Not HTTP/1.0, whose answers end where the connection does: one that a backend
-- has cut off would look complete. In chunks its end is missing.

local byte = string.byte
local concat = table.concat
local find = string.find
local gmatch = string.gmatch
local gsub = string.gsub
local ipairs = ipairs
local lower = string.lower
local match = string.match
local pairs = pairs
local sub = string.sub
local tonumber = tonumber
local tostring = tostring
local type = type

local _M = {}

-- Of the connection, not of the message (RFC 9110, 7.6.1); what nginx itself
-- would not pass on either.
local HOP_BY_HOP = {
    ["connection"] = true,
    ["keep-alive"] = true,
    ["proxy-connection"] = true,
    ["te"] = true,
    ["trailer"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
}

-- Written anew for the hop.
local REWRITTEN = {
    ["content-length"] = true,
    ["expect"] = true, -- has been answered: the body is here
    ["host"] = true,
    ["mcp-session-id"] = true,
    ["x-forwarded-for"] = true,
    ["x-forwarded-proto"] = true,
}

-- What the outer nginx writes itself.
local OWN = { ["date"] = true, ["server"] = true }


local SPACE = 32
local SPACES = { [SPACE] = true, [9] = true }
local MAX_DIGITS = 12 -- of the size of a chunk, in a double


---
-- Headers between the two servers of one nginx begin like this. They are taken
-- from nobody else and passed on to nobody.
_M.PREFIX = "mooring-"


local function is_internal(name)
    return find(name, _M.PREFIX, 1, true) == 1
end


-- Names that have been found right: a pattern takes a hundred times as long as
-- a look into a table. There are few; not more than these are kept.
local MAX_NAMES = 256
local right, kept = {}, 0


local function is_token(name)
    if right[name] then
        return true
    elseif not find(name, "^[%w!#$%%&'*+%-.^_`|~]+$") then
        return false
    end
    if kept < MAX_NAMES then
        right[name], kept = true, kept + 1
    end
    return true
end


local function has(text, byte_of_one)
    return find(text, byte_of_one, 1, true) ~= nil
end


-- A header that could not be mistaken for two of them.
local function is_clean(name, value)
    return is_token(name)
           and not (has(value, "\n") or has(value, "\r") or has(value, "\0"))
end


local function add(lines, name, value)
    if is_clean(name, value) then
        lines[#lines + 1] = name .. ": " .. value
    end
end


local function add_all(lines, name, value)
    if type(value) ~= "table" then
        return add(lines, name, value)
    end
    for _, one in ipairs(value) do
        add(lines, name, one)
    end
end


---
-- The text of a request.
-- @param request table:
--        method   string
--        target   path and query as they go into the request line
--        headers  table of name to string or array, the client's; those of the
--                 connection and those of the hop are left out
--        extra    table of name to string: written as they are, last
--        body     string, may be ""
-- @return string
function _M.request(request)
    local lines = { request.method .. " " .. request.target .. " HTTP/1.1" }
    for name, value in pairs(request.headers) do
        local known = lower(name)
        if not HOP_BY_HOP[known] and not REWRITTEN[known]
           and not is_internal(known)
        then
            add_all(lines, name, value)
        end
    end
    for name, value in pairs(request.extra) do
        add(lines, name, value)
    end
    if request.body ~= "" or request.method == "POST" then
        add(lines, "Content-Length", tostring(#request.body))
    end
    lines[#lines + 1] = "Connection: close\r\n\r\n"
    return concat(lines, "\r\n") .. request.body
end


local function collect(headers, name, value)
    local known = lower(name)
    if HOP_BY_HOP[known] or OWN[known] then
        return
    end
    local values = headers[known]
    if values then
        values[#values + 1] = value
    else
        headers[known] = { value, name = name }
    end
end


-- A value as it stands between the spaces around it. Trimmed greedily: a lazy
-- match looks at every run of spaces once for each of its bytes.
local function trim(text)
    return match(match(text, "^[ \t]*(.*)$"), "^.*[^ \t]") or ""
end


-- @return name, value; nil when it is no header line
local function parse_line(line)
    local colon = find(line, ":", 1, true)
    local name = colon and sub(line, 1, colon - 1)
    if not name or not (is_token(name) or find(name, "^%S+$"))
       or has(line, "\r") or has(line, "\n")
    then
        return nil
    end
    local value = sub(line, colon + 2)
    local first, last = byte(value, 1), byte(value, -1)
    if byte(line, colon + 1) == SPACE and first
       and not (SPACES[first] or SPACES[last])
    then
        return name, value -- as nginx writes it
    end
    return name, trim(sub(line, colon + 1))
end


---
-- Parses the head of an answer of nginx.
-- @param text status line and header lines, without the empty line
-- @return { status = number, chunked = is the body in chunks?, headers = {
--         [lower-case name] = { values..., name = as it was written } } }
--         without the headers of the connection; or nil when this is no such
--         head
function _M.parse_head(text)
    local status, at = match(text, "^HTTP/1%.%d (%d%d%d)[^\r\n]*()")
    if not status then
        return nil
    end
    local headers, chunked = {}, false
    at = at + 2
    while at <= #text do
        local stop = find(text, "\r\n", at, true) or #text + 1
        if stop > at then
            local name, value = parse_line(sub(text, at, stop - 1))
            if not name then
                return nil
            end
            chunked = chunked or lower(name) == "transfer-encoding"
                                 and lower(value) == "chunked"
            collect(headers, name, value)
        end
        at = stop + 2
    end
    return { status = tonumber(status), headers = headers, chunked = chunked }
end


---
-- The size of a chunk (RFC 9112, 7.1), by the line in front of it.
-- @return bytes, 0 for the last one; nil when this is no such line
function _M.chunk_size(line)
    local digits = match(line, "^(%x+)[ \t]*$") or match(line, "^(%x+)[ \t]*;")
    if digits and #digits <= MAX_DIGITS then
        return tonumber(digits, 16)
    end
end


---
-- The value of a header.
-- @param headers as parse_head returns them
-- @param name lower-case
-- @return string, nil when there is none, false when there are several
function _M.single(headers, name)
    local values = headers[name]
    if not values then
        return nil
    end
    return #values == 1 and values[1]
end


---
-- A decoded path without "." and ".." segments, as nginx makes its $uri.
-- @param merge also without empty segments (nginx' merge_slashes, on by
--        default)
function _M.normalize(path, merge)
    local parts, n, open = {}, 0, false
    for part in gmatch(path, "/([^/]*)") do
        open = part == "." or part == ".." or merge and part == ""
        if not open then
            n = n + 1
            parts[n] = part
        elseif part == ".." and n > 0 then
            n = n - 1
        end
    end
    return "/" .. concat(parts, "/", 1, n) .. (open and n > 0 and "/" or "")
end


local function escape_byte(c)
    return ("%%%02X"):format(c:byte())
end


---
-- A path as it goes into a request line, from nginx' decoded $uri.
function _M.escape_path(path)
    return (gsub(path, "[^%w%-%._~!$&'()*+,;=:@/]", escape_byte))
end


return _M
