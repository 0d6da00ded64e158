-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What the two transports share: commands to bytes, bytes to replies, and the
-- commands a new connection starts with. Nothing here touches a socket.
--
-- A reply in Lua:
--
--     bulk or status   string
--     integer          number (exact to 2^53)
--     nil              false, so that arrays of replies have no holes
--     error            { err = "WRONGTYPE Operation against ..." }
--     array            { reply, reply, ..., n = number of elements }

local binding = require "resty.mooring.ffi"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"

local C = binding.C
local ffi = binding.ffi

local concat = table.concat
local error = error
local find = string.find
local ffi_gc = ffi.gc
local ffi_new = ffi.new
local ffi_string = ffi.string
local gsub = string.gsub
local match = string.match
local pcall = pcall
local setmetatable = setmetatable
local sub = string.sub
local tostring = tostring
local type = type

local OK = C.MR_OK
local AGAIN = C.MR_AGAIN
local NO_MEMORY = C.MR_NOMEM
local NIL = C.MR_REPLY_NIL
local ERROR = C.MR_REPLY_ERROR
local INTEGER = C.MR_REPLY_INTEGER
local ARRAY = C.MR_REPLY_ARRAY
local UNAVAILABLE = errors.UNAVAILABLE

local MAX_ERROR = 1024 -- bytes of an error that are shown

local _M = {}


-- Arguments of the command being formatted. Shared by all callers: nothing
-- yields between filling them and the call that reads them. The strings are
-- kept alive by the caller's command.
local capacity = 16
local argv = ffi_new("const char *[?]", capacity)
local argv_len = ffi_new("size_t[?]", capacity)
local out = ffi_new("char *[1]")
local out_len = ffi_new("uint32_t[1]")


local function reserve(n)
    if n > capacity then
        capacity = n * 2
        argv = ffi_new("const char *[?]", capacity)
        argv_len = ffi_new("size_t[?]", capacity)
    end
end


---
-- One command as it goes over the wire.
-- @param command array of strings
-- @return string; or nil, message, "unavailable": there is no memory
-- Raises when there is no argument.
function _M.encode(command)
    local argc = #command
    reserve(argc)
    for i = 1, argc do
        local arg = command[i]
        argv[i - 1], argv_len[i - 1] = arg, #arg
    end

    local rc = C.mr_command_format(argc, argv, argv_len, out, out_len)
    if rc == NO_MEMORY then
        return nil, "could not format a command: out of memory", UNAVAILABLE
    elseif rc ~= OK then
        error("could not format a command: " .. binding.strerror(rc), 2)
    end

    local bytes = ffi_string(out[0], out_len[0])
    C.mr_command_free(out[0])
    return bytes
end

local encode = _M.encode


---
-- Several commands as they go over the wire.
-- @param commands array of arrays of strings
-- @return as encode
function _M.encode_all(commands)
    local n = #commands
    if n == 1 then
        return encode(commands[1])
    end

    local parts = {}
    for i = 1, n do
        local bytes, err, code = encode(commands[i])
        if not bytes then
            return nil, err, code
        end
        parts[i] = bytes
    end
    return concat(parts)
end


---
-- Two commands that end with the same argument, as they go over the wire.
-- @param heads { what stands before the argument in the first command, and
--        between both }
-- @param arg string
-- @return string
function _M.around(heads, arg)
    return heads[1] .. arg .. heads[2] .. arg .. "\r\n"
end


-- The text of an error as it may be shown. A server that does not know a
-- command (they can be renamed) quotes its arguments, cut at 128 bytes: keys,
-- which hold session ids, or a password. So everything from there on goes; and
-- so does what a terminal would obey.
local function showable(text)
    local quoted = find(text, "with args beginning", 1, true)
    if quoted then
        text = match(sub(text, 1, quoted - 1), "^(.-)[, ]*$")
    end
    return (gsub(sub(text, 1, MAX_ERROR), "%c", "?"))
end


---
-- The Lua value of a reply.
-- @param reply mr_reply *, still the caller's to free
function _M.decode(reply)
    local kind = reply.type
    if kind == INTEGER then
        return reply.integer
    elseif kind == NIL then
        return false
    elseif kind == ARRAY then
        local n = reply.n
        local values = { n = n }
        for i = 1, n do
            values[i] = _M.decode(reply.element[i - 1])
        end
        return values
    end

    local text = ffi_string(reply.str, reply.len)
    if kind == ERROR then
        return { err = showable(text) }
    end
    return text
end

local decode = _M.decode


-- A decoder of the bytes of one connection; see _M.reader.
local Reader = {}
local reader_mt = { __index = Reader }
local slot = ffi_new("mr_reply *[1]")
local taken = ffi_new("mr_reply")


local function free_reader(handle)
    C.mr_reader_free(handle)
end


---
-- A decoder for the bytes of one connection.
-- @param max_bytes bound of one reply's memory (nil: 16 MiB)
-- @return reader; or nil, message: there is no memory
function _M.reader(max_bytes)
    local handle = C.mr_reader_new(max_bytes or 0)
    if handle == nil then
        return nil, "could not make a reader: out of memory"
    end
    return setmetatable({ handle = ffi_gc(handle, free_reader) }, reader_mt)
end


local function reader_failure(self, rc)
    return nil, (rc == NO_MEMORY and "could not read a reply: "
                 or "malformed reply: ")
                .. ffi_string(C.mr_reader_error(self.handle))
end


---
-- Gives the decoder bytes as they came, cut anywhere.
-- @return true; or nil, message: the connection must be closed
function Reader:feed(bytes)
    local rc = C.mr_reader_feed(self.handle, bytes, #bytes)
    if rc ~= OK then
        return reader_failure(self, rc)
    end
    return true
end


---
-- Takes the next complete reply.
-- @return the reply (`false` is the nil reply); or nil: there is none yet;
--         or nil, message: the connection must be closed
function Reader:next()
    if C.mr_reader_take(self.handle, taken) == OK then
        return decode(taken)
    end
    local rc = C.mr_reader_next(self.handle, slot)
    if rc == AGAIN then
        return nil
    elseif rc ~= OK then
        return reader_failure(self, rc)
    end

    local reply = slot[0]
    local value = decode(reply)
    C.mr_reply_free(reply)
    return value
end


---
-- The server of a transport, for messages: no user, no password.
-- @param opts of the transport
-- @return string such as "127.0.0.1:6379", "[::1]:6379" or "unix:/run/redis"
function _M.address(opts)
    if opts.path then
        return "unix:" .. opts.path
    end
    local host = opts.host
    if find(host, ":", 1, true) then
        host = "[" .. host .. "]"
    end
    return host .. ":" .. opts.port
end


---
-- What a new connection has to send first.
-- @param opts of the transport
-- @return array of commands, empty when there is nothing to say
function _M.handshake(opts)
    local commands = {}
    if opts.password then
        commands[1] = opts.user and { "AUTH", opts.user, opts.password }
                      or { "AUTH", opts.password }
    end
    if opts.db and opts.db ~= 0 then
        commands[#commands + 1] = { "SELECT", tostring(opts.db) }
    end
    return commands
end


local function without_secret(text, password)
    text = showable(text)
    if password and password ~= "" then
        text = gsub(text, (gsub(password, "%p", "%%%0")), "<password>")
    end
    return text
end


---
-- Looks at the replies to the handshake.
-- @param commands as _M.handshake made them
-- @param replies array of their replies
-- @param opts of the transport
-- @return true; or nil, message (Redis' own words, never the password), code
function _M.check_handshake(commands, replies, opts)
    for i = 1, #commands do
        local reply = replies[i]
        local text = type(reply) == "table" and reply.err
        if text then
            local what = commands[i][1] == "AUTH" and "authenticate"
                         or "select database " .. commands[i][2]
            return nil, "could not " .. what .. " at " .. _M.address(opts)
                        .. ": " .. without_secret(text, opts.password),
                   UNAVAILABLE
        end
    end
    return true
end


---
-- Hands a result to the callback of an enqueued command. An error in it is
-- logged: it must not reach whoever happens to read the reply.
-- @param callback function(reply, err, code), or anything false
function _M.notify(callback, reply, err, code)
    if callback then
        local ok, cause = pcall(callback, reply, err, code)
        if not ok then
            log.err("a callback failed: ", tostring(cause))
        end
    end
end


return _M
