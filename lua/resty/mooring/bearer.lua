-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Claims of the JSON web token in a request's `Authorization: Bearer ...`.
--
-- NOTHING IS VERIFIED HERE, neither the signature nor the dates: anybody can
-- write a token with any claims. That is enough to choose a backend, and to
-- admit a request to a session if and only if whoever answers it (the backend,
-- or an auth_request before) verifies the token of every request.
--
-- Source: RFC 7515 (compact serialization, base64url), RFC 7519, RFC 6750.

local bit = require "bit"
local cjson = require "cjson.safe"
local ffi = require("resty.mooring.ffi").ffi
local memo = require "resty.mooring.memo"

local band = bit.band
local bor = bit.bor
local byte = string.byte
local lshift = bit.lshift
local match = string.match
local rshift = bit.rshift
local type = type

local _M = {}

local MAX_TOKEN = 16384 -- bytes; longer ones are not looked into

-- A client sends the same token with each request, and reading one takes tens
-- of microseconds: a reader remembers some.
local MAX_REMEMBERED = 4096 -- bytes of a header
local REMEMBERED = 200 -- headers, see resty.mooring.memo

local buffer = ffi.new("uint8_t[?]", MAX_TOKEN)

local VALUES = ffi.new("uint8_t[256]")
for place, letter in ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                      .. "0123456789-_"):gmatch("()(.)") do
    VALUES[byte(letter)] = place - 1
end


-- base64url without padding.
-- @param text of letters of base64url
-- @return string, nil if the length is impossible
local function decode(text)
    local held, bits, n = 0, 0, 0
    for i = 1, #text do
        held, bits = bor(lshift(held, 6), VALUES[byte(text, i)]), bits + 6
        if bits >= 8 then
            bits = bits - 8
            buffer[n], n = band(rshift(held, bits), 255), n + 1
        end
    end
    return #text % 4 ~= 1 and ffi.string(buffer, n) or nil
end


---
-- The claims of a token, not verified.
-- @param authorization value of the header, or nil
-- @return table, or nil when there is no token that can be read
function _M.claims(authorization)
    if type(authorization) ~= "string" or #authorization > MAX_TOKEN then
        return nil
    end
    local payload = match(authorization, "^[Bb][Ee][Aa][Rr][Ee][Rr] +"
                          .. "[%w_%-]+%.([%w_%-]+)%.[%w_%-]*$")
    local text = payload and decode(payload)
    local claims = text and cjson.decode(text)
    return type(claims) == "table" and claims or nil
end


---
-- One claim, not verified, as text.
-- @param authorization value of the header, or nil
-- @param name of the claim, "sub" for one
-- @return string; nil when it is not there, neither a string nor an integer, or
--         an integer so large that JSON numbers do not tell it from the next
function _M.claim(authorization, name)
    local claims = _M.claims(authorization)
    local value = claims and claims[name]
    if type(value) == "number" and value % 1 == 0
       and value > -2^53 and value < 2^53
    then
        return ("%d"):format(value)
    end
    return type(value) == "string" and value ~= "" and value or nil
end


---
-- @param name of a claim
-- @return function(authorization), as claim(authorization, name) but quicker
--         when it is asked again
function _M.reader(name)
    local get, set = memo.new(REMEMBERED)
    return function(authorization)
        if type(authorization) ~= "string" then
            return nil
        end
        local value = get(authorization)
        if value == nil then
            value = _M.claim(authorization, name) or false
            if #authorization <= MAX_REMEMBERED then
                set(authorization, value)
            end
        end
        return value or nil
    end
end


return _M
