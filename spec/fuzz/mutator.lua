-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Random numbers that a seed repeats, and random changes to a text.

local bit = require "bit"

local byte, char, rep, sub = string.byte, string.char, string.rep, string.sub

local _M = {}

-------------------------------------------------------------------- rng ---

local Rng = {}
Rng.__index = Rng

--- xorshift32 (Marsaglia, "Xorshift RNGs", 2003): the same everywhere, unlike
-- math.random.
-- @param seed  integer
function _M.rng(seed)
    local state = bit.tobit(seed * 2654435761 % 4294967296)
    return setmetatable({ state = state == 0 and 1 or state }, Rng)
end

--- @return an integer, 1 <= i <= n
function Rng:below(n)
    local x = self.state
    x = bit.bxor(x, bit.lshift(x, 13))
    x = bit.bxor(x, bit.rshift(x, 17))
    x = bit.bxor(x, bit.lshift(x, 5))
    self.state = x
    return x % 4294967296 % n + 1
end

function Rng:pick(list)
    return list[self:below(#list)]
end

--- True once in n times.
function Rng:once_in(n)
    return self:below(n) == 1
end

--- A text of up to `most` bytes, most of them from `alphabet` if given.
function Rng:text(most, alphabet)
    local bytes = {}
    for i = 1, self:below(most + 1) - 1 do
        if alphabet and not self:once_in(20) then
            local at = self:below(#alphabet)
            bytes[i] = sub(alphabet, at, at)
        else
            bytes[i] = char(self:below(256) - 1)
        end
    end
    return table.concat(bytes)
end

--- A number that depends on the text alone (FNV-1a).
function _M.hash(text)
    local h = bit.tobit(2166136261)
    for i = 1, #text do
        h = bit.bxor(h, byte(text, i))
        h = bit.tobit(h * 403 + bit.lshift(h, 24))
    end
    return h % 4294967296
end

---------------------------------------------------------------- mutations ---

-- Two places in order, at most `most` bytes apart.
local function range(rng, text, most)
    local from = rng:below(#text + 1)
    return from, math.min(#text, from + rng:below(most) - 2)
end

local function replace(text, from, to, with)
    return sub(text, 1, from - 1) .. with .. sub(text, to + 1)
end

local INTERESTING = "\0\1\t\n\r \"\\/%{}[]:,.-+0123456789eEtTzZ@?=&;\127\128\255"

local MUTATIONS = {
    function(rng, text) -- another byte
        local at = rng:below(#text + 1)
        return replace(text, at, at, rng:text(1, INTERESTING))
    end,
    function(rng, text) -- bytes more
        local at = rng:below(#text + 1)
        return replace(text, at, at - 1, rng:text(4, INTERESTING))
    end,
    function(rng, text, words) -- a word of the format more, or instead
        local from, to = range(rng, text, 12)
        if rng:once_in(2) then
            to = from - 1
        end
        return replace(text, from, to, rng:pick(words))
    end,
    function(rng, text) -- bytes less
        local from, to = range(rng, text, rng:once_in(4) and #text + 1 or 8)
        return replace(text, from, to, "")
    end,
    function(rng, text) -- some twice, or many times
        local from, to = range(rng, text, 20)
        local times = rng:once_in(10) and rng:below(200) or rng:below(3)
        return replace(text, from, to, rep(sub(text, from, to), times + 1))
    end,
    function(rng, text) -- two parts in the other order
        local from, to = range(rng, text, 40)
        local middle = from + rng:below(math.max(1, to - from + 1)) - 1
        return replace(text, from, to,
            sub(text, middle + 1, to) .. sub(text, from, middle))
    end,
    function(rng, text, _, other) -- the rest of another text
        return sub(text, 1, rng:below(#text + 1) - 1)
            .. sub(other, rng:below(#other + 1))
    end,
    function(rng, text) -- a number changed
        local from, to = text:find("%d+", rng:below(#text + 1))
        if not from then
            return text
        end
        return replace(text, from, to, rng:pick {
            "0", "00", "1", "-1", "60", "99", "65536", "4294967296",
            "9007199254740993", "1e999", "0x10", "1.5", "" })
    end,
}

--- Changes a text in one to four places.
-- @param seeds  other texts, of which parts are taken
-- @param words  what the format is made of
function _M.mutate(rng, text, seeds, words)
    for _ = 1, rng:below(4) do
        text = rng:pick(MUTATIONS)(rng, text, words, rng:pick(seeds))
        if #text > 20000 then
            text = sub(text, 1, 20000)
        end
    end
    return text
end

return _M
