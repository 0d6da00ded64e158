-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a policy is, and what is wrong with one that is not. Whoever wrote it
-- reads these messages in nginx' error log: each begins with file and line,
-- where they can be found out, and says what is expected.

local globals = require "resty.mooring.script.globals"
local text_of = require "resty.mooring.script.text"

local concat = table.concat
local find = string.find
local format = string.format
local getinfo = debug.getinfo
local gmatch = string.gmatch
local gsub = string.gsub
local ipairs = ipairs
local next = next
local of_key = text_of.of_key
local pcall = pcall
local sort = table.sort
local sub = string.sub
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

local FIELD_NAMES = {}
for name in next, FIELDS do
    FIELD_NAMES[#FIELD_NAMES + 1] = name
end
sort(FIELD_NAMES)

local KNOWN = concat(FUNCTIONS, ", ") .. ", start and name"

-- Bytes of a field's name that are looked for in the text of a file, and of
-- what a metatable has thrown.
local MAX_NAME, MAX_MESSAGE = 64, 500


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
    local pattern = type(name) == "string" and #name <= MAX_NAME
                    and not find(name, "%c")
                    and "%f[%w_]" .. gsub(name, "%W", "%%%0")
                        .. "%f[^%w_][\"']?%]?%s*="
    return pattern and last_line(source.text, pattern)
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


local function unknown_field(source, name, value)
    return place(source, name, value)
           .. format("%s is not a field of a policy (known are %s)",
                     of_key(name), KNOWN)
end


local function global_in(script)
    local global, line = globals.assigned(script)
    return global
           and format('%s:%d: the global variable "%s" is assigned: all '
                      .. "requests share it; say local, or _G.%s if that is "
                      .. "meant", getinfo(script, "S").short_src, line, global,
                      global)
end


local function wrong_value(source, name, value)
    local expected = FIELDS[name]
    if type(value) ~= expected then
        return place(source, name)
               .. format("%s must be a %s, got a %s", name, expected,
                         type(value))
    end
    return expected == "function" and global_in(value) or nil
end


-- Texts first and in order, so that of several mistakes the same one is told
-- each time.
local function is_before(a, b)
    if type(a) ~= type(b) then
        return type(a) > type(b)
    end
    return type(a) == "string" and a < b
end


-- The names that are in the table itself, whatever its metatable makes of it.
local function names_in(policy)
    local names = {}
    for name in next, policy do
        names[#names + 1] = name
    end
    sort(names, is_before)
    return names
end


local function field_of(policy, name)
    return policy[name]
end


---
-- Reads a policy. Its metatable may lend it fields; it is asked here once for
-- each, and never again: what it answers, or throws, in a request would be
-- nobody's mistake.
-- @param policy table that the user gave, or that the file returned
-- @param source { file = path, text = of the file }, or {} for a table
-- @return a table of our own with the fields of a policy; or nil and what is
--         wrong
function _M.read(policy, source)
    for _, name in ipairs(names_in(policy)) do
        if not FIELDS[name] then
            return nil, unknown_field(source, name, policy[name])
        end
    end
    local fields = {}
    for _, name in ipairs(FIELD_NAMES) do
        local ok, value = pcall(field_of, policy, name)
        if not ok then
            return nil, place(source, name) .. name .. " cannot be read: "
                        .. sub(text_of.of(value), 1, MAX_MESSAGE)
        end
        local wrong = value ~= nil and wrong_value(source, name, value)
        if wrong then
            return nil, wrong
        end
        fields[name] = value
    end
    return fields
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
