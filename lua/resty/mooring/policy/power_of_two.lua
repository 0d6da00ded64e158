-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The power of two choices: of two different backends drawn at random by their
-- weights, the one with less in flight for its weight; the first one drawn if
-- it is the same. Unlike with "the least of all", workers and replicas that
-- look at the same numbers at the same time do not all run to the same backend.
--
-- Source: Michael Mitzenmacher, The Power of Two Choices in Randomized Load
-- Balancing (IEEE TPDS, 2001).

local ffi = require "resty.mooring.ffi"
local hash = require "resty.mooring.hash"
local options = require "resty.mooring.options"

local ipairs = ipairs

local _M = {}

local OPTIONS = {
    { name = "random", check = options.callable,
      doc = "function() -> number from 0 to 1, below 1" },
}
_M.OPTIONS = OPTIONS


local function total_weight(backends)
    local total = 0
    for _, backend in ipairs(backends) do
        total = total + backend.weight
    end
    return total
end


-- One of the backends but for the one to leave out, by their weights.
-- @param at number from 0 to the sum of their weights
local function draw(backends, at, but)
    local last
    for _, backend in ipairs(backends) do
        if backend ~= but then
            at = at - backend.weight
            if at < 0 then
                return backend
            end
            last = backend
        end
    end
    return last
end


local function load_of(backend)
    return backend.inflight / backend.weight
end


-- Another one in each worker of each machine.
local function seed()
    return hash.mix(ffi.pid()) + ffi.C.mr_time() * 1e6 % 2^32
end


---
-- @param opts optional table, see OPTIONS
-- @return a policy
function _M.new(opts)
    local random = options.check(OPTIONS, opts, 2).random

    return {
        name = "power_of_two",
        route = function(_, backends)
            -- Not before: the workers are forked between new() and here.
            random = random or hash.random(seed())
            local total = total_weight(backends)
            local first = draw(backends, random() * total)
            if #backends == 1 then
                return first
            end
            local second = draw(backends, random() * (total - first.weight),
                                first)
            return load_of(second) < load_of(first) and second or first
        end,
    }
end


return _M
