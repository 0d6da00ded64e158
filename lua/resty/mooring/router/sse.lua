-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Finds the `endpoint` event of the HTTP+SSE transport (MCP 2024-11-05) in an
-- event stream that comes in chunks of any size. Lines end in LF, CR or CRLF,
-- which may be divided between two chunks (WHATWG HTML, 9.2.6 "Interpreting an
-- event stream").
--
--     chunk --> line --> field of the event --blank line--> is it `endpoint`?
--
-- Bounded: after MAX_BYTES it gives up, and the stream is somebody else's. What
-- is kept is a part of those bytes; each is looked at once.

local byte = string.byte
local concat = table.concat
local find = string.find
local match = string.match
local setmetatable = setmetatable
local sub = string.sub

local _M = {}
local mt = { __index = _M }

local MAX_BYTES = 16384
local CR, LF = 13, 10
local BOM = "^\239\187\191"

_M.MAX_BYTES = MAX_BYTES


---
-- @return a parser, for one stream
function _M.new()
    return setmetatable({
        pieces = {},     -- of the line that has not ended yet
        bytes = 0,       -- seen so far
        lines = 0,
        after_cr = false,
        event = nil,     -- fields of the event that has not ended yet
        data = nil,
    }, mt)
end


-- An event has ended. Its data when it is the one.
local function dispatch(self)
    local event, data = self.event, self.data
    self.event, self.data = nil, nil
    if event == "endpoint" and data and data ~= "" then
        return data
    end
end


local function take_line(self, line)
    self.lines = self.lines + 1
    if self.lines == 1 then
        line = match(line, BOM .. "(.*)$") or line
    end
    if line == "" then
        return dispatch(self)
    end
    local name, value = match(line, "^([^:]*): ?(.*)$")
    name = name or line -- without a colon: a field without a value
    if name == "event" then
        self.event = value or ""
    elseif name == "data" then
        value = value or ""
        self.data = self.data and self.data .. "\n" .. value or value
    end
end


-- The rest of the line that ends at `to`.
local function complete(self, chunk, from, to)
    local pieces = self.pieces
    local rest = sub(chunk, from, to)
    if #pieces == 0 then
        return rest
    end
    pieces[#pieces + 1] = rest
    self.pieces = {}
    return concat(pieces)
end


---
-- Takes the next bytes of the stream.
-- @param chunk string
-- @return the data of the endpoint event when that is complete; or nil, and
--         true when it is not worth looking any further
function _M.feed(self, chunk)
    if #chunk > MAX_BYTES - self.bytes then
        chunk = sub(chunk, 1, MAX_BYTES - self.bytes)
    end
    self.bytes = self.bytes + #chunk
    local from = 1
    if self.after_cr and byte(chunk, 1) == LF then
        from = 2
    end
    self.after_cr = self.after_cr and chunk == ""
    while true do
        local at = find(chunk, "[\r\n]", from)
        if not at then
            break
        end
        local data = take_line(self, complete(self, chunk, from, at - 1))
        if data then
            return data
        end
        from = at + 1
        if byte(chunk, at) == CR then
            self.after_cr = from > #chunk
            from = byte(chunk, from) == LF and from + 1 or from
        end
    end
    if from <= #chunk then
        self.pieces[#self.pieces + 1] = sub(chunk, from)
    end
    return nil, self.bytes >= MAX_BYTES
end


return _M
