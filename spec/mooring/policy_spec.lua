-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local policy = require "resty.mooring.policy"

describe("resty.mooring.policy", function()
    local A = { url = "http://a:1", weight = 1 }
    local B = { url = "http://b:1", weight = 1 }
    local files = {}

    local function file(text)
        local path = os.tmpname()
        files[#files + 1] = path
        local out = assert(io.open(path, "w"))
        out:write(text)
        out:close()
        return path
    end

    teardown(function()
        for _, path in ipairs(files) do
            os.remove(path)
        end
    end)

    local function message(fn, ...)
        local ok, err = pcall(fn, ...)
        assert.is_false(ok)
        return err
    end

    local KNOWN = "key, admit, route, on_bind, on_evict, on_unreachable, start and name"
    local RETURN = "the file must return a policy, a table of functions (" .. KNOWN
        .. "), but it returns "

    -- What is in the file, the line it is about, and what its author reads.
    local MISTAKES = {
        ["a syntax error"] = {
            "return {\n  route = function(req, backends)\n    retrun backends[1]\n  end,\n}",
            3, "'=' expected near 'backends'" },
        ["an end that is missing"] = {
            "return {\n  admit = function() return true\n}",
            3, "'end' expected (to close 'function' at line 2) near '}'" },
        ["a field that is not known"] = {
            "return {\n\n  rout = function(req, backends) end,\n}",
            3, '"rout" is not a field of a policy (known are ' .. KNOWN .. ")" },
        ["a field that is not known and no function"] = {
            "local M = {}\nM.on_evict = function() end\nM.ttl = 5\nreturn M",
            3, '"ttl" is not a field of a policy (known are ' .. KNOWN .. ")" },
        ["an array"] = {
            'return {\n"round_robin" }', 1, "[1] is not a field of a policy (known are "
                .. KNOWN .. ")" },
        ["a function that is none"] = {
            'return {\n  -- admit = 1\n  admit = "yes",\n}',
            3, "admit must be a function, got a string" },
        ["a name that is none"] = {
            "return { name = 5 }", 1, "name must be a string, got a number" },
        ["no table"] = {
            "local function route() end\nreturn route\n", 2, RETURN .. "a function" },
        ["no return"] = {
            "local M = {}\nfunction M.admit() end\n", 2, RETURN .. "nothing" },
        ["nothing at all"] = { "", 0, RETURN .. "nothing" },
        ["code that throws"] = {
            "local limits\nlocal max = limits.max\nreturn {}",
            2, "attempt to index local 'limits' (a nil value)" },
        ["code that throws no text"] = { "\nerror({})", 2, "table: " },
        ["code that throws what cannot be shown"] = {
            "error(setmetatable({}, { __tostring = function() error('no') end }))",
            1, "a table" },
        ["code that throws a text without a place"] = {
            "local x\nerror('oops', 0)", 2, "oops" },
        ["a field whose name is a table"] = {
            "return { [setmetatable({}, { __tostring = error })] = 1 }",
            1, "[a table] is not a field of a policy" },
        ["a field whose name holds a NUL"] = {
            "return { ['x\\0'] = 1 }", 1, '"x?" is not a field of a policy' },
        ["a field whose name is long"] = {
            "return { [('x'):rep(1e6) .. '\\n'] = 1 }",
            1, '"' .. ("x"):rep(64) .. '" is not a field of a policy' },
        ["a metatable that throws"] = {
            "return setmetatable({}, { __index = function() error {} end })",
            1, "admit cannot be read: table: " },
        ["a field of its metatable that is no function"] = {
            "return setmetatable({}, { __index = { route = 5 } })",
            1, "route must be a function, got a number" },
        ["compiled Lua"] = { string.dump(function() return {} end), nil,
            "this is compiled Lua: a policy is loaded from its source alone" },
        ["a module that is missing"] = {
            'local m = require "no.such.module"\nreturn {}',
            1, "module 'no.such.module' not found:" },
        ["a global that is assigned"] = {
            "last = 0\nreturn {}", 1, 'the global variable "last" is assigned: all '
                .. "requests share it; say local, or _G.last if that is meant" },
        ["a global that is assigned in a call"] = {
            "return { route = function(req, b)\n  local function f()\n    n = 1\n  end\n"
                .. "  f()\nend }", 3, 'the global variable "n" is assigned' },
    }

    describe(".check", function()
        -- As a user types it; returns what is printed and the exit status.
        local function on_the_command_line(path)
            local pipe = io.popen(("%s -e 'require(\"resty.mooring.policy\")"
                .. ".check(\"%s\")' 2>&1; echo $?"):format(
                os.getenv("LUAJIT") or "luajit", path))
            local text = pipe:read("*a")
            pipe:close()
            local printed, status = text:match("^(.*)\n(%d+)\n$")
            return printed, tonumber(status)
        end

        for what, case in pairs(MISTAKES) do
            it("finds " .. what .. " in a file", function()
                local path = file(case[1])
                local err = message(policy.check, path)
                local begin = case[2] and path .. ":" .. case[2] .. ": " .. case[3]
                    or path .. ": " .. case[3]
                assert.equal(begin, err:sub(1, #begin))
            end)
        end

        it("says that a file is ok", function()
            local path = file "return { name = 'x', admit = function() end }"
            assert.same({ path .. ": ok", 0 }, { on_the_command_line(path) })
        end)

        it("makes the command fail for a file that is not", function()
            local path = file "return {\n rout = 1 }"
            local printed, status = on_the_command_line(path)
            assert.equal(1, status)
            assert.equal("luajit: " .. path .. ':2: "rout" is not a field of a policy',
                printed:match("^(.-) %("))
        end)

        it("names the whole of a long path", function()
            local dir = os.tmpname()
            os.remove(dir)
            local path = dir .. ("/d"):rep(40) .. "/policy.lua"
            assert(os.execute("mkdir -p " .. path:match("^(.*)/")) == 0)
            for _, text in ipairs { "\nreturn {{", "\nerror 'x'", "\nerror {}",
                                    "\nx = 1", "\nreturn 1", "\nreturn { x = 1 }" } do
                local out = assert(io.open(path, "w"))
                out:write(text)
                out:close()
                assert.equal(path .. ":2: ", message(policy.check, path):sub(1, #path + 4))
            end
            os.execute("rm -r " .. dir)
        end)

        it("names the file also when code elsewhere has thrown", function()
            local path = file "require('resty.mooring.session').new(5)"
            assert.equal(path .. ":1: ", message(policy.check, path):sub(1, #path + 4))
            path = file "require('resty.mooring.options').check(nil, {})"
            assert.equal(path .. ": ", message(policy.check, path):sub(1, #path + 2))
        end)

        it("says that code recurses for ever", function()
            local path = file "local function f() return 1 + f() end\nf()"
            for _ = 1, 20 do
                local err = message(policy.check, path)
                assert.equal(path .. ":", err:sub(1, #path + 1))
                assert.matches("stack overflow", err)
            end
        end)

        it("does not show all of a long error", function()
            local path = file "error(('x'):rep(1e6))"
            assert.is_true(#message(policy.check, path) < 3000)
            path = file [[return setmetatable({}, { __index = function()
                error(("x"):rep(1e6))
            end })]]
            assert.is_true(#message(policy.check, path) < 3000)
        end)

        it("says that there is no such file", function()
            assert.equal("/no/such/file.lua: No such file or directory",
                message(policy.check, "/no/such/file.lua"))
            assert.equal("/tmp: Is a directory", message(policy.check, "/tmp"))
        end)

        it("bears code that asks for nginx when it is loaded", function()
            assert.is_true(policy.check(file [[
                local shared, find = ngx.shared.counts, ngx.re.find
                local where = ngx.config.prefix() .. "conf"
                return { key = function() return find(ngx.var.x, where), shared end }
            ]]))
        end)

        it("lets a file assign a global that it means", function()
            assert.is_true(policy.check(file "_G.mooring_spec = nil return {}"))
        end)

        it("wants the name of a file", function()
            assert.matches("path must be the name of a file", message(policy.check))
            assert.matches("path must be the name of a file", message(policy.check, ""))
        end)
    end)

    describe(".compile", function()
        for what, case in pairs(MISTAKES) do
            it("raises for a file with " .. what, function()
                local path = file(case[1])
                local err = message(policy.compile, path .. "") -- a /path
                assert.truthy(err:find("opts.policy is wrong: " .. path, 1, true), err)
                assert.truthy(err:find(case[3], 1, true), err)
            end)
        end

        it("blames its caller", function()
            local line = debug.getinfo(1, "l").currentline + 1
            local ok, err = pcall(function() policy.compile("random") end)
            assert.is_false(ok)
            assert.matches("policy_spec.lua:" .. line .. ": opts.policy must be", err)
        end)

        for what, option in pairs {
            ["a name that is not known"] = "random",
            ["the name of a module that is no policy"] = "hash",
            ["a name with characters no module has"] = "x y",
            ["a number"] = 5,
            ["a function"] = function() end,
            ["a list with a number"] = { "round_robin", 5 },
            ["a list in a list"] = { "round_robin", { {} } },
        } do
            it("raises for " .. what, function()
                assert.matches("opts.policy", message(policy.compile, option))
            end)
        end

        it("names the built-in policies there are", function()
            assert.matches('opts.policy must be the name of a built%-in policy '
                .. '%("round_robin", "least_sessions"', message(policy.compile, "random"))
            assert.matches('got "random"', message(policy.compile, "random"))
        end)

        it("tells which entry of a list is wrong", function()
            assert.matches("entry 2 of the list",
                message(policy.compile, { "round_robin", "random" }))
            assert.matches("entry 1 of the list",
                message(policy.compile, { { rout = print } }))
        end)

        it("refuses a list with a hole, as a name that is nil leaves it", function()
            assert.matches("opts.policy must be an array without holes: entry 2 is nil",
                message(policy.compile, { "round_robin", nil, {} }))
        end)

        it("refuses a table that is a policy and a list", function()
            assert.matches('not both: "admit" is in a table that has entries',
                message(policy.compile, { "round_robin", admit = function() end }))
        end)

        it("names file and line of a function that is not known", function()
            local line = debug.getinfo(1, "l").currentline + 1
            local function rout() end
            assert.matches("opts.policy is wrong: spec/mooring/policy_spec.lua:" .. line
                .. ': "rout" is not a field of a policy',
                message(policy.compile, { rout = rout }))
        end)

        it("finds globals that an inline function assigns", function()
            local route = loadstring("return function() x = 1 end", "@inline.lua")()
            assert.matches('inline.lua:1: the global variable "x" is assigned',
                message(policy.compile, { route = route }))
        end)

        it("says that a built-in policy needs more than its name", function()
            assert.matches('"rendezvous" cannot be used by its name alone: ',
                message(policy.compile, "rendezvous"))
        end)

        it("makes round robin of nothing, and of its name", function()
            for _, option in ipairs { false, "round_robin" } do
                local engine = policy.compile(option or nil)
                local urls = {}
                for i = 1, 4 do
                    urls[i] = engine:route({}, { A, B }).url
                end
                assert.same({ A.url, B.url, A.url, B.url }, urls)
            end
        end)

        it("says which functions there are", function()
            local engine = policy.compile { admit = function() end }
            assert.is_true(engine.has.admit)
            assert.is_false(engine.has.key)
            assert.is_false(engine.has.route)
        end)

        it("takes a file that returns a table", function()
            local engine = policy.compile(file [[
                return { route = function(_, backends) return backends[2] end }
            ]])
            assert.equal(B, engine:route({}, { A, B }))
        end)

        it("takes no backend when a policy's route answers false", function()
            local engine = policy.compile {
                { name = "none", route = function() return false end },
                { name = "second", route = function(_, list) return list[1] end },
            }
            assert.is_nil(engine:route({}, { A, B }))
            assert.equal(0, engine:stats().none.route.errors)
            assert.equal(0, engine:stats().second.route.calls)
        end)

        it("runs a file once", function()
            _G.mooring_spec_runs = 0
            policy.compile(file "_G.mooring_spec_runs = mooring_spec_runs + 1 return {}")
            assert.equal(1, _G.mooring_spec_runs)
            _G.mooring_spec_runs = nil
        end)

        it("takes what a metatable lends, and asks it once", function()
            local asked = 0
            local engine = policy.compile(setmetatable({}, { __index = function(_, name)
                asked = asked + 1
                return name == "key" and function() return "lent" end or nil
            end }))
            local before = asked
            assert.equal("lent", engine:key({}))
            assert.is_true(engine:admit({}, {}))
            assert.equal(before, asked)
        end)

        it("raises for a table whose metatable throws, and blames its caller", function()
            local evil = setmetatable({}, { __index = function() error {} end })
            for _, option in ipairs { evil, { "round_robin", evil } } do
                local line = debug.getinfo(1, "l").currentline + 1
                local ok, err = pcall(function() policy.compile(option) end)
                assert.is_false(ok)
                assert.matches("policy_spec.lua:" .. line
                    .. ": opts.policy is wrong: admit cannot be read: table: ", err)
            end
        end)

        it("takes a table without functions", function()
            local engine = policy.compile {}
            assert.equal(A, engine:route({}, { A }))
            assert.is_true(engine:admit({}, {}))
            assert.equal("forget", engine:on_unreachable({}, {}))
            assert.is_nil(engine:key({}))
        end)
    end)
end)
