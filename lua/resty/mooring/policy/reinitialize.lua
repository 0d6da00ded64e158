-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- When the backend of a session is gone, another one takes over under the
-- client's id: the `initialize` the session was opened with is repeated there
-- (router/reinitialize.lua), and the client notices nothing.
--
-- What the old backend knew of the session is lost all the same: subscriptions,
-- log levels, whatever its tools have kept, events that were not delivered. A
-- client that is told so by a 404 can set things up again; one behind this
-- policy is never told. It is for servers that keep nothing between calls.
--
-- The body of the `initialize` is kept in session.data, without any header of
-- it: the credentials of the request that finds the backend gone are used.

local options = require "resty.mooring.options"

local type = type

local _M = {}

local OPTIONS = {
    { name = "max_body", check = options.integer(1, 2^20), default = 16384,
      unit = "bytes", doc = "sessions opened with more are forgotten as ever" },
    { name = "restarts", check = options.boolean, default = true,
      doc = "also where a backend answers 404: it has restarted" },
}
_M.OPTIONS = OPTIONS


---
-- @param opts table, see OPTIONS and the README; nil: the defaults
-- @return a policy; raises naming the option that is wrong
function _M.new(opts)
    opts = options.check(OPTIONS, opts or {}, 2)
    return {
        name = "reinitialize",
        watches_answers = opts.restarts,

        on_bind = function(session, req)
            local body = req.rpc_method == "initialize" and req.body
            if not body or #body > opts.max_body then
                return
            end
            if session.data == nil then
                session.data = {}
            end
            if type(session.data) == "table" then
                session.data.initialize = body
            end
        end,

        on_unreachable = function(session)
            local data = session.data
            if type(data) == "table" and type(data.initialize) == "string" then
                return "reinitialize"
            end
        end,
    }
end


return _M
