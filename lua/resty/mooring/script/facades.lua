-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What scripts are given for backends: tables that show everything a backend
-- has and take nothing. A script that wrote to a backend itself would disturb
-- the choices for all requests behind it.
--
--     facades[backend]   -> facade     gone with the last who holds the facade
--     originals[facade]  -> backend
--
-- A facade is the same one for as long as a script holds it, so that scripts
-- may compare backends and remember one. Lists are new ones in each call:
-- scripts sort and cut them.

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
        facades = setmetatable({}, { __mode = "kv" }),
        originals = setmetatable({}, { __mode = "k" }),
    }, mt)
end


local function facade_of(self, backend)
    local facade = self.facades[backend]
    if not facade then
        facade = setmetatable({}, { __index = backend, __newindex = refuse,
                                    __metatable = "backend" })
        self.facades[backend] = facade
        self.originals[facade] = backend
    end
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
-- The backend behind what a script has answered; anything else stays as it is.
function _M.original(self, answer)
    return self.originals[answer] or answer
end


return _M
