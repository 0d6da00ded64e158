-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Rendezvous hashing: requests with the same value go to the same backend,
-- through every worker and replica, and nobody has to remember it. Each
-- backend makes a bid that depends on the value, on its own URL and its weight
-- alone; the highest one wins. A backend that leaves takes only its own values
-- with it, each of which goes to its second best; a new one takes its share
-- from all.
--
-- A number u between 0 and 1 and a weight w make the bid -w / ln(u). That gives
-- each backend exactly its share, and a changed weight moves no value between
-- the others.
--
-- Sources: David Thaler and Chinya Ravishankar, Using Name-Based Mappings to
-- Increase Hit Rates (IEEE/ACM Transactions on Networking 6:1, 1998);
-- Christian Schindelhauer and Gunnar Schomaker, Weighted Distributed Hash
-- Tables (SPAA 2005), the logarithmic method.

local hash = require "resty.mooring.hash"
local options = require "resty.mooring.options"
local value = require "resty.mooring.request_value"

local hash_text = hash.text
local ipairs = ipairs
local log = math.log
local unit = hash.unit

local _M = {}

_M.OPTIONS = value.OPTIONS


---
-- @param opts table with the value to go by, see resty.mooring.request_value
-- @return a policy; a request without that value it leaves to the next one
function _M.new(opts)
    local read = value.reader(options.check(_M.OPTIONS, opts, 2), 2)

    return {
        name = "rendezvous",
        route = function(req, backends)
            local text = read(req)
            if not text then
                return nil
            end
            local seed = hash_text(text)
            local best, highest = nil, 0
            for _, backend in ipairs(backends) do
                local u = unit(hash_text(backend.url, seed))
                local bid = -backend.weight / log(u)
                if bid > highest then
                    best, highest = backend, bid
                end
            end
            return best
        end,
    }
end


return _M
