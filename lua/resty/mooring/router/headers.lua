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

local base = require "resty.core.base"
local mooring_ffi = require "resty.mooring.ffi"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi

local ffi_string = ffi.string
local get_request = base.get_request
local nginx = ffi.C

local _M = {}

local ROOM = 64
local SESSION, VERSION = "mcp-session-id", "mcp-protocol-version"

require "resty.core.request" -- declares what follows
local list = ffi.new("ngx_http_lua_ffi_table_elt_t[?]", ROOM)
local truncated = ffi.new("int[1]")


---
-- For a request with exactly one Mcp-Session-Id, as it may be passed on.
-- @return its value, and whether there is an MCP-Protocol-Version; nil: read
--         the variables
function _M.mcp()
    local request = get_request()
    local n = nginx.ngx_http_lua_ffi_req_get_headers_count(
        request, ROOM, truncated)
    if n <= 0 or n > ROOM or truncated[0] ~= 0 then
        return nil
    end
    nginx.ngx_http_lua_ffi_req_get_headers(request, list, n, 1)
    local at = C.mr_header_find(list, n, SESSION, #SESSION)
    if at < 0 then
        return nil
    end
    local value = list[at].value
    if value.len == 0 then
        return nil
    end
    return ffi_string(value.data, value.len),
           C.mr_header_find(list, n, VERSION, #VERSION) ~= -1
end


return _M
