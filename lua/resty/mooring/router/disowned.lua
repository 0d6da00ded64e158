-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions whose backend has answered 404 for them, or was dropped since they
-- were bound, or whose stream has ended (router.legacy). Their bindings go, but
-- neither the header filter nor the log phase can wait for the store: a timer
-- of this worker takes them one after the other. When a backend restarts,
-- thousands of its sessions come by at once, and nginx has only so many timers.
--
-- While the store cannot be asked they wait, each for MAX_TRIES attempts; what
-- is given up then, or does not fit, is counted as `dropped` and is met again
-- with the next 404 of that session. A worker that leaves tries each once more.

local binding = require "resty.mooring.router.binding"
local isolated = require "resty.mooring.isolated"
local log = require "resty.mooring.log"
local scripts = require "resty.mooring.router.scripts"

local exiting = ngx.worker.exiting
local ngx = ngx
local next = next
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local MAX_WAITING = 10000
local MAX_TRIES, PAUSE = 20, 0.5 -- attempts; seconds between them
local SAME = 0.001 -- seconds: a time of a record, written and read again


---
-- @param router whose bindings these are
function _M.new(router)
    return setmetatable({
        router = router,
        waiting = {},    -- id -> what was seen
        count = 0,
        busy = false,
    }, mt)
end


local function drop(self, id, why)
    self.router.counters:add("dropped")
    log.warn_limited("disowned", "could not forget the session ", log.id(id),
                     " that its backend does not know: ", why)
end


local function put(self, id, seen)
    self.count = self.count + (self.waiting[id] and 0 or 1)
    self.waiting[id] = seen
end


local function take(self)
    local id, seen = next(self.waiting)
    if id then
        self.waiting[id] = nil
        self.count = self.count - 1
    end
    return id, seen
end


-- Returns false when the store could not be asked.
local function forget(self, id, seen)
    local ok, err = binding.forget(self.router, id, seen.reference, function(s)
        -- A session made since then is not the one that was seen.
        return (not seen.at or s.created_at <= seen.at)
               and (not seen.path or binding.is_endpoint(s, seen.path)
                    and scripts.forgets(self.router, s, seen.req))
    end, seen.event)
    if ok ~= nil then
        return true
    end
    seen.tries = seen.tries + 1
    if seen.tries >= MAX_TRIES or exiting() then
        drop(self, id, err)
    elseif not self.waiting[id] then
        put(self, id, seen)
    end
    return false
end


-- Returns false when there is no use in going on now.
local function forget_all(self)
    for id, seen in take, self do
        if not forget(self, id, seen) and not exiting() then
            return false
        end
    end
    return true
end


local function run(_, self)
    local ok, done = isolated.pcall(forget_all, self)
    if not ok then
        log.warn_limited("disowned", "could not forget sessions: ", done)
    end
    self.busy = next(self.waiting) ~= nil and not (ok and done)
                and ngx.timer.at(PAUSE, run, self) or false
end


local function add(self, id, seen)
    if self.count >= MAX_WAITING then
        return drop(self, id, "too many are waiting")
    end
    put(self, id, seen)
    if not self.busy then
        self.busy = ngx.timer.at(0, run, self) or false
    end
end


---
-- A session is not known at its backend any more: its binding goes soon.
-- @param id string
-- @param reference what it is bound to
-- @param path of the request it answered 404 to; nil when the binding goes for
--        what it refers to
-- @param req that request, for the policy; nil when it does not ask
function _M.add(self, id, reference, path, req)
    if not self.waiting[id] then
        add(self, id, { reference = reference, path = path, req = req,
                        at = path and ngx.req.start_time(), tries = 0 })
    end
end


---
-- A session has ended: its binding goes soon.
-- @param id string
-- @param reference what it is bound to
-- @param created_at of the session
function _M.add_ended(self, id, reference, created_at)
    add(self, id, { reference = reference, at = created_at + SAME, tries = 0,
                    event = "ended" })
end


return _M
