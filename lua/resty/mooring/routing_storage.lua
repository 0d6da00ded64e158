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
--
-- Where that is done:
--
--     routing/reads.lua   load, resolve: memo, region, stale copies
--     routing/fetch.lua   misses: from the remote into the region
--     routing/writes.lua  store, create, update, delete, update_if, remove_if
--     routing/copies.lua  how copies are put, for how long, and their renewal
--     routing/remote.lua  remotes that have less than Redis
--     routing/house.lua   what each call begins with, and the sweep
--
-- and here are its options and its life: new, start, ready, close, stats.

local cache = require "resty.mooring.cache"
local coherences = require "resty.mooring.coherence"
local errors = require "resty.mooring.errors"
local fetching = require "resty.mooring.routing.fetch"
local house = require "resty.mooring.routing.house"
local mooring_ffi = require "resty.mooring.ffi"
local negatives = require "resty.mooring.negative"
local options = require "resty.mooring.options"
local reads = require "resty.mooring.routing.reads"
local session = require "resty.mooring.session"
local writes = require "resty.mooring.routing.writes"

local closed = errors.closed
local error = error
local ipairs = ipairs
local setmetatable = setmetatable
local type = type

local _M = { _VERSION = mooring_ffi._VERSION }
local mt = { __index = _M }

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
    { name = "local_ttl", check = options.seconds,
      unit = "seconds",
      doc = "a copy is believed this long unless changes are pushed" },
    { name = "coherence_lease", check = options.seconds, default = 2,
      unit = "seconds", doc = "no copy is believed longer without news" },
    { name = "serve_stale", check = options.boolean, default = true,
      doc = "serve known sessions while the remote is unavailable" },
    { name = "negative_ttl", check = options.seconds_or_0, default = 1,
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
    self.inline = how == "inline" and self.listener
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
        inline = false, -- the listener, where each call has to poll it
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


-- -------------------------------------------------------------- sessions --

_M.load = reads.load
_M.resolve = reads.resolve

_M.store = writes.store
_M.create = writes.create
_M.create_later = writes.create_later
_M.update = writes.update
_M.update_if = writes.update_if
_M.delete = writes.delete
_M.remove_if = writes.remove_if


-- ------------------------------------------------------------------- life --

---
-- Arms the sweep, takes part in listening and connects the remote in this nginx
-- worker. For init_worker_by_lua: without it the second request in a worker
-- does it.
function _M.start(self)
    house.arm(self)
    if type(self.remote.start) == "function" then
        self.remote:start()
    end
end


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
