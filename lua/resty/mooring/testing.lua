-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a policy is called with, made in a plain busted spec without nginx,
-- Redis or backends:
--
--     local testing = require "resty.mooring.testing"
--
--     it("sends canaries to the canary", function()
--         local policy = testing.policy "canary.lua"
--         local backends = testing.backends { "http://a:1", "http://b:1" }
--         local req = testing.request { headers = { ["X-Canary"] = "1" } }
--         assert.equal("http://b:1", policy:route(req, backends).url)
--     end)
--
-- Requests, sessions and the engine are those of the router. A backend is a
-- plain table here, so that a spec can change its counts between two calls.

local backends = require "resty.mooring.router.backends"
local policy = require "resty.mooring.policy"
local request = require "resty.mooring.request"
local session = require "resty.mooring.session"

local error = error
local format = string.format
local ipairs = ipairs
local pairs = pairs
local type = type

local _M = {}

local NUMBERS = { weight = 1, inflight = 0, sessions = 0 } -- and their defaults
local STATES = { up = true, draining = true, down = true }


---
-- Compiles a policy as the router does.
-- @param option what the router's option `policy` may be: a name, a table, the
--        path of a file, or an array of these
-- @return engine, with the methods
--             :key(req)                       -> string or nil
--             :route(req, backends)           -> one of backends, or nil
--             :on_bind(session, req)          -> session, with what is added
--             :admit(session, req)            -> boolean
--             :on_evict(session, reason)
--             :on_unreachable(session, req)   -> "forget", "keep" or
--                                                "reinitialize"
--             :stats() -> { [policy] = { [function] = { calls =, errors =,
--                         seconds = } } }
--         A function that throws is counted there and does not raise here
--         either: compare `errors` with 0.
-- Raises "opts.policy ..." with file and line of what is wrong.
function _M.policy(option)
    local engine = policy.compile(option, 2)
    return engine
end


---
-- @param fields optional table of any of method, path, headers, args, cookies,
--        remote_addr, session_id, rpc_method and body; default: a GET of /
-- @return request; raises naming the field that is wrong
function _M.request(fields)
    local ok, req = pcall(request.build, fields or {})
    if not ok then
        error(req, 2)
    end
    return req
end


---
-- A session as on_bind is given it.
-- @param id string
-- @param metadata optional table of strings; backend_url is what it is bound to
-- @return session; raises naming what is wrong
function _M.session(id, metadata)
    local ok, made = pcall(session.new, id, { metadata = metadata })
    if not ok then
        error(made, 2)
    end
    return made
end


-- Nothing is shared with what the spec has written.
local function view(i, entry)
    if type(entry) == "string" then
        entry = { url = entry }
    end
    local peer, must = backends.parse(type(entry) == "table" and entry.url
                                      or "")
    if not peer then
        error(format("backend %d: its url %s", i, must), 3)
    end
    local made = { url = peer.url, state = entry.state or "up" }
    if not STATES[made.state] then
        error(format('backend %d: state must be "up", "draining" or "down"',
                     i), 3)
    end
    for name, default in pairs(NUMBERS) do
        made[name] = entry[name] or default
        if type(made[name]) ~= "number" then
            error(format("backend %d: %s must be a number", i, name), 3)
        end
    end
    for name in pairs(entry) do
        if made[name] == nil then
            error(format("backend %d: %s is not a field of a backend", i,
                         tostring(name)), 3)
        end
    end
    return made
end


---
-- Backends as route is given them.
-- @param list array of URLs or of { url =, weight = 1, inflight = 0,
--        sessions = 0, state = "up" }. The router lists only those that may
--        take new sessions, so it never shows another state than "up"
-- @return array of new tables; raises naming what is wrong
function _M.backends(list)
    local made = {}
    for i, entry in ipairs(list) do
        made[i] = view(i, entry)
    end
    return made
end


return _M
