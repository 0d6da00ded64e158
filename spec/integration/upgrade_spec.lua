-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Another version of mooring comes into a running nginx, or the region is not
-- what it should be: the site goes on, and the log says what to do.

local cdef = require "resty.mooring.cdef"
local replica = require "support.replica"
local servers = require "support.servers"

local wait_for = servers.wait_for

local OTHER_ABI, OTHER_VERSION = 99, "9.9.9"
local BOTH = ("%s %s\n"):format(cdef.version, cdef.version) -- modules, library
local OTHERS = ("%s %s\n"):format(OTHER_VERSION, OTHER_VERSION)

-- A copy of the sources with another version in its one place, built once.
local other
local function build_other()
    if other then
        return
    end
    local dir = servers.tmpdir()
    local made = servers.run { "bash", "-c", ([[
        cp -r '%s'/{c,lua,Makefile} '%s' && cd '%s' &&
        sed -i 's/^#define MOORING_ABI .*/#define MOORING_ABI %d/
                s/^#define MOORING_VERSION .*/#define MOORING_VERSION "%s"/' \
            c/mooring.h && make -j2 all]])
        :format(servers.root, dir, dir, OTHER_ABI, OTHER_VERSION), timeout = 240 }
    assert.equal(0, made.code, made.out .. made.err)
    other = dir
end

-- What `make install` of a checkout puts into one directory.
local function install(from, into, parts)
    local commands = {
        -- As install(1) does: the file is another one, not overwritten.
        library = "rm -f %s/libmooring.so; cp %s/build/libmooring.so %s/",
        modules = "rm -rf %s/resty; cp -r %s/lua/resty %s/ && "
            .. "cp %s/build/lua/resty/mooring/cdef.lua %s/resty/mooring/",
    }
    for _, part in ipairs(parts or { "library", "modules" }) do
        local command = part == "library"
            and commands.library:format(into, from, into)
            or commands.modules:format(into, from, into, from, into)
        assert.equal(0, servers.run({ "bash", "-c", command }).code)
    end
end

local function paths_of(dir)
    return ('lua_package_path "%s/?.lua;;"; lua_package_cpath "%s/?.so;;";')
        :format(dir, dir)
end

local STATUS = [[
    location = /version {
        content_by_lua_block {
            local ffi = require "resty.mooring.ffi"
            ngx.say(router._VERSION, " ", ffi.ffi.string(ffi.C.mr_version()))
        }
    }
    # The first field of a handle is the address of its region, whose first one
    # is the magic number.
    location = /damage {
        content_by_lua_block {
            local ffi = require "ffi"
            local cache = router.storage.cache
            local region = ffi.cast("uint64_t **", cache.handle)[0]
            region[0] = region[0] + 1
            ngx.say("damaged")
        }
    }
]]

describe("plain LuaJIT with two versions of mooring", function()
    setup(build_other)
    teardown(function() servers.stop_all() end)

    local function run(lua_dirs, library, program)
        local path = servers.tmpdir() .. "/program.lua"
        servers.write_file(path, program)
        return servers.run { "luajit", path, env = {
            LUA_PATH = lua_dirs .. ";;", LUA_CPATH = library .. "/?.so;;",
            OTHER = other,
        } }
    end

    local function modules(root)
        return root .. "/lua/?.lua;" .. root .. "/build/lua/?.lua"
    end

    it("refuses an old library under new modules, and says that a restart helps", function()
        local result = run(modules(other), servers.root .. "/build",
            'require "resty.mooring"')
        assert.not_equal(0, result.code)
        assert.matches("libmooring at " .. servers.root, result.err, 1, true)
        assert.matches("the Lua modules need 99 (9.9.9)", result.err, 1, true)
        assert.matches("restart it after an upgrade", result.err, 1, true)
    end)

    it("refuses a new library under old modules", function()
        local result = run(modules(servers.root), other .. "/build",
            'require "resty.mooring"')
        assert.not_equal(0, result.code)
        assert.matches("has ABI 99 (9.9.9), the Lua modules need " .. cdef.abi, result.err, 1, true)
        assert.matches("restart", result.err)
    end)

    it("refuses a second version in a VM, which would call with structs of the first", function()
        local result = run(modules(servers.root), servers.root .. "/build", [[
            local first = require "resty.mooring"
            first.local_storage.new {}
            for name in pairs(package.loaded) do
                if name:find("^resty%.mooring") then package.loaded[name] = nil end
            end
            local other = os.getenv "OTHER"
            package.path = other .. "/lua/?.lua;" .. other .. "/build/lua/?.lua"
            package.cpath = other .. "/build/?.so"
            print(select(2, pcall(require, "resty.mooring")))
            -- The first one is as good as before.
            print(first.local_storage.new({}):resolve("nobody"))
        ]])
        assert.equal("", result.err)
        assert.matches("another version of mooring before (ABI " .. cdef.abi .. ")",
            result.out, 1, true)
        assert.matches("need ABI 99 (9.9.9)", result.out, 1, true)
        assert.matches("restart", result.out)
        assert.matches("session not found", result.out)
    end)

    it("takes the same version a second time", function()
        local result = run(modules(servers.root), servers.root .. "/build", [[
            require "resty.mooring"
            for name in pairs(package.loaded) do
                if name:find("^resty%.mooring") then package.loaded[name] = nil end
            end
            print(require("resty.mooring").local_storage.new({}):resolve("nobody"))
        ]])
        assert.equal("", result.err)
        assert.matches("session not found", result.out)
    end)
end)

describe("a running nginx", function()
    local redis, backends, clients, installed, web, names

    setup(function()
        build_other()
        redis = servers.redis()
        backends = replica.backends(2)
        clients = replica.clients()
        names = 0
    end)
    teardown(function() servers.stop_all() end)

    before_each(function() installed = servers.tmpdir() end)
    after_each(function()
        if web then
            web:stop()
        end
    end)

    local function start(storage, options)
        install(servers.root, installed)
        web = replica.start {
            backends = backends, storage = storage or redis.url, server = STATUS,
            http = paths_of(installed) .. " keepalive_timeout 0;", options = options,
        }
    end

    local function open()
        names = names + 1
        local name = "u" .. names
        clients:expect { op = "open", as = name, urls = { web.mcp } }
        return name
    end

    local function count(name)
        return clients:expect({ op = "call", as = name, tool = "counter" }).value.count
    end

    local function version()
        return servers.http(web.url .. "/version").body
    end

    -- A reload that nginx refuses; what it logged meanwhile.
    local function reload_in_vain(pattern)
        local seen = #web:error_log()
        local before = web:worker_pids()
        web:signal("HUP")
        local logged
        wait_for(function()
            logged = web:error_log():sub(seen + 1)
            return logged:find(pattern, 1, true)
        end, 10, pattern)
        assert.same(before, web:worker_pids())
        return logged
    end

    it("refuses to reload into an upgrade that overwrote what it runs, and serves on", function()
        start()
        local name = open()
        assert.equal(1, count(name))
        install(other, installed)
        for calls = 2, 3 do -- however often one tries
            local logged = reload_in_vain("init_by_lua error")
            assert.matches("the Lua modules need 99 (9.9.9)", logged, 1, true)
            assert.matches("restart it after an upgrade instead of reloading it", logged, 1, true)
            assert.equal(calls, count(name))
        end
        assert.equal(1, count(open())) -- new sessions, too
        assert.equal(BOTH, version())
        -- What it says helps, and costs no session: they are in Redis.
        web:stop()
        web:start()
        assert.equal(OTHERS, version())
        assert.equal(4, count(name))
    end)

    it("refuses to start with half an upgrade", function()
        start()
        install(other, installed, { "library" })
        web:stop()
        local ok, err = pcall(web.start, web)
        assert.is_false(ok)
        assert.matches("has ABI 99 (9.9.9), the Lua modules need " .. cdef.abi, err, 1, true)
    end)

    it("reloads into a version in another place, old workers finishing with theirs", function()
        start()
        local name = open()
        assert.equal(1, count(name))
        local stream = clients:begin { op = "call", as = name, tool = "stream",
                                       args = { events = 20, interval = 100 } }
        local elsewhere = servers.tmpdir()
        install(other, elsewhere)
        web:change { http = paths_of(elsewhere) .. " keepalive_timeout 0;" }
        assert.equal(OTHERS, version())
        assert.equal(2, count(name))
        assert.equal(20, #stream().progress) -- through a worker of the old version
        assert.equal(1, count(open()))
        -- And back, while both are in the process.
        web:change { http = paths_of(installed) .. " keepalive_timeout 0;" }
        assert.equal(BOTH, version())
        assert.equal(3, count(name))
    end)

    it("refuses to reload onto a region with a damaged header, and serves on", function()
        start()
        local name = open()
        assert.equal(1, count(name))
        assert.equal("damaged\n", servers.http(web.url .. "/damage").body)
        local logged = reload_in_vain("init_by_lua error")
        assert.matches('the header of cache region "router:default" is damaged', logged, 1, true)
        assert.matches("restart the process instead of reloading it", logged, 1, true)
        assert.equal(2, count(name))
        web:stop()
        web:start()
        assert.equal(3, count(name))
        web:reload()
        assert.equal(4, count(name))
    end)

    it("reloads into another size and keeps the sessions, over Redis and without", function()
        for _, storage in ipairs { redis.url, "local" } do
            start(storage, "max_local_entries = 50, max_local_sessions = 50,")
            local name = open()
            assert.equal(1, count(name))
            for calls, size in ipairs { 100, 20 } do
                web:change { options = ("max_local_entries = %d, max_local_sessions = %d,")
                    :format(size, size) }
                assert.equal(calls + 1, count(name))
            end
            web:stop()
        end
    end)
end)
