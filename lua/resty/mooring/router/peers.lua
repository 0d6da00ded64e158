-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- From the reference of a binding to the peer nginx talks to. `known` is the
-- table the hot path looks into. It holds references that are valid now and no
-- others; what is not in there is parsed, must be allowed, and must not be of
-- an incarnation that was dropped.
--
--     peer.reference   what the binding holds, exactly
--     peer.session_id  the id of the session there, nil: the client's own
--     peer.special     also true with a session_id
--     all other fields are those of the backend, see router/backends.lua
--
-- A request keeps its peer to its end, whatever becomes of the backend
-- meanwhile: peers are made and forgotten, but never changed.

local backends = require "resty.mooring.router.backends"
local references = require "resty.mooring.router.reference"

local ipairs = ipairs
local pairs = pairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- A function `allow` may accept any number of backends, and mapped sessions
-- have a reference each; then begin anew.
local MAX_OTHERS = 16384


---
-- @param allow see resty.mooring.router.allow
-- @param load see resty.mooring.router.load
-- @param incarnation function(url): the current one of a backend, 0 for one
--        that was never dropped
-- @param members array of peers, see reset
function _M.new(allow, load, incarnation, members)
    local self = setmetatable({ allow = allow, load = load,
                                incarnation = incarnation }, mt)
    self:reset(members or {})
    return self
end


-- The backend as a binding refers to it. A copy: a request reads some ten of
-- its fields, and each would cost another look through a metatable.
local function refer(peer, reference, session_id)
    local referred = {}
    for name, value in pairs(peer) do
        referred[name] = value
    end
    referred.reference, referred.session_id = reference, session_id
    referred.special = peer.special or session_id ~= nil
    return referred
end


---
-- Forgets all but the members. To be called whenever these or an incarnation
-- has changed.
-- @param members array of peers, with labels
function _M.reset(self, members)
    local known, by_url = {}, {}
    for _, peer in ipairs(members) do
        local reference = references.format(peer.url,
                                            self.incarnation(peer.url))
        by_url[peer.url] = peer
        known[reference] = refer(peer, reference)
    end
    self.members = members
    self.known, self.by_url, self.others = known, by_url, 0
end


---
-- What to bind a new session of a member to.
-- @return peer
function _M.current(self, url)
    return self.known[references.format(url, self.incarnation(url))]
end


---
-- The peer of a URL (without fragment) that somebody we trust has named.
-- @return peer (without label when it is no member), or nil and what the URL
--         must be
function _M.parse(self, url)
    local peer = self.by_url[url]
    if peer then
        return peer
    end
    local parsed, must = backends.parse(url)
    if not parsed then
        return nil, must
    end
    -- Of a member more is known than its URL tells.
    return self.by_url[parsed.url] or parsed
end


-- A label is for ever, and there are not many: none for what only a function
-- knows.
local function label(self, peer)
    if not peer.label then
        peer.label = self.allow.ask and 0 or self.load:label(peer.url)
    end
end


---
-- As parse, for a URL that has been found allowed: to send a request there.
function _M.named(self, url)
    local peer = self:parse(url)
    if peer then
        label(self, peer)
    end
    return peer
end


---
-- The peer of a binding.
-- @param reference string
-- @return peer; or nil and why not: "not_allowed", or "dropped" (the backend
--         has been dropped since the session was bound). One that is newer than
--         what is known here is honoured; on_newer() is called.
function _M.find(self, reference)
    local known = self.known[reference]
    if known then
        return known
    end
    local url, incarnation, session_id = references.parse(reference)
    local peer = url and self:parse(url)
    if not peer or not self.allow:permits(peer.url) then
        return nil, "not_allowed"
    elseif incarnation < self.incarnation(peer.url) then
        return nil, "dropped"
    elseif incarnation > self.incarnation(peer.url) and self.on_newer then
        self.on_newer()
    end
    label(self, peer)
    peer = refer(peer, reference, session_id)
    -- A function is asked each time: its answer may change.
    if not self.allow.ask then
        self:keep(peer)
    end
    return peer
end


---
-- Remembers the peer of a binding.
function _M.keep(self, peer)
    if self.others >= MAX_OTHERS then
        self:reset(self.members)
    end
    self.known[peer.reference] = peer
    self.others = self.others + 1
end


return _M
