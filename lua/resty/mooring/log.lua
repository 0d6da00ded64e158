-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Where messages go: nginx' error log, or standard error in plain LuaJIT.
-- No message ever holds a raw session id, which is a credential: log.id turns
-- one into a short hash that is the same on every replica.

local ffi = require "resty.mooring.ffi"

local clock = ffi.now
local format = string.format
local stderr = io.stderr
local byte = string.byte
local bit = require "bit"

local ngx = ngx
local in_nginx = ffi.in_nginx and ngx and ngx.log

local _M = {}


local in_timers = false
local HAS_NO_REQUEST = { init = true, init_worker = true, timer = true,
                         exit_worker = true }


---
-- From now on nginx does not add the request line to messages: with session ids
-- in URLs it holds one. Messages of requests are then written by timers.
function _M.without_requests()
    in_timers = true
end


local function write(_, level, ...)
    ngx.log(level, "mooring: ", ...)
end


local function writer(level, name)
    if in_nginx then
        return function(...)
            if in_timers and not HAS_NO_REQUEST[ngx.get_phase()] then
                -- Without a timer to be had, rather no message.
                ngx.timer.at(0, write, level, ...)
            else
                write(nil, level, ...)
            end
        end
    end
    return function(...)
        stderr:write("mooring: [", name, "] ", table.concat({ ... }), "\n")
    end
end


_M.warn = writer(in_nginx and ngx.WARN, "warn")
_M.err = writer(in_nginx and ngx.ERR, "error")
_M.info = writer(in_nginx and ngx.INFO, "info")


local last = {}


local function is_due(key)
    local now = clock()
    if last[key] and now - last[key] < 1000 then
        return false
    end
    last[key] = now
    return true
end


---
-- Logs a warning unless one with the same key was logged within the last
-- second by this process: what goes wrong goes wrong for every request.
-- @param key string, a fixed name of the message
-- @param ... parts of the message
function _M.warn_limited(key, ...)
    if is_due(key) then
        _M.warn(...)
    end
end


---
-- As warn_limited, for what is to be seen in a log of errors only.
function _M.err_limited(key, ...)
    if is_due(key) then
        _M.err(...)
    end
end


---
-- Logs a warning once in the life of this process.
function _M.warn_once(key, ...)
    if not last[key] then
        last[key] = clock()
        _M.warn(...)
    end
end


---
-- A short name for a session id (FNV-1a, 32 bits) that is safe to log.
function _M.id(id)
    local hash = 0x811c9dc5
    for i = 1, #id do
        hash = bit.bxor(hash, byte(id, i))
        -- hash * 16777619 in 32 bits, from parts that stay below 2^53
        hash = bit.tobit(hash * 0x193 + bit.lshift(hash, 24))
    end
    return format("#%s", bit.tohex(hash))
end


return _M
