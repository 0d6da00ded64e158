-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What `make coverage` counts with, on small sources whose outcomes are known.

local c_figures = require "coverage.c_figures"
local instrument = require "coverage.instrument"
local justify = require "coverage.justify"
local lua_figures = require "coverage.lua_figures"
local servers = require "support.servers"
local tree = require "coverage.tree"

-- Loads instrumented source: the function, and one for its figures.
local function load_counting(text)
    local counters = {}
    local source, points = instrument(text, "local __c,__b=...;")
    local function outcome(index, value)
        counters[value and index or index + 1] = 1
        return value
    end
    local chunk = assert(loadstring(source, "=source"))
    return function() return chunk(counters, outcome) end, function()
        local bytes = {}
        for i = 1, #points do
            bytes[i] = counters[i - 1] and "\1" or "\0"
        end
        return lua_figures(points, table.concat(bytes))
    end
end

-- "2: `a` is never false"... of the gaps that follow from no other.
local function gaps_of(figures)
    local lines = {}
    for _, gap in ipairs(figures.gaps) do
        if not gap.implied then
            lines[#lines + 1] = gap.line .. ": " .. gap.what
        end
    end
    return lines
end

local function gaps_after(text, calls)
    local run, figures = load_counting(text)
    local fn = run()
    for _, arguments in ipairs(calls or {}) do
        fn(unpack(arguments, 1, 3))
    end
    return gaps_of(figures())
end

describe("coverage.instrument", function()
    -- Each is a chunk that returns what has to be the same in both.
    local SAME = {
        ["several results of a last call"] = [[
            local function f() return 1, nil, 3 end
            return select("#", f()), f() ]],
        ["a call cut to one result by and, or and parentheses"] = [[
            local function f() return 1, 2 end
            return select("#", f() and f()), select("#", nil or f()), (f()) ]],
        ["a condition that is a call without results"] = [[
            local function f() end
            if f() then return 1 end
            return select("#", f() or f()), f() or 2 ]],
        ["varargs"] = [[
            local function f(...) if ... then return select("#", ...), ... end end
            return f(1, nil, nil) ]],
        ["varargs as an operand"] = [[
            local function f(...) return ... and ..., ... or 4 end
            return f(false, 2), f(nil), f(1, 2) ]],
        ["a and b or c"] = [[
            local function f(a, b, c) return a and b or c end
            return f(1, 2, 3), f(1, false, 3), f(1, nil, false), f(nil, 2, nil) ]],
        ["nil and false, told apart"] = [[
            local function f(a, b) return a and b end
            local function g(a, b) return a or b end
            return f(false, 1), f(nil, 1), f(1, false), f(1, nil),
                   g(false, nil), g(nil, false), g(false, false) ]],
        ["method calls and chains"] = [[
            local t = { n = 1 }
            function t:up(by) self.n = self.n + (by or 1) return self end
            if not t:up():up(3):up().n == 6 then return false end
            return t and t:up().n or 0, (t or {}):up().n ]],
        ["calls without parentheses"] = [[
            local function f(x) return type(x) == "table" and x[1] or x end
            return f"s" and f{ 1 } or f[=[x]=], f"s" or 2 ]],
        ["chains of comparisons"] = [[
            local r = {}
            for i = 1, 6 do
                r[i] = (i > 1 and i < 5 and i ~= 3 or i == 6 and "end") and i or -i
            end
            return unpack(r) ]],
        ["precedence around a condition"] = [[
            local a, b = 2, 3
            return not a == b or -a ^ 2 < b and a .. b == "23",
                   not (a == b) and #"x" + 1 or 0, not not a ]],
        ["the order of evaluation"] = [[
            local seen = {}
            local function f(x) seen[#seen + 1] = x return x end
            local _ = f(1) and f(false) or f(nil) or f(4) and (f(nil) or f(6))
            return unpack(seen) ]],
        ["loops that end in the middle"] = [[
            local n = 0
            while true do n = n + 1 if n > 3 then break end end
            repeat local done = n > 5 n = n + 1 until done or n > 100
            for i = 10, 1, -3 do n = n + i end
            for _, v in ipairs { 1, 2, nil, 4 } do n = n + v end
            return n ]],
        ["goto"] = [[
            local n = 0
            for i = 1, 5 do
                if i % 2 == 0 then goto continue end
                n = n + i
                ::continue::
            end
            return n ]],
        ["a statement that begins with a parenthesis"] = [[
            local t = {}
            local f = function() t.x = 1 end;
            (f or print)()
            return t.x ]],
        ["statements on one line"] = [[
            local a = 1 local b = 2 a, b = b, a; do local c = a a = b + c end return a, b ]],
        ["comments and long strings in the way"] = "local a = 1 -- then\n"
            .. "if a --[[ and b\n ]] == 1 then return [[\nif x then\n]], a end",
        ["bytes beyond ASCII"] = 'local s = "\195\169" if s == "\195\169" and #s == 2 then '
            .. 'return s or 1, s and "\226\130\172" end',
        ["tail calls that go deep"] = [[
            local function f(n) if n == 0 then return "end" end return f(n - 1) end
            return f(100000) ]],
        ["metamethods that answer a condition"] = [[
            local t = setmetatable({}, { __lt = function() return nil end,
                __eq = function() return 1 end, __index = function() return false end })
            return t < t, not (t < t), t.x or 2, t == t and 3 ]],
        ["numbers of LuaJIT"] = "local n = 1ULL return n < 2 and n or 0, 0x10 and 1e2 ",
    }

    for title, text in pairs(SAME) do
        it("does not change " .. title, function()
            local plain = assert(loadstring(text, "=source"))
            local run = load_counting(text)
            local expected = { n = select("#", plain()), plain() }
            assert.same(expected, { n = select("#", run()), run() })
        end)
    end

    it("leaves lines and texts of errors as they are", function()
        local text = "local t = {}\nlocal x = t.a and t.b\n\nif x or t.c.d then end"
        local run = load_counting(text)
        local _, plain = pcall(assert(loadstring(text, "=source")))
        assert.same({ false, plain }, { pcall(run) })
        assert.matches("^source:4: ", plain)
    end)

    it("leaves the level of an error as it is", function()
        local text = [[
            local function check(x) if not x then error("no", 2) end return x end
            local function user()

                return check(false) or 1
            end
            if user() then return 1 end]]
        local run = load_counting(text)
        local _, plain = pcall(assert(loadstring(text, "=source")))
        assert.same({ false, plain }, { pcall(run) })
        assert.matches("^source:4: ", plain)
    end)

    it("takes every source of the library", function()
        for _, name in ipairs(tree.sources(servers.root)) do
            local text = servers.read_file(servers.root .. "/" .. name)
            assert(loadstring((instrument(text, "local __c,__b=1,2;"))))
        end
    end)
end)

describe("coverage.lua_figures", function()
    local CHOICE = "return function(a, b)\n"
        .. "  if a and not b then\n    return 1\n"
        .. "  elseif b then\n    return 2\n  end\n  return 3\nend"

    it("reports nothing where everything has happened", function()
        assert.same({}, gaps_after(CHOICE, { { 1, 1 }, { 1, nil }, { nil, nil } }))
    end)

    it("reports each outcome that is missing, and not what follows from it", function()
        assert.same({ "2: `a` is never false", "2: `b` is never true" },
            gaps_after(CHOICE, { { 1, nil } }))
        assert.same({ "2: `b` is never true" },
            gaps_after(CHOICE, { { 1, nil }, { nil, nil }, { nil, 1 } }))
        assert.same({ "2: `a` is never true", "4: `b` is never false" },
            gaps_after(CHOICE, { { nil, 1 } }))
    end)

    it("reports a function that is not called", function()
        assert.same({ "2: the function is not called" },
            gaps_after("return function()\n  local x = 1\n  return x\nend"))
    end)

    it("reports a loop that is not entered", function()
        local text = "return function(list)\n  for _, v in ipairs(list) do\n"
            .. "    list = v\n  end\nend"
        assert.same({ "3: the loop is not entered" }, gaps_after(text, { { {} } }))
        assert.same({}, gaps_after(text, { { { 1 } } }))
    end)

    it("reports the condition of a loop that only ends one way", function()
        local text = "return function(n)\n  while n > 0 do n = n - 1 end\n"
            .. "  repeat n = n + 1 until n > 5\nend"
        assert.same({ "3: `n > 5` is never false" },
            gaps_after((text:gsub("n = n %+ 1", "n = 9")), { { 9 } }))
        assert.same({ "2: `n > 0` is never true" }, gaps_after(text, { { 0 } }))
        assert.same({}, gaps_after(text, { { 9 } }))
    end)

    it("reports what comes after a call that never returned", function()
        local text = "return function(f)\n  pcall(function()\n    f()\n    f = 1\n  end)\nend"
        assert.same({ "4: not run" }, gaps_after(text, { { error } }))
    end)

    it("counts operands of a value but the last one, and no constants", function()
        local text = "return function(a, b)\n  local x = a and b or 1\n  return x or {}\nend"
        assert.same({ "2: `a` is never false", "2: `b` is never false", "3: `x` is never false" },
            gaps_after(text, { { 1, 1 } }))
        local _, points = instrument("if true then x = 1 elseif 0 or {} then x = a .. b or c end")
        for _, point in ipairs(points) do
            assert.equal("statement", point.kind)
        end
    end)

    -- How many conditions of an expression are counted.
    local function count_of(expression)
        local _, points = instrument("x = " .. expression)
        return (#points - 1) / 2
    end

    it("does not count b of `a and b or c` where a says that it is true", function()
        for _, expression in ipairs {
            "b and b or c", "b > 0 and b or c", "0 < b and b or c", "#b > 0 and b or c",
            'type(b) == "table" and b or c', "b == 1 and b or c", 'find(b, "x") and b or c',
            "t.b % 1 == 0 and t.b or c", "a and LONG_NAME or c", "a and errors.FULL or c",
        } do
            assert.equal(1, count_of(expression), expression)
        end
        assert.equal(2, count_of 'b ~= nil and find(b, "x") and b or c')
    end)

    it("counts b of `a and b or c` where a does not say so", function()
        for _, expression in ipairs {
            "a and b or c", "b == nil and b or c", "b ~= 1 and b or c", "not b and b or c",
            'type(b) == "nil" and b or c', 'type(b) == "boolean" and b or c', "type(b) and b or c",
            "f(b) and b or c", "b.x and b.y or c", "b == c and b or c", "f(b) > 1 and b or c",
            "a and Name or c",
        } do
            assert.equal(2, count_of(expression), expression)
        end
        assert.equal(3, count_of "(a or b) and b or c")
    end)

    it("counts lines and outcomes", function()
        local run, figures = load_counting(CHOICE)
        run()(1, 1)
        local f = figures()
        assert.same({ total = 5, hit = 3 }, f.lines)
        assert.same({ 3, 7 }, f.missed)
        assert.same({ total = 6, hit = 3 }, f.branches)
    end)
end)

describe("coverage.counter", function()
    teardown(function() servers.stop_all() end)

    -- A source in a directory of its own, run by another program.
    local function run_program(text, arguments)
        local dir = servers.tmpdir()
        servers.write_file(dir .. "/program.lua", text)
        tree.instrument(dir .. "/program.lua", dir .. "/counters",
            servers.root .. "/spec/coverage/counter.lua")
        local process = servers.spawn {
            os.getenv("LUAJIT") or "luajit", dir .. "/program.lua",
            unpack(arguments or {}), out = dir .. "/out",
        }
        return process, function()
            local _, points = instrument(text)
            return gaps_of(lua_figures(points, servers.read_file(dir .. "/counters")))
        end, dir
    end

    it("keeps what a process has counted that was killed, compiled or not", function()
        local process, gaps, dir = run_program("local n = 0\n"
            .. "for i = 1, 1e5 do\n  if i % 2 == 0 then n = n + 1 end\nend\n"
            .. "io.write(n, '\\n') io.flush()\n"
            .. "while n do n = n + 1 end\nprint('never')\n")
        servers.wait_for(function()
            return servers.read_file(dir .. "/out") == "50000\n"
        end, 10, "the program to have counted")
        process:kill()
        assert.same({ "6: `n` is never false" }, gaps())
    end)

    it("adds the counts of processes up", function()
        local text = "local a = arg[1]\nif a == 'x' then\n  a = 1\nelse\n  a = 2\nend\n"
        local first, gaps, dir = run_program(text, { "x" })
        servers.wait_for(function() return not first:alive() end, 10, "the first one's end")
        assert.same({ "2: `a == 'x'` is never false" }, gaps())
        local second = servers.spawn {
            os.getenv("LUAJIT") or "luajit", dir .. "/program.lua", "y",
        }
        servers.wait_for(function() return not second:alive() end, 10, "the second one's end")
        assert.same({}, gaps())
    end)
end)

describe("coverage.c_figures", function()
    local TEXTS = {
        "int f(int x) {", "    if (x)", "        return 1;", "    return 0;", "}",
        "int g(void) {", "    return 2;", "}",
    }
    local function line(number, count, branches)
        local list = {}
        for i, taken in ipairs(branches or {}) do
            list[i] = { count = taken }
        end
        return { line_number = number, count = count, branches = list,
                 ["gcovr/noncode"] = false }
    end

    it("reports branches and lines, and not what follows from them", function()
        local figures = c_figures({ lines = {
            line(1, 3), line(2, 3, { 0, 3 }), line(3, 0), line(4, 3),
            line(6, 0), line(7, 0),
        } }, TEXTS)
        assert.same({ total = 6, hit = 3 }, figures.lines)
        assert.same({ total = 2, hit = 1 }, figures.branches)
        assert.same({ 3, 6, 7 }, figures.missed)
        assert.same({ "2: 1 of 2 branches not taken", "6: not run" }, gaps_of(figures))
    end)

    it("reports nothing where everything has run", function()
        local figures = c_figures({ lines = {
            line(1, 3), line(2, 3, { 1, 3 }), line(3, 1), line(4, 3),
        } }, TEXTS)
        assert.same({}, figures.gaps)
    end)
end)

describe("coverage.justify", function()
    local TEXTS = { "  if a then", "    b()", "  end", "  if a then", "    c()" }
    local function gaps()
        return { { line = 1, what = "x" }, { line = 2, what = "y" } }
    end

    it("gives the reason to the gaps on the lines of the text", function()
        local list = gaps()
        assert.same({}, justify(list, TEXTS, { { "why", "if a then\nb()" } }))
        assert.same({ "why", "why" }, { list[1].reason, list[2].reason })
    end)

    it("justifies no other gap", function()
        local list = gaps()
        assert.same({}, justify(list, TEXTS, { { "why", "b()" } }))
        assert.is_nil(list[1].reason)
    end)

    it("says when a text is also that of a line which is covered", function()
        assert.same({ "line 4 is covered: if a then" },
            justify(gaps(), TEXTS, { { "why", "if a then" } }))
    end)

    it("says when a text is no longer there", function()
        assert.same({ "there is no such line: d()" }, justify(gaps(), TEXTS, { { "why", "d()" } }))
    end)

    it("tells what is open from what has a reason", function()
        local list = gaps()
        justify(list, TEXTS, { { "why", "if a then\nb()" }, { "not yet", open = true, "b()" } })
        assert.is_nil(list[1].open)
        assert.is_true(list[2].open)
    end)

    it("lets a gap be there in some runs only", function()
        assert.same({}, justify(gaps(), TEXTS, { { "a race", "c()", by_chance = true } }))
    end)
end)
