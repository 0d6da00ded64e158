-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Sessions whose backend has answered 404 for them. Their bindings go, but the
-- header filter that sees the 404 cannot wait for the store: a timer of this
-- worker takes them one after the other. When a backend restarts, thousands of
-- its sessions come by at once, and nginx has only so many timers.

local binding = require "resty.mooring.router.binding"
local log = require "resty.mooring.log"

local ngx = ngx
local next = next
local pcall = pcall
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- What does not fit is met again with the next 404 of that session.
local MAX_WAITING = 10000


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


local function take(self)
    local id, seen = next(self.waiting)
    if id then
        self.waiting[id] = nil
        self.count = self.count - 1
    end
    return id, seen
end


local function forget(self, id, seen)
    local ok, err = binding.forget(self.router, id, seen.url, function(s)
        -- A session made since the request began is not the one it was for.
        return binding.is_endpoint(s, seen.path) and s.created_at <= seen.at
    end)
    if ok == nil then
        log.warn_limited("disowned", "could not forget the session ",
                         log.id(id), " that its backend does not know: ", err)
    end
end


local function forget_all(self)
    for id, seen in take, self do
        forget(self, id, seen)
    end
end


local function run(_, self)
    local ok, err = pcall(forget_all, self)
    self.busy = false
    if not ok then
        log.warn_limited("disowned", "could not forget sessions: ", err)
    end
end


---
-- A backend has disowned a session: its binding goes soon.
-- @param id string
-- @param url of the backend
-- @param path of the request it answered 404 to
function _M.add(self, id, url, path)
    if self.waiting[id] or self.count >= MAX_WAITING then
        return
    end
    self.waiting[id] = { url = url, path = path, at = ngx.req.start_time() }
    self.count = self.count + 1
    if not self.busy then
        self.busy = ngx.timer.at(0, run, self) or false
    end
end


return _M
