-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a policy is, and what is wrong with one that is not. Whoever wrote it
-- reads these messages in nginx' error log: each begins with file and line,
-- where they can be found out, and says what is expected.

local globals = require "resty.mooring.script.globals"

local concat = table.concat
local find = string.find
local format = string.format
local getinfo = debug.getinfo
local gmatch = string.gmatch
local gsub = string.gsub
local ipairs = ipairs
local pairs = pairs
local sort = table.sort
local tostring = tostring
local type = type

local _M = {}

-- The functions of a policy, in the order they are called in.
local FUNCTIONS = { "key", "admit", "route", "on_bind", "on_evict",
                    "on_unreachable" }
_M.FUNCTIONS = FUNCTIONS

-- watches_answers: see router/reinitialize.lua
local FIELDS = { name = "string", start = "function",
                 watches_answers = "boolean" }
for _, name in ipairs(FUNCTIONS) do
    FIELDS[name] = "function"
end

local KNOWN = concat(FUNCTIONS, ", ") .. ", start and name"


-- The last line of a text that matches a pattern, or nil, and the last line.
local function last_line(text, pattern)
    local number, last = 0, nil
    for line in gmatch(text, "[^\n]*\n?") do
        if line ~= "" then
            number = number + 1
        end
        -- A comment is no code.
        if find(gsub(line, "%-%-.*", ""), pattern) then
            last = number
        end
    end
    return last, number
end


---
-- "file:line" of where a function is written, nil when it is not Lua.
function _M.place_of(fn)
    local info = getinfo(fn, "S")
    if info.what == "C" then
        return nil
    end
    return info.short_src .. ":" .. info.linedefined
end


-- The line of a field in the text of its file.
local function line_of_field(source, name)
    local pattern = "%f[%w_]" .. gsub(tostring(name), "%W", "%%%0")
                    .. "%f[^%w_][\"']?%]?%s*="
    return last_line(source.text, pattern)
           or last_line(source.text, "^%s*return%f[^%w_]")
           or 1
end


local function place(source, name, value)
    local at = type(value) == "function" and _M.place_of(value)
    if not at and source.file then
        at = source.file .. ":" .. line_of_field(source, name)
    end
    return at and at .. ": " or ""
end


local function wrong_field(source, name, value)
    local expected = FIELDS[name]
    if not expected then
        return place(source, name, value)
               .. format("%s is not a field of a policy (known are %s)",
                         type(name) == "string" and '"' .. name .. '"'
                         or "[" .. tostring(name) .. "]", KNOWN)
    elseif type(value) ~= expected then
        return place(source, name)
               .. format("%s must be a %s, got a %s", name, expected,
                         type(value))
    end
    local global, line = nil, nil
    if expected == "function" then
        global, line = globals.assigned(value)
    end
    if global then
        return format('%s:%d: the global variable "%s" is assigned: all '
                      .. "requests share it; say local, or _G.%s if that is "
                      .. "meant", getinfo(value, "S").short_src, line, global,
                      global)
    end
end


---
-- What is wrong with a policy.
-- @param policy what the user gave, or what the file returned
-- @param source { file = path, text = of the file }, or {} for a table
-- @return text, or nil when all is well
function _M.wrong(policy, source)
    local names = {}
    for name in pairs(policy) do
        names[#names + 1] = name
    end
    sort(names, function(a, b) return tostring(a) < tostring(b) end)
    for _, name in ipairs(names) do
        local wrong = wrong_field(source, name, policy[name])
        if wrong then
            return wrong
        end
    end
end


---
-- The message for a file that returns something else than a table.
function _M.no_table(source, value)
    local line, lines = last_line(source.text, "^%s*return%f[^%w_]")
    return format("%s:%d: the file must return a policy, a table of functions "
                  .. "(%s), but it returns %s", source.file, line or lines,
                  KNOWN, value == nil and "nothing" or "a " .. type(value))
end


return _M
