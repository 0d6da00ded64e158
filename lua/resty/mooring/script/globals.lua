-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Does a function assign a global variable? In a script that serves many
-- requests at once that is a forgotten `local`: one request would read what
-- another one has left there. Whoever means it writes _G.name = value.
--
-- Nothing is run for that: LuaJIT compiles such an assignment to an instruction
-- of its own, GSET, and jit.util reads the bytecode of a function and of those
-- written inside it. The number of GSET is taken from a sample.

local band = bit.band
local loadstring = loadstring
local pcall = pcall
local rshift = bit.rshift
local sub = string.sub
local type = type

local _M = {}

local found, util = pcall(require, "jit.util")
-- The first instruction is the function's header, the second loads the value.
local GSET = found and band(util.funcbc(loadstring("x = 1"), 2), 0xff)


local function scan(fn)
    local info = util.funcinfo(fn)
    for pc = 1, (info.bytecodes or 0) - 1 do
        local instruction = util.funcbc(fn, pc)
        if band(instruction, 0xff) == GSET then
            local name = util.funck(fn, -rshift(instruction, 16) - 1)
            return name, util.funcinfo(fn, pc).currentline
        end
    end
    for k = -1, -(info.gcconsts or 0), -1 do
        local constant = util.funck(fn, k)
        if type(constant) == "proto" then
            local name, line = scan(constant)
            if name then
                return name, line
            end
        end
    end
end


---
-- The first global variable that a function, or one inside it, assigns.
-- @param fn a Lua or C function
-- @return name, line; or nil when there is none
function _M.assigned(fn)
    if not found then
        return nil
    end
    local name, line = scan(fn)
    return name and sub(name, 1, 64), line
end


return _M
