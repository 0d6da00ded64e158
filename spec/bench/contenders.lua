-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What keeps sessions in the memory of an nginx worker, and how it is asked for
-- the backend of one. All of it runs in workers, with nginx' own clock.
--
-- A contender:
--     shared         all workers have the same contents
--     init(size)     in the master, before there are workers; optional
--     new(size)      in a worker; gives the cache the others are called with
--     put(cache, id, url)   keeps a session, evicting another one when full
--     fill(cache, id, url)  the same for contents that are only to be there,
--                    when there is a quicker way; optional
--     gets           name -> function(cache, id) -> url
--     dict(size)     bytes of the shared dictionary it needs; optional
--     lean           the get that takes less memory than the others; optional
--     module         that it needs; optional
--     fetched()      how often the remote tier was asked; optional

local cjson = require "cjson"
local dataset = require "bench.dataset"
local record = require "resty.mooring.record"
local session = require "resty.mooring.session"

local clock = require("resty.mooring.ffi").now
local copy = record.copy
local decode = cjson.decode

local TTL = 7200

local _M = {}

local function new_session(id, url)
    return session.new(id, { metadata = { backend_url = url } })
end

-- What a caller does with a session that is its own: keeps it beyond the loop,
-- or the compiler would not make it.
local kept = {} -- luacheck: ignore 241

-- The record of a session without making the session, for filling.
local before_id, after_id = (record.encode(new_session("ID", "URL"))):match("^(.*)ID(.*)URL")
local function record_of(id, url)
    return before_id .. id .. after_id .. url .. '"}}'
end

------------------------------------------------------------------- mooring ---

-- Holds nothing and knows everything. Look-ups get as far only when another
-- process has held the lock for 10 ms.
local fetched = 0
local REMOTE = {
    store = function() return true end,
    load = function(_, id)
        fetched = fetched + 1
        return new_session(id, dataset.url(id))
    end,
    delete = function() return true end,
    delete_expired = function() return 0 end,
    close = function() return true end,
}

local storage

_M.mooring = {
    shared = true,
    lean = "resolve",
    init = function(size)
        storage = require("resty.mooring.routing_storage").new {
            name = "bench", max_local_entries = size, remote = REMOTE, local_ttl = TTL,
        }
    end,
    new = function() return storage end,
    fetched = function() return fetched end,
    put = function(cache, id, url) return assert(cache:store(new_session(id, url))) end,
    fill = function(cache, id, url)
        local now = clock()
        local times = { stamp = now, fresh_until = now + TTL * 1000, expires_at = 1e300 }
        assert(cache.cache:put(id, record_of(id, url), 0, times) == 0)
    end,
    gets = {
        resolve = function(cache, id) return cache:resolve(id) end,
        load = function(cache, id)
            local s = cache:load(id)
            kept[1] = s
            return s.metadata.backend_url
        end,
    },
}

------------------------------------------------------------------ lrucache ---

local function lrucache(module, ttl)
    return {
        module = module,
        new = function(size) return assert(require(module).new(size)) end,
        put = function(cache, id, url) cache:set(id, url, ttl) end,
        gets = { get = function(cache, id) return (cache:get(id)) end },
    }
end

_M.lrucache_ttl = lrucache("resty.lrucache", TTL)
_M.lrucache = lrucache("resty.lrucache")
_M.pureffi_ttl = lrucache("resty.lrucache.pureffi", TTL)
_M.pureffi = lrucache("resty.lrucache.pureffi")

-- Sessions instead of URLs, of which every caller gets a copy.
_M.lrucache_sessions = {
    new = _M.lrucache.new,
    put = function(cache, id, url)
        cache:set(id, assert(record.decode(record_of(id, url))), TTL)
    end,
    gets = {
        get_copy = function(cache, id)
            local s = copy((cache:get(id)))
            kept[1] = s
            return s.metadata.backend_url
        end,
    },
}

------------------------------------------------------------ ngx.shared.DICT ---

_M.shdict = {
    shared = true,
    -- An entry takes 512 bytes of a slab.
    dict = function(size) return size * 540 + 2 ^ 20 end,
    new = function() return ngx.shared.sessions end,
    put = function(cache, id, url)
        assert(cache:set(id, (record.encode(new_session(id, url))), TTL))
    end,
    fill = function(cache, id, url) assert(cache:set(id, record_of(id, url), TTL)) end,
    gets = {
        get_decode = function(cache, id)
            return decode((cache:get(id))).metadata.backend_url
        end,
    },
}

--------------------------------------------------------------------- table ---

-- Neither a bound nor an expiry nor an order: what no cache in Lua can be
-- faster than. It never evicts.
_M.table = {
    new = function() return {} end,
    put = function(cache, id, url) cache[id] = url end,
    gets = { index = function(cache, id) return cache[id] end },
}

return _M
