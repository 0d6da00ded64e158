-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Re-reads a source of backends on an interval: one worker at a time, and its
-- result is for all. Every worker looks a few times an interval whether it is
-- time:
--
--     busy  somebody reads (it says so with each look; expires soon when that
--           worker is killed)
--     due   read already in this interval (expires with it)
--     list  { tag, text }: what was read last, see router/sources.lua
--
-- A read that fails, an empty list and a list that makes no sense change
-- nothing: the last good list stays, for as long as it takes. A worker that is
-- told to leave while it reads forgets the answer: it would be that of the
-- configuration before.

local cjson = require "cjson.safe"
local log = require "resty.mooring.log"
local sources = require "resty.mooring.router.sources"

local exiting = ngx.worker.exiting
local max = math.max
local min = math.min
local ngx = ngx
local pcall = pcall
local setmetatable = setmetatable
local tostring = tostring

local _M = {}
local mt = { __index = _M }

local LOOKS = 4       -- an interval
local SHORTEST = 0.02 -- seconds between two looks
local EAGER = 1       -- longest interval, in seconds, while there is no list
local SILENT = 3      -- looks without a word of the one who reads, and
local LEAST = 1       -- at least so many seconds: it is taken for dead


---
-- @param opts { source =, dict = ngx.shared dictionary, prefix = of its keys,
--        allow = resty.mooring.router.allow, on_change = function(): there is
--        another list, on_failure = function() }
function _M.new(opts)
    local prefix = opts.prefix .. ":members:"
    return setmetatable({
        source = opts.source,
        dict = opts.dict,
        list_key = prefix .. "list",
        busy_key = prefix .. "busy",
        due_key = prefix .. "due",
        allow = opts.allow,
        on_change = opts.on_change,
        on_failure = opts.on_failure,
        period = max(opts.source.interval / LOOKS, SHORTEST),
        reading = false,
        text = nil, peers = nil, -- what members() has returned last
    }, mt)
end


-- The text of the last good list of this source.
local function stored(self)
    local value = self.dict:get(self.list_key)
    local content = value and cjson.decode(value)
    return content and content.tag == self.source.tag and content.text or nil
end


---
-- @return array of peers, the same one until it changes; nil while there is
--         none
function _M.members(self)
    local text = stored(self)
    if text and text ~= self.text then
        self.text, self.peers = text, sources.decode(text)
    end
    return self.peers
end


local function publish(self, text, peers)
    if text == stored(self) then
        return
    end
    for _, peer in ipairs(peers) do
        self.allow:remember(peer.url)
    end
    local ok, err = self.dict:safe_set(self.list_key, cjson.encode {
        tag = self.source.tag, text = text,
    })
    if not ok then
        error("the list does not fit into lua_shared_dict mooring: " .. err, 0)
    end
    self.on_change()
end


local function read(self)
    local text, peers = self.source:read()
    if exiting() then
        return
    elseif not text then
        error(peers, 0)
    end
    publish(self, text, peers)
end


local function refresh(self)
    local ok, err = pcall(read, self)
    if not ok then
        self.on_failure()
        log.warn_limited("refresh", "could not read the backends from ",
                         self.source.what, ", ", stored(self)
                         and "the last good list stays: " or "there are none: ",
                         tostring(err))
    end
end


-- Notes something for all workers; false when it is noted already. Where there
-- is no room for notes each worker is on its own: none is made at the cost of
-- another entry.
local function note(self, key, seconds)
    local _, err = self.dict:safe_add(key, true, seconds)
    return err ~= "exists"
end


local function look(premature, self)
    local patience = max(SILENT * self.period, LEAST)
    if premature then
        return
    elseif self.reading then
        return self.dict:safe_set(self.busy_key, true, patience)
    elseif not note(self, self.busy_key, patience) then
        return
    end
    local interval = self.source.interval
    if not stored(self) then
        interval = min(interval, EAGER)
    end
    if note(self, self.due_key, interval) then
        self.reading = true
        refresh(self)
        self.reading = false
    end
    self.dict:delete(self.busy_key)
end


---
-- Takes part in this worker.
function _M.start(self)
    ngx.timer.at(0, look, self)
    ngx.timer.every(self.period, look, self)
end


return _M
