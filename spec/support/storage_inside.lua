-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What runs inside the nginx of support.storage_app: single operations on its
-- storage, and measurements that a process started for each operation would
-- be too slow for. Times are milliseconds of the host's monotonic clock, the
-- same in every process.

local cjson = require "cjson"
local mooring_ffi = require "resty.mooring.ffi"
local redis_storage = require "resty.mooring.redis_storage"
local routing_storage = require "resty.mooring.routing_storage"
local sessions = require "resty.mooring.session"

local clock = mooring_ffi.C.mr_now
local ngx = ngx
local sleep = ngx.sleep

local _M = {}

local storage
local events -- shared: what on_evict was told
local ops = {}

local function make(args)
    return sessions.new(args.id, {
        metadata = { backend_url = args.url or "http://10.0.0.1:8080" },
    })
end

-- Results of a storage call as something JSON can hold.
local function result(value, err, code)
    return { value = value, err = err, code = code }
end

-------------------------------------------------------- single operations ---

for _, method in ipairs { "store", "create", "update" } do
    ops[method] = function(args)
        return result(storage[method](storage, make(args)))
    end
end

function ops.load(args)
    local s, err, code = storage:load(args.id)
    return result(s and s.metadata.backend_url, err, code)
end

for _, method in ipairs { "resolve", "delete" } do
    ops[method] = function(args)
        return result(storage[method](storage, args.id))
    end
end

for _, method in ipairs { "ready", "close" } do
    ops[method] = function() return result(storage[method](storage)) end
end

--- Loads a session and removes it if it is still the same.
function ops.remove_seen(args)
    local s, err, code = storage:load(args.id)
    if not s then
        return result(nil, err, code)
    end
    return result(storage:remove_if(args.id, s))
end

function ops.stats()
    local stats = storage:stats()
    stats.now = clock()
    stats.lease = storage.cache:lease()
    stats.memory = collectgarbage("count")
    return result(stats)
end

--- Fetches under way in this worker: { id = requests that have joined it }.
function ops.flights()
    local list = {}
    for id, flight in pairs(storage.flights) do
        list[id] = flight.waiting
    end
    return { value = list, connections = tonumber(ngx.var.connections_active) }
end

--- An entry of the local tier, without a use of it.
function ops.peek(args)
    local entry = storage.cache:find(args.id, true)
    if not entry then
        return { value = false }
    end
    return { value = true, believed = entry.believed ~= 0, dead = entry.dead ~= 0,
             fresh_until = entry.fresh_until, expires_at = entry.expires_at }
end

function ops.check()
    return result(storage.cache:check())
end

--- What on_evict was told so far in all workers: { "id reason", ... }.
function ops.events()
    local list = {}
    for i = 1, events:llen("events") do
        list[i] = events:lpop("events")
    end
    return result(list)
end

--- The results of several operations one after the other.
function ops.all(args)
    local list = {}
    for i, one in ipairs(args.list) do
        list[i] = ops[one.op](one)
    end
    return list
end

--- How long an operation takes, ms.
function ops.timed(args)
    local from = clock()
    local answer = ops[args.what.op](args.what)
    answer.ms = clock() - from
    return answer
end

--- Timers of this worker.
function ops.timers()
    return result(ngx.timer.running_count() + ngx.timer.pending_count())
end

--- A command on this worker's data connection.
function ops.redis(args)
    local replies, err, code = storage.remote.transport:call { args.command }
    return result(replies and replies[1], err, code)
end

--- Holds the worker without letting it turn its event loop.
function ops.block(args)
    local till = clock() + args.ms
    repeat until clock() >= till
    ngx.update_time()
    return result(true)
end

--- Turns the event loop n times. The milliseconds it took, and the slowest.
function ops.turn(args)
    local began, slowest = clock(), 0
    for _ = 1, args.n do
        local before = clock()
        sleep(0.001)
        slowest = math.max(slowest, clock() - before)
    end
    return { ms = clock() - began, slowest = slowest }
end

--- Waits, as a request that is under way when something happens.
function ops.linger(args)
    events:incr("lingering", 1, 0)
    sleep(args.seconds)
    events:incr("lingering", -1)
    return ops[args.what.op](args.what)
end

--- How many requests do that.
function ops.lingering()
    return result(events:get("lingering") or 0)
end

------------------------------------------------------------- measurements ---

--- Stores n sessions called prefix1, prefix2, ...
function ops.fill(args)
    for i = 1, args.n do
        local ok, err = storage:store(make { id = args.prefix .. i, url = args.url })
        if not ok then
            return result(nil, err)
        end
    end
    return result(true)
end

local function is_hit(id)
    return storage.cache:url(id) ~= nil
end

--- Uses n sessions until all are hits at once, so that echoes of writes have
-- come and gone.
function ops.warm(args)
    local deadline = clock() + (args.seconds or 10) * 1000
    repeat
        local misses = 0
        for i = 1, args.n do
            local id = args.prefix .. i
            if not is_hit(id) then
                misses = misses + 1
                storage:resolve(id)
            end
        end
        if misses > 0 then
            sleep(0.01)
        end
    until misses == 0 or clock() > deadline
    return result(deadline > clock())
end

--- Resolves one session, or prefix1 to prefix`of` in turn, n times, with a
-- `pause` in seconds after each (or after `every` of them): how often with which
-- result, how many of them were hits of the memo, and the slowest in ms.
function ops.use(args)
    local counts, hits, slowest = {}, 0, 0
    for i = 1, args.n do
        local id = args.prefix and args.prefix .. (i - 1) % args.of + 1 or args.id
        hits = hits + (is_hit(id) and 1 or 0)
        local from = clock()
        local url, _, code = storage:resolve(id)
        slowest = math.max(slowest, clock() - from)
        local what = code or url and "ok"
        counts[what] = (counts[what] or 0) + 1
        if args.pause and i % (args.every or 1) == 0 then
            sleep(args.pause)
        end
    end
    return { counts = counts, hits = hits, slowest = slowest }
end

-- Lets the worker turn its event loop, as short as can be. (Timers of 0 ms
-- follow each other within one turn.)
local function turn()
    storage.remote.transport:call { { "PING" } }
end

--- Asks for n sessions all the time until none is found any more. When was each
-- found for the last time?
function ops.watch(args)
    local left, last = {}, {}
    for i = 1, args.n do
        left[args.prefix .. i] = true
    end
    local deadline = clock() + args.seconds * 1000
    while next(left) and clock() < deadline do
        for id in pairs(left) do
            if storage:resolve(id) then
                last[id] = clock()
            else
                left[id] = nil
            end
        end
        turn()
    end
    return { last = last, unfinished = next(left) ~= nil }
end

--- Deletes n sessions, `pause` seconds apart. When was each acknowledged?
function ops.delete_all(args)
    local acknowledged = {}
    for i = 1, args.n do
        local id = args.prefix .. i
        if storage:delete(id) then
            acknowledged[id] = clock()
        end
        sleep(args.pause)
    end
    return { acknowledged = acknowledged }
end

--- Stores versions 1, 2, ... of one session until told to stop by a key of that
-- name in the shared dictionary. When was each acknowledged?
function ops.write_versions(args)
    local acknowledged, version = {}, args.from or 0
    local deadline = clock() + args.seconds * 1000
    events:delete("stop " .. args.id)
    while clock() < deadline and not events:get("stop " .. args.id) do
        version = version + 1
        if storage:store(make { id = args.id, url = "http://v:" .. version }) then
            acknowledged[#acknowledged + 1] = { version, clock() }
        end
        sleep(args.pause)
    end
    return { acknowledged = acknowledged }
end

--- Asks for a session all the time, likewise. When was a question asked last that
-- got each version for an answer (without "stale"), how many answers of which
-- kind were there, and how long did the slowest take, ms? (And the longest gap
-- between two: the worker did something else.)
function ops.observe(args)
    local last, counts, slowest, gap = {}, {}, 0, 0
    local deadline = clock() + args.seconds * 1000
    events:delete("stop " .. args.id)
    while clock() < deadline and not events:get("stop " .. args.id) do
        local from = clock()
        local url, _, code = storage:resolve(args.id)
        slowest = math.max(slowest, clock() - from)
        local what = code or "ok"
        counts[what] = (counts[what] or 0) + 1
        if url and not code then
            last[url:match("%d+$")] = from
        end
        from = clock()
        sleep(args.pause or 0.002)
        gap = math.max(gap, clock() - from)
    end
    return { last = last, counts = counts, slowest = slowest, gap = gap }
end

function ops.stop(args)
    events:set("stop " .. args.id, true)
    return result(true)
end

--- Asks for one session in n light threads at once.
function ops.together(args)
    local threads, counts = {}, {}
    for i = 1, args.n do
        threads[i] = ngx.thread.spawn(function()
            local url, _, code = storage:resolve(args.id)
            local what = code or url
            counts[what] = (counts[what] or 0) + 1
        end)
    end
    for i = 1, args.n do
        ngx.thread.wait(threads[i])
    end
    return { counts = counts }
end

--- Asks for n different ids in `threads` light threads.
function ops.flood(args)
    local counts, asked, threads = {}, 0, {}
    collectgarbage()
    local before = collectgarbage("count")
    for i = 1, args.threads do
        threads[i] = ngx.thread.spawn(function()
            while asked < args.n do
                asked = asked + 1
                local _, _, code = storage:resolve(args.prefix .. asked)
                counts[code or "ok"] = (counts[code or "ok"] or 0) + 1
            end
        end)
    end
    for i = 1, args.threads do
        ngx.thread.wait(threads[i])
    end
    threads = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    return { counts = counts, kilobytes = collectgarbage("count") - before }
end

------------------------------------------------------------ the app itself ---

--- For init_by_lua.
-- @param opts  { redis = options of redis_storage, routing = of
--              routing_storage, remote = a function that makes the remote }
function _M.init(opts)
    events = ngx.shared.events
    local routing = opts.routing
    routing.remote = redis_storage.new(opts.redis)
    routing.on_evict = function(s, reason)
        events:rpush("events", s.id .. " " .. reason)
    end
    storage = routing_storage.new(routing)
    _M.storage = storage
end

local function report(premature)
    if not premature then
        local stats = storage:stats()
        local coherence = stats and stats.coherence
        ngx.shared.workers:set(ngx.worker.pid(), cjson.encode(coherence or {}), 1)
        ngx.timer.at(0.02, report)
    end
end

--- For init_worker_by_lua: starts the storage, and keeps telling what this
-- worker knows of its coherence.
function _M.start()
    storage:start()
    ngx.timer.at(0, report)
end

-- Turns a request down that is for another worker, and is deaf for long enough
-- for the other one to accept the next.
local function turn_down()
    ngx.print("wrong worker")
    ngx.eof()
    ops.block { ms = 30 }
end

-- Hands a request that is for another worker over, by making this one deaf
-- until the other has accepted it.
local function forward(pid, body)
    for _ = 1, 100 do
        local sock = ngx.socket.tcp()
        sock:settimeouts(1000, 1000, 60000)
        assert(sock:connect("127.0.0.1", ngx.var.server_port))
        assert(sock:send("POST /do HTTP/1.0\r\nX-Worker: " .. pid
            .. "\r\nX-Last: 1\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body))
        ops.block { ms = 2 }
        local answer = sock:receive("*a")
        local text = answer and answer:match("\r\n\r\n(.+)$")
        if text and text ~= "wrong worker" then
            return text
        end
    end
    return cjson.encode { err = "could not reach worker " .. pid }
end

-- Tells who began the request that it is under way.
local function accept()
    local path = ngx.var.http_x_accepted
    if path then
        local file = assert(io.open(path, "w"))
        file:write("accepted")
        file:close()
    end
end

--- For content_by_lua: runs the operation in the body.
function _M.run()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local wanted = tonumber(ngx.var.http_x_worker)
    if wanted and wanted ~= ngx.worker.pid() then
        if ngx.var.http_x_last then
            return turn_down()
        end
        return ngx.print(forward(wanted, body))
    end
    accept()
    local args = cjson.decode(body)
    local ok, answer = pcall(ops[args.op], args)
    if not ok then
        ngx.status = 500
        answer = { err = tostring(answer) }
    end
    answer.pid, answer.exiting = ngx.worker.pid(), ngx.worker.exiting()
    ngx.print(cjson.encode(answer))
end

--- What the workers have told: { [pid] = stats().coherence }.
function _M.workers()
    local found = {}
    for _, pid in ipairs(ngx.shared.workers:get_keys(100)) do
        found[tostring(pid)] = cjson.decode(ngx.shared.workers:get(pid) or "{}")
    end
    ngx.print(cjson.encode(found))
end

return _M
