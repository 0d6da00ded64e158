-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Policies as anybody may write them: the text is a file, what it returns is
-- given as a table, too, and in a list. Either there is an engine, which then
-- never raises and answers only what the router can use, or one message that
-- names the file. Nothing is left behind: no global, no library changed.
--
-- A text may loop for ever or take all memory. Neither is what is looked for, so
-- a hook ends what takes too long, also where the text catches errors, and no
-- string gets large.

local engines = require "resty.mooring.script.engine"
local log = require "resty.mooring.log"
local policy = require "resty.mooring.policy"
local random_policy = require "fuzz.random_policy"
local record = require "resty.mooring.record"
local request = require "resty.mooring.request"
local sessions = require "resty.mooring.session"

local ipairs, next, pairs = ipairs, next, pairs
local rawequal, rawset = rawequal, rawset
local rep = string.rep

local INSTRUCTIONS = 200000 -- of the virtual machine, for one call
local MAX_STRING = 100000   -- bytes
local MAX_MESSAGE = 3000    -- bytes

-- Those by name are loaded when they are first asked for.
for _, name in ipairs { "round_robin", "least_sessions", "power_of_two",
                        "rendezvous", "identity", "reinitialize" } do
    require("resty.mooring.policy." .. name)
end

-- What scripts are blamed for is not to be seen here.
log.err, log.warn = function() end, function() end

------------------------------------------------------------------ bounds ---

local TOO_LONG = "too long"

-- pcall and the like for scripts: not even they end the end.
local function pass_on(ok, err, ...)
    if not ok and err == TOO_LONG then
        error(TOO_LONG, 0)
    end
    return ok, err, ...
end

local real = { pcall = pcall, xpcall = xpcall, rep = rep,
               resume = coroutine.resume }

local function bounded_rep(s, n, ...)
    if type(s) == "string" and type(n) == "number" and #s * n > MAX_STRING then
        error("not enough memory", 0) -- as the real one says it
    end
    return real.rep(s, n, ...)
end

-- What a text could change, and is put back afterwards.
local LIBRARIES = { _G, string, table, math, bit, coroutine, package.loaded }

local function snapshot()
    local all = {}
    for i, library in ipairs(LIBRARIES) do
        local fields = {}
        for name, value in next, library do
            fields[name] = value
        end
        all[i] = fields
    end
    return all
end

-- Returns the name of something that has changed, or nil.
local function put_back(all)
    local changed
    for i, library in ipairs(LIBRARIES) do
        local fields = all[i]
        for name, value in next, library do
            if not rawequal(fields[name], value) then
                changed = name
                library[name] = fields[name] -- nil, or what it was
            end
        end
        for name, value in next, fields do
            if library[name] == nil then
                changed = name
                library[name] = value
            end
        end
    end
    return changed
end

local function hook()
    error(TOO_LONG, 0)
end

-- Calls fn with the bounds around it; returns what pcall does.
local function bounded(fn, ...)
    rawset(_G, "pcall", function(...) return pass_on(real.pcall(...)) end)
    rawset(_G, "xpcall", function(...) return pass_on(real.xpcall(...)) end)
    rawset(coroutine, "resume", function(...) return pass_on(real.resume(...)) end)
    rawset(string, "rep", bounded_rep)
    debug.sethook(hook, "", INSTRUCTIONS)
    local ok, a, b = real.pcall(fn, ...)
    debug.sethook()
    rawset(_G, "pcall", real.pcall)
    rawset(_G, "xpcall", real.xpcall)
    rawset(coroutine, "resume", real.resume)
    rawset(string, "rep", real.rep)
    return ok, a, b
end

-- What was thrown may be anything.
local function shown(err)
    local ok, text = real.pcall(tostring, err)
    return ok and type(text) == "string" and text or "a " .. type(err)
end

------------------------------------------------------------- its answers ---

local BACKENDS = { "http://a:1", "http://b:2", "http://c:3" }

local function some_backends()
    local list = {}
    for i, url in ipairs(BACKENDS) do
        list[i] = { url = url, weight = i, state = "up", inflight = 0, sessions = i }
    end
    return list
end

local function some_session(data)
    local s = sessions.new("an-id", { type = "mcp", metadata = {
        backend_url = BACKENDS[1], endpoint = "/mcp", owner = "ann" } })
    s.data = data
    return s
end

local function some_request()
    return request.build { method = "POST", path = "/mcp", session_id = "an-id",
        headers = { ["x-user"] = "ann", cookie = "a=b" }, args = { x = "1" },
        body = '{"jsonrpc":"2.0","id":1,"method":"initialize"}' }
end

-- What takes too long in a script is stopped like anything else it throws; the
-- engine's own turn may be hit as well.
local function ask(engine, name, ...)
    local ok, answer = bounded(engine[name], engine, ...)
    if not ok and answer == TOO_LONG then
        return nil, true
    end
    if not ok then
        error(name .. " raises: " .. shown(answer))
    end
    return answer
end

local CHECKS = {}

function CHECKS.key(engine)
    local id = ask(engine, "key", some_request())
    assert(id == nil or type(id) == "string" and id ~= "", "key")
end

function CHECKS.admit(engine)
    local answer, stopped = ask(engine, "admit", some_session(), some_request())
    assert(stopped or type(answer) == "boolean", "admit")
end

function CHECKS.route(engine)
    local list, before = some_backends(), some_backends()
    local answer = ask(engine, "route", some_request(), list)
    assert(#list == #before, "the list of backends")
    local among = answer == nil
    for i, backend in ipairs(list) do
        among = among or rawequal(backend, answer)
        for name, value in pairs(before[i]) do
            assert(rawequal(rawget(backend, name), value), "backend." .. name)
        end
        assert(getmetatable(backend) == nil, "a metatable")
    end
    assert(among, "route")
end

function CHECKS.on_unreachable(engine)
    local answer, stopped = ask(engine, "on_unreachable", some_session(),
        some_request())
    assert(stopped or answer == "forget" or answer == "keep"
        or answer == "reinitialize", "on_unreachable")
end

function CHECKS.on_bind(engine)
    for _, data in ipairs { false, { n = 1, list = { 1, { 2 } } } } do
        local s = some_session(data or nil)
        local text = assert(record.encode(s))
        ask(engine, "on_bind", s, some_request())
        local after = assert(record.encode(s))
        assert(record.encode(record.copy(s)))
        local seen, before = assert(record.decode(after, s.id)), record.decode(text)
        for _, name in ipairs { "id", "type", "created_at", "updated_at" } do
            assert(seen[name] == before[name], "session." .. name)
        end
        assert(getmetatable(s.metadata) == nil, "a metatable")
        for _, name in ipairs { "backend_url", "endpoint" } do
            assert(s.metadata[name] == before.metadata[name], name)
            assert(seen.metadata[name] == before.metadata[name], name)
        end
    end
end

function CHECKS.on_evict(engine)
    ask(engine, "on_evict", some_session(), "expired")
end

function CHECKS.start(engine)
    ask(engine, "start", "router", 0)
end

local ORDER = { "start", "key", "admit", "route", "on_bind", "on_unreachable",
                "on_evict" }

local function check_engine(engine)
    assert(getmetatable(engine).__index == engines, "no engine")
    for _ = 1, 2 do
        for _, name in ipairs(ORDER) do
            CHECKS[name](engine)
        end
    end
    for _, functions in pairs(engine:stats()) do
        for _, counts in pairs(functions) do
            assert(counts.errors <= counts.calls, "counts")
        end
    end
end

----------------------------------------------------------------- loading ---

local PATH = os.tmpname()

local function write(text)
    local file = assert(io.open(PATH, "wb"))
    file:write(text)
    file:close()
end

local function check_message(err, file)
    assert(type(err) == "string", "raises a " .. type(err))
    assert(#err <= MAX_MESSAGE, #err .. " bytes of a message")
    local from, to = err:find("opts.policy ", 1, true)
    assert(from, "no option: " .. err)
    assert(err:sub(1, from - 1):find("^[^\n]*policy_target%.lua:%d+: $"),
        "blames another one: " .. err)
    if file then
        local rest = err:sub(to + 1)
        local begin = "is wrong: " .. file .. ":"
        assert(rest:sub(1, #begin) == begin, "no file: " .. err)
    end
end

-- @return engine; or nil, whether it has taken too long
local function compile(option, file)
    local ok, engine = bounded(function(given)
        local made = policy.compile(given)
        return made
    end, option)
    if ok then
        return engine
    elseif engine == TOO_LONG then
        return nil, true
    end
    check_message(engine, file)
end

-- What the text returns, as a user would give it.
local function value_of(text)
    local chunk = load(text, "@inline.lua", "t")
    local ok, value = bounded(chunk or error)
    return ok and value or nil
end

local function check_file(text)
    write(text)
    local engine, stopped = compile(PATH, PATH)
    local first = text:gsub("^\239\187\191", ""):gsub("^#[^\n]*\n?", "")
    if first:find("^\27") or not load(text, "=x", "t") then
        assert(not engine, "it cannot be compiled, and was taken")
    end
    if stopped then
        return
    elseif engine then
        check_engine(engine)
    end
end

local function check_tables(text)
    for _, option in ipairs { false, { "round_robin" } } do
        local value = value_of(text)
        if type(value) == "table" or type(value) == "string" and not option then
            if option then
                option[2] = value
                value = option
            end
            local engine = compile(value)
            if engine then
                check_engine(engine)
            end
        end
    end
end

-- A text that says so may change what all share: that is its author's will.
local MEANT = { "_G", "fenv", "rawset", "string[.%[]", "table[.%[]", "math", "bit",
                "coroutine[.%[] *=", "package", "require", "debug", "getmetatable" }

local function is_meant(text)
    for _, word in ipairs(MEANT) do
        if text:find(word) then
            return true
        end
    end
    return false
end

-- Runs fn(input), and says what is other than before.
local function changed_by(fn, input)
    local before = snapshot()
    jit.off() -- compiled code calls no hooks
    local ok, err = xpcall(fn, debug.traceback, input)
    jit.on()
    local changed = put_back(before)
    if not ok then
        error(shown(err), 0)
    end
    return changed
end

local function check(input)
    local changed = changed_by(check_file, input)
    os.remove(PATH)
    assert(not changed or is_meant(input), "it has changed " .. tostring(changed))
    -- What the text does here, this target has it do and not the loader.
    changed_by(check_tables, input)
end

local function with_body(body)
    return "return { admit = function(session, req) " .. body .. " end }"
end

return {
    name = "policy",
    seeds = random_policy.SEEDS,
    words = random_policy.WORDS,
    make = random_policy.make,
    check = check,
    large = {
        ["a long comment"] = function(n) return "--" .. rep("x", n) .. "\nreturn {}" end,
        ["many lines"] = function(n) return rep("\n", n) .. "return { rout = 1 }" end,
        ["a long line"] = function(n)
            return "return { rout" .. rep(" ", n) .. "= 1 }"
        end,
        ["many fields"] = function(n)
            return "local M = {}\n" .. rep("M.rout = 1\n", n / 11) .. "return M"
        end,
        ["a long name"] = function(n)
            return "return { " .. rep("x", n) .. " = 1 }"
        end,
        ["a long string"] = function(n)
            return "return { name = '" .. rep("x", n) .. "' }"
        end,
        ["deep nesting"] = function(n)
            return "return " .. rep("{", n / 2) .. rep("}", n / 2)
        end,
        ["nesting without end"] = function(n) return "return " .. rep("(", n) end,
        ["many functions"] = function(n)
            return with_body(rep("local function f() end ", n / 200))
        end,
        ["functions in functions"] = function(n)
            return with_body(rep("return function() ", n / 18) .. rep("end ", n / 18))
        end,
        ["a long error"] = function(n) return "error('" .. rep("x", n) .. "')" end,
        ["dashes"] = function(n) return "return 1 " .. rep("- -", n / 3) end,
    },
}
