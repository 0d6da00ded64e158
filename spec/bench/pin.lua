-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which CPU who runs on: what is measured has one for itself, as far as there
-- are two, and what makes the load has another one.

local servers = require "support.servers"

local function allowed()
    local list = {}
    local text = servers.read_file("/proc/self/status"):match("Cpus_allowed_list:%s*(%S+)") or "0"
    for from, to in text:gmatch("(%d+)%-?(%d*)") do
        for cpu = tonumber(from), tonumber(to) or tonumber(from) do
            list[#list + 1] = cpu
        end
    end
    return list
end

local cpus = allowed()

local _M = {
    measured = cpus[1],           -- the process whose time it is about
    other = cpus[2] or cpus[1],   -- a second such process; or the load
}

--- argv of a program, on one CPU.
function _M.command(cpu, argv)
    local pinned = { "taskset", "-c", tostring(cpu) }
    for _, arg in ipairs(argv) do
        pinned[#pinned + 1] = arg
    end
    return pinned
end

--- Moves a running process, and what it starts from now on.
function _M.move(pid, cpu)
    local result = servers.run { "taskset", "-a", "-p", "-c", cpu, pid }
    assert(result.code == 0, result.err)
end

--- The lines for nginx that pin its first worker to one CPU, its second one to
-- another.
function _M.workers(first, second)
    local function mask(cpu)
        return "1" .. ("0"):rep(cpu)
    end
    return "worker_cpu_affinity " .. mask(first) .. (second and " " .. mask(second) or "") .. ";\n"
end

--- Nanoseconds a process has run on a CPU so far.
function _M.cpu_ns(pid)
    local ns = servers.read_file("/proc/" .. pid .. "/schedstat"):match("^(%d+)")
    if ns and tonumber(ns) > 0 then
        return tonumber(ns)
    end
    -- Without scheduler statistics: utime and stime, in 100ths of a second.
    local user, system = servers.read_file("/proc/" .. pid .. "/stat")
        :match("%) %S+" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
    return (tonumber(user) + tonumber(system)) * 1e7
end

return _M
