-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Which value of a request does a policy look at? One of
--
--     { header = "X-Tenant" }      { cookie = "tenant" }    { arg = "tenant" }
--     { claim = "sub" }            of the bearer token, NOT VERIFIED: see
--                                  resty.mooring.bearer
--     { remote_addr = true }       the address of the client, as nginx has it
--     { value = function(req) }    anything else; nil for none
--
-- An empty value is none. Of several headers, arguments or cookies of one name
-- the first counts.

local bearer = require "resty.mooring.bearer"
local options = require "resty.mooring.options"

local concat = table.concat
local error = error
local ipairs = ipairs
local type = type

local _M = {}

local READERS = {
    header = function(name)
        return function(req) return req.headers[name] end
    end,
    cookie = function(name)
        return function(req) return req.cookies[name] end
    end,
    arg = function(name)
        return function(req) return req.args[name] end
    end,
    claim = function(name)
        local claim = bearer.reader(name)
        return function(req) return claim(req.headers["Authorization"]) end
    end,
    remote_addr = function()
        return function(req) return req.remote_addr end
    end,
    value = function(read)
        return read
    end,
}

local function is_true(choice)
    return choice == true, "must be true"
end


-- For the options of policies that have these, see resty.mooring.options.
_M.OPTIONS = {
    { name = "header", check = options.non_empty_string },
    { name = "cookie", check = options.non_empty_string },
    { name = "arg", check = options.non_empty_string },
    { name = "claim", check = options.non_empty_string },
    { name = "remote_addr", check = is_true },
    { name = "value", check = options.callable },
}


local function names()
    local list = {}
    for i, option in ipairs(_M.OPTIONS) do
        list[i] = option.name
    end
    return concat(list, ", ")
end


---
-- @param opts table with exactly one of the OPTIONS, checked; others are not
--        looked at
-- @param level of the caller to blame, as in error()
-- @return function(req) -> non-empty string or nil; raises
function _M.reader(opts, level)
    local read
    for _, option in ipairs(_M.OPTIONS) do
        local choice = opts[option.name]
        if choice ~= nil then
            if read then
                error("opts must have only one of " .. names(), level + 1)
            end
            read = READERS[option.name](choice)
        end
    end
    if not read then
        error("opts must have one of " .. names(), level + 1)
    end
    return function(req)
        local value = read(req)
        return type(value) == "string" and value ~= "" and value or nil
    end
end


return _M
