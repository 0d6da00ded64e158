-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The stored form of a session: JSON in the record format of ToolHive,
--
--     {"id": "...", "type": "mcp",
--      "created_at": "2025-06-30T12:00:00.123456789Z", "updated_at": "...",
--      "data": ...                  left out when nil,
--      "metadata": {"k": "v"}       left out when empty}
--
-- The text a session came as is kept in a private field of it, `_record`: for
-- deciding something on exactly the record that was seen; and what a number or
-- cjson cannot hold to the last digit is written again as it came, as long as
-- nobody has changed the value: nanoseconds and zone offsets of times; and in
-- `data` large integers and empty arrays.
--
-- Two decoders: the C core reads the usual form (c/session.c), and cjson, whose
-- word is the last, what that one does not take.

local cjson = require "cjson"
local errors = require "resty.mooring.errors"
local mooring_ffi = require "resty.mooring.ffi"
local new_table = require "table.new"
local rfc3339 = require "resty.mooring.rfc3339"
local session = require "resty.mooring.session"

local C = mooring_ffi.C

local bless = session.bless
local byte = string.byte
local concat = table.concat
local ffi_string = mooring_ffi.ffi.string
local find = string.find
local match = string.match
local next = next
local pairs = pairs
local pcall = pcall
local setmetatable = setmetatable
local sort = table.sort
local sub = string.sub
local type = type

local OK = C.MR_OK
local INVALID = errors.INVALID
local QUOTE, COMMA = 34, 44

local _M = {}

-- An instance of our own: the settings of the shared one are the user's.
local json = cjson.new()
json.encode_number_precision(14)
json.decode_max_depth(64)
json.encode_max_depth(64)
json.encode_sparse_array(true, 2, 16)
json.decode_invalid_numbers(false) -- NaN, 0x10: could not be written again
local decode, encode, null = json.decode, json.encode, cjson.null


local function invalid(message)
    return nil, "invalid session record: " .. message, INVALID
end


-- ------------------------------------------------- raw text of a member --

-- What is scanned here may have been made to be slow to scan: no pattern below
-- looks at a run of bytes more than once.

-- Index of the quote that ends the string which begins at `i`; text is known to
-- be valid.
local function string_end(text, i)
    i = find(text, '["\\]', i + 1)
    while byte(text, i) ~= QUOTE do
        i = find(text, '["\\]', i + 2) -- an escape is two bytes or more
    end
    return i
end


-- Index behind the JSON value that starts at `i`.
local function skip_value(text, i)
    local depth = 0
    repeat
        local at, _, char = find(text, '([%[%]{}",])', i)
        if not at then
            return #text + 1
        elseif char == '"' then
            i = string_end(text, at)
        elseif char == "[" or char == "{" then
            depth, i = depth + 1, at
        elseif char == "]" or char == "}" then
            if depth == 0 then
                return at
            end
            depth, i = depth - 1, at
        elseif depth == 0 then
            return at
        else
            i = at
        end
        i = i + 1
    until false
end


-- The text of the last member `name` of the object in text.
local function raw_member(text, name)
    local raw
    local i = find(text, "{", 1, true) + 1
    while true do
        local key_at = find(text, '"', i, true)
        if not key_at then
            return raw
        end
        local key_to = string_end(text, key_at)
        local key = decode("[" .. sub(text, key_at, key_to) .. "]")[1]
        local from = find(text, "[^%s:]", key_to + 1)
        local to = skip_value(text, from)
        if key == name then
            raw = match(sub(text, from, to - 1), "^.*%S")
        end
        if byte(text, to) ~= COMMA then -- the last member
            return raw
        end
        i = to + 1
    end
end


-- --------------------------------------------------------------- decode --

local function read_time(object, name)
    local text = object[name]
    if type(text) ~= "string" then
        return nil
    end
    return rfc3339.parse(text), text
end


local function strings_only(metadata)
    for key, value in pairs(metadata) do
        if type(key) ~= "string" or type(value) ~= "string" then
            return false
        end
    end
    return true
end


local function wrong_field(object, id)
    if type(object.id) ~= "string" then
        return "id is not a string"
    end
    if id and object.id ~= id then
        return "its id is not the one it is stored under"
    end
    if object.type ~= nil and type(object.type) ~= "string" then
        return "type is not a string"
    end
    local metadata = object.metadata
    if metadata ~= nil and metadata ~= null
       and not (type(metadata) == "table" and strings_only(metadata))
    then
        return "metadata does not map strings to strings"
    end
end


---
-- As decode, by cjson alone: for tests, which compare both ways.
function _M.decode_any(text, id)
    local ok, object = pcall(decode, text)
    if not ok then
        return invalid("it is not JSON")
    end
    if type(object) ~= "table" then
        return invalid("it is not an object")
    end

    local wrong = wrong_field(object, id)
    if wrong then
        return invalid(wrong)
    end
    local created = read_time(object, "created_at")
    local updated = read_time(object, "updated_at")
    if not created or not updated then
        return invalid((created and "updated_at" or "created_at")
                       .. " is not an RFC 3339 time")
    end

    local data = object.data
    if data == null then
        data = nil
    end
    local metadata = object.metadata
    return bless {
        id = object.id,
        type = object.type or "",
        created_at = created,
        updated_at = updated,
        metadata = metadata ~= null and metadata or {},
        data = data,
        _record = text,
    }
end

local decode_any = _M.decode_any


-- Shared by all callers: nothing yields between filling it and reading it.
local seen = mooring_ffi.ffi.new("mr_session")
local seen_id, seen_type = seen.id, seen.type
local seen_key, seen_value = seen.key, seen.value


local function set_member(metadata, i)
    local key, value = seen_key[i], seen_value[i]
    metadata[ffi_string(key.bytes, key.len)] =
        ffi_string(value.bytes, value.len)
end


-- One or two are usual. A loop of so few turns would keep all this from being
-- compiled.
local function seen_metadata()
    local members = seen.members
    local metadata = new_table(0, members)
    if members > 0 then
        set_member(metadata, 0)
    end
    if members > 1 then
        set_member(metadata, 1)
    end
    if members > 2 then
        for i = 2, members - 1 do
            set_member(metadata, i)
        end
    end
    return metadata
end


-- A record in the usual form, else nil.
local function decode_usual(text, id)
    if C.mr_session_read(text, #text, id, id and #id or 0, seen) ~= OK then
        return nil
    end
    return bless {
        id = id or ffi_string(seen_id.bytes, seen_id.len),
        type = ffi_string(seen_type.bytes, seen_type.len),
        created_at = seen.created_at,
        updated_at = seen.updated_at,
        metadata = seen_metadata(),
        _record = text,
    }
end


---
-- Decodes a record.
-- @param text string
-- @param id the id it is stored under, or nil: any
-- @return session, or nil, message, "invalid"
function _M.decode(text, id)
    local self = decode_usual(text, id)
    if self then
        return self
    end
    return decode_any(text, id)
end


-- --------------------------------------------------------------- encode --

-- @param object the record the session came as, decoded; or nil
local function write_time(self, name, object)
    local value = self[name]
    if type(value) ~= "number" then
        return nil
    end
    local known, known_text
    if object then
        known, known_text = read_time(object, name)
    end
    return value == known and known_text or rfc3339.format(value)
end


local function same(a, b)
    if type(a) ~= "table" or type(b) ~= "table" then
        return a == b
    end
    for key, value in pairs(a) do
        if not same(value, b[key]) then
            return false
        end
    end
    for key in pairs(b) do
        if a[key] == nil then
            return false
        end
    end
    return true
end


-- Compared as values: the text depends on the order of keys, which is another
-- one in a copy.
local function write_data(data, known)
    if known and same(decode(known), data) then
        return known
    end
    local ok, text = pcall(encode, data)
    return ok and text or nil
end


-- Sorted, so that one session has one text.
local function write_metadata(metadata)
    local keys = {}
    for key in pairs(metadata) do
        keys[#keys + 1] = key
    end
    sort(keys)
    for i = 1, #keys do
        local key = keys[i]
        keys[i] = encode(key) .. ":" .. encode(metadata[key])
    end
    return "{" .. concat(keys, ",") .. "}"
end


local function unstorable(self)
    if type(self.type) ~= "string" then
        return "type is not a string"
    end
    if type(self.metadata) ~= "table" or not strings_only(self.metadata) then
        return "metadata does not map strings to strings"
    end
end


---
-- Encodes a session.
-- @param self session
-- @return string, or nil, message, "invalid"
function _M.encode(self)
    local wrong = unstorable(self)
    if wrong then
        return invalid(wrong)
    end
    local known = self._record and decode(self._record)
    local created = write_time(self, "created_at", known)
    local updated = write_time(self, "updated_at", known)
    if not created or not updated then
        return invalid((created and "updated_at" or "created_at")
                       .. " is not a time in unix seconds")
    end

    local text = '{"id":' .. encode(self.id) .. ',"type":' .. encode(self.type)
                 .. ',"created_at":"' .. created
                 .. '","updated_at":"' .. updated .. '"'
    if self.data ~= nil then
        local data = write_data(self.data, known and known.data ~= nil
                                and raw_member(self._record, "data"))
        if not data then
            return invalid("data cannot be written as JSON")
        end
        text = text .. ',"data":' .. data
    end
    if next(self.metadata) ~= nil then
        text = text .. ',"metadata":' .. write_metadata(self.metadata)
    end

    return text .. "}"
end


-- ----------------------------------------------------------------- copy --

local function deep_copy(value)
    if type(value) ~= "table" then
        return value
    end
    local copy = {}
    for key, item in pairs(value) do
        copy[key] = deep_copy(item)
    end
    return setmetatable(copy, getmetatable(value))
end


---
-- A copy that shares nothing changeable with the original.
function _M.copy(self)
    local metadata = {}
    for key, value in pairs(self.metadata) do
        metadata[key] = value
    end
    return bless {
        id = self.id,
        type = self.type,
        created_at = self.created_at,
        updated_at = self.updated_at,
        metadata = metadata,
        data = deep_copy(self.data),
        _record = self._record,
    }
end


return _M
