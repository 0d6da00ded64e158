-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The backends as one worker sees them. Everything that may change is in memory
-- shared by the workers, and whoever changes it raises the version of the load
-- table; a worker that meets a new version looks at everything anew (adopt).
--
--     source, refresh  which there are    --.
--     states           what operators say --+--> peers (bindings -> backends)
--     health           who fails          --+--> views (for policies)
--     load             how busy they are  --'
--
-- Bound sessions need `peers` only: membership, states and health say where new
-- sessions go, incarnations say which bindings are void.
--
-- What comes late: the version is read before anything is looked at, so what
-- changes meanwhile is met at the next request. Requests keep the peer they
-- have. What is adopted while there is more to be learned counts for no
-- version: requests of sessions go on to ask (sync), by the long way.

local allow = require "resty.mooring.router.allow"
local backends = require "resty.mooring.router.backends"
local errors = require "resty.mooring.errors"
local healths = require "resty.mooring.router.health"
local loads = require "resty.mooring.router.load"
local peers = require "resty.mooring.router.peers"
local refresh = require "resty.mooring.router.refresh"
local replicated = require "resty.mooring.router.states.replicated"
local shared = require "resty.mooring.router.states.shared"

local clock = require("resty.mooring.ffi").now
local floor = math.floor
local huge = math.huge
local ipairs = ipairs
local max = math.max
local min = math.min
local ngx = ngx
local setmetatable = setmetatable
local type = type

local _M = {}
local mt = { __index = _M }

local NO_VERSION = 0 -- of the load table
local TICK = 0.25    -- seconds
local MEAN_AGE = 50  -- ms until the mean load is found out anew
local TRIED = 1000   -- ms after which to look again whether a trial has ended

-- What the load table counts by which field of a view.
local COUNTED_BY = { inflight = "label", sessions = "tag" }

local SEVERITY = { up = 0, draining = 1, down = 2 }


-- Where the words of operators are kept: with the sessions if these are in
-- Redis, else in this nginx.
local function open_states(self, storage)
    local opts = { dict = self.dict, prefix = self.name,
                   on_change = self.on_change }
    local board = self.dict and type(storage.board) == "function"
                  and storage:board("backends", function()
                      self.states:doubt()
                  end)
    if not board then
        return shared.new(opts)
    end
    opts.board = board
    opts.is_watched = function()
        return type(storage.is_coherent) == "function"
               and storage:is_coherent()
    end
    opts.may_concern = function(url) return self.allow:permits(url) end
    return replicated.new(opts)
end


-- The mean load of the backends that are counted, for a weight of 1.
local function mean_of(self, name)
    local count, by = self.load[name], COUNTED_BY[name]
    local sum, weight = 0, 0
    for _, view in ipairs(self.views) do
        if view[by] ~= loads.NONE then
            sum, weight = sum + count(self.load, view[by]), weight + view.weight
        end
    end
    return weight > 0 and sum / weight or 0
end


-- What a policy sees of a backend: its load is looked up when it is asked for.
-- One that is not counted is as busy as the others are: were it idle, policies
-- would send everything there.
local function view_meta(self)
    local means, due = {}, { inflight = 0, sessions = 0 }

    local function mean(name)
        local now = clock()
        if now >= due[name] then
            means[name], due[name] = mean_of(self, name), now + MEAN_AGE
        end
        return means[name]
    end

    return {
        __index = function(view, name)
            local by = COUNTED_BY[name]
            if not by then
                return nil
            elseif view[by] == loads.NONE then
                return mean(name) * view.weight
            end
            return self.load[name](self.load, view[by])
        end,
    }
end


---
-- @param opts { name = of the router, source = router/sources.lua,
--        dict = ngx.shared dictionary or nil, load = router/load.lua,
--        storage =, allow = the option, max_fails =, fail_timeout = seconds,
--        on_failure = function(): a refresh has failed }
function _M.new(opts)
    local load = opts.load
    local self = setmetatable({
        name = opts.name,
        dict = opts.dict,
        load = load,
        source = opts.source,
        on_change = function() load:bump_version() end,
        version = nil,   -- that this worker has adopted
        recheck_at = huge,
    }, mt)
    self.view_meta = view_meta(self)
    self.allow = allow.new(opts.allow, self.dict, self.name, function()
        self.states:expire()
    end)
    self.states = open_states(self, opts.storage)
    self.health = healths.new {
        dict = self.dict, prefix = self.name, max_fails = opts.max_fails,
        fail_timeout = opts.fail_timeout, on_change = self.on_change,
    }
    self.peers = peers.new(self.allow, load, function(url)
        return self.states:incarnation(url)
    end)
    self.peers.on_newer = function() self.states:look() end
    self.refresh = opts.source.read and refresh.new {
        source = opts.source, dict = self.dict, prefix = self.name,
        allow = self.allow, on_change = self.on_change,
        on_failure = opts.on_failure,
    }
    self:adopt()
    return self
end


-- --------------------------------------------------------------- adoption --

local function members_of(self)
    return self.source.peers or self.refresh:members() or self.members or {}
end


-- An operator can only restrict what the configuration says.
local function state_of(self, peer)
    local own, said = peer.state, self.states:state(peer.url)
    return SEVERITY[said] > SEVERITY[own] and said or own
end


local function make_views(self)
    local views = {}
    for i, peer in ipairs(self.members) do
        views[i] = setmetatable({
            url = peer.url,
            weight = peer.weight,
            state = state_of(self, peer),
            label = peer.label,
            tag = self.load:tag(peer.url, self.states:incarnation(peer.url)),
            peer = self.peers:current(peer.url),
        }, self.view_meta)
    end
    self.views, self.eligible = views, nil
    self.more_tries = max(1, #views - 1)
end


---
-- Looks at everything anew. Does not wait.
function _M.adopt(self)
    self.version = self.load:version()
    self.states:adopt()
    local members = members_of(self)
    if members ~= self.members then
        self.members = members
        for _, peer in ipairs(members) do
            peer.label = self.load:label(peer.url)
        end
        self.allow:set_members(members)
    end
    self.peers:reset(members)
    make_views(self)
    if self.states:may_learn() then
        self.version = NO_VERSION
    end
end


---
-- Looks at everything anew if that may have changed, and makes sure that the
-- latest drops are known. May wait for the store; to be called where that is
-- possible, with nothing begun.
function _M.sync(self)
    if self.states.doubted or self.load:version() ~= self.version then
        self.states:settle()
        if self.load:version() ~= self.version then
            self:adopt()
        end
    end
end


-- ------------------------------------------------------------ new sessions --

-- Where they may go, by health: what is healthy, and what it is time to try
-- again; all that are up when that is nothing.
local function choose(self)
    local now, recheck_at = clock(), huge
    local up, chosen = {}, {}
    for _, view in ipairs(self.views) do
        if view.state == "up" then
            up[#up + 1] = view
            local due, tried = self.health:failed_until(view.url)
            view.trial = due ~= nil and due <= now and not tried
            if not due or view.trial then
                chosen[#chosen + 1] = view
            else
                recheck_at = min(recheck_at, tried and now + TRIED or due)
            end
        end
    end
    self.eligible = #chosen > 0 and chosen or up
    self.recheck_at = recheck_at
end


---
-- The backends that may take a new session.
-- @return array of views { url, weight, state, inflight, sessions, peer }: to
--         be read only, and the same until something changes. May be empty
function _M.candidates(self)
    if self.load:version() ~= self.version then
        self:adopt()
    end
    if not self.eligible or clock() >= self.recheck_at then
        choose(self)
    end
    return self.eligible
end


---
-- May the request go to the backend that was picked for it? Of those that might
-- try one that has failed, one does.
-- @param view one of candidates(); when the answer is false these are others
function _M.admits(self, view)
    if not view.trial or self.health:claim_trial(view.url) then
        if view.trial then
            self.eligible = nil
        end
        return true
    end
    self.eligible = nil
    return false
end


-- ------------------------------------------------------------------- load --

---
-- A request to a peer begins. Each has to be followed by one leave(): that of
-- the log phase once the peer is in router.requests.
function _M.enter(self, peer)
    self.load:begin(peer.label)
end


---
-- It has ended.
function _M.leave(self, peer)
    self.load:finish(peer.label)
end


-- -------------------------------------------------------------- operators --

---
-- Changes a backend, on all replicas. Waits for the store.
-- @param url of a backend that is or was configured
-- @param change "up", "draining", "down" or "drop"
-- @return the URL as it is known; or nil, message, code: invalid, not_found,
--         unavailable, timeout (the outcome is not known)
function _M.change(self, url, change)
    local parsed, must = backends.parse(url)
    if not parsed then
        return nil, "the backend " .. must, errors.INVALID
    elseif not self.allow:permits(parsed.url) then
        return nil, "there is no such backend", errors.NOT_FOUND
    end
    local ok, err, code = self.states:change(parsed.url, change)
    return ok and parsed.url, err, code
end


-- ------------------------------------------------------------- background --

local function tick(premature, self)
    if premature then
        return
    end
    self.states:tick()
    if self.load:version() ~= self.version then
        self:adopt()
    end
end


---
-- Begins the background work of this worker. For init_worker_by_lua.
function _M.start(self)
    self:adopt()
    ngx.timer.at(0, tick, self)
    ngx.timer.every(TICK, tick, self)
    if self.refresh then
        self.refresh:start()
    end
end


---
-- @return array of { url, weight, state, inflight, sessions, incarnation,
--         failed }, by backend
function _M.stats(self)
    if self.load:version() ~= self.version then
        self:adopt()
    end
    local list = {}
    for i, view in ipairs(self.views) do
        list[i] = {
            url = view.url,
            weight = view.weight,
            state = view.state,
            inflight = floor(view.inflight),
            sessions = floor(view.sessions),
            incarnation = self.states:incarnation(view.url),
            failed = self.health:failed_until(view.url) ~= nil,
        }
    end
    return list
end


return _M
