-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What must stay true of a hit: it is compiled, allocates nothing, and still
-- sees what other processes do.

local belief = require "resty.mooring.cache.belief"
local ffi = require "ffi"
local local_storage = require "resty.mooring.local_storage"
local mooring_ffi = require "resty.mooring.ffi"
local remotes = require "support.remotes"
local routing_storage = require "resty.mooring.routing_storage"
local session = require "resty.mooring.session"

pcall(ffi.cdef, [[
    int fork(void);
    void _exit(int);
    int waitpid(int, int *, int);
    int usleep(unsigned);
]])

local URL = "http://10.0.0.1:8080"

local function make(id, url)
    return session.new(id, { metadata = { backend_url = url or URL } })
end

-- Runs fn in a child process, which shares the regions. Returns a function that
-- waits for it and gives its exit code: 0 when fn returned true.
local function in_child(fn)
    local pid = ffi.C.fork()
    if pid == 0 then
        local ok, result = pcall(fn)
        if not ok then
            io.stderr:write("child: ", tostring(result), "\n")
        end
        ffi.C._exit(ok and result == true and 0 or 1)
    end
    return function()
        local status = ffi.new("int[1]")
        assert(ffi.C.waitpid(pid, status, 0) == pid)
        return status[0] == 0 and 0 or 1
    end
end

-- How often the interpreter passes a thousand instructions while fn runs:
-- compiled code calls no hooks.
local function interpreted(fn)
    local calls = 0
    debug.sethook(function() calls = calls + 1 end, "", 1000)
    fn()
    debug.sethook()
    return calls
end

-- The reasons for which traces are given up while fn runs, but for those the
-- compiler has when it tries again from elsewhere in a loop
-- (retry, leaving and inner loop, loop and call unroll limit, down-recursion).
local RETRIED = { [6] = true, [8] = true, [9] = true, [10] = true, [13] = true, [14] = true }
local function aborts(fn)
    local reasons = {}
    local function on_trace(what, _, _, _, code, reason)
        if what == "abort" and not RETRIED[code] then
            reasons[#reasons + 1] = tostring(code) .. " " .. tostring(reason)
        end
    end
    jit.attach(on_trace, "trace")
    fn()
    jit.attach(on_trace)
    return table.concat(reasons, "; ")
end

local function hits(storage, ids, n)
    local count, found = #ids, 0
    for i = 1, n do
        if storage:resolve(ids[i % count + 1]) then
            found = found + 1
        end
    end
    return found
end

local KINDS = {
    local_storage = function()
        return local_storage.new { max_entries = 2000 }
    end,
    routing_storage = function()
        return routing_storage.new { max_local_entries = 2000, remote = remotes.counting(),
                                     local_ttl = 3600 }
    end,
}

for kind, new in pairs(KINDS) do
    describe("a hit on a " .. kind, function()
        local storage, ids

        before_each(function()
            jit.flush()
            storage, ids = new(), {}
            for i = 1, 1000 do
                ids[i] = ("session-%026d"):format(i * 7919)
                storage:store(make(ids[i]))
                storage:resolve(ids[i])
            end
        end)

        it("is compiled, and nothing in it cannot be", function()
            assert.equal("", aborts(function()
                assert.equal(100000, hits(storage, ids, 100000))
            end))
            assert.is_true(interpreted(function() hits(storage, ids, 1000000) end) < 100)
        end)

        it("allocates nothing once it is compiled", function()
            hits(storage, ids, 100000)
            collectgarbage()
            collectgarbage("stop")
            local before = collectgarbage("count")
            hits(storage, ids, 1000000)
            local grown = collectgarbage("count") - before
            collectgarbage("restart")
            -- a byte a hit would be 977 KiB; what there is comes from the test
            assert.is_true(grown < 4, grown .. " KiB")
        end)

        it("takes a third of the memory where only resolve is used", function()
            local function taken(method)
                local fresh = new()
                for i = 1, 1000 do
                    fresh:store(make(ids[i]))
                end
                collectgarbage()
                collectgarbage()
                local before = collectgarbage("count")
                for i = 1, 1000 do
                    assert(fresh[method](fresh, ids[i]))
                end
                collectgarbage()
                collectgarbage()
                local grown = collectgarbage("count") - before
                return grown, fresh
            end
            local of_resolve, of_load = taken "resolve", taken "load"
            assert.is_true(of_resolve < of_load / 3, of_resolve .. " KiB, " .. of_load)
        end)

        it("is a hit for load and resolve, whichever came first", function()
            local id = ids[1]
            storage:resolve(id)
            assert.equal(URL, storage:load(id).metadata.backend_url)
            assert.is_not_nil(storage.cache:proto(id))
            assert.equal(URL, storage.cache:url(id))
            storage:store(make(id, "http://10.0.0.2:8080"))
            assert.is_nil(storage.cache:proto(id))
            assert.equal("http://10.0.0.2:8080", storage:resolve(id))
            assert.equal("http://10.0.0.2:8080", storage:load(id).metadata.backend_url)
        end)

        it("sees another process's delete in a tight compiled loop", function()
            local id = ids[1]
            local wait = in_child(function()
                ffi.C.usleep(20000)
                return storage.cache:remove(id, storage.cache.DELETED) == 0
            end)
            local cache, n, limit = storage.cache, 0, 2e9
            while cache:url(id) and n < limit do
                n = n + 1
            end
            assert.equal(0, wait())
            assert.is_true(n > 1000, "the loop ended before the delete, after " .. n)
            assert.is_true(n < limit)
        end)
    end)
end

describe("what hits and others call all the time", function()
    -- A function whose own trace can never be finished is put on a black list
    -- after eleven attempts, and whoever calls it is interpreted from then on.
    local function call_interpreted(fn)
        local function run()
            for _ = 1, 200000 do fn() end
        end
        jit.off(run)
        run()
    end

    it("can be compiled, however often it was interpreted before", function()
        local cache = KINDS.routing_storage().cache
        for name, fn in pairs {
            now = mooring_ffi.now,
            pid = mooring_ffi.pid,
            lease = function() return (belief.lease(cache)) end,
            server = function() return (belief.server(cache)) end,
            tagged = function() return (cache:tagged(0)) end,
            bless = function() return (session.bless {}) end,
        } do
            call_interpreted(fn)
            local function compiled()
                for _ = 1, 1000000 do fn() end
            end
            assert.is_true(interpreted(compiled) < 1000, name)
        end
    end)
end)

describe("several processes on one region", function()
    it("see each other's overwrites whole", function()
        local storage = local_storage.new {}
        storage:store(make "a")
        local wait = in_child(function()
            for i = 1, 5000 do
                storage:store(make("a", "http://10.0.0." .. i % 7 .. ":1" .. i % 7))
            end
            return storage:store(make("a", "http://done:1"))
        end)
        local deadline, url = os.time() + 20
        repeat
            url = assert(storage:resolve("a"))
            local host, port = url:match("^http://10%.0%.0%.(%d):1(%d)$")
            assert.equal(host, port)
        until url == "http://done:1" or os.time() > deadline
        assert.equal(0, wait())
        assert.equal("http://done:1", url)
        assert.is_true(storage.cache:check())
    end)

    it("store, load and delete at once without mixing sessions up", function()
        local storage = local_storage.new { max_entries = 200, full = "evict" }
        -- On a busy machine the one with the lock may not run for 10 ms.
        local function must_or_busy(ok, err, code)
            assert(ok or code == "unavailable", err)
        end
        local function work(seed)
            math.randomseed(seed)
            for i = 1, 20000 do
                local id = "id-" .. math.random(300)
                local what = math.random(10)
                if what <= 3 then
                    must_or_busy(storage:store(make(id, "http://" .. id .. "-" .. i)))
                elseif what == 4 then
                    must_or_busy(storage:delete(id))
                else
                    local url = storage:resolve(id)
                    assert(not url or url:match("^http://(id%-%d+)%-%d+$") == id, url)
                    local s = storage:load(id)
                    assert(not s or s.id == id)
                end
            end
            return true
        end
        local children = {}
        for seed = 1, 3 do
            children[seed] = in_child(function() return work(seed) end)
        end
        work(4)
        for _, wait in ipairs(children) do
            assert.equal(0, wait())
        end
        assert.is_true(storage.cache:check())
        local stats = storage:stats()
        assert.is_true(stats.entries <= 200)
        assert.is_true(stats.evicted > 0)
    end)

    it("goes on after one of them is killed in the middle of its writes", function()
        local storage = local_storage.new { max_entries = 100, full = "evict" }
        pcall(ffi.cdef, "int kill(int, int);")
        for round = 1, 20 do
            local pid = ffi.C.fork()
            if pid == 0 then
                for i = 1, 1e9 do storage:store(make("id-" .. i % 150)) end
                ffi.C._exit(0)
            end
            ffi.C.usleep(1000 + round * 317)
            ffi.C.kill(pid, 9)
            ffi.C.waitpid(pid, ffi.new("int[1]"), 0)
            assert.is_true(storage:store(make "mine"))
            assert.equal(URL, storage:resolve("mine"))
            assert.is_true(storage.cache:check())
        end
    end)
end)
