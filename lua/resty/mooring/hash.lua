-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A hash of short texts and random numbers for policies. Both are the same on
-- every machine and in every version: rendezvous hashing sends a tenant to
-- another backend when they change (the specs hold golden values).
--
-- Neither is a secret: whoever chooses a text can choose its hash.

local bit = require "bit"

local band = bit.band
local bxor = bit.bxor
local byte = string.byte
local lshift = bit.lshift
local rshift = bit.rshift
local tobit = bit.tobit

local _M = {}

local TWO_32 = 4294967296


-- a * b modulo 2^32. A double holds 53 bits, so a goes by halves.
local function multiply(a, b)
    return tobit(band(a, 0xffff) * b + lshift(rshift(a, 16) * b, 16))
end


---
-- Mixes 32 bits: each bit of the result depends on each bit of x.
-- Source: "lowbias32" of Chris Wellons, Prospecting for Hash Functions (2018).
-- @return number from -2^31 to 2^31 - 1
local function mix(x)
    x = multiply(bxor(x, rshift(x, 16)), 0x7feb352d)
    x = multiply(bxor(x, rshift(x, 15)), 0x846ca68b)
    return bxor(x, rshift(x, 16))
end
_M.mix = mix


---
-- Hashes a text: the "one at a time" of Bob Jenkins (Dr Dobb's, 1997) byte by
-- byte, since it is made of what LuaJIT compiles to single instructions, and
-- mix() at the end, since it mixes its last bytes badly.
-- @param text string
-- @param seed optional number: for each one another function; default 0
-- @return number from -2^31 to 2^31 - 1
function _M.text(text, seed)
    local h = tobit(seed or 0)
    for i = 1, #text do
        h = tobit(h + byte(text, i))
        h = tobit(h + lshift(h, 10))
        h = bxor(h, rshift(h, 6))
    end
    return mix(h)
end


---
-- @param h number of mix() or text()
-- @return number between 0 and 1, neither included
function _M.unit(h)
    return (h % TWO_32 + 0.5) / TWO_32
end


---
-- A source of random numbers: mix() of a counter that steps by the golden
-- ratio (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators,
-- 2014).
-- Not math.random: that goes on from where it was when the workers were forked,
-- so all of them would draw the same.
-- @param seed number
-- @return function() -> number between 0 and 1
function _M.random(seed)
    local state = tobit(seed)
    return function()
        state = tobit(state + 0x9e3779b9)
        return (mix(state) % TWO_32 + 0.5) / TWO_32
    end
end


return _M
