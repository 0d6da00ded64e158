-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which entries are believed, for all processes that share the region: tokens,
-- the epoch, the lease, the server, and doubts.
--
--     token     was nothing changed since a question was asked?
--     epoch     bumped: every entry is looked at anew
--     lease     until when hits are believed at all
--     server    another one than before: no entry is believed
--     doubt     this one entry has changed elsewhere
--
-- Each is one word or a few in shared memory, read and written by single calls
-- into C, so a process may die between any two of them. Who acts on them is
-- resty.mooring.coherence; what they mean to a hit is in c/mooring.h.
--
-- These are methods of resty.mooring.cache.

local mooring_ffi = require "resty.mooring.ffi"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi
local clock = mooring_ffi.now

local ffi_new = ffi.new
local ffi_string = ffi.string

local _M = {}

local NEVER = 1e300
_M.NEVER = NEVER


---
-- The validity token of id, to be taken before a remote command is queued.
-- @param token to be used again, or nil for a new one
function _M.token(self, id, token)
    token = token or ffi_new("mr_token")
    C.mr_cache_token(self.handle, id, #id, token)
    return token
end


---
-- Another token that says the same, for one who keeps it.
function _M.copy_token(_, token)
    return ffi_new("mr_token", token)
end


---
-- Has nothing happened to the session since its token was taken?
function _M.is_valid(self, id, token)
    return C.mr_cache_token_valid(self.handle, id, #id, token) ~= 0
end


---
-- Disbelieves every entry; each is verified or dropped at its next look.
function _M.bump_epoch(self)
    C.mr_cache_bump_epoch(self.handle)
end


---
-- 16 hexadecimal digits that no other region has.
function _M.instance(self)
    local out = ffi_new("char[17]")
    C.mr_cache_instance(self.handle, out)
    return ffi_string(out)
end


---
-- Until when hits are believed, in ms of the region's clock; NEVER: for ever.
function _M.lease(self)
    return (C.mr_cache_lease(self.handle))
end


function _M.set_lease(self, until_ms)
    C.mr_cache_set_lease(self.handle, until_ms)
end


---
-- Does a lease hold that ends unless it is renewed?
function _M.is_leased(self)
    local lease = C.mr_cache_lease(self.handle)
    return lease ~= NEVER and clock() < lease
end


---
-- Are entries believed without a lease, for their own time?
function _M.is_unleased(self)
    return C.mr_cache_lease(self.handle) == NEVER
end


---
-- Which server the originals are on, as a number; 0: not known.
function _M.server(self)
    return (C.mr_cache_server(self.handle))
end


---
-- @return true when it was another server before: nothing is believed now
function _M.set_server(self, server)
    return C.mr_cache_set_server(self.handle, server) == 1
end


---
-- Keeps an entry, but not as a hit: its original has changed elsewhere.
-- @return true when there is such an entry
function _M.doubt(self, id)
    return C.mr_cache_doubt(self.handle, id, #id) == 1
end


---
-- All originals are gone.
function _M.flush(self)
    C.mr_cache_flush(self.handle)
end


return _M
