-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What the processes of some nginx hold, over time: memory and descriptors from
-- /proc, the region from the replica itself, and how long old workers stay.
--
-- A worker is leaving once its title says so. When the last of its requests
-- ended is in the access log, whose format is LOG_FORMAT; the log has a line of
-- a request when it ends. When a worker has gone is not known, only when it was
-- last seen: who looks may be late, and that is not the worker's fault.

local binding = require "resty.mooring.ffi"
local servers = require "support.servers"

local wall = binding.C.mr_time

local _M = {}
local Samples = {}
Samples.__index = Samples

--- For the http block; the server block has access_log PATH soak.
_M.LOG_FORMAT = "log_format soak '$pid $msec $request_time $status $mooring_result';"


--- @param webs nginx servers, each with :inside() -> table of numbers, and
--         soak_log = the path of its access log
function _M.new(webs)
    return setmetatable({
        webs = webs,
        started = servers.now(),
        list = {},    -- { t =, web =, role =, pid =, rss =, pss =, fds = }
        regions = {}, -- { t =, web =, ... of :inside() }
        born = {},    -- pid -> { t =, web = }
        leaving = {}, -- pid -> { web =, since =, seen = unix times }
        left = {},    -- { pid =, web =, since =, seen =, last = } unix times
    }, Samples)
end


-- KiB of one of the lines of smaps_rollup.
local function kib(text, name)
    return tonumber(text:match("\n" .. name .. ":%s+(%d+) kB"))
end


-- Descriptors of each pid: one shell for all.
local function count_descriptors(pids)
    local counts = {}
    local pipe = io.popen("for p in " .. table.concat(pids, " ")
        .. "; do set -- /proc/$p/fd/*; echo $p $#; done 2>/dev/null")
    for pid, n in pipe:read("*a"):gmatch("(%d+) (%d+)") do
        counts[tonumber(pid)] = tonumber(n)
    end
    pipe:close()
    return counts
end


local function processes_of(web)
    local list = { { role = "master", pid = web.pid } }
    for _, pid in ipairs(web:worker_pids()) do
        list[#list + 1] = { role = "worker", pid = pid }
    end
    return list
end


function Samples:now()
    return servers.now() - self.started
end


local function add_process(self, web, process, fds)
    local text = servers.read_file("/proc/" .. process.pid .. "/smaps_rollup")
    local rss, pss = kib(text, "Rss"), kib(text, "Pss")
    local private = (kib(text, "Private_Dirty") or 0)
        + (kib(text, "Private_Clean") or 0)
    if not rss then
        return -- it has just gone
    end
    local born = self.born[process.pid] or { t = self:now(), web = web }
    self.born[process.pid] = born
    self.list[#self.list + 1] = {
        t = self:now(), age = self:now() - born.t, web = web,
        role = process.role, pid = process.pid,
        rss = rss, pss = pss, private = private, fds = fds,
    }
end


--- Takes one sample of everything.
function Samples:take()
    local all, pids = {}, {}
    for i, web in ipairs(self.webs) do
        for _, process in ipairs(processes_of(web)) do
            all[#all + 1] = { i, process }
            pids[#pids + 1] = process.pid
        end
    end
    local fds = count_descriptors(pids)
    for _, item in ipairs(all) do
        add_process(self, item[1], item[2], fds[item[2].pid])
    end
    for i, web in ipairs(self.webs) do
        local inside = web:inside()
        inside.t, inside.web = self:now(), i
        self.regions[#self.regions + 1] = inside
    end
end


--- Looks which workers are leaving, and which have left; to be called often.
function Samples:watch()
    for i, web in ipairs(self.webs) do
        for _, pid in ipairs(web:worker_pids(true)) do
            self.leaving[pid] = self.leaving[pid]
                or { web = i, since = wall(), seen = wall() }
        end
    end
    for pid, leaver in pairs(self.leaving) do
        local stat = servers.read_file("/proc/" .. pid .. "/stat")
        if stat == "" or stat:find("^%d+ %(.*%) [ZX]") then
            self.leaving[pid] = nil
            leaver.pid = pid
            self.left[#self.left + 1] = leaver
        else
            leaver.seen = wall()
        end
    end
end


--- How many are leaving now.
function Samples:count_leaving()
    local n = 0
    for _ in pairs(self.leaving) do
        n = n + 1
    end
    return n
end


--- Reads from the access logs when the last request of each that left ended.
function Samples:read_logs()
    local last = {}
    for _, web in ipairs(self.webs) do
        for line in io.lines(web.soak_log) do
            local pid, at = line:match("^(%d+) ([%d.]+)")
            if pid then
                last[tonumber(pid)] = tonumber(at)
            end
        end
    end
    for _, leaver in ipairs(self.left) do
        leaver.last = last[leaver.pid]
    end
end


return _M
