-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Where the numbers come from: hardware, versions, and how busy it was.

local servers = require "support.servers"

local _M = {}

-- The first line a shell command prints, "" for none.
local function output(command)
    local pipe = io.popen(command .. " 2>&1")
    local line = pipe:read("*l")
    pipe:close()
    return line or ""
end

local function cpu_field(name)
    return servers.read_file("/proc/cpuinfo"):match("\n" .. name .. "%s*:%s*([^\n]*)") or "unknown"
end

local function package_version(name)
    return output("dpkg-query -W -f='${Version}' " .. name):match("^%d[^%s]*") or "unknown"
end

--- The load average of the last minute.
function _M.load()
    return tonumber(servers.read_file("/proc/loadavg"):match("^%S+"))
end

--- @return table of strings and numbers
function _M.describe()
    local memory = servers.read_file("/proc/meminfo"):match("MemTotal:%s*(%d+)") or 0
    return {
        date = os.date("!%Y-%m-%dT%H:%M:%SZ"),
        cpu = cpu_field("model name"),
        cpu_mhz = tonumber(cpu_field("cpu MHz")),
        cache = cpu_field("cache size"),
        cores = tonumber(output("nproc")),
        memory_gib = math.floor(tonumber(memory) / 2 ^ 20 + 0.5),
        virtual = cpu_field("flags"):find("hypervisor", 1, true) ~= nil,
        kernel = output("uname -sr"),
        commit = output("git -C '" .. servers.root .. "' describe --always --dirty"),
        load_before = _M.load(),
        versions = {
            mooring = require("resty.mooring.ffi")._VERSION,
            nginx = output((os.getenv("NGINX") or "nginx") .. " -v"):match("nginx/(%S+)"),
            ["lua-nginx-module"] = package_version("libnginx-mod-http-lua"),
            ["lua-resty-lrucache"] = package_version("lua-resty-lrucache"),
            ["lua-nginx-redis"] = package_version("lua-nginx-redis"),
            luajit = package_version("luajit2"),
            hiredis = package_version("libhiredis-dev"),
            redis = output("redis-server --version"):match("v=(%S+)"),
            gcc = output("gcc -dumpfullversion"),
            wrk = package_version("wrk"),
        },
    }
end

return _M
