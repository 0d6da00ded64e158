-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Tells hooks of the sessions that have left a region through this process.
--
--     C call --- entries leave ---> queue of the handle --- notify ---> hooks
--     (lock)                        (this process only)    (no lock)
--
-- Entries are taken from the queue one by one, each right before its hooks are
-- called, so each is told once and none is lost with a request that is killed
-- while another one's hook waits.
--
-- A hook may call the storage, and so make others leave. These are told by the
-- loop that is under way in the same coroutine, not by a recursion, and a hook
-- that puts back whatever leaves does not stop the worker: after MAX_AT_ONCE
-- the rest waits for the next call. Another coroutine tells what it finds.
--
-- The functions take a cache, of which they use
--     handle       of the region, nil once it is closed
--     hooks        array, nil for none
--     waiting      entries taken from the queue that are still to be told
--     telling      coroutine -> since when it is in a hook
--     hook_errors  count

local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local record = require "resty.mooring.record"

local C = mooring_ffi.C
local ffi = mooring_ffi.ffi

local clock = mooring_ffi.now
local decode = record.decode
local ffi_string = ffi.string
local ipairs = ipairs
local pcall = pcall
local remove = table.remove
local running = coroutine.running
local setmetatable = setmetatable
local tostring = tostring

local _M = {}

-- Why an entry leaves (enum mr_reason), and what hooks are told.
local REASONS = { "capacity", "expired", "deleted", "gone", "closed" }
local DELETED = "deleted"

local MAX_AT_ONCE = 4096

-- A coroutine that was killed in a hook may be used again for another request:
-- it is not taken to be in that hook for ever.
local MAX_PATIENCE = 10000 -- ms


---
-- @param cache
-- @param on_evict function(session, reason), or nil
function _M.init(cache, on_evict)
    cache.evicted = ffi.new("mr_evicted")
    cache.waiting = {}
    cache.telling = setmetatable({}, { __mode = "k" })
    cache.hook_errors = 0
    if on_evict then
        _M.add_hook(cache, on_evict)
    end
end


---
-- Has one more function called for each session that leaves from now on.
function _M.add_hook(cache, on_evict)
    cache.hooks = cache.hooks or {}
    cache.hooks[#cache.hooks + 1] = on_evict
    C.mr_cache_collect(cache.handle, 1)
end


-- Takes the oldest entry of the queue; nil when it is empty.
local function dequeue(cache)
    local evicted = cache.evicted
    if not cache.handle or C.mr_cache_next_evicted(cache.handle, evicted) ~= 1
    then
        return nil
    end
    return {
        id = ffi_string(evicted.key, evicted.key_len),
        text = ffi_string(evicted.value, evicted.value_len),
        reason = REASONS[evicted.reason],
    }
end


local function take(cache)
    return remove(cache.waiting, 1) or dequeue(cache)
end


-- Each hook gets a session of its own.
local function tell(cache, item)
    for _, hook in ipairs(cache.hooks) do
        local session, err = decode(item.text, item.id)
        local ok = session ~= nil
        if ok then
            ok, err = pcall(hook, session, item.reason)
        end
        if not ok then
            cache.hook_errors = cache.hook_errors + 1
            log.warn_limited("on_evict", "on_evict failed: ", tostring(err))
        end
    end
end


local function tell_all(cache, item)
    local told = 0
    while item do
        tell(cache, item)
        told = told + 1
        item = told < MAX_AT_ONCE and take(cache) or nil
    end
end


-- Is this a call out of a hook?
local function is_telling(cache, caller)
    local since = cache.telling[caller]
    return since ~= nil and clock() - since < MAX_PATIENCE
end


---
-- Calls the hooks for what has left.
-- @return true when any was called: the region may have changed, and what the
--         last call into C has returned by pointer is no longer there
function _M.notify(cache)
    if not cache.hooks then
        return false
    end
    local caller = running() or cache
    if is_telling(cache, caller) then
        return false
    end
    local item = take(cache)
    if not item then
        return false
    end
    cache.telling[caller] = clock()
    tell_all(cache, item)
    cache.telling[caller] = nil
    return true
end


---
-- Takes the deletion of a session from the queue, for a caller who does not
-- know yet whether the session is really gone.
-- @param id string
-- @return a value for `release`, or nil
function _M.hold_back(cache, id)
    if not cache.hooks then
        return nil
    end
    local held
    for item in dequeue, cache do
        if item.id == id and item.reason == DELETED then
            held = item
        else
            cache.waiting[#cache.waiting + 1] = item
        end
    end
    return held
end


---
-- Calls the hooks for what `hold_back` has returned.
function _M.release(cache, held)
    if held then
        cache.waiting[#cache.waiting + 1] = held
    end
    _M.notify(cache)
end


---
-- Calls the hooks for everything there is, before the handle is closed. Out of
-- a hook: leaves it to the loop that has called that.
function _M.finish(cache)
    while _M.notify(cache) do end
    for item in dequeue, cache do
        cache.waiting[#cache.waiting + 1] = item
    end
end


return _M
