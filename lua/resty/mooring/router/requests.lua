-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What the access phase tells the later phases of a request, on the hot path.
-- Reading or setting an nginx variable by name costs 600 to 1300 instructions
-- and ngx.ctx more than that; a table with the address of nginx' request as its
-- key costs some twenty, and that address stays the same over all phases and
-- internal redirects.
--
--     peers[request]    where the request goes
--     ids[request]      the session it belongs to, nil for none
--     streams[request]  likewise, when its answer is an event stream
--     inner[request]    true: its location is not one of Streamable HTTP, see
--                       $mooring_role
--
-- nginx uses an address again after the end of a request. So an entry means
-- something only in phases behind the one that sets it (access sets peers and
-- ids of each request that goes on, also to nil), and the log phase drops all.

local base = require "resty.core.base"
local mooring_ffi = require "resty.mooring.ffi"

local cast = mooring_ffi.ffi.cast
local get_request = base.get_request
local setmetatable = setmetatable
local tonumber = tonumber

local _M = {}
local mt = { __index = _M }


function _M.new()
    return setmetatable({ peers = {}, ids = {}, streams = {}, inner = {} }, mt)
end


---
-- The key of the current request.
function _M.key()
    return (tonumber(cast("uintptr_t", get_request())))
end


---
-- Where the current request has gone.
function _M.peer(self)
    return self.peers[_M.key()]
end


---
-- The request has ended.
function _M.drop(self, request)
    self.peers[request] = nil
    self.ids[request] = nil
end


return _M
