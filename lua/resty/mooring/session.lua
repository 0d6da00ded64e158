-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A session: an id, a type, two times, string metadata and free data.
--
--     local s = session.new("1868a90c", { metadata = { backend_url = url } })
--     s.id  s.type  s.created_at  s.updated_at  s.metadata  s.data
--
-- Times are unix seconds, fractions kept. The session's binding is its
-- metadata `backend_url` (and `backend_pod`). A session is a plain table with
-- methods, the caller's own: no storage keeps a reference to it.

local C = require("resty.mooring.ffi").C

local clock = C.mr_time
local error = error
local pairs = pairs
local setmetatable = setmetatable
local type = type

local _M = {}

-- Other fields of a session are private to resty.mooring.record.
local Session = {}
local mt = { __index = Session, __name = "mooring.session" }

_M.DEFAULT_TYPE = "mcp"
_M.MAX_ID_LENGTH = 4096


---
-- Why an id is not one that a storage takes.
-- @param id string
-- @param max_length bytes, default 4096
-- @return nil when it is fine, else a message (which does not hold the id)
-- Source: MCP Streamable HTTP, "Session Management": visible ASCII characters,
-- 0x21 to 0x7E. The specification sets no limit to the length.
function _M.invalid_id(id, max_length)
    max_length = max_length or _M.MAX_ID_LENGTH
    if id == "" then
        return "invalid session id: it is empty"
    elseif #id > max_length then
        return "invalid session id: " .. #id .. " bytes, over max_id_length "
               .. max_length
    end
    local span = C.mr_session_id_span(id, #id)
    if span < #id then
        return "invalid session id: byte " .. span + 1
               .. " is not in 0x21-0x7E"
    end
end


local function copy_strings(strings)
    local copy = {}
    for key, value in pairs(strings) do
        if type(key) ~= "string" or type(value) ~= "string" then
            error("opts.metadata must hold strings only", 4)
        end
        copy[key] = value
    end
    return copy
end


local function check_time(name, value)
    if value ~= nil and (type(value) ~= "number" or value ~= value) then
        error("opts." .. name .. " must be a number (unix seconds)", 4)
    end
    return value
end


local KNOWN = { type = true, metadata = true, data = true,
                created_at = true, updated_at = true }


local function check(id, opts)
    if type(id) ~= "string" then
        error("id must be a string", 3)
    end
    if type(opts) ~= "table" then
        error("opts must be a table", 3)
    end
    for name in pairs(opts) do
        if not KNOWN[name] then
            error("opts." .. tostring(name) .. " is not an option", 3)
        end
    end
    if opts.type ~= nil and type(opts.type) ~= "string" then
        error("opts.type must be a string", 3)
    end
    if opts.metadata ~= nil and type(opts.metadata) ~= "table" then
        error("opts.metadata must be a table", 3)
    end
end


local function build(id, opts)
    local now = clock()
    local created = check_time("created_at", opts.created_at) or now
    return setmetatable({
        id = id,
        type = opts.type or _M.DEFAULT_TYPE,
        created_at = created,
        updated_at = check_time("updated_at", opts.updated_at) or created,
        metadata = copy_strings(opts.metadata or {}),
        data = opts.data,
    }, mt)
end


---
-- Makes a session. Nothing is stored.
-- @param id string; storages take 1 to max_id_length bytes of 0x21-0x7E
-- @param opts optional table:
--        type        string, default "mcp"
--        metadata    table of string to string, copied; default empty
--        data        anything that JSON can hold, default nil
--        created_at  unix seconds, default now
--        updated_at  unix seconds, default created_at
-- @return the session; raises naming the option that is wrong
function _M.new(id, opts)
    opts = opts or {}
    check(id, opts)
    local self = build(id, opts)
    return self
end


---
-- Gives a table with the fields of a session its methods (for decoders).
function _M.bless(fields)
    return (setmetatable(fields, mt)) -- no tail call: see resty.mooring.ffi
end


---
-- @return the metadata value of key, or nil
function Session:get_metadata(key)
    return self.metadata[key]
end


---
-- Sets a metadata value, or removes it with nil.
-- @param key string
-- @param value string or nil
-- Does not touch updated_at and stores nothing.
function Session:set_metadata(key, value)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    if value ~= nil and type(value) ~= "string" then
        error("value must be a string or nil", 2)
    end
    self.metadata[key] = value
end


---
-- Marks the session as used now: sets updated_at. Stores nothing.
function Session:touch()
    self.updated_at = clock()
end


return _M
