-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What operators have said of backends, and how often each was dropped, for all
-- replicas: a hash in Redis (resty.mooring.board),
--
--     mooring:backends   URL -> {"state":"up","incarnation":0,"revision":1}
--
-- changed by one atomic script, pushed to every replica, and kept by each in
-- its dictionary `mooring`, from which its workers take it when the version of
-- the load table has moved:
--
--     operator --EVAL--> Redis --push--> listener: wanted + 1, version + 1
--                                          '--HGETALL--> dictionary, v. + 1
--     other workers, next request: version moved -> adopt; if what is in the
--     dictionary is older than `wanted`: HGETALL, wait for it, then decide
--
-- So a drop that was acknowledged is known wherever its message has arrived,
-- before the next decision there. What can go wrong:
--
--   * The push does not arrive. While the lease holds it does (coherence.lua);
--     once it has ended, and where nothing is pushed at all, one worker of the
--     instance reads every POLL seconds. So a cut-off replica that can still
--     read is wrong for no longer than the lease and a second.
--   * Redis cannot be read. What is known stays, over reloads too. An instance
--     that has never read uses the states of its configuration, and says so.
--   * A read that was sent before a change arrives after it. It is published as
--     of the `wanted` from before it was sent, so it is read again; and nothing
--     that is known goes back by it, see merge().
--   * Redis loses what it has acknowledged (FLUSHALL, an old snapshot, a
--     failover): sessions dropped long ago would be honoured again. `revision`
--     counts the changes of a backend: whoever knows a higher one than Redis
--     keeps that, and writes it back. An incarnation never goes back here.
--   * The hash holds what nobody here asked for: others may write to it, too.
--     Only backends that may be dialled are taken from it, so that it is as
--     bounded as they are, and only numbers there can be. A backend that comes
--     later is a reason to read again, see expire().
--   * Two operators: the script is atomic, drops add up, the last state stays.
--   * Whoever asked for a change is killed, or has no answer in time: then it
--     has happened or not, which the error says.
--
-- Workers write the dictionary without a lock. One may overwrite what another
-- has just written, with something older: this is seen by its `as_of`, and read
-- again.

local cjson = require "cjson.safe"
local errors = require "resty.mooring.errors"
local log = require "resty.mooring.log"
local semaphore = require "ngx.semaphore"

local clock = require("resty.mooring.ffi").now
local format = string.format
local max = math.max
local pairs = pairs
local setmetatable = setmetatable
local tonumber = tonumber
local type = type

local _M = {}
local mt = { __index = _M }

local POLL = 0.25    -- seconds between two reads while nothing is pushed
local PATIENCE = 1   -- seconds a request waits for a read
local RETRY = 1000   -- ms after a read that failed
local MAX = 1e14     -- of numbers; below what a reference may hold

local STATES = { up = true, draining = true, down = true }

-- KEYS[1] the hash; ARGV: URL, change ("" to write back what is known), what
-- the caller knows as JSON. Returns the new value.
local CHANGE = [[
local function count(v)
  v = tonumber(v) or 0
  return v >= 0 and v < 1e14 and v % 1 == 0 and v or 0
end
local function read(text)
  local ok, v = pcall(cjson.decode, text or '')
  v = ok and type(v) == 'table' and v or {}
  local known = v.state == 'draining' or v.state == 'down'
  return { state = known and v.state or 'up', revision = count(v.revision),
           incarnation = count(v.incarnation) }
end
local url, change = ARGV[1], ARGV[2]
local there = redis.call('HGET', KEYS[1], url)
local v, known = read(there), read(ARGV[3])
if known.revision > v.revision then
  v.state, v.revision = known.state, known.revision
end
v.incarnation = math.max(v.incarnation, known.incarnation)
if change ~= '' then
  v.revision = v.revision + 1
  if change == 'drop' then v.incarnation = v.incarnation + 1
  else v.state = change end
end
local text = string.format(
  '{"state":"%s","incarnation":%.0f,"revision":%.0f}',
  v.state, v.incarnation, v.revision)
if text ~= there then redis.call('HSET', KEYS[1], url, text) end
return text
]]


---
-- @param opts { dict = ngx.shared dictionary, prefix = of its keys,
--        board = resty.mooring.board, is_watched = function(): are changes
--        pushed?, may_concern = function(url): could it be a backend of ours?,
--        on_change = function() }
function _M.new(opts)
    local prefix = opts.prefix .. ":states:"
    opts.dict:safe_add(prefix .. "wanted", 0) -- never pushed out
    return setmetatable({
        dict = opts.dict,
        list_key = prefix .. "list",
        wanted_key = prefix .. "wanted",
        poll_key = prefix .. "poll",
        board = opts.board,
        is_watched = opts.is_watched,
        may_concern = opts.may_concern,
        on_change = opts.on_change,
        known = {},     -- URL -> { state, incarnation, revision }
        text = nil,     -- of the dictionary, that known was taken from
        doubted = true, -- it is not known whether known is the latest
        reading = nil,  -- the read under way
        failed_at = -RETRY, looked_at = -RETRY,
    }, mt)
end


-- ------------------------------------------------------------- knowledge --

local function count_of(value)
    local n = tonumber(value) or 0
    return n >= 0 and n < MAX and n % 1 == 0 and n or 0
end


local function read_value(text)
    local value = type(text) == "string" and cjson.decode(text)
    value = type(value) == "table" and value or {}
    return {
        state = STATES[value.state] and value.state or "up",
        incarnation = count_of(value.incarnation),
        revision = count_of(value.revision),
    }
end


local function write_value(value)
    return format('{"state":"%s","incarnation":%.0f,"revision":%.0f}',
                  value.state, value.incarnation, value.revision)
end


-- Adds to `known` what is newer in `values`. An incarnation never goes back.
local function merge(known, values)
    for url, value in pairs(values) do
        local old = known[url]
        if not old then
            known[url] = value
        else
            local newer = value.revision >= old.revision and value or old
            known[url] = {
                state = newer.state,
                revision = newer.revision,
                incarnation = max(value.incarnation, old.incarnation),
            }
        end
    end
end


-- What is in the dictionary.
local function stored(self)
    local text = self.dict:get(self.list_key)
    return text and cjson.decode(text) or nil
end


---
-- Takes what is in the dictionary. Does not wait.
function _M.adopt(self)
    local text = self.dict:get(self.list_key)
    if text and text ~= self.text then
        local content = cjson.decode(text)
        merge(self.known, content.list)
        self.text, self.as_of = text, content.as_of
    end
    self.doubted = not text
                   or self.as_of < (self.dict:get(self.wanted_key) or 0)
end


-- Does the list say all that is known?
local function covers(list, known)
    for url, value in pairs(known) do
        local there = list[url]
        if not there or there.revision ~= value.revision
           or there.incarnation ~= value.incarnation
        then
            return false
        end
    end
    return true
end


-- Puts what is known now into the dictionary. Returns whether that was new.
local function publish(self, as_of)
    local content = stored(self)
    if content then
        merge(self.known, content.list)
        if content.as_of >= as_of and covers(content.list, self.known) then
            return false
        end
        as_of = max(as_of, content.as_of)
    end
    local text = cjson.encode { as_of = as_of, list = self.known }
    local ok, err = self.dict:safe_set(self.list_key, text)
    if not ok then
        log.warn_limited("states", "the states of backends do not fit into ",
                         "lua_shared_dict mooring: ", err)
    end
    return true
end


-- ------------------------------------------------------------------ reads --

-- Redis has lost what it once acknowledged.
local function write_back(self, fields)
    for url, value in pairs(self.known) do
        local there = read_value(fields[url])
        if there.revision < value.revision
           or there.incarnation < value.incarnation
        then
            log.warn_limited("states lost", "Redis has lost the state of a ",
                             "backend, which is written again: ", url)
            self.board:run_later(CHANGE, url, "", write_value(value))
        end
    end
end


local function take_in(self, fields, as_of)
    local values = {}
    for url, text in pairs(fields) do
        if self.known[url] or self.may_concern(url) then
            values[url] = read_value(text)
        end
    end
    self:adopt()
    merge(self.known, values)
    write_back(self, fields)
    if publish(self, as_of) then
        self.on_change()
    end
end


local function could_not_read(self, err)
    self.failed_at = clock()
    local what = self.text and "what was read before stays in force"
                 or "those of the configuration are used"
    log.warn_limited("states", "could not read the states of the backends, ",
                     what, ": ", err)
end


local read

-- What was read, or why nothing was.
local function land(self, reading, fields, err)
    if self.reading == reading then
        self.reading = nil
    end
    if fields then
        take_in(self, fields, reading.as_of)
    else
        could_not_read(self, err)
    end
    if reading.landed then
        reading.landed:post(reading.waiting)
    end
    self:adopt()
    if fields and self.doubted and not self.reading then
        read(self) -- it has changed again meanwhile
    end
end


-- Begins a read of everything, as of now.
function read(self)
    local as_of = self.dict:get(self.wanted_key) or 0
    local reading = { as_of = as_of, since = clock(), waiting = 0 }
    self.reading = reading
    local ok, err = self.board:read_later(function(fields, failure)
        land(self, reading, fields, failure)
    end)
    if not ok then
        self.reading = nil
        could_not_read(self, err)
    end
end


local function is_under_way(self)
    local reading = self.reading
    return reading and clock() - reading.since < PATIENCE * 1000
end


local function is_current(self)
    return is_under_way(self)
           and self.reading.as_of >= (self.dict:get(self.wanted_key) or 0)
end


---
-- Is there something to be learned by settle(), as of the last adopt()?
function _M.may_learn(self)
    return self.doubted and clock() - self.failed_at >= RETRY
end


---
-- Makes sure that the latest is known, if it can be had. May wait, for PATIENCE
-- at most, and not again for RETRY when that was in vain.
function _M.settle(self)
    self:adopt()
    if not self:may_learn() then
        return
    end
    if not is_current(self) then
        read(self)
    end
    local reading = self.reading
    if reading then
        reading.landed = reading.landed or semaphore.new(0)
        reading.waiting = reading.waiting + 1
        if not reading.landed:wait(PATIENCE) then
            could_not_read(self, "no answer in time")
        end
    end
    self:adopt()
end


---
-- Something has changed, or may have: all workers have to read again before
-- they decide. Does not wait.
function _M.doubt(self)
    self.dict:incr(self.wanted_key, 1, 0)
    self.on_change()
    if not is_under_way(self) then
        read(self)
    end
end


---
-- A binding says that there is more to know than is known. Reads again, at most
-- once a second. Does not wait: the binding is honoured, whatever the answer.
function _M.look(self)
    if clock() - self.looked_at >= RETRY and not is_under_way(self) then
        self.looked_at = clock()
        read(self)
    end
end


---
-- There are backends that were none when the hash was read. Does not wait, and
-- reads nothing: the next decision does.
function _M.expire(self)
    self.dict:incr(self.wanted_key, 1, 0)
    self.doubted = true
end


-- Is it this worker's turn to read? Yes when nobody can note it.
local function is_due(self)
    local _, err = self.dict:safe_add(self.poll_key, true, POLL)
    return err ~= "exists"
end


---
-- What there is to do several times a second in each worker.
function _M.tick(self)
    self:adopt()
    if clock() - self.failed_at < RETRY or is_under_way(self) then
        return
    elseif self.doubted or not self.is_watched() and is_due(self) then
        read(self)
    end
end


-- -------------------------------------------------------------- the state --

---
-- @return the state an operator has given a backend: "up" when none
function _M.state(self, url)
    local value = self.known[url]
    return value and value.state or "up"
end


---
-- @return how often a backend was dropped
function _M.incarnation(self, url)
    local value = self.known[url]
    return value and value.incarnation or 0
end


---
-- Changes a backend on all replicas. Waits.
-- @param change "up", "draining", "down" or "drop"
-- @return true; or nil, message, code: unavailable (nothing was changed),
--         timeout (nobody knows), invalid (the hash is none), closed
function _M.change(self, url, change)
    local known = self.known[url]
    local text, err, code = self.board:run("change the backend", CHANGE, url,
                                           change,
                                           known and write_value(known) or "")
    if not text then
        return nil, err, code
    elseif type(text) ~= "string" then
        return nil, "could not change the backend: unexpected reply",
               errors.UNAVAILABLE
    end
    -- Known here at once. The others hear of it by the push, and everybody here
    -- reads again, since more may have changed.
    self.dict:incr(self.wanted_key, 1, 0)
    self:adopt()
    merge(self.known, { [url] = read_value(text) })
    publish(self, self.as_of or 0)
    self.on_change()
    return true
end


return _M
