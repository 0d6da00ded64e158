-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Bounded memory of ids that the remote has just said not to know, so that a
-- flood of requests with one dead id costs one Redis read a second.
--
-- An answer is remembered with the token its question took, and is good only
-- while that token is valid: any change of the id, pushed by Redis or made in
-- another worker, ends it at once. Two tables take turns: when the younger one
-- is full the older one is forgotten, so there are never more than 2 x LIMIT
-- ids, and sessions are not touched.

local clock = require("resty.mooring.ffi").now

local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local LIMIT = 2048


---
-- @param cache the local tier that tokens are of
-- @param ttl seconds an answer is good for; 0: none are remembered
function _M.new(cache, ttl)
    return setmetatable({
        cache = cache,
        ttl_ms = ttl * 1000,
        young = {},
        old = {},
        count = 0,
    }, mt)
end


---
-- Remembers that the remote has no such id.
-- @param token taken before it was asked; it is copied
function _M.add(self, id, token)
    -- Without a lease nobody would tell us that the id has come to life.
    if self.ttl_ms == 0 or not self.cache:is_leased() then
        return
    end
    if self.count >= LIMIT then
        self.old, self.young, self.count = self.young, {}, 0
    end
    if not self.young[id] then
        self.count = self.count + 1
    end
    self.young[id] = { token = self.cache:copy_token(token),
                       expires_at = clock() + self.ttl_ms }
end


---
-- Is the id known not to be there?
function _M.has(self, id)
    local known = self.young[id] or self.old[id]
    return known ~= nil and clock() < known.expires_at
           and self.cache:is_leased() and self.cache:is_valid(id, known.token)
end


return _M
