-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The headers of MCP in a request, without a look through all of them for each:
-- nginx-lua lists them once, and C.mr_header_find picks.
--
-- What is unusual is left to nginx' variables, which the caller then reads: a
-- header that is there twice, or with _ for - (which of them counts depends on
-- the version and the configuration of nginx), one that is empty, and more
-- headers than the list has room for.
--
-- And the Host that every request has to have (RFC 9112, 3.2): only one older
-- than HTTP/1.1 may come here without.
--
-- And whether a response is an event stream, for which ngx.header would make a
-- string of each content type.

local base = require "resty.core.base"
local mooring_ffi = require "resty.mooring.ffi"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi

local ffi_string = ffi.string
local gsub = string.gsub
local lower = string.lower
local pairs = pairs
local clear_header = ngx.req.clear_header
local get_request = base.get_request
local nginx = ffi.C
local get_headers = ngx.req.get_headers
local set_header = ngx.req.set_header

local _M = {}

local NOT_FOUND = C.MR_NOT_FOUND
local ROOM = 64
local HOST, SESSION = "host", "mcp-session-id"
local VERSION = "mcp-protocol-version"
local TYPE, STREAM = "content-type", "text/event-stream"
local BEHIND = { [0x3b] = ";", [0x20] = " ", [0x09] = "\t" } -- a media type

-- These declare what follows.
require "resty.core.request"
require "resty.core.response"
local list = ffi.new("ngx_http_lua_ffi_table_elt_t[?]", ROOM)
local truncated = ffi.new("int[1]")
local type_buffer = ffi.new("unsigned char[?]", #TYPE)
local type_value = ffi.new("ngx_http_lua_ffi_str_t[1]")
local message = ffi.new("char *[1]")


-- Fills the list. Returns how many there are; nil when there is no room.
local function read_list()
    local request = get_request()
    local n = nginx.ngx_http_lua_ffi_req_get_headers_count(
        request, ROOM, truncated)
    if n < 0 or truncated[0] ~= 0 then
        return nil
    end
    if n > 0 then
        nginx.ngx_http_lua_ffi_req_get_headers(request, list, n, 1)
    end
    return n
end


---
-- For a request with a Host and exactly one Mcp-Session-Id, as it may be passed
-- on.
-- @return its value, and whether there is an MCP-Protocol-Version; nil: read
--         the variables
function _M.mcp()
    local n = read_list()
    if not n then
        return nil
    end
    local at = C.mr_header_find(list, n, SESSION, #SESSION)
    if at < 0 or C.mr_header_find(list, n, HOST, #HOST) < 0 then
        return nil
    end
    local value = list[at].value
    if value.len == 0 then
        return nil
    end
    return ffi_string(value.data, value.len),
           C.mr_header_find(list, n, VERSION, #VERSION) ~= NOT_FOUND
end


---
-- The value of a header that the request has exactly once, as it may be passed
-- on.
-- @param name in lower case
-- @return string; nil: read the variable
function _M.one(name)
    local n = read_list()
    if not n then
        return nil
    end
    local at = C.mr_header_find(list, n, name, #name)
    if at < 0 or list[at].value.len == 0 then
        return nil
    end
    local value = list[at].value
    return ffi_string(value.data, value.len)
end


-- As nginx' variables have names.
local function variable_name(name)
    return (gsub(lower(name), "-", "_"))
end


---
-- Gives a request that header once, in place of all that look like it.
-- @param value "" for none
function _M.keep_one(name, value)
    local wanted = variable_name(name)
    for sent in pairs(get_headers(0, true)) do
        if variable_name(sent) == wanted then
            clear_header(sent)
        end
    end
    if value ~= "" then
        set_header(name, value)
    end
end


-- Not by $http_host: once looked up and not found, nginx would not look again.
-- (So where the configuration has looked already, the request goes without.)
local function has_no_host()
    local n = read_list()
    if n then
        return C.mr_header_find(list, n, HOST, #HOST) == NOT_FOUND
    end
    return not get_headers(0)[HOST]
end


---
-- Is the response an event stream (header filter phase)? Media types have no
-- case (RFC 9110, 8.3.1).
function _M.is_stream()
    local n = nginx.ngx_http_lua_ffi_get_resp_header(
        get_request(), TYPE, #TYPE, type_buffer, type_value, 1, message)
    local value = type_value[0]
    if n ~= 1 or value.len < #STREAM then
        return false
    end
    return (value.len == #STREAM or BEHIND[value.data[#STREAM]] ~= nil)
           and lower(ffi_string(value.data, #STREAM)) == STREAM
end


---
-- Gives a request that came without a Host the one it meant (http.conf).
-- @param var ngx.var
function _M.complete(var)
    if has_no_host() then
        set_header("Host", var.mooring_host)
    end
end


return _M
