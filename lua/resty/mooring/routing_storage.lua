-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Two tiers: a bounded LRU of copies in shared memory over a remote storage,
-- which is the truth.
--
--     resolve(id) --> memo --hit-------------------------> url  no lock
--                       | miss
--                     region --fresh---------------------> url  one lock
--                       | miss, or its time has come
--                     remote --session--> fill w. token--> url  one round trip
--                          '--not found--> the copy leaves ("gone")
--
-- What can go wrong between the tiers, and what keeps it from going wrong:
--
--   * A fetch is under way while somebody deletes or overwrites the session:
--     the fetch took a token before it was sent, the change made the token
--     invalid, the late reply is returned to its caller but not kept.
--   * Two stores of one id at once: each invalidates before it asks the remote,
--     and only one whose token is still valid afterwards keeps its value here.
--     The order the remote saw them in is not known, so otherwise nobody does.
--   * A write whose outcome is unknown (a timeout): the copy leaves.
--   * A process dies anywhere: the copy was removed before the remote was
--     asked.
--   * A change on another replica: Redis pushes it (resty.mooring.coherence),
--     and copies are believed only while a lease proves that it does. Where
--     nothing is pushed, a copy is believed for `local_ttl`.
--   * The remote cannot be reached: copies that nothing speaks against are
--     served all the same, marked stale, unless `serve_stale` is off.

local background = require "resty.mooring.background"
local cache = require "resty.mooring.cache"
local coherences = require "resty.mooring.coherence"
local copies = require "resty.mooring.routing.copies"
local errors = require "resty.mooring.errors"
local fetching = require "resty.mooring.routing.fetch"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local negatives = require "resty.mooring.negative"
local options = require "resty.mooring.options"
local record = require "resty.mooring.record"
local session = require "resty.mooring.session"

local clock = mooring_ffi.now

local closed = errors.closed
local copy = record.copy
local encode = record.encode
local error = error
local invalid_id = session.invalid_id
local fetch = fetching.fetch
local ipairs = ipairs
local ngx = ngx
local setmetatable = setmetatable
local type = type

local KEEP_SESSION, KEEP_URL = cache.KEEP_SESSION, cache.KEEP_URL
local QUIETLY = cache.QUIETLY
local NOT_FOUND = errors.NOT_FOUND
local TIMEOUT = errors.TIMEOUT
local UNAVAILABLE = errors.UNAVAILABLE

local _M = { _VERSION = mooring_ffi._VERSION }
local mt = { __index = _M }

local SWEEP_INTERVAL = 0.1
local SWEEP_PER_CALL = 4

-- How long copies are believed that no invalidation reaches, in seconds.
local LOCAL_TTL, LOCAL_TTL_REDIS = 60, 2

local METHODS = { "store", "load", "delete", "delete_expired", "close" }


local function check_remote(value)
    if type(value) ~= "table" then
        return false, "must be a storage (a table with the methods store, "
                      .. "load, delete, delete_expired and close)"
    end
    for _, name in ipairs(METHODS) do
        if type(value[name]) ~= "function" then
            return false, "must have the method " .. name
        end
    end
    return true
end


local OPTIONS = {
    { name = "max_local_entries", check = options.integer(1, 2^24),
      required = true, doc = "copies held at most" },
    { name = "remote", check = check_remote, required = true,
      doc = "the truth: any object with the five methods" },
    { name = "local_ttl", check = options.positive,
      unit = "seconds",
      doc = "a copy is believed this long unless changes are pushed" },
    { name = "coherence_lease", check = options.positive, default = 2,
      unit = "seconds", doc = "no copy is believed longer without news" },
    { name = "serve_stale", check = options.boolean, default = true,
      doc = "serve known sessions while the remote is unavailable" },
    { name = "negative_ttl", check = options.not_negative, default = 1,
      unit = "seconds", doc = "an unknown id is not asked for again; 0: off" },
    { name = "max_local_bytes", check = options.integer(1, 2^42),
      unit = "bytes", doc = "ids and records of all copies; 512 each" },
    { name = "max_record", check = options.integer(64, 2^24 - 1),
      default = 65536, unit = "bytes", doc = "larger ones are not kept here" },
    { name = "max_id_length", check = options.integer(1, 65535),
      default = session.MAX_ID_LENGTH, unit = "bytes", doc = "longest id" },
    { name = "name", check = options.non_empty_string,
      doc = "shares the copies with all of that name, also after a reload" },
    { name = "on_evict", check = options.callable,
      doc = "function(session, reason), see README" },
}
_M.OPTIONS = OPTIONS


-- A remote that pushes changes: who listens, and how.
local function listen(self, opts)
    local push = self.remote:push()
    self.coherence = coherences.new {
        cache = self.cache,
        key_prefix = push.key_prefix,
        transport = push.transport,
        lease = opts.coherence_lease,
        on_doubt = function(id) fetching.refetch(self, id) end,
    }
    local how = mooring_ffi.in_nginx and "worker" or "inline"
    self.listener = require("resty.mooring.coherence." .. how)
                    .new(self.coherence, push.target)
    self.inline = how == "inline" and self.listener or nil
    push.transport:on_connect(function() self.coherence:data_connected() end)
    if self.cache:is_unleased() then
        self.cache:set_lease(0) -- a new region: nobody listens yet
    end
end


---
-- Makes a routing storage.
-- @param opts table, see OPTIONS and the README
-- @return the storage; raises naming the option that is wrong. A remote that
--         cannot be reached is no error here.
function _M.new(opts)
    opts = options.check(OPTIONS, opts, 2)
    local remote = opts.remote
    local tells_expiry = type(remote.fetch) == "function"
    local self = setmetatable({
        remote = remote,
        tells_expiry = tells_expiry,
        ttl_ms = (remote.ttl or 0) * 1000,
        local_ttl_ms = 1000 * (opts.local_ttl
                       or (tells_expiry and LOCAL_TTL_REDIS or LOCAL_TTL)),
        max_id_length = opts.max_id_length,
        max_record = opts.max_record,
        serve_stale = opts.serve_stale,
        patience = remote.patience or 10,
        flights = fetching.flights(),
        closed = false,
        started = false,
        requests = 0, -- that have used it before it was started
        too_large = 0,
        stale = 0,
    }, mt)
    self.cache = cache.new({
        name = opts.name,
        fingerprint = remote.fingerprint and remote:fingerprint() or "",
        max_entries = opts.max_local_entries,
        max_bytes = opts.max_local_bytes,
        max_record = opts.max_record,
        on_evict = opts.on_evict,
    }, 2)
    self.negative = negatives.new(self.cache, opts.negative_ttl)
    if type(remote.push) == "function" then
        listen(self, opts)
    end
    return self
end


-- --------------------------------------------------------- house-keeping --

local function sweep(self)
    if self.closed then
        return false
    end
    return self.cache:sweep_turn()
end


local function arm(self)
    if not self.started and background.available() then
        self.started = true
        background.every(SWEEP_INTERVAL, self, sweep, true)
        if self.listener then
            self.listener:start()
        end
    end
end


-- Timers would keep an object for ever that is one request's own (with
-- lua_code_cache off): so a second request has to come by first.
local function is_lasting(self)
    if not ngx or ngx.get_phase() == "init_worker" then
        return true
    end
    local ctx = ngx.ctx
    if not ctx[self] then
        ctx[self] = true
        self.requests = self.requests + 1
    end
    return self.requests > 1
end


-- Where there are no timers, each call sweeps a little.
local function keep_house(self)
    if self.started then
        if self.listener then
            self.listener:look_after()
        end
        return
    end
    if background.available() and is_lasting(self) then
        arm(self)
    else
        self.cache:sweep(SWEEP_PER_CALL)
    end
end


---
-- Arms the sweep, takes part in listening and connects the remote in this nginx
-- worker. For init_worker_by_lua: without it the second request in a worker
-- does it.
function _M.start(self)
    arm(self)
    if type(self.remote.start) == "function" then
        self.remote:start()
    end
end


-- What every call begins with: nil, message, code; or nothing when all is well.
local function refuse(self, id, level)
    if type(id) ~= "string" then
        error("id must be a string", (level or 2) + 1)
    end
    if self.closed then
        return closed()
    end
    local wrong = invalid_id(id, self.max_id_length)
    if wrong then
        return nil, wrong, errors.INVALID
    end
    keep_house(self)
end


-- ------------------------------------------------------------------ reads --

-- Looks in the region: the copy, if it may still be believed.
-- @param keep of cache.decode
local function look(self, id, keep)
    local entry = self.cache:find(id)
    if not entry or entry.believed == 0 then
        return nil
    end
    local now = clock()
    if copies.is_old(self, entry.stamp, now) then
        return nil
    end

    local s = self.cache:decode(id, entry, keep)
    if s and self.tells_expiry and now >= entry.fresh_until then
        local left = (entry.expires_at - now) / 1000
        if self.remote:is_due(s, left) then
            copies.claim_and_renew(self, s, entry.ref)
        else
            copies.pass_mark(self, entry)
        end
    end
    return s
end


-- The copy while the remote cannot be asked, unless something speaks against
-- it.
local function stale(self, id)
    local entry = not self.closed and self.serve_stale and self.cache:find(id)
    if entry and entry.dead == 0 then
        local s = self.cache:decode(id, entry)
        if s then
            self.stale = self.stale + 1
            return s, nil, "stale"
        end
    end
end


-- @param keep of cache.decode
-- The last result is true for a session that others have as well.
local function slow_load(self, id, keep)
    local _, err, code = refuse(self, id, 3)
    if code then
        return nil, err, code
    end
    local s = look(self, id, keep)
    if s then
        return s, nil, nil, true
    end
    s, err, code = fetch(self, id)
    if code == UNAVAILABLE or code == TIMEOUT then
        local known, _, mark = stale(self, id)
        if known then
            return known, nil, mark
        end
    end
    return s, err, code
end


---
-- Loads a session from the local tier, or from the remote and keeps a copy.
-- @param id string
-- @return a session of the caller's own (with the third result "stale" when the
--         remote could not be asked); or nil, message, code: not_found,
--         invalid, unavailable, timeout, closed, or whatever the remote says
function _M.load(self, id)
    if self.inline then
        self.inline:poll()
    end
    local known = self.cache:proto(id)
    if known then
        return copy(known)
    end
    local s, err, code, shared = slow_load(self, id, KEEP_SESSION)
    if not s then
        return nil, err, code
    end
    return shared and copy(s) or s, nil, code
end


---
-- The backend_url of a session: the hot path, without allocation.
-- @param id string
-- @return string (and "stale" as load); or nil, message, code as load, and
--         invalid for a session that has no backend_url
function _M.resolve(self, id)
    if self.inline then
        self.inline:poll()
    end
    local url = self.cache:url(id)
    if url then
        return url
    end

    local s, err, code = slow_load(self, id, KEEP_URL)
    if not s then
        return nil, err, code
    end
    url = s.metadata.backend_url
    if not url then
        return nil, "the session has no backend_url", errors.INVALID
    end
    return url, nil, code
end


-- ----------------------------------------------------------------- writes --

-- create and update of a remote that has neither: not atomic.
local function emulate(self, s, method)
    log.warn_once("emulate", "the remote has no create and update: load and ",
                  "store are used instead, which is not atomic")
    local found, err, code = self.remote:load(s.id)
    if not found and code ~= NOT_FOUND then
        return nil, err, code
    elseif found and method == "create" then
        return nil, "session already exists", errors.ALREADY_EXISTS
    elseif not found and method == "update" then
        return errors.not_found()
    end
    return self.remote:store(s)
end


-- Is the remote's session as it was seen? For remotes that cannot compare and
-- act in one step.
local function is_as_seen(self, id, seen)
    local current, err, code = self.remote:load(id)
    if not current then
        if code == NOT_FOUND then
            return false
        end
        return nil, err, code
    end
    return encode(current) == encode(seen)
end


local function emulate_update_if(self, s, seen)
    local same, err, code = is_as_seen(self, s.id, seen)
    if not same then
        return same, err, code
    end
    return self.remote:store(s)
end


local function write_remote(self, s, method, seen)
    local remote = self.remote
    if type(remote[method]) == "function" then
        return remote[method](remote, s, seen)
    elseif seen then
        return emulate_update_if(self, s, seen)
    end
    return emulate(self, s, method)
end


local function write(self, s, method, seen)
    if type(s) ~= "table" or type(s.id) ~= "string" then
        error("session must be a session", 2)
    end
    local id = s.id
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    local text
    text, err, code = encode(s)
    if not text then
        return nil, err, code
    end

    self.cache:invalidate(id, QUIETLY)
    local token = self.cache:token(id)
    local asked = clock()
    local ok
    ok, err, code = write_remote(self, s, method, seen)
    if not ok then
        if not self.closed then
            self.cache:invalidate(id, QUIETLY)
        end
        return ok, err, code
    end

    local left = self.tells_expiry and self.remote:lifetime(s)
    local times = copies.times(self, asked, left)
    local kept = copies.fill(self, id, s, text, times, token, cache.PUT_BUMP)
    if not kept and self.coherence and #text <= self.max_record then
        -- Most often our own write, pushed back to us before its reply was
        -- read. The session is about to be used.
        fetching.refetch(self, id)
    end
    return true
end


---
-- Creates or overwrites a session: in the remote first; if that fails the
-- local tier does not get it.
-- @param s session
-- @return true, or nil, message, code as the remote's store
function _M.store(self, s)
    return write(self, s, "store")
end


---
-- Stores a session whose id is not taken.
-- @return as store, and already_exists
function _M.create(self, s)
    return write(self, s, "create")
end


local function create_in_timer(_, self, s, callback)
    callback(write_remote(self, s, "create"))
end


local function create_remote_later(self, s, callback)
    local remote = self.remote
    if type(remote.create_later) == "function" then
        return remote:create_later(s, callback)
    end
    local ok, err = ngx.timer.at(0, create_in_timer, self, s, callback)
    if not ok then
        return nil, "could not make a timer: " .. err, UNAVAILABLE
    end
    return true
end


---
-- create without waiting, for phases of nginx that cannot. The local tier knows
-- the session at once, and keeps it while the remote cannot say that the id is
-- taken: for callers who are sure of the session until they are told otherwise.
-- @param callback function(created, message, code), called in a timer with what
--        create would have returned
-- @return true, or nil, message, code as create: nothing is under way then
function _M.create_later(self, s, callback)
    if type(s) ~= "table" or type(s.id) ~= "string" then
        error("session must be a session", 2)
    end
    local id = s.id
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    local text
    text, err, code = encode(s)
    if not text then
        return nil, err, code
    elseif look(self, id, KEEP_URL) then
        return nil, "session already exists", errors.ALREADY_EXISTS
    end

    local left = self.tells_expiry and self.remote:lifetime(s)
    copies.fill(self, id, s, text, copies.times(self, clock(), left),
                self.cache:token(id), 0)
    return create_remote_later(self, s, function(created, message, why)
        if not created and why ~= UNAVAILABLE and why ~= TIMEOUT
           and not self.closed
        then
            self.cache:invalidate(id, QUIETLY)
        end
        callback(created, message, why)
    end)
end


---
-- Overwrites a session that is there.
-- @return as store, and not_found
function _M.update(self, s)
    return write(self, s, "update")
end


-- Removes the copy, asks the remote, and removes what was filled meanwhile.
-- The hook hears of it only when the session is really gone.
local function delete_both(self, id, ask)
    self.cache:invalidate(id, cache.DELETED)
    local held = self.cache:hold_back(id)

    local result, err, code = ask()
    if not self.closed then
        self.cache:invalidate(id, (held or not result) and QUIETLY
                                  or cache.DELETED)
    end
    if result then
        self.cache:release(held)
    end
    return result, err, code
end


---
-- Deletes a session from both tiers; an unknown id is no error.
-- @param id string
-- @return true, or nil, message, code as the remote's delete
function _M.delete(self, id)
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    return delete_both(self, id, function()
        return self.remote:delete(id)
    end)
end


local function emulate_remove_if(self, id, seen)
    local same, err, code = is_as_seen(self, id, seen)
    if not same then
        return same, err, code
    end
    return self.remote:delete(id)
end


---
-- Overwrites a session only while it is still as it was seen.
-- @param s session
-- @param seen session of that id as returned by load
-- @return true, false when it is another one by now or gone; or nil, message,
--         code as store
function _M.update_if(self, s, seen)
    return write(self, s, "update_if", seen)
end


---
-- Deletes a session only while it is still as it was seen.
-- @param id string
-- @param seen session as returned by load
-- @return true when it was deleted, false when it is another one by now or
--         gone; or nil, message, code as delete
function _M.remove_if(self, id, seen)
    local _, err, code = refuse(self, id)
    if code then
        return nil, err, code
    end
    return delete_both(self, id, function()
        if type(self.remote.remove_if) == "function" then
            return self.remote:remove_if(id, seen)
        end
        return emulate_remove_if(self, id, seen)
    end)
end


-- ------------------------------------------------------------------- life --

---
-- Delegates to the remote. Copies are looked up again afterwards if it deleted
-- any: which ones, it does not say.
-- @param before unix seconds
-- @return count, or nil, message, code as the remote's delete_expired
function _M.delete_expired(self, before)
    if type(before) ~= "number" or before ~= before then
        error("before must be a number (unix seconds)", 2)
    end
    if self.closed then
        return closed()
    end
    local count, err, code = self.remote:delete_expired(before)
    if not count then
        return nil, err, code
    end
    if count > 0 and not self.closed then
        self.cache:bump_epoch()
    end
    return count
end


---
-- A hash beside the sessions in the remote, see resty.mooring.board. To be
-- called before start().
-- @param name of the board
-- @param on_change function(): it has changed, or may have; in the worker that
--        listens. It must not wait
-- @return board, or nil for a remote that has none
function _M.board(self, name, on_change)
    if type(self.remote.board) ~= "function" then
        return nil
    end
    local board = self.remote:board(name)
    if self.coherence then
        self.coherence:watch(board.key, on_change)
    end
    return board
end


---
-- Do changes in the remote reach this instance in time, in any of its workers?
function _M.is_coherent(self)
    return self.coherence ~= nil and self.cache:is_leased()
end


---
-- Is the remote there? Remotes that cannot tell are taken to be.
-- @return true, or nil, message, code: unavailable, timeout, closed
function _M.ready(self)
    if self.closed then
        return closed()
    end
    if type(self.remote.ready) == "function" then
        return self.remote:ready()
    end
    return true
end


---
-- Has one more function called for each session that leaves, as `on_evict`.
-- @param on_evict function(session, reason)
function _M.add_hook(self, on_evict)
    if type(on_evict) ~= "function" then
        error("on_evict must be a function", 2)
    end
    self.cache:add_hook(on_evict)
end


---
-- Closes this object and its remote: every later call returns closed. Copies of
-- a named storage stay for others of that name.
-- @return true, or what the remote's close returned as an error
function _M.close(self)
    if self.closed then
        return true
    end
    if self.listener then
        self.listener:stop()
    end
    self.closed = true
    local ok, err, code = self.remote:close()
    self.cache:close()
    if not ok then
        return nil, err, code
    end
    return true
end


---
-- Says what sessions are counted by, in this object and from now on.
-- @param classifier function(session) -> integer from 0 (none) to 1023; it is
--        called whenever a copy is kept, and must not change the session
function _M.classify(self, classifier)
    if not options.callable(classifier) then
        error("classifier must be a function", 2)
    end
    if not self.closed then
        self.cache:classify(classifier)
    end
end


---
-- How many copies there are here, of all workers, that were classified so.
-- @return count; or nil, message, code: closed
function _M.tagged(self, tag)
    if self.closed then
        return closed()
    end
    return self.cache:tagged(tag)
end


---
-- @return { ["local"] = table, remote = table or nil, coherence = table or nil
--         }, see the README; or nil, message, code: closed
function _M.stats(self)
    if self.closed then
        return closed()
    end
    local stats = { ["local"] = self.cache:stats() }
    stats["local"].too_large = self.too_large
    stats["local"].stale = self.stale
    if self.coherence then
        stats.coherence = self.coherence:stats()
    end
    if type(self.remote.stats) == "function" then
        stats.remote = self.remote:stats()
    end
    return stats
end


return _M
