-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which lines of lua/ have run: a line hook, with the compiler off, since
-- compiled code calls no hooks. LuaJIT has one hook for all coroutines of a VM.
--
--   busted --helper=spec/support/coverage.lua     with MOORING_COVERAGE=dir
--   require("support.coverage").start(dir)        in a VM of nginx, at its start
--   luajit spec/support/coverage.lua dir          prints the report
--
-- A line is appended to dir/<pid> when it runs for the first time, so that
-- processes may fork and be killed. Lines that can run are those of the
-- bytecode; what only closes a block is none.

local _M = {}

local MINE = "lua/(resty/mooring[%w_/]*%.lua)$"

-- Part of a source's name that tells files of this library apart, or false.
local names = setmetatable({}, {
    __index = function(self, source)
        local name = source:match(MINE) or false
        self[source] = name
        return name
    end,
})

function _M.start(dir)
    local getinfo = debug.getinfo
    local pid = io.open("/proc/self/stat"):read("*n")
    local file = assert(io.open(("%s/%d"):format(dir, pid), "a"))
    file:setvbuf("no")
    local seen = {}
    require("jit").off()
    debug.sethook(function(_, line)
        local name = names[getinfo(2, "S").source]
        if not name then
            return
        end
        local lines = seen[name]
        if not lines then
            lines = {}
            seen[name] = lines
        end
        if not lines[line] then
            lines[line] = true
            file:write(name, " ", line, "\n")
        end
    end, "l")
    rawset(debug, "sethook", function() end) -- specs that count do without
end

-- ---------------------------------------------------------------- report --

local function read_lines(path)
    local list = {}
    for line in io.lines(path) do
        list[#list + 1] = line
    end
    return list
end

-- Adds the lines of a function and of those made in it.
local function add_active(proto, active)
    local util = require "jit.util"
    local info = util.funcinfo(proto)
    for pc = 1, info.bytecodes - 1 do
        active[util.funcinfo(proto, pc).currentline] = true
    end
    if info.children then
        local i = -1
        while true do
            local child = util.funck(proto, i)
            if child == nil then
                break
            elseif type(child) == "proto" then
                add_active(child, active)
            end
            i = i - 1
        end
    end
end

local function active_lines(path)
    local active = {}
    add_active(assert(loadfile(path)), active)
    for number, text in ipairs(read_lines(path)) do
        if text:find("^%s*[%)}%],;]*$") or text:find("^%s*end[%s%)},;]*$")
           or text:find("^%s*else%s*$")
        then
            active[number] = nil
        end
    end
    return active
end

local function read_hits(dir)
    local hits = {}
    for path in io.popen("ls -d " .. dir .. "/*"):lines() do
        for line in io.lines(path) do
            local name, number = line:match("^(%S+) (%d+)$")
            if name then
                hits[name] = hits[name] or {}
                hits[name][tonumber(number)] = true
            end
        end
    end
    return hits
end

-- "12-14 20" for lines that follow each other in `active`.
local function ranges(active, hit)
    local numbers, parts, from, last = {}, {}, nil, nil
    for number in pairs(active) do
        numbers[#numbers + 1] = number
    end
    table.sort(numbers)
    local function close()
        if from then
            parts[#parts + 1] = from == last and from or from .. "-" .. last
        end
        from = nil
    end
    for _, number in ipairs(numbers) do
        if hit[number] then
            close()
        else
            from, last = from or number, number
        end
    end
    close()
    return table.concat(parts, " ")
end

local function report(dir)
    local hits, all, all_hit = read_hits(dir), 0, 0
    print(("%-48s %6s %6s %5s  %s"):format("file", "lines", "run", "%", "not run"))
    for path in io.popen("find lua -name '*.lua' | LC_ALL=C sort"):lines() do
        local active, n, ran = active_lines(path), 0, 0
        local hit = hits[path:match(MINE)] or {}
        for number in pairs(active) do
            n = n + 1
            ran = ran + (hit[number] and 1 or 0)
        end
        all, all_hit = all + n, all_hit + ran
        print(("%-48s %6d %6d %5.1f  %s"):format(path, n, ran,
            n == 0 and 100 or 100 * ran / n, ranges(active, hit)))
    end
    print(("%-48s %6d %6d %5.1f"):format("total", all, all_hit, 100 * all_hit / all))
end

if os.getenv("MOORING_COVERAGE") then
    _M.start(os.getenv("MOORING_COVERAGE")) -- as a helper of busted
elseif arg and arg[0] and arg[0]:find("support/coverage.lua", 1, true) then
    report(arg[1])
end

return _M
