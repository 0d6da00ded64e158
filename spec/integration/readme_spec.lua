-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The examples of the README run as they stand there, but for addresses and
-- paths; its tables name the options there are.

local servers = require "support.servers"

local README = servers.read_file("README.md")

-- The code blocks of a language, in order.
local function blocks(language)
    local list = {}
    for text in README:gmatch("\n```" .. language .. "\n(.-)\n```") do
        list[#list + 1] = text
    end
    return list
end

-- The one of them that has a text.
local function block_with(language, text)
    for _, block in ipairs(blocks(language)) do
        if block:find(text, 1, true) then
            return block
        end
    end
    error("the README has no example with " .. text)
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
            block_with("nginx", "sse.conf") .. "\n        location /mcp {"))
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
        local program = blocks("lua")[1]
        local path = servers.tmpdir() .. "/synopsis.lua"
        servers.write_file(path, program)
        local result = servers.run { "bash", "-c",
            'unset LUA_PATH LUA_CPATH; eval "$(make -s env)"; exec "${LUAJIT:-luajit}" ' .. path }
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
        assert.is_function(assert(loadstring(blocks("lua")[2])))
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
