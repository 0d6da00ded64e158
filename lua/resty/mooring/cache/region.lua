-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- How a cache comes by its region, a part of shared memory of the C core: by a
-- name, which other processes have as well, or as a private one.
--
-- Who dies leaves a named region as it is, for others and for who comes next; a
-- private one goes with its last process. See c/mooring.h (mr_cache_open).

local mooring_ffi = require "resty.mooring.ffi"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi

local collectgarbage = collectgarbage
local error = error
local ffi_new = ffi.new
local ffi_string = ffi.string
local pairs = pairs
local setmetatable = setmetatable

local _M = {}

local OK = 0

-- Room for ids and records where nobody says how much: twice a usual one. Pages
-- that are never touched are never taken from the system.
local BYTES_PER_ENTRY = 512


-- Caches of this VM that are in use. Two of one name with different remotes
-- would hand each other entries of another store.
local live = setmetatable({}, { __mode = "k" })


local function clash(name, fingerprint)
    for cache in pairs(live) do
        if cache.name == name and cache.fingerprint ~= fingerprint then
            return cache
        end
    end
end


---
-- Raises when a name is in use here over another remote.
-- @param level of the caller to blame
function _M.check_name(name, fingerprint, level)
    if name and clash(name, fingerprint) then
        collectgarbage() -- one that nobody holds any more is no clash
        if clash(name, fingerprint) then
            error('opts.name "' .. name .. '" is in use by a storage with '
                  .. "another remote; close that one or choose another name",
                  level + 1)
        end
    end
end


---
-- A cache of that name is in use from now on.
function _M.enter(cache)
    live[cache] = true
end


---
-- It is in use no more.
function _M.leave(cache)
    live[cache] = nil
end


---
-- Opens a region of the C core.
-- @param opts of cache.new
-- @return handle, which the collector closes; or nil, message
function _M.open(opts)
    local fingerprint = opts.fingerprint or ""
    local c_opts = ffi_new("mr_cache_options")
    c_opts.name = opts.name
    c_opts.name_len = opts.name and #opts.name or 0
    c_opts.fingerprint = fingerprint
    c_opts.fingerprint_len = #fingerprint
    c_opts.max_entries = opts.max_entries
    c_opts.max_value = opts.max_record
    c_opts.max_bytes = opts.max_bytes or opts.max_entries * BYTES_PER_ENTRY
    c_opts.slide = (opts.slide or 0) * 1000
    c_opts.carry_over = opts.carry_over and 1 or 0

    local out = ffi_new("mr_cache *[1]")
    local err = ffi_new("char[256]")
    local rc = C.mr_cache_open(c_opts, out, err, 256)
    if rc ~= OK then
        return nil, ffi_string(err)
    end
    -- A closure, not C.mr_cache_close itself: a finalizer may run while the VM
    -- is being torn down, when the library handle is already gone.
    return ffi.gc(out[0], function(handle) C.mr_cache_close(handle) end)
end


return _M
