-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Policies: what operators script. A policy is a table of functions, all of
-- them optional, see "Policies" in the README:
--
--     return {
--         key            = function(req) end,
--         admit          = function(session, req) end,
--         route          = function(req, backends) end,
--         on_bind        = function(session, req) end,
--         on_evict       = function(session, reason) end,
--         on_unreachable = function(session, req) end,
--     }
--
--     script/source.lua    name, table, file or list -> policies
--     script/contract.lua  is it one? if not, what is wrong, where?
--     script/globals.lua   does it assign globals?
--     script/engine.lua    calls its functions
--     request.lua          `req`
--
-- Mistakes are found when a policy is loaded, and raise. What goes wrong in a
-- call never fails a request.

local engine = require "resty.mooring.script.engine"
local source = require "resty.mooring.script.source"

local error = error
local print = print
local setmetatable = setmetatable
local type = type

local _M = {}

local MUST = "must be the name of a policy, a table of functions, the path of "
             .. "a .lua file, or an array of these"


---
-- The check of the option `policy` for resty.mooring.options: its kind. The
-- rest is up to compile.
function _M.check_option(option)
    return type(option) == "string" or type(option) == "table", MUST
end


---
-- Makes the engine of a policy.
-- @param option name of a built-in one, table, path of a file, or an array of
--        these; nil: "round_robin"
-- @param level of the caller to blame, as in error(); default 1: the caller of
--        this function
-- @return engine, see resty.mooring.script.engine; raises "opts.policy ..."
--         with file and line of what is wrong
function _M.compile(option, level)
    local entries, wrong = source.read(option == nil and "round_robin"
                                       or option)
    if not entries then
        error("opts.policy " .. wrong, (level or 1) + 1)
    end
    return engine.new(entries)
end


-- Stands for anything of nginx when there is no nginx.
local placeholder = {}
setmetatable(placeholder, {
    __index = function() return placeholder end,
    __call = function() return placeholder end,
    __concat = function() return "" end,
})


---
-- Checks a policy file without nginx, for the command line:
--     luajit -e 'require("resty.mooring.policy").check("file.lua")'
-- @param path
-- @return true, having printed that all is well; raises file, line and what is
--         wrong
function _M.check(path)
    if type(path) ~= "string" or path == "" then
        error("path must be the name of a file", 2)
    end
    local env = setmetatable({ ngx = ngx or placeholder }, { __index = _G })
    local policy, wrong = source.load_file(path, env)
    if not policy then
        error(wrong, 0)
    end
    print(path .. ": ok")
    return true
end


return _M
