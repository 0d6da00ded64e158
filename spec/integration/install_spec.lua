-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local servers = require "support.servers"

local PROGRAM = [[
local mooring = require "resty.mooring"
local store = mooring.local_storage.new {}
store:store(mooring.session.new("a", { metadata = { backend_url = "http://h:1" } }))
print(mooring.VERSION, store:resolve("a"))
]]

-- Runs PROGRAM with the modules of an installed tree only.
local function run_in(tree, share, lib)
    local path = tree .. "/program.lua"
    servers.write_file(path, PROGRAM)
    return servers.run { "luajit", path, env = {
        LUA_PATH = tree .. share .. "/?.lua;;",
        LUA_CPATH = tree .. lib .. "/?.so;;",
    } }
end

local function copy_of_checkout()
    local dir = servers.tmpdir()
    local result = servers.run { "bash", "-c", "cp -r c lua rockspec Makefile README.md LICENSE "
                                 .. dir }
    assert.equal(0, result.code, result.err)
    return dir
end

describe("an installed copy", function()
    it("by make install into DESTDIR and PREFIX works, include files and all", function()
        local tree = servers.tmpdir()
        local made = servers.run { "make", "-C", copy_of_checkout(), "install", "PREFIX=/opt/m",
                                   "DESTDIR=" .. tree, timeout = 120 }
        assert.equal(0, made.code, made.err)
        local result = run_in(tree, "/opt/m/share/lua/5.1", "/opt/m/lib/lua/5.1")
        assert.equal("", result.err)
        assert.matches("^%d+%.%d+%.%d+\thttp://h:1\n$", result.out)
        local conf = tree .. "/opt/m/share/lua/5.1/resty/mooring/nginx/location.conf"
        assert.matches("router:access", servers.read_file(conf))
    end)

    it("by luarocks make into a tree of its own works", function()
        local tree = servers.tmpdir()
        local made = servers.run { "bash", "-c", "cd " .. copy_of_checkout()
            .. " && luarocks --lua-version=5.1 --tree " .. tree
            .. " make rockspec/lua-resty-mooring-scm-1.rockspec", timeout = 120 }
        assert.equal(0, made.code, made.out .. made.err)
        local result = run_in(tree, "/share/lua/5.1", "/lib/lua/5.1")
        assert.equal("", result.err)
        assert.matches("http://h:1", result.out, 1, true)
    end)
end)
