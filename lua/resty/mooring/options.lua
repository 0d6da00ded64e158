-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Checks the options of a constructor against one table that also documents
-- them. A constructor declares
--
--     local OPTIONS = {
--         { name = "ttl", check = options.seconds, default = 7200,
--           unit = "seconds", doc = "life of an unused session" },
--         ...
--     }
--
-- and gets from options.check a new table in which every default is filled in.
-- A check is a function(value) that returns true, or false and what the value
-- must be ("must be ..."). Values of nil are not checked: `required` says that
-- there must be one.

local error = error
local floor = math.floor
local format = string.format
local ipairs = ipairs
local pairs = pairs
local tostring = tostring
local type = type

local _M = {}

local HUGE = math.huge

-- Seconds. What is longer does not fit somewhere in milliseconds: in the core,
-- in Redis or in nginx, whose timeouts of connections have 31 bits.
local LONGEST, LONGEST_TIMEOUT = 1e9, 1e6


local function is_number(value)
    return type(value) == "number" and value == value
           and value ~= HUGE and value ~= -HUGE
end


local function positive(value)
    return value > 0
end


local function not_negative(value)
    return value >= 0
end


-- A check for a number that is long enough and not too long.
local function time(is_enough, must, longest)
    local must_fit = format("must be at most %d (seconds)", longest)
    return function(value)
        if is_number(value) and is_enough(value) then
            return value <= longest, must_fit
        end
        return false, must
    end
end


---
-- A check for a time in seconds, up to some 30 years.
_M.seconds = time(positive, "must be a positive number", LONGEST)

---
-- A check for a time in seconds that may be 0.
_M.seconds_or_0 = time(not_negative, "must be a number of 0 or more", LONGEST)

---
-- A check for a timeout of a connection in seconds.
_M.timeout = time(positive, "must be a positive number", LONGEST_TIMEOUT)


function _M.boolean(value)
    return type(value) == "boolean", "must be a boolean"
end


function _M.callable(value)
    return type(value) == "function", "must be a function"
end


function _M.non_empty_string(value)
    return type(value) == "string" and value ~= "",
           "must be a non-empty string"
end


---
-- A check for an integer between min and max, both included.
function _M.integer(min, max)
    local must = "must be an integer from " .. min .. " to " .. max
    return function(value)
        return is_number(value) and floor(value) == value
               and value >= min and value <= max, must
    end
end


---
-- A check for one of the given strings.
function _M.one_of(...)
    local allowed, names = {}, {}
    for i, name in ipairs { ... } do
        allowed[name], names[i] = true, '"' .. name .. '"'
    end
    local must = "must be " .. table.concat(names, " or ")
    return function(value)
        return allowed[value] or false, must
    end
end


local function shown(value)
    if type(value) == "string" then
        return '"' .. value .. '"'
    end
    return tostring(value)
end


local function known_names(spec)
    local names = {}
    for i, option in ipairs(spec) do
        names[i] = option.name
    end
    return table.concat(names, ", ")
end


local function check_names(spec, opts, level)
    local known = {}
    for _, option in ipairs(spec) do
        known[option.name] = true
    end
    for name in pairs(opts) do
        if not known[name] then
            error("opts." .. tostring(name) .. " is not an option (known are "
                  .. known_names(spec) .. ")", level + 1)
        end
    end
end


local function check_value(option, value, level)
    local ok, must = option.check(value)
    if not ok then
        local got = (option.secret or type(value) == "table") and ""
                    or ", got " .. shown(value)
        error("opts." .. option.name .. " " .. must .. got, level + 1)
    end
end


---
-- Checks opts against spec.
-- @param spec array of { name, check, default, required, secret }; `secret`
--        keeps a value out of the error message
-- @param opts table given by the user, or nil
-- @param level of the caller to blame, as in error(); 2 is the caller of the
--        function that calls this
-- @return a new table with every option that has a value or a default
-- Raises naming the option at fault.
function _M.check(spec, opts, level)
    level = (level or 2) + 1
    if opts == nil then
        opts = {}
    end
    if type(opts) ~= "table" then
        error("opts must be a table, got " .. type(opts), level)
    end

    check_names(spec, opts, level)

    local checked = {}
    for _, option in ipairs(spec) do
        local name = option.name
        local value = opts[name]
        if value ~= nil then
            check_value(option, value, level)
            checked[name] = value
        elseif option.required then
            error("opts." .. name .. " is required and "
                  .. select(2, option.check(nil)), level)
        else
            checked[name] = option.default
        end
    end

    return checked
end


return _M
