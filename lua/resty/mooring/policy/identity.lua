-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Binds a session to who has opened it: with its id alone, overheard or stolen,
-- nobody gets in. Another caller's request is answered as one with an unknown
-- id, on every replica.
--
--     session.metadata.owner = HMAC-SHA-256(secret, id and caller)
--
-- The caller is a value of the request that has to be (1) the same for as long
-- as the session lives, so not a bearer token, which is refreshed, but who it
-- speaks of; and (2) proved before the backend acts: by nginx (auth_request,
-- client certificates), or by the backend if it verifies each request's token.
-- Where tokens of several issuers are taken, `sub` alone is not one caller:
-- make a `value` of `iss` and `sub` of resty.mooring.bearer.
--
-- The digest is keyed, so that the store does not tell who the callers are; and
-- made with the session's id, so that it neither tells which sessions are one
-- caller's nor can be moved to another session.
--
-- Nothing here fails open. A caller that cannot be told gets into no session,
-- not even into one opened by such a caller unless `anonymous` says so.
-- Sessions without an owner (bound before this policy was there, or by another
-- program) are refused.

local bit = require "bit"
local memo = require "resty.mooring.memo"
local options = require "resty.mooring.options"
local sha256 = require "resty.mooring.sha256"
local value = require "resty.mooring.request_value"

local bor = bit.bor
local bxor = bit.bxor
local byte = string.byte
local ipairs = ipairs
local pcall = pcall
local type = type

local _M = {}

local MIN_SECRET = 16 -- bytes
local REMEMBERED = 2000 -- owners in a worker, see resty.mooring.memo
local MUST = "must be a string of at least " .. MIN_SECRET
             .. " bytes, or an array of these"


local function check_secret(secret)
    local list = type(secret) == "table" and secret or { secret }
    for _, one in ipairs(list) do
        if type(one) ~= "string" or #one < MIN_SECRET then
            return false, MUST
        end
    end
    return #list > 0, MUST
end


local OPTIONS = {
    { name = "secret", check = check_secret, required = true, secret = true,
      doc = "the same on all replicas; of several the first one signs" },
    { name = "key", check = options.non_empty_string, default = "owner",
      doc = "metadata that holds the digest" },
    { name = "anonymous", check = options.boolean, default = false,
      doc = "sessions of callers that cannot be told: for all such callers?" },
}
for _, option in ipairs(value.OPTIONS) do
    OPTIONS[#OPTIONS + 1] = option
end
_M.OPTIONS = OPTIONS


-- Are two texts the same? Takes the same time wherever they differ.
local function equal(a, b)
    if #a ~= #b then
        return false
    end
    local different = 0
    for i = 1, #a do
        different = bor(different, bxor(byte(a, i), byte(b, i)))
    end
    return different == 0
end


local function signers(secret)
    local list = {}
    for i, one in ipairs(type(secret) == "table" and secret or { secret }) do
        list[i] = sha256.hmac(one)
    end
    return list
end


---
-- @param opts table: see OPTIONS, and resty.mooring.request_value: the caller
-- @return a policy; raises naming the option that is wrong
function _M.new(opts)
    local checked = options.check(OPTIONS, opts, 2)
    local key, anonymous = checked.key, checked.anonymous
    local sign, caller = signers(checked.secret), value.reader(checked, 2)
    -- Digest to what was signed: a digest takes microseconds, and a session has
    -- many requests. Only those that were right are here.
    local known, remember = memo.new(REMEMBERED)

    -- What the owner of a session signs; nil when there can be none. An id has
    -- no space in it.
    local function claim(session, req)
        local who = caller(req)
        if who then
            return session.id .. " belongs to " .. who
        end
        return anonymous and session.id .. " belongs to" or nil
    end

    local function is_signed(text, owner)
        local right = false
        for _, signer in ipairs(sign) do
            right = equal(signer(text), owner) or right
        end
        if right then
            remember(owner, text)
        end
        return right
    end

    local function is_owner(session, req)
        local owner, text = session:get_metadata(key), claim(session, req)
        if not owner or not text then
            return false
        end
        return known(owner) == text or is_signed(text, owner)
    end

    return {
        name = "identity",
        on_bind = function(session, req)
            local text = claim(session, req)
            session:set_metadata(key, text and sign[1](text))
        end,
        -- What throws would be admitted by default.
        admit = function(session, req)
            local ok, admitted = pcall(is_owner, session, req)
            return ok and admitted
        end,
    }
end


return _M
