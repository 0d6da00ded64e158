-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Content handlers that look a session up in Redis: GET and PTTL of its key,
-- the record decoded by the same function, the answer compared. What differs is
-- how they get there. Each asks for the sessions in turn, so that no copy is left
-- when one is asked for again.

local dataset = require "bench.dataset"
local ngx = ngx
local record = require "resty.mooring.record"

local _M = {}

local KEY_PREFIX = "mooring:session:"
local LOCAL_ENTRIES = 1000
local TIMEOUT = 5 -- seconds: a busy machine is no failure here

local ids, n
local at = {} -- by endpoint
local host, port
local routing, hiredis

--- In init_by_lua.
-- @param opts { host =, port =, records = number of sessions in Redis }
function _M.init(opts)
    local redis_storage = require "resty.mooring.redis_storage"
    local url = "redis://" .. opts.host .. ":" .. opts.port .. "/0"
    host, port = opts.host, opts.port
    ids, n = dataset.ids(opts.records, 1), opts.records
    routing = require("resty.mooring.routing_storage").new {
        name = "bench", max_local_entries = LOCAL_ENTRIES,
        remote = redis_storage.new { url = url, command_timeout = TIMEOUT },
    }
    hiredis = redis_storage.new {
        url = url, command_timeout = TIMEOUT, transport = "blocking",
    }
end

--- In init_worker_by_lua.
function _M.init_worker()
    routing:start()
end

local function next_one(endpoint)
    local i = (at[endpoint] or 0) % n + 1
    at[endpoint] = i
    return ids[i]
end

local function answer(id, s, err)
    local url = s and s.metadata.backend_url
    if not s or s.id ~= id or url ~= dataset.url(id) then
        ngx.log(ngx.ERR, "wrong answer: ", tostring(err or url))
        return ngx.exit(500)
    end
    ngx.print(url)
end

--- What the others do without any store.
function _M.nothing()
    local id = next_one("nothing")
    ngx.print(dataset.url(id))
end

--- A miss of the local tier: token, one round trip, decoded, kept, another one
-- evicted.
function _M.mooring()
    local id = next_one("mooring")
    answer(id, routing:load(id))
end

--- The same without a local tier.
function _M.redis_storage()
    local id = next_one("redis_storage")
    answer(id, routing.remote:load(id))
end

--- The usual way: a connection from the pool for each request, a pipeline of two.
function _M.nginx_redis()
    local id = next_one("nginx_redis")
    local redis = require("nginx.redis"):new()
    redis:set_timeout(TIMEOUT * 1000)
    local ok, err = redis:connect(host, port)
    if not ok then
        return answer(id, nil, err)
    end
    redis:init_pipeline(2)
    redis:get(KEY_PREFIX .. id)
    redis:pttl(KEY_PREFIX .. id)
    local replies
    replies, err = redis:commit_pipeline()
    if not replies or type(replies[1]) ~= "string" or replies[2] < 1 then
        return answer(id, nil, err or "not there")
    end
    redis:set_keepalive(60000, 100)
    answer(id, record.decode(replies[1], id))
end

--- A connection that blocks the worker.
function _M.hiredis()
    local id = next_one("hiredis")
    answer(id, hiredis:load(id))
end

return _M
