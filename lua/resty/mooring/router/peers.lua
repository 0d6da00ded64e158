-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- From the backend_url of a binding to the peer nginx talks to. `known` is the
-- table the hot path looks into; what is not in there is parsed and must be
-- allowed.

local backends = require "resty.mooring.router.backends"

local ipairs = ipairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- A function `allow` may accept any number of backends; then begin anew.
local MAX_OTHERS = 4096


---
-- @param configured array of peers
-- @param allow see resty.mooring.router.allow
function _M.new(configured, allow)
    local self = setmetatable({ configured = configured, allow = allow }, mt)
    self:reset()
    return self
end


---
-- Forgets all but the configured backends.
function _M.reset(self)
    local known = {}
    for _, peer in ipairs(self.configured) do
        known[peer.url] = peer
    end
    self.known, self.others = known, 0
end


---
-- The peer of a URL that somebody we trust has named.
-- @return peer, or nil and what the URL must be
function _M.parse(self, url)
    local peer = self.known[url]
    if peer then
        return peer
    end
    local parsed, must = backends.parse(url)
    if not parsed then
        return nil, must
    end
    -- Of a configured backend more is known than its URL tells.
    return self.known[parsed.url] or parsed
end


---
-- The peer of a binding.
-- @return peer, or nil when it may not be dialled
function _M.find(self, url)
    local peer = self.known[url]
    if peer then
        return peer
    end
    peer = self:parse(url)
    if not peer or not self.allow:permits(peer.url) then
        return nil
    end
    -- A function is asked each time: its answer may change.
    if not self.allow.ask then
        self:keep(url, peer)
    end
    return peer
end


---
-- Remembers a peer under the URL a binding has for it.
function _M.keep(self, url, peer)
    if self.others >= MAX_OTHERS then
        self:reset()
    end
    self.known[url] = peer
    self.others = self.others + 1
end


return _M
