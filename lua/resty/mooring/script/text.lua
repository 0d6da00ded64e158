-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What scripts throw, as text. Anything can be thrown, and what it is turned
-- into text by is the script's own code and may throw in its turn.

local find = string.find
local format = string.format
local getinfo = debug.getinfo
local gsub = string.gsub
local pcall = pcall
local sub = string.sub
local tostring = tostring
local type = type

local _M = {}

local MAX_DEPTH = 20
local MAX_NAME = 64

-- What xpcall says when its handler has failed: the one here does when there is
-- no stack left to it.
local HANDLER_FAILED = "error in error handling"

-- What a message with file and line begins with.
local PLACE = "^[^\n]-:%d+:"
_M.PLACE = PLACE


---
-- @param err anything
-- @return string
function _M.of(err)
    if type(err) == "string" then
        return err == HANDLER_FAILED and "stack overflow" or err
    end
    local ok, text = pcall(tostring, err)
    -- LuaJIT passes on whatever __tostring returns.
    return ok and type(text) == "string" and text or "a " .. type(err)
end

local of = _M.of


---
-- The handler of errors for xpcall: one that does not say where it comes from
-- is told by the stack, which exists only here.
function _M.located(err)
    local text = of(err)
    if find(text, PLACE) then
        return text
    end
    for level = 2, MAX_DEPTH do
        local info = getinfo(level, "Sl")
        if not info then
            break
        elseif info.what ~= "C" and info.currentline > 0 then
            return format("%s:%d: %s", info.short_src, info.currentline, text)
        end
    end
    return text
end


---
-- The key of a table for a message: "name", [5], [a table].
function _M.of_key(key)
    local kind = type(key)
    if kind == "string" then
        return '"' .. gsub(sub(key, 1, MAX_NAME), "%c", "?") .. '"'
    elseif kind == "number" or kind == "boolean" then
        return "[" .. tostring(key) .. "]"
    end
    return "[a " .. kind .. "]"
end


return _M
