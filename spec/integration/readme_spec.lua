-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The examples of the README run as they stand there, but for addresses and
-- paths; its tables name the options there are.

local servers = require "support.servers"
local testing = require "resty.mooring.testing"

local README = servers.read_file("README.md")

-- The code blocks of a language, in order.
local function blocks(language)
    local list = {}
    for text in README:gmatch("\n```" .. language .. "\n(.-)\n```") do
        list[#list + 1] = text
    end
    return list
end

-- The only code block of a language that holds a plain text.
local function block(language, holding)
    local found = {}
    for _, text in ipairs(blocks(language)) do
        if text:find(holding, 1, true) then
            found[#found + 1] = text
        end
    end
    assert(#found == 1, #found .. " blocks hold " .. holding)
    return found[1]
end

-- Runs a shell command where only `make env` was evaluated.
local function with_make_env(command)
    return servers.run { "bash", "-c",
        'unset LUA_PATH LUA_CPATH; eval "$(make -s env)"; ' .. command }
end

-- Every occurrence of a plain text, of which there must be one.
local function replace(text, from, to)
    assert(text:find(from, 1, true), "the README has no " .. from)
    return (text:gsub(from:gsub("%p", "%%%0"), (to:gsub("%%", "%%%%"))))
end

-- The nginx.conf of the README with real addresses, in front of two servers.
local function run(conf)
    local redis = servers.redis()
    local one = servers.node("spec/fixtures/mcp/server.mjs", { "--name=b1" })
    local two = servers.node("spec/fixtures/mcp/server.mjs", { "--name=b2" })
    conf = replace(conf, "include /etc/nginx/modules-enabled/*.conf;", "")
    conf = replace(conf, "worker_processes auto;", "worker_processes 2;")
    conf = replace(conf, "/usr/local/share/lua/5.1/", "$root/lua/")
    conf = replace(conf, "/run/nginx-mooring.sock", "$dir/internal.sock")
    conf = replace(conf, "http://10.0.0.1:8080", one.url:match("^http://[^/]+"))
    conf = replace(conf, "http://10.0.0.2:8080", two.url:match("^http://[^/]+"))
    conf = replace(conf, "redis://127.0.0.1:6379/0", redis.url)
    conf = replace(conf, "listen 8080;", "listen 127.0.0.1:$port;")
    return servers.nginx { conf = conf }
end

describe("the README", function()
    teardown(function() servers.stop_all() end)

    it("has an nginx.conf that routes sessions as it stands", function()
        local nginx = run(blocks("nginx")[1])
        local clients = servers.node("spec/fixtures/mcp/driver.mjs")
        assert.is_true(clients:ask({ op = "open", as = "s", urls = { nginx.url .. "/mcp" } }).ok)
        for expected = 1, 3 do
            local answer = clients:ask { op = "call", as = "s", tool = "counter" }
            assert.is_true(answer.ok)
            assert.equal(expected, answer.value.count)
        end
        local status = servers.http(nginx.url .. "/mooring-status")
        assert.equal(200, status.status)
        assert.matches('"name":"default"', status.body, 1, true)
    end)

    it("has the lines that serve the HTTP+SSE transport beside it", function()
        local nginx = run(replace(blocks("nginx")[1], "        location /mcp {",
            block("nginx", "sse.conf") .. "\n        location /mcp {"))
        local clients = servers.node("spec/fixtures/mcp/driver.mjs")
        local opened = clients:ask({ op = "open", as = "s", sse = nginx.url .. "/sse",
            urls = { nginx.url } })
        assert.is_true(opened.ok, opened.error and opened.error.message)
        assert.is_true(clients:ask({ op = "open", as = "m", urls = { nginx.url .. "/mcp" } }).ok)
        for expected = 1, 3 do
            for _, name in ipairs { "s", "m" } do
                local answer = clients:ask { op = "call", as = name, tool = "counter" }
                assert.equal(expected, answer.value.count)
            end
        end
    end)

    it("has a plain synopsis that prints what it says, with only make env", function()
        local program = block("lua", "print(store:resolve")
        local path = servers.tmpdir() .. "/synopsis.lua"
        servers.write_file(path, program)
        local result = with_make_env('exec "${LUAJIT:-luajit}" ' .. path)
        assert.equal("", result.err)
        local printed = {}
        for said in program:gmatch("%-%-> ([^\n]*)") do
            printed[#printed + 1] = said:gsub("%s+", " ")
        end
        assert.equal(3, #printed)
        local lines = {}
        for line in result.out:gmatch("[^\n]+") do
            lines[#lines + 1] = line:gsub("%s+", " ")
        end
        assert.same(printed, lines)
    end)

    it("has a synopsis over Redis that compiles", function()
        assert.is_function(assert(loadstring(block("lua", "routing_storage.new"))))
    end)

    describe("in its policy guide", function()
        local GUIDE = README:match("\n## Policies\n(.-)\n## ")
        local dir

        setup(function()
            dir = servers.tmpdir()
            servers.write_file(dir .. "/beta.lua", block("lua", "X-Beta\"] and"))
            servers.write_file(dir .. "/beta_spec.lua", block("lua", "beta.lua\", function"))
        end)

        it("has a spec of the smallest policy that passes as it is said to be run", function()
            local command = GUIDE:match("`(busted %-%-lua=luajit beta_spec%.lua)`")
            local result = with_make_env(("cd %s && %s -o plainTerminal"):format(dir, command))
            assert.matches("1 success / 0 failures / 0 errors", result.out, 1, true)
        end)

        it("has that spec fail when the policy is wrong", function()
            local other = servers.tmpdir()
            servers.write_file(other .. "/beta_spec.lua",
                servers.read_file(dir .. "/beta_spec.lua"))
            servers.write_file(other .. "/beta.lua",
                replace(servers.read_file(dir .. "/beta.lua"), "#backends", "1"))
            local result = with_make_env("cd " .. other
                .. " && busted --lua=luajit -o plainTerminal beta_spec.lua")
            assert.matches("0 successes / 1 failure / 0 errors", result.out, 1, true)
        end)

        it("has a command that checks a file, and says what it prints", function()
            local command, printed = block("sh", "policy\").check"):match("^(.-) +# prints: (.-)$")
            local result = with_make_env(("cd %s && %s"):format(dir, command))
            assert.equal(printed .. "\n", result.out)
            servers.write_file(dir .. "/wrong.lua", "return {\n    rout = function() end,\n}\n")
            result = with_make_env(("cd %s && %s"):format(dir, replace(command, "beta", "wrong")))
            assert.not_equal(0, result.code)
            assert.matches('wrong.lua:2: "rout" is not a field of a policy', result.err, 1, true)
        end)

        it("has a make target that checks a file", function()
            local command = GUIDE:match("`(make check%-policy FILE=beta%.lua)`")
            local result = with_make_env(replace(command, "beta.lua", dir .. "/beta.lua"))
            assert.matches("beta.lua: ok\n", result.out, 1, true)
            assert.equal(0, result.code)
        end)

        it("has a composition that works as it stands", function()
            local option = replace(block("lua", "X-Tenant"),
                "/etc/nginx/beta.lua", dir .. "/beta.lua")
            local chunk = assert(loadstring("local secret = ...; local " .. option
                .. "; return policy"))
            local policy = testing.policy(chunk(("x"):rep(16)))
            local list = testing.backends {
                { url = "http://10.0.0.1:1", sessions = 1 },
                "http://10.0.0.2:1", "http://10.0.0.3:1",
            }
            local function route(headers)
                return policy:route(testing.request { headers = headers }, list).url
            end
            assert.equal("http://10.0.0.3:1", route { ["X-Beta"] = "1", ["X-Tenant"] = "a" })
            assert.equal(route { ["X-Tenant"] = "a" }, route { ["X-Tenant"] = "a" })
            assert.not_equal(route {}, route {})
            assert.is_false(policy:admit(testing.session("s"), testing.request()))
        end)

        it("names every function of a policy, and no other", function()
            local documented = {}
            for name in GUIDE:gmatch("\n| `([%w_]+)%(") do
                documented[#documented + 1] = name
            end
            local real = { "start", unpack(require("resty.mooring.script.contract").FUNCTIONS) }
            table.sort(documented)
            table.sort(real)
            assert.same(real, documented)
        end)

        it("names every built-in policy, and no other", function()
            local documented, real = {}, {}
            local section = GUIDE:match("\n### Built%-in policies\n(.-)\n### ")
            for name in section:gmatch('\n%*%*`(.-)`%*%*') do
                documented[#documented + 1] = name:match('^"([%w_]+)"$')
                    or name:match('^require%("resty%.mooring%.policy%.([%w_]+)"%)%.new ')
            end
            for path in servers.run({ "bash", "-c", "ls lua/resty/mooring/policy/*.lua" }).out
                    :gmatch("[^\n]+") do
                local name = path:match("([%w_]+)%.lua$")
                if type(require("resty.mooring.policy." .. name).new) == "function" then
                    real[#real + 1] = name
                end
            end
            table.sort(documented)
            assert.same(real, documented)
        end)

        it("links every example, and no other", function()
            local linked = {}
            for path in GUIDE:gmatch("%((spec/examples/[%w_]+%.lua)%)") do
                linked[#linked + 1] = path
            end
            table.sort(linked)
            local there = servers.run { "bash", "-c", "ls spec/examples/*.lua | grep -v _spec" }
            assert.equal(there.out, table.concat(linked, "\n") .. "\n")
            for _, path in ipairs(linked) do
                assert.not_equal("", servers.read_file((path:gsub("%.lua$", "_spec.lua"))))
                local checked = with_make_env("MOORING_SECRET=sixteen-bytes-are-enough ZONE=east "
                    .. [[luajit -e 'require("resty.mooring.policy").check("]] .. path .. [[")']])
                assert.equal(path .. ": ok\n", checked.out .. checked.err)
            end
        end)
    end)

    for heading, name in pairs {
        ["local_storage.new"] = "resty.mooring.local_storage",
        ["redis_storage.new"] = "resty.mooring.redis_storage",
        ["routing_storage.new"] = "resty.mooring.routing_storage",
    } do
        it("names every option of " .. heading .. ", and no other", function()
            local section = README:match("### Options of `" .. heading:gsub("%.", "%%.")
                                         .. "`\n(.-)\n#")
            local documented, real = {}, {}
            for option in section:gmatch("\n| `([%w_]+)` |") do
                documented[#documented + 1] = option
            end
            for _, option in ipairs(require(name).OPTIONS) do
                real[#real + 1] = option.name
            end
            table.sort(documented)
            table.sort(real)
            assert.same(real, documented)
        end)
    end
end)
