-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What the nginx workers under test do: some light threads in each of them call
-- a routing storage at random and record what they asked and what they got.
--
-- They prefer ids with low numbers, those who write more than those who load. So
-- some ids are in use all the time, which makes for races, and others are
-- written once in several seconds: a wrong copy there is served for long enough
-- to be noticed.

local binding = require "resty.mooring.ffi"
local bugs = require "history.bugs"
local cjson = require "cjson"
local history = require "history.history"
local mooring = require "resty.mooring"

local floor = math.floor
local format = string.format
local ngx = ngx
local random = math.random

local _M = {}
local mt = { __index = _M }

local THREADS = 4         -- in each worker
local PAUSE = 0.012       -- seconds, at most, between two calls
local WRITES = 0.04       -- share
local AGAIN = 0.3         -- share of writes that are followed by another one
local CALM = 0.1          -- share of loads, of sessions that nobody here writes
local GOING_ON = 300      -- ms a worker does so that has been told to leave


---
-- For init_by_lua.
-- @param opts { replica = "r1", dir = of the history, url = of Redis, ids, calm
--        = counts, entries = of the local tier, until_ms = of the monotonic
--        clock, lease =, ttl = seconds, seed = integer, bug = name of one in
--        history.bugs or "" }
function _M.new(opts)
    bugs.plant(opts.bug)
    opts.store = mooring.routing_storage.new {
        name = "history",
        max_local_entries = opts.entries,
        remote = mooring.redis_storage.new { url = opts.url, ttl = opts.ttl },
        coherence_lease = opts.lease,
        local_ttl = opts.lease,
    }
    return setmetatable(opts, mt)
end


-- -------------------------------------------------------------- operations --

local function any_id(self, power)
    return format("s%02d", floor(random() ^ power * self.ids))
end


local function id_to_load(self)
    if random() < CALM then
        return format("calm%d", floor(random() * self.calm))
    end
    return any_id(self, 3)
end


local function new_value(self, id)
    self.written = self.written + 1
    return format("http://%s.%d.%d/%s", self.replica, ngx.worker.pid(),
                  self.written, id)
end


local function new_session(id, value)
    return mooring.session.new(id, { metadata = { backend_url = value } })
end


local function load(self, id)
    return self.record:load("load", id, function()
        local s, err, code = self.store:load(id)
        if not s then
            return nil, err, code
        end
        return s.id == id and s.metadata.backend_url or "of:" .. s.id, err,
               code, s
    end)
end


local function resolve(self, id)
    self.record:load("resolve", id, function()
        return self.store:resolve(id)
    end)
end


local function put(method)
    return function(self, id)
        local value = new_value(self, id)
        self.record:write(method, id, value, function()
            return self.store[method](self.store, new_session(id, value))
        end)
    end
end


local function delete(self, id)
    self.record:write("delete", id, nil, function()
        return self.store:delete(id)
    end)
end


local function remove_if(self, id)
    local seen = load(self, id)
    if seen then
        self.record:write("remove_if", id, seen.metadata.backend_url, function()
            return self.store:remove_if(id, seen)
        end)
    end
end


local WRITERS = {
    { 0.35, put("store") }, { 0.2, put("create") }, { 0.22, put("update") },
    { 0.18, delete }, { 0.05, remove_if },
}


local function write(self, id)
    local left = random()
    for i = 1, #WRITERS do
        left = left - WRITERS[i][1]
        if left < 0 or i == #WRITERS then
            return WRITERS[i][2](self, id)
        end
    end
end


local function act(self)
    if random() >= WRITES then
        local how = random() < 0.5 and load or resolve
        return how(self, id_to_load(self))
    end
    local id = any_id(self, 4)
    write(self, id)
    if random() < AGAIN then
        ngx.sleep(0.001 + random() * 0.03)
        write(self, id)
    end
end


-- -------------------------------------------------------------- the worker --

-- Requests of a worker that is leaving still call the storage.
local function over(self)
    local now = binding.C.mr_now()
    if not self.leaving_since and ngx.worker.exiting() then
        self.leaving_since = now
    end
    return now >= self.until_ms
           or self.leaving_since and now > self.leaving_since + GOING_ON
end


local function loop(self)
    while not over(self) do
        act(self)
        ngx.sleep(0.001 + random() * PAUSE)
    end
end


local function work(premature, self)
    if premature then
        return
    end
    local threads = {}
    for i = 1, THREADS do
        threads[i] = ngx.thread.spawn(loop, self)
    end
    for i = 1, THREADS do
        local ok, err = ngx.thread.wait(threads[i])
        if not ok then
            ngx.log(ngx.ERR, "history: a thread failed: ", err)
        end
    end
    self.record:close()
end


---
-- For init_worker_by_lua.
function _M.start_worker(self)
    local pid = ngx.worker.pid()
    math.randomseed(self.seed + pid * 7919)
    self.written = 0
    self.record = history.recorder(self.dir, self.replica .. "-" .. pid)
    self.store:start()
    assert(ngx.timer.at(0, work, self))
end


---
-- For a location: the counters of the replica and what a walk through its
-- region finds wrong.
function _M.answer(self)
    local stats = self.store:stats()
    local sound, wrong = self.store.cache:check()
    stats.wrong = not sound and wrong or nil
    ngx.print(cjson.encode(stats))
end


return _M
