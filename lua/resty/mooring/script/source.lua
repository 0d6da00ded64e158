-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Where policies come from: a name, a table, a file, or a list of these.
--
--     read(option) -> array of { name =, policy = table, trusted = boolean }
--
-- A file is run once, when the option is read, with nothing but the globals it
-- would have anyway. Whatever it does and returns, functions here return nil
-- and a text for what is wrong, and raise nothing.

local contract = require "resty.mooring.script.contract"
local globals = require "resty.mooring.script.globals"
local text_of = require "resty.mooring.script.text"

local byte = string.byte
local find = string.find
local format = string.format
local getinfo = debug.getinfo
local io_open = io.open
local ipairs = ipairs
local load = load
local located = text_of.located
local match = string.match
local next = next
local ngx = ngx
local package = package
local pcall = pcall
local rawget = rawget
local require = require
local setfenv = setfenv
local sub = string.sub
local type = type
local xpcall = xpcall

local _M = {}

local MODULES = "resty.mooring.policy."

local ESCAPE = 27        -- what compiled Lua begins with
local MAX_MESSAGE = 2000 -- bytes of an error that the file has raised

-- For the message; what counts is whether there is such a module.
local BUILT_IN = { "round_robin", "least_sessions", "power_of_two",
                   "rendezvous", "identity", "reinitialize" }


-- ------------------------------------------------------------------ files --

local function read_text(path)
    local file, err = io_open(path, "rb")
    if not file then
        return nil, err -- begins with the path
    end
    local text
    text, err = file:read("*a")
    file:close()
    if not text then
        return nil, path .. ": " .. err
    end
    return text
end


-- Relative to nginx' prefix, as paths in its configuration are.
local function resolve(path)
    if sub(path, 1, 1) ~= "/" and ngx and ngx.config and ngx.config.prefix then
        return ngx.config.prefix() .. path
    end
    return path
end


-- Lua cuts long paths in its messages; here they begin with the whole one. Code
-- that the file calls may be elsewhere: then both places are told.
local function with_place(err, path)
    err = sub(text_of.of(err), 1, MAX_MESSAGE)
    local shown = getinfo(load("", "@" .. path), "S").short_src
    if sub(err, 1, #shown + 1) == shown .. ":" then
        return path .. sub(err, #shown + 1)
    end
    return path .. ": " .. err
end


-- The chunk of a file, which assigns no globals.
local function compile(text, path)
    if byte(text) == ESCAPE then
        return nil, path .. ": this is compiled Lua: a policy is loaded from "
                    .. "its source alone"
    end
    local chunk, err = load(text, "@" .. path, "t")
    if not chunk then
        return nil, with_place(err, path)
    end
    local global, line = globals.assigned(chunk)
    if global then
        return nil, format('%s:%d: the global variable "%s" is assigned: all '
                           .. "requests share it; say local, or _G.%s if that "
                           .. "is meant", path, line, global, global)
    end
    return chunk
end


---
-- Loads a policy file.
-- @param path of a Lua file that returns a policy
-- @param env optional table of globals for the file
-- @return policy; or nil and a text that begins with file and line
function _M.load_file(path, env)
    local text, err = read_text(path)
    if not text then
        return nil, err
    end
    local chunk
    chunk, err = compile(text, path)
    if not chunk then
        return nil, err
    end
    if env then
        setfenv(chunk, env)
    end
    local ok, policy = xpcall(chunk, located)
    if not ok then
        return nil, with_place(policy, path)
    end
    local source = { file = path, text = text }
    if type(policy) ~= "table" then
        return nil, contract.no_table(source, policy)
    end
    return contract.read(policy, source)
end


-- --------------------------------------------------------------- built in --

-- The module of a built-in policy. There are others beside these, without new.
local function module_of(name)
    if not find(name, "^[%a_][%w_]*$") then
        return nil
    end
    name = MODULES .. name
    local found = package.loaded[name] or package.preload[name]
                  or package.searchpath(name, package.path)
    local module = found and require(name)
    return type(module) == "table" and module.new and module or nil
end


local function known_names()
    local text = ""
    for _, name in ipairs(BUILT_IN) do
        if module_of(name) then
            text = text .. format('%s"%s"', text == "" and "" or ", ", name)
        end
    end
    return text
end


local function must()
    return "must be the name of a built-in policy (" .. known_names()
           .. "), a table of functions, the path of a .lua file, or an array "
           .. "of these"
end


local function built_in(name)
    local module = module_of(name)
    if not module then
        return nil, must() .. ", got " .. text_of.of_key(name)
    end
    local ok, policy = pcall(module.new)
    if not ok then
        return nil, format('"%s" cannot be used by its name alone: %s', name,
                           text_of.of(policy))
    end
    return policy
end


-- ----------------------------------------------------------------- option --

local function is_path(text)
    return find(text, "/", 1, true) or find(text, "%.lua$")
end


local function read_string(text)
    if not is_path(text) then
        local policy, wrong = built_in(text)
        return policy and { name = policy.name or text, policy = policy,
                            trusted = true }, wrong
    end
    local path = resolve(text)
    local policy, wrong = _M.load_file(path)
    if not policy then
        return nil, "is wrong: " .. wrong
    end
    return { name = policy.name or match(text, "[^/]+$"), policy = policy }
end


local function read_one(value)
    if type(value) == "string" then
        return read_string(value)
    elseif type(value) ~= "table" then
        return nil, must() .. ", got a " .. type(value)
    end
    local policy, wrong = contract.read(value, {})
    if not policy then
        return nil, "is wrong: " .. wrong
    end
    return { name = policy.name or "inline", policy = policy }
end


-- Two of one name in a list are told apart by a number.
local function add(list, entry, seen)
    local n = (seen[entry.name] or 0) + 1
    seen[entry.name] = n
    if n > 1 then
        entry.name = entry.name .. "#" .. n
    end
    list[#list + 1] = entry
end


-- What is wrong with a table that has n entries one after the other.
local function not_an_array(option, n)
    for name in next, option do
        if type(name) ~= "number" then
            return format("must be a policy or an array of policies, not both: "
                          .. "%s is in a table that has entries",
                          text_of.of_key(name))
        elseif name > n then
            return format("must be an array without holes: entry %d is nil",
                          n + 1)
        end
    end
end


---
-- Reads the option `policy`.
-- @param option name, table, path, or an array of these
-- @return array of { name, policy, trusted }; or nil and a text for behind
--         "opts.policy"
function _M.read(option)
    if type(option) ~= "table" or rawget(option, 1) == nil then
        local entry, wrong = read_one(option)
        return entry and { entry }, wrong
    end
    local list, seen = {}, {}
    for i, value in ipairs(option) do
        local entry, wrong = read_one(value)
        if not entry then
            return nil, format("%s (entry %d of the list)", wrong, i)
        end
        add(list, entry, seen)
    end
    local wrong = not_an_array(option, #list)
    return not wrong and list or nil, wrong
end


return _M
