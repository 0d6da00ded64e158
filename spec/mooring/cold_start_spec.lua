-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A worker begins with misses, and LuaJIT compiles what it sees then. What must
-- not depend on that is how the hits run which come later: nothing here drops
-- what was compiled before.

local local_storage = require "resty.mooring.local_storage"
local remotes = require "support.remotes"
local routing_storage = require "resty.mooring.routing_storage"
local session = require "resty.mooring.session"
local util = require "jit.util"

local URL = "http://10.0.0.1:8080"
local N = 4000
local CALLERS = 20
-- Look-ups after which LuaJIT has compiled what it can, whatever it tried before.
local WARM = 80000

local KINDS = {
    local_storage = function() return local_storage.new { max_entries = N } end,
    routing_storage = function()
        return routing_storage.new { max_local_entries = N, remote = remotes.counting(),
                                     local_ttl = 3600 }
    end,
}

local function new_ids()
    local ids = {}
    for i = 1, N do
        ids[i] = ("session-%026d"):format(i * 7919)
    end
    return ids
end

-- A storage that has a session for each id, none of which this worker has looked
-- up yet.
local function filled(new, ids)
    local storage = new()
    for i = 1, N do
        storage:store(session.new(ids[i], { metadata = { backend_url = URL } }))
    end
    return storage
end

-- Functions with bytecode of their own, in chunks named "=caller": a trace that
-- begins in one of them tells by its name.
local function caller(text, ...)
    return assert(loadstring(text, "=caller"))(...)
end

-- @param from, to which of the ids it looks up; default all
local function looping_caller(storage, method, ids, from, to)
    local get = caller("local method = ... return function(storage, id) "
                       .. "return storage[method](storage, id) end", method)
    return caller([[
        local get, storage, ids, from, to = ...
        return function()
            local found = 0
            for i = from, to do
                if get(storage, ids[i]) then
                    found = found + 1
                end
            end
            return found
        end]], get, storage, ids, from or 1, to or #ids)
end

-- Callers that look up an equal share of the ids each.
local function callers_of(storage, method, ids)
    local share, list = N / CALLERS, {}
    for i = 1, CALLERS do
        list[i] = looping_caller(storage, method, ids, (i - 1) * share + 1, i * share)
    end
    return list
end

local function warm_up(look_up)
    for _ = 1, WARM / N do
        assert.equal(N, look_up())
    end
end

-- How the traces end that begin in a caller while fn runs: "loop", "return" (to
-- the interpreter), "root" (in another trace), "stitch"; array.
local function endings(fn)
    local list, is_caller = {}, false
    local function on_trace(what, trace, func)
        if what == "start" then
            is_caller = util.funcinfo(func).source == "=caller"
        elseif what == "stop" and is_caller then
            list[#list + 1] = util.traceinfo(trace).linktype
        end
    end
    jit.attach(on_trace, "trace")
    fn()
    jit.attach(on_trace)
    return list
end

-- Instructions the interpreter executes while fn runs, in hundreds.
local function interpreted(fn)
    local hundreds = 0
    debug.sethook(function() hundreds = hundreds + 1 end, "", 100)
    fn()
    debug.sethook()
    return hundreds
end

-- How often compiled code gives up halfway while fn runs.
local function exits(fn)
    local count = 0
    local function on_exit() count = count + 1 end
    jit.attach(on_exit, "texit")
    fn()
    jit.attach(on_exit)
    return count
end

local function has(list, wanted)
    for _, item in ipairs(list) do
        if item == wanted then
            return true
        end
    end
    return false
end

-- Each call is entered as a request is: in a coroutine of its own, by C.
local function request_of(storage, method)
    local handler = caller([[
        local storage, method = ...
        return function(id)
            assert(storage[method](storage, id))
        end]], storage, method)
    local create, resume = coroutine.create, coroutine.resume
    local function request(id) assert(resume(create(handler), id)) end
    jit.off(request)
    return request
end

local function each(ids, request)
    local function run()
        for i = 1, N do
            request(ids[i])
        end
        return N
    end
    jit.off(run)
    return run
end

for kind, new in pairs(KINDS) do
    describe("a worker whose look-ups of a " .. kind .. " all miss at first", function()
        local ids, storage

        before_each(function()
            jit.flush()
            ids = new_ids()
            storage = filled(new, ids)
        end)

        for _, method in ipairs { "resolve", "load" } do
            it("compiles no more of a " .. method .. " than up to the miss", function()
                -- What becomes hot when depends on addresses: so there are many
                -- callers, all of them kept, until some were compiled.
                local callers, how = {}
                repeat
                    storage.cache.refs = {} -- what a miss of the memo is
                    local new_ones = callers_of(storage, method, ids)
                    callers[#callers + 1] = new_ones
                    how = endings(function()
                        for _, look_up in ipairs(new_ones) do
                            look_up()
                        end
                    end)
                until #how > 0 or #callers == 50
                assert.is_true(#how > 0, "none was compiled")
                for _, ending in ipairs(how) do
                    assert.equal("return", ending)
                end
            end)

            it("runs the hits of the same caller compiled, method " .. method, function()
                local look_up = looping_caller(storage, method, ids)
                look_up() -- misses
                warm_up(look_up)
                assert.is_true(interpreted(look_up) < 5)
                assert.is_true(exits(look_up) < 10)
            end)

            it("serves requests from compiled code, method " .. method, function()
                local request = request_of(storage, method)
                local run = each(ids, request)
                run() -- misses
                warm_up(run)
                assert.is_true(exits(run) < N / 100)
            end)
        end

        it("compiles a loop of hits as a loop", function()
            looping_caller(storage, "resolve", ids)() -- misses
            local look_up = looping_caller(storage, "resolve", ids)
            local how = endings(function() warm_up(look_up) end)
            assert.is_true(has(how, "loop"), table.concat(how, " "))
        end)
    end)
end
