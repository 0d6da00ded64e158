-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Random texts for everything here that reads what others have written. From
-- the top of the checkout:
--
--   luajit spec/fuzz/main.lua [--seconds N | --iterations N] [--seed N]
--                             [--only NAME]
--                             N seconds for all, N iterations for each
--   luajit spec/fuzz/main.lua --only NAME --input FILE     repeats a failure
--
-- Each target, spec/fuzz/<name>_target.lua, returns
--
--   { name =,
--     seeds = { valid inputs },         mutations start from these
--     words = { what the format is made of },
--     make  = function(rng) -> input,   optional: a random valid one
--     check = function(input, rng),     raises when something is wrong; rng
--                                       depends on the input alone
--     large = { [what] = function(n) -> input of some n bytes } }
--
-- `large` inputs grow from 8 KiB to 1 MiB: time that grows with the square of
-- the size is noticed before it hurts.

-- LUA_PATH and LUA_CPATH come first: they may name another tree to be tested.
package.path = package.path .. ";lua/?.lua;build/lua/?.lua;spec/?.lua"
package.cpath = package.cpath .. ";build/?.so"

local mutator = require "fuzz.mutator"

local TARGETS = { "record", "rfc3339", "url", "jsonrpc", "http1", "reference",
                  "sse", "request", "policy" }
local CRASHES = "build/fuzz/crashes"

-- CPU seconds that one check may take; the large ones take a tenth of it.
local SLOW, SLOW_LARGE = 0.5, 2

local function parse_arguments(words)
    local options = { seconds = 10, seed = os.time() % 1000000 }
    local i = 1
    while words[i] do
        local name = words[i]:match("^%-%-(%a+)$")
        local value = words[i + 1]
        if not name or not value then
            error("usage: see the top of spec/fuzz/main.lua", 0)
        end
        options[name] = tonumber(value) or value
        i = i + 2
    end
    return options
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

-- Runs the check once. Returns nil, or what is wrong.
local function try(target, input, slow)
    local began = os.clock()
    local ok, err = xpcall(target.check, debug.traceback, input,
        mutator.rng(mutator.hash(input)))
    local took = os.clock() - began
    if not ok then
        return tostring(err)
    elseif took > slow then
        return ("%d bytes took %.2f s"):format(#input, took)
    end
end

local function report(target, input, what, seed)
    os.execute("mkdir -p " .. CRASHES)
    local path = ("%s/%s-%08x"):format(CRASHES, target.name,
        mutator.hash(input))
    local file = assert(io.open(path, "wb"))
    file:write(input)
    file:close()
    local shown = #input > 500 and input:sub(1, 500) .. "..." or input
    print(("fuzz: %s failed (seed %d): %s\ninput: %q\nrepeat: luajit "
        .. "spec/fuzz/main.lua --only %s --input %s"):format(target.name,
        seed, what, shown, target.name, path))
    return false
end

local function check_large(target, seed)
    for what, make in pairs(target.large or {}) do
        for power = 13, 20 do
            local input = make(2 ^ power)
            local wrong = try(target, input, SLOW_LARGE)
            if wrong then
                return report(target, input, what .. ": " .. wrong, seed)
            end
        end
    end
    return true
end

local function next_input(target, rng)
    local input = target.make and not rng:once_in(3) and target.make(rng)
        or rng:pick(target.seeds)
    if target.make and rng:once_in(5) then
        return input
    end
    return mutator.mutate(rng, input, target.seeds, target.words)
end

-- Returns whether all is well, and how many inputs that was said of.
local function run(target, options, seconds)
    local most = options.iterations or math.huge
    local rng = mutator.rng(options.seed)
    local n = 0
    if not check_large(target, options.seed) then
        return false, n
    end
    for i, input in ipairs(target.seeds) do
        local wrong = try(target, input, SLOW)
        if wrong then
            return report(target, input, "seed " .. i .. ": " .. wrong,
                options.seed), n
        end
    end
    local deadline = os.clock() + seconds
    while n < most and (options.iterations or os.clock() < deadline) do
        local input = next_input(target, rng)
        local wrong = try(target, input, SLOW)
        if wrong then
            return report(target, input, wrong, options.seed), n
        end
        n = n + 1
    end
    return true, n
end

local function chosen(options)
    return options.only and { options.only } or TARGETS
end

local function main(options)
    if options.input then
        local target = require("fuzz." .. options.only .. "_target")
        local wrong = try(target, read(options.input), SLOW_LARGE)
        print(wrong or "fuzz: nothing is wrong with it")
        return wrong and 1 or 0
    end

    local names = chosen(options)
    local passed, failed = 0, 0
    for _, name in ipairs(names) do
        local target = require("fuzz." .. name .. "_target")
        local fine, n = run(target, options, options.seconds / #names)
        print(("fuzz: lua %-8s %8d inputs, seed %d: %s"):format(name, n,
            options.seed, fine and "ok" or "FAILED"))
        passed = passed + (fine and 1 or 0)
        failed = failed + (fine and 0 or 1)
    end
    print(("fuzz: %d passed, %d failed"):format(passed, failed))
    return failed == 0 and 0 or 1
end

os.exit(main(parse_arguments(arg)))
