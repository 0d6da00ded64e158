-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The files a history is recorded in, one for each process. A line is written
-- at once and in one piece, so that a process killed in the middle of anything
-- leaves all that it has done:
--
--     B n kind id value begin            a write is about to be made
--     E n end code                       it has ended
--     R kind id value begin turn end code fresh|stale      a load
--     F time text                        a fault, for the reader
--     S from to                          a barrier, see history.checker
--     D file time                        the process of that file is dead
--     Z time                             the process has ended in order
--
-- Times are ms of the host's monotonic clock; `turn` is what nginx' clock showed
-- at the begin of a load. "-" stands for no id or no value.

local binding = require "resty.mooring.ffi"
local process = require "support.process"

local format = string.format
local now = binding.C.mr_now

local _M = {}

-- ---------------------------------------------------------------- recorder --

local Recorder = {}
Recorder.__index = Recorder


---
-- Opens the file of this process.
-- @param dir of the history
-- @param name of the file in it
function _M.recorder(dir, name)
    local file = assert(io.open(dir .. "/" .. name, "ab"))
    file:setvbuf("no") -- one write(2) a line: what is written survives us
    return setmetatable({ file = file, count = 0 }, Recorder)
end


-- What the result of a storage says of the effect of an operation: the message
-- of an unavailable server tells whether a command may have reached it.
local function outcome(err, code)
    if code == "timeout" or code == "unavailable"
       and tostring(err):find("unknown", 1, true)
    then
        return "unknown"
    end
    return code == "unavailable" and "failed" or code or "nothing"
end


---
-- Records a write and makes it.
-- @param act function() -> true, or false, or nil, message, code
function Recorder:write(kind, id, value, act)
    self.count = self.count + 1
    local n = self.count
    self.file:write(format("B %d %s %s %s %.3f\n", n, kind, id or "-",
                           value or "-", now()))
    local result, err, code = act()
    local known = result and "ok" or result == false and "changed"
                  or outcome(err, code)
    self.file:write(format("E %d %.3f %s\n", n, now(), known))
    return known
end


---
-- Makes a load and records it.
-- @param act function() -> value, nil, mark; or nil, message, code
-- @return what act returned after the value (nil in the case of a failure)
function Recorder:load(kind, id, act)
    local turn, start = binding.now(), now()
    local value, err, code, more = act()
    local known = value and "ok" or outcome(err, code)
    self.file:write(format("R %s %s %s %.3f %.3f %.3f %s %s\n", kind, id,
        value or "-", start, turn, now(), known,
        value and code == "stale" and "stale" or "fresh"))
    return more
end


function Recorder:fault(...)
    self.file:write(format("F %.3f %s\n", now(), format(...)))
end


function Recorder:barrier(from, to)
    self.file:write(format("S %.3f %.3f\n", from, to))
end


function Recorder:dead(name)
    self.file:write(format("D %s %.3f\n", name, now()))
end


function Recorder:close()
    self.file:write(format("Z %.3f\n", now()))
    self.file:close()
end


-- ------------------------------------------------------------------ reading --

local function none(text)
    return text ~= "-" and text or nil
end


-- A line of each kind: function(history, words, file, open).
local LINES = {}

function LINES.B(history, w, file, open)
    local op = { kind = w[3], id = none(w[4]), value = none(w[5]),
                 inv = tonumber(w[6]), file = file.name,
                 replica = file.replica }
    open[w[2]] = op
    history.ops[#history.ops + 1] = op
end

function LINES.E(_, w, _, open)
    open[w[2]].resp, open[w[2]].code = tonumber(w[3]), w[4]
    open[w[2]] = nil
end

function LINES.R(history, w, file)
    history.ops[#history.ops + 1] = {
        kind = w[2], id = w[3], value = none(w[4]), inv = tonumber(w[5]),
        turn = tonumber(w[6]), resp = tonumber(w[7]), code = w[8],
        stale = w[9] == "stale", file = file.name, replica = file.replica,
    }
end

function LINES.F(history, w, _, _, line)
    history.faults[#history.faults + 1] =
        { time = tonumber(w[2]), text = line:match("^F %S+ (.*)$") }
end

function LINES.S(history, w)
    history.barriers[#history.barriers + 1] =
        { from = tonumber(w[2]), to = tonumber(w[3]) }
end

function LINES.D(history, w)
    history.dead[w[2]] = tonumber(w[3])
end

function LINES.Z(_, _, file)
    file.complete = true
end


-- What was cut off in the middle of a line by the death of its writer is as if
-- it had not been written.
local function read_file(history, path, name)
    local file = { name = name, replica = name:match("^(r%d+)%-") }
    local open = {}
    for line in process.read_file(path):gmatch("([^\n]*)\n") do
        local words = {}
        for word in line:gmatch("%S+") do
            words[#words + 1] = word
        end
        LINES[words[1]](history, words, file, open, line)
    end
    for _, op in pairs(open) do
        history.unfinished[#history.unfinished + 1] = op
    end
    history.files[#history.files + 1] = file
end


---
-- Names of the files of a directory, sorted.
function _M.list(dir)
    local names = {}
    local pipe = assert(io.popen("ls '" .. dir .. "'"))
    for name in pipe:lines() do
        names[#names + 1] = name
    end
    pipe:close()
    return names
end


---
-- Has the process that writes a file ended in order?
function _M.is_complete(dir, name)
    return process.read_file(dir .. "/" .. name):find("\nZ [%d.]+\n$") ~= nil
end


---
-- Reads the history in a directory.
-- @return as history.checker takes it, and in addition .faults, .files
function _M.read(dir)
    local history = { ops = {}, barriers = {}, faults = {}, files = {},
                      dead = {}, unfinished = {} }
    for _, name in ipairs(_M.list(dir)) do
        read_file(history, dir .. "/" .. name, name)
    end
    for _, op in ipairs(history.unfinished) do
        op.died = history.dead[op.file]
    end
    return history
end


return _M
