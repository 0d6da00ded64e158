-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104) in Lua: nginx may be built
-- without OpenSSL or hide its symbols, lua-resty-core has SHA-1 only, and plain
-- LuaJIT has nothing. Meant for short texts: JIT-compiled a block of 64 bytes
-- takes about a microsecond. Its time depends on the length of the text alone:
-- there are no tables indexed by data and no branches on it.

local bit = require "bit"

local band = bit.band
local bnot = bit.bnot
local bxor = bit.bxor
local byte = string.byte
local char = string.char
local floor = math.floor
local gsub = string.gsub
local lshift = bit.lshift
local rep = string.rep
local ror = bit.ror
local rshift = bit.rshift
local tobit = bit.tobit
local tohex = bit.tohex

local _M = {}

local BLOCK = 64 -- bytes


-- The first 32 bits of the fractional part of the nth root of a prime.
local function fraction(prime, root)
    local value = prime ^ (1 / root)
    return tobit(floor((value - floor(value)) * 4294967296))
end


local function primes(n)
    local found, candidate = {}, 2
    while #found < n do
        local is_prime = true
        for _, p in ipairs(found) do
            is_prime = is_prime and candidate % p ~= 0
        end
        if is_prime then
            found[#found + 1] = candidate
        end
        candidate = candidate + 1
    end
    return found
end


-- FIPS 180-4, 4.2.2 and 5.3.3.
local K, INITIAL = {}, {}
for i, prime in ipairs(primes(64)) do
    K[i] = fraction(prime, 3)
    if i <= 8 then
        INITIAL[i] = fraction(prime, 2)
    end
end


local W = {}
for i = 1, 64 do
    W[i] = 0
end


-- FIPS 180-4, 6.2.2, step 1.
local function schedule(text, at)
    for i = 1, 16 do
        local a, b, c, d = byte(text, at + 4 * i - 4, at + 4 * i - 1)
        W[i] = tobit(lshift(a, 24) + lshift(b, 16) + lshift(c, 8) + d)
    end
    for i = 17, 64 do
        local x, y = W[i - 15], W[i - 2]
        local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
        local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
        W[i] = tobit(W[i - 16] + s0 + W[i - 7] + s1)
    end
end


-- FIPS 180-4, 6.2.2, steps 2 to 4, for the block at a place of the text.
local function compress(state, text, at)
    schedule(text, at)
    local a, b, c, d = state[1], state[2], state[3], state[4]
    local e, f, g, h = state[5], state[6], state[7], state[8]
    for i = 1, 64 do
        local t1 = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25))
                   + bxor(band(e, f), band(bnot(e), g)) + K[i] + W[i]
        local t2 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
                   + bxor(band(a, b), band(a, c), band(b, c))
        h, g, f, e = g, f, e, tobit(d + t1)
        d, c, b, a = c, b, a, tobit(t1 + t2)
    end
    state[1], state[2] = tobit(state[1] + a), tobit(state[2] + b)
    state[3], state[4] = tobit(state[3] + c), tobit(state[4] + d)
    state[5], state[6] = tobit(state[5] + e), tobit(state[6] + f)
    state[7], state[8] = tobit(state[7] + g), tobit(state[8] + h)
end


local function uint32(n)
    return char(band(rshift(n, 24), 255), band(rshift(n, 16), 255),
                band(rshift(n, 8), 255), band(n, 255))
end


-- FIPS 180-4, 5.1.1: a one, zeroes, and the length in bits of all there was.
local function padded(text, before)
    local n = before + #text
    return text .. "\128" .. rep("\0", (55 - n) % BLOCK)
           .. uint32(floor(n / 2^29)) .. uint32(tobit(n * 8 % 2^32))
end


-- Goes on from a state to the end of a text.
-- @param before bytes that led to this state, whole blocks
-- @return the state at the end, a new one
local function finish(from, text, before)
    local state = {}
    for i = 1, 8 do
        state[i] = from[i]
    end
    local message = padded(text, before)
    for at = 1, #message, BLOCK do
        compress(state, message, at)
    end
    return state
end


local function to_bytes(s)
    return uint32(s[1]) .. uint32(s[2]) .. uint32(s[3]) .. uint32(s[4])
           .. uint32(s[5]) .. uint32(s[6]) .. uint32(s[7]) .. uint32(s[8])
end


local function to_hex(s)
    return tohex(s[1]) .. tohex(s[2]) .. tohex(s[3]) .. tohex(s[4])
           .. tohex(s[5]) .. tohex(s[6]) .. tohex(s[7]) .. tohex(s[8])
end


---
-- @param text string
-- @return its SHA-256 as 64 hexadecimal digits
function _M.hex(text)
    return to_hex(finish(INITIAL, text, 0))
end


-- The state after one block, the key with each byte xor-ed.
local function keyed(key, with)
    local state = {}
    for i = 1, 8 do
        state[i] = INITIAL[i]
    end
    compress(state, (gsub(key, ".", function(c)
        return char(bxor(byte(c), with))
    end)), 1)
    return state
end


---
-- HMAC-SHA-256 with one key.
-- @param key string of any length
-- @return function(text) -> 64 hexadecimal digits
function _M.hmac(key)
    if #key > BLOCK then
        key = to_bytes(finish(INITIAL, key, 0))
    end
    key = key .. rep("\0", BLOCK - #key)
    local inner, outer = keyed(key, 0x36), keyed(key, 0x5c)
    return function(text)
        local digest = to_bytes(finish(inner, text, BLOCK))
        return to_hex(finish(outer, digest, BLOCK))
    end
end


return _M
