-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What scripts are given for backends: tables that show everything a backend
-- has and take nothing. A script that wrote to a backend itself would disturb
-- the choices for all requests behind it.
--
--     facades[url]     -> facade      gone with the last who holds the facade
--     behind[facade]   -> metatable   its __index: the backend, as listed last
--
-- A facade is the same one for as long as a script holds it, so that scripts
-- may compare backends and remember one: the backends themselves are made anew
-- whenever something about any of them has changed. Lists are new ones in each
-- call: scripts sort and cut them.

local error = error
local setmetatable = setmetatable
local tostring = tostring

local _M = {}
local mt = { __index = _M }


local function refuse(_, name)
    error("a backend cannot be changed by a script (." .. tostring(name) .. ")",
          2)
end


function _M.new()
    return setmetatable({
        facades = setmetatable({}, { __mode = "v" }),
        behind = setmetatable({}, { __mode = "k" }),
    }, mt)
end


local function facade_of(self, backend)
    local facade = self.facades[backend.url]
    if facade then
        self.behind[facade].__index = backend
        return facade
    end
    local meta = { __index = backend, __newindex = refuse,
                   __metatable = "backend" }
    facade = setmetatable({}, meta)
    self.facades[backend.url], self.behind[facade] = facade, meta
    return facade
end


---
-- @param backends array
-- @return a new array of what a script may see
function _M.list(self, backends)
    local list = {}
    for i = 1, #backends do
        list[i] = facade_of(self, backends[i])
    end
    return list
end


---
-- The backend behind what a script has answered; anything else, also a backend
-- that is not among those it was given, stays as it is.
-- @param backends array that the script was given the list of
function _M.original(self, answer, backends)
    local meta = answer ~= nil and self.behind[answer]
    local url = meta and meta.__index.url
    for i = 1, meta and #backends or 0 do
        if backends[i].url == url then
            return backends[i]
        end
    end
    return answer
end


return _M
