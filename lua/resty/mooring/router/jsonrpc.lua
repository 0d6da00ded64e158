-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- As much of JSON-RPC 2.0 as a router needs: is this body an `initialize`
-- request, what is its id, and how is it told that something is wrong.
--
-- An id is echoed as the very text the client wrote. Going through a number
-- would turn 9007199254740993 into its neighbour and 1.0 into 1, and a client
-- that compares would wait for its answer for ever.

local cjson = require "cjson.safe"

local byte = string.byte
local decode = cjson.decode
local encode = cjson.encode
local find = string.find
local match = string.match
local sub = string.sub
local type = type

local _M = {}

-- Codes of the range JSON-RPC leaves to implementations; -32001 is what MCP
-- servers answer for an unknown session, -32002 has a meaning in MCP already.
_M.SESSION_NOT_FOUND = -32001
_M.STORE_UNAVAILABLE = -32050
_M.BACKEND_FAILED = -32051
_M.INVALID_REQUEST = -32600

local QUOTE, OPEN_BRACE, OPEN_BRACKET = 34, 123, 91
local CLOSE_BRACE, CLOSE_BRACKET, COLON, COMMA = 125, 93, 58, 44


-- Position of the quote that ends the string which begins at `from`.
local function string_end(text, from)
    local at = from + 1
    while true do
        at = find(text, '["\\]', at)
        if not at or byte(text, at) == QUOTE then
            return at
        end
        at = at + 2 -- an escape is at least two bytes
    end
end


-- A key as written, quotes included, compared with a name.
local function is_key(text, from, to, name)
    local raw = sub(text, from, to)
    if find(raw, "\\", 1, true) then
        local list = decode("[" .. raw .. "]")
        return list ~= nil and list[1] == name
    end
    return raw == '"' .. name .. '"'
end


-- RFC 8259, section 6: cjson also reads 007 and 0x7, which a client that reads
-- our answer need not.
local function is_number(text)
    local rest = match(text, "^%-?0(.*)$") or match(text, "^%-?[1-9]%d*(.*)$")
    if not rest then
        return false
    end
    rest = match(rest, "^%.%d+(.*)$") or rest
    return rest == "" or find(rest, "^[eE][+-]?%d+$") ~= nil
end


-- The text of a value that begins somewhere behind `from` and is a string or a
-- number; nil for anything else.
local function scalar_text(text, from)
    local at = find(text, "%S", from)
    if at and byte(text, at) == QUOTE then
        local raw = sub(text, at, string_end(text, at))
        return not find(raw, "[%z\1-\31]") and raw or nil
    end
    local number = match(text, "^(%-?%d[%d%.eE+%-]*)[%s,}]", at)
    return number and is_number(number) and number or nil
end


---
-- The text of the value of a member of the outermost object, which must be
-- valid JSON (decode it first). Of several members of one name the last counts,
-- as for the decoders of both sides.
-- @return string; nil when there is none or it is neither string nor number
function _M.member_text(text, name)
    local depth, at, found, last_string = 0, 1, nil, nil
    while true do
        at = find(text, '["{}%[%]:,]', at)
        if not at then
            return found
        end
        local c = byte(text, at)
        if c == QUOTE then
            local stop = string_end(text, at)
            if not stop then
                return nil
            end
            last_string = depth == 1 and at or nil
            at = stop
        elseif c == OPEN_BRACE or c == OPEN_BRACKET then
            depth = depth + 1
        elseif c == CLOSE_BRACE or c == CLOSE_BRACKET then
            depth = depth - 1
        elseif c == COLON and depth == 1 and last_string
               and is_key(text, last_string,
                          string_end(text, last_string), name)
        then
            found = scalar_text(text, at + 1)
        elseif c == COMMA then
            last_string = nil
        end
        at = at + 1
    end
end


local function decode_object(body)
    local first = find(body, "%S")
    if not first or byte(body, first) ~= OPEN_BRACE then
        return nil -- a batch or no JSON at all
    end
    return decode(body)
end


---
-- Is the body an `initialize` request? A batch never is: MCP forbids it.
-- @param body string or nil
function _M.is_initialize(body)
    if not body then
        return false
    end
    -- Most bodies are ruled out without a decoder: the word can only be there
    -- as such or written with escapes.
    if not find(body, "initialize", 1, true)
       and not find(body, "\\u", 1, true)
    then
        return false
    end
    local message = decode_object(body)
    return type(message) == "table" and message.method == "initialize"
end


---
-- The method a message calls.
-- @param body string
-- @return string, or nil for a batch, a response, no JSON
function _M.method(body)
    local message = decode_object(body)
    local method = type(message) == "table" and message.method
    return type(method) == "string" and method or nil
end


---
-- The id of a request, as the text the client wrote.
-- @param body string or nil
-- @return string, or nil for a batch, a notification, a null id, no JSON
function _M.request_id(body)
    if not body then
        return nil
    end
    local message = decode_object(body)
    local kind = type(message) == "table" and type(message.id)
    if kind ~= "string" and kind ~= "number" then
        return nil
    end
    return _M.member_text(body, "id")
end


---
-- The body of an error response.
-- @param code number
-- @param message string
-- @param id text of the request's id as request_id returns it, or nil: the
--        member is then left out, since "id":null breaks strict clients
function _M.error_body(code, message, id)
    return '{"jsonrpc":"2.0","error":{"code":' .. code .. ',"message":'
           .. encode(message) .. '}' .. (id and ',"id":' .. id or '') .. '}'
end


return _M
