-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The run-time error codes: third result of every call that fails with
-- `nil, message, code`. Mistakes of the caller are not among them, these raise.
--
-- Three of them must never be mistaken for one another: NOT_FOUND (the store
-- was asked and has no such session), UNAVAILABLE / TIMEOUT (nobody could say)
-- and INVALID (the question or the stored record makes no sense).

local _M = {
    NOT_FOUND = "not_found",           -- no such session
    ALREADY_EXISTS = "already_exists", -- create() of an id that is taken
    UNAVAILABLE = "unavailable",       -- the store could not be asked
    TIMEOUT = "timeout",               -- asked, no answer in time; the outcome
                                       -- of a write is unknown
    INVALID = "invalid",               -- a malformed id, session or record
    FULL = "full",                     -- a store that is the truth has no room
    CLOSED = "closed",                 -- the object was closed
}


-- The exact message that goes with NOT_FOUND.
_M.NOT_FOUND_MESSAGE = "session not found"


---
-- The three results of a look-up that found nothing.
function _M.not_found()
    return nil, _M.NOT_FOUND_MESSAGE, _M.NOT_FOUND
end


---
-- The three results of any call on a closed object.
function _M.closed()
    return nil, "storage is closed", _M.CLOSED
end


return _M
