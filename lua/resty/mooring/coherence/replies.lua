-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What replies of Redis mean to a listener.

local find = string.find
local match = string.match
local max = math.max
local sub = string.sub
local tonumber = tonumber
local type = type

local _M = {}

-- Beginnings of errors that pass by themselves. With any other one Redis says
-- that it will not track for us.
local PASSING = { LOADING = true, BUSY = true, MASTERDOWN = true,
                  READONLY = true, TRYAGAIN = true, NOAUTH = true }


---
-- A server as a number: the first 48 bits of its run_id; 0 when it does not
-- tell (INFO may be forbidden).
function _M.server_of(info)
    local run_id = type(info) == "string" and match(info, "run_id:(%x+)")
    return run_id and max(1, tonumber(sub(run_id, 1, 12), 16)) or 0
end


---
-- The kind of an error reply ("NOPERM"); nil for any other reply.
function _M.kind_of(reply)
    return type(reply) == "table" and reply.err
           and match(reply.err, "^%u+") or nil
end


---
-- Will Redis not track for us at all?
-- @param err text of an error reply
function _M.is_refusal(err)
    return not PASSING[match(err, "^%u+") or ""]
           and not find(err, "max number of clients", 1, true)
end


---
-- What an operator is told of a refusal.
-- @param err text of the error reply
-- @param channel, beacon_root that the right to use may be missing for
function _M.refusal(err, channel, beacon_root)
    return "Redis does not push changes to us (" .. err .. "), so copies are "
           .. "believed for local_ttl only: it has to be version 6 or later, "
           .. "and the user needs +client|id +client|tracking +subscribe "
           .. "&" .. channel .. ", and +set +pexpire on ~" .. beacon_root .. "*"
end


return _M
