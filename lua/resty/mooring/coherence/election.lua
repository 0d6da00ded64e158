-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Who of those that share a region listens for invalidations. The state is in
-- the region, every step is one lock-free call of the core; see mr_listener_*
-- in c/mooring.h for what each means.
--
-- `token` is the contender's own number, `cache` the local tier of the region.
-- All but resign return whether it is so now.

local mooring_ffi = require "resty.mooring.ffi"

local C = mooring_ffi.C
local clock = mooring_ffi.now

local _M = {}


function _M.claim(cache, token, patience_ms)
    return C.mr_listener_claim(cache.handle, token, clock(), patience_ms) == 1
end


function _M.beat(cache, token)
    return C.mr_listener_beat(cache.handle, token, clock()) == 1
end


function _M.leave(cache, token)
    return C.mr_listener_leave(cache.handle, token) == 1
end


function _M.succeed(cache, token)
    return C.mr_listener_succeed(cache.handle, token) == 1
end


function _M.is_successor(cache, token)
    return C.mr_listener_is_successor(cache.handle, token) == 1
end


function _M.ready(cache, token)
    return C.mr_listener_ready(cache.handle, token) == 1
end


-- The token of the successor that listens, or nil.
function _M.ready_successor(cache, token)
    local successor = C.mr_listener_ready_successor(cache.handle, token)
    return successor ~= 0 and successor or nil
end


function _M.grant(cache, token, successor)
    return C.mr_listener_grant(cache.handle, token, successor, clock()) == 1
end


function _M.is_owner(cache, token)
    return C.mr_listener_is_owner(cache.handle, token) == 1
end


function _M.resign(cache, token)
    C.mr_listener_resign(cache.handle, token)
end


return _M
