-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What operators have said of backends, and how often each was dropped, where
-- there is no Redis: in the dictionary `mooring`, for all workers of this nginx
-- and over reloads. See router/states/replicated.lua for the other one; they
-- have the same methods.
--
-- A key for each state and each incarnation, changed in one atomic step each:
-- any number of workers may do so at once. They are never pushed out by other
-- entries (safe_add, safe_set): a forgotten drop would bring sessions back.

local errors = require "resty.mooring.errors"

local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


---
-- @param opts { dict =, prefix = of its keys, on_change = function() }
function _M.new(opts)
    return setmetatable({
        dict = opts.dict,
        prefix = opts.prefix .. ":own:",
        on_change = opts.on_change,
        doubted = false, -- never: this is the truth
        states = {}, incarnations = {}, -- by URL, as of the last adopt()
    }, mt)
end


---
-- Looks at everything anew.
function _M.adopt(self)
    self.states, self.incarnations = {}, {}
end


---
-- @return the state an operator has given a backend: "up" when none
function _M.state(self, url)
    local state = self.states[url]
    if not state then
        state = self.dict and self.dict:get(self.prefix .. "state:" .. url)
                or "up"
        self.states[url] = state
    end
    return state
end


---
-- @return how often a backend was dropped
function _M.incarnation(self, url)
    local n = self.incarnations[url]
    if not n then
        n = self.dict and self.dict:get(self.prefix .. "drops:" .. url) or 0
        self.incarnations[url] = n
    end
    return n
end


local function drop(self, url)
    local key = self.prefix .. "drops:" .. url
    local ok, err = self.dict:safe_add(key, 0)
    if not ok and err ~= "exists" then
        return nil, err
    end
    return self.dict:incr(key, 1)
end


---
-- Changes a backend.
-- @param change "up", "draining", "down" or "drop"
-- @return true, or nil, message, code: unavailable
function _M.change(self, url, change)
    if not self.dict then
        return nil, "could not change the backend: there is no lua_shared_dict "
                    .. "mooring", errors.UNAVAILABLE
    end
    local ok, err
    if change == "drop" then
        ok, err = drop(self, url)
    else
        ok, err = self.dict:safe_set(self.prefix .. "state:" .. url, change)
    end
    if not ok then
        return nil, "could not change the backend: " .. err, errors.UNAVAILABLE
    end
    self.on_change()
    return true
end


local function nothing()
end

-- There is nothing to read, and nobody else who might have changed anything.
_M.settle, _M.doubt, _M.expire, _M.tick = nothing, nothing, nothing, nothing
_M.look, _M.may_learn = nothing, nothing


return _M
