-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The id of a session from whichever place the client can put it: programs send
-- a header, browsers have a cookie, and an EventSource, which can set neither,
-- has it in the URL. With the router's options
--     key = { header = "X-Session" }, policy = "either_key.lua"

return {
    key = function(req)
        return req.headers["X-Session"] or req.cookies.session or req.args.session
    end,
}
