-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Names of keys in Redis beside the sessions'. Redis tracks several prefixes on
-- one connection as long as they do not overlap.
--
--     sessions   mooring:session:<id>
--     beacons    mooring:beacon:<instance>:...
--     boards     mooring:<name>

local match = string.match
local sub = string.sub

local _M = {}


-- The prefix of the sessions (it ends in ":") without its last component.
local function root_of(key_prefix)
    return match(key_prefix, "^(.*:)[^:]*:$") or sub(key_prefix, 1, -2) .. "-"
end


---
-- The prefix of all beacons.
-- @param key_prefix of the sessions
function _M.beacons(key_prefix)
    local prefix = root_of(key_prefix) .. "beacon:"
    return prefix ~= key_prefix and prefix or root_of(key_prefix) .. "beacons:"
end


---
-- The key of a board.
-- @param key_prefix of the sessions
-- @param name "backends"
function _M.board(key_prefix, name)
    local key = root_of(key_prefix) .. name
    while sub(key_prefix, 1, #key) == key do -- of sessions below "backends:"
        key = key .. "_"
    end
    return key
end


return _M
