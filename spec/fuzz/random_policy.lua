-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Policies for policy_target, mostly ones that nobody should write.

local _M = {}

local FIELDS = { "key", "admit", "route", "on_bind", "on_evict", "on_unreachable",
                 "start", "name", "watches_answers" }

-- What a table may be keyed by; most is no field.
local ODD_KEYS = { "rout", "new", "[1]", "[0]", "[-1]", "[1.5]", "[1e300]", "[true]", "[{}]",
                   "[next]", "['']", "['a b']", "['\\0']", "[('x'):rep(9999)]",
                   "[setmetatable({}, { __tostring = error })]",
                   "[setmetatable({}, { __tostring = function() return 5 end })]",
                   "[setmetatable({}, { __eq = error, __lt = error })]",
                   "[coroutine.create(print)]" }

-- What scripts throw, answer and put where they should not.
local VALUES = { "nil", "true", "false", "0", "-1", "0/0", "1/0", "''", "'x'",
                 "'forget'", "'reinitialize'", "'an\\r\\nid'", "('x'):rep(99999)",
                 "{}", "{ url = 'http://a:1' }", "type", "error", "b", "b[1]",
                 "b[2]", "b[4]", "r", "s", "s.metadata", "setmetatable({}, nil)",
                 "setmetatable({}, { __index = error, __newindex = error })",
                 "setmetatable({}, { __eq = function() return true end })",
                 "setmetatable({}, { __tostring = error })",
                 "setmetatable({}, { __tostring = function() return {} end })",
                 "setmetatable({}, { __metatable = false })",
                 "setmetatable({}, { __metatable = 1, __call = error })",
                 "setmetatable({}, { __pairs = error, __len = error })",
                 "setmetatable({}, { __concat = error, __lt = error })",
                 "setmetatable({ a = '1' }, { __index = s.metadata })",
                 "setmetatable({}, { __index = function(_, k) return k end })",
                 "setmetatable({}, { __index = function() error(V) end })",
                 "setmetatable({ a = V }, { __index = function() return V end })",
                 "function() end", "coroutine.create(print)",
                 "coroutine.wrap(function() coroutine.yield(1) end)" }

-- f is the function's name; s, r and b are what it is given, in a way.
local STATEMENTS = {
    "return V", "return V", "return V", "error(V)", "error(V, 0)", "return 'x'",
    "s.metadata = V", "s.metadata = V", "s.metadata = setmetatable(s.metadata, V)",
    "s.metadata.owner = V", "s.metadata.backend_url = V",
    "s.metadata[V] = V", "s.data = V", "s.data = { V, x = V }", "s.id = V",
    "s.type = V", "s.created_at = V", "s.updated_at = V", "s._data = V",
    "s._times = V", "s._record = V", "r.session_id = V", "r.body = V", "r.headers = V",
    "r.headers.x = V", "r.args = V", "b[1] = V", "b[2].url = V", "b[1].weight = V",
    "table.sort(b, function() return V end)", "table.remove(b)",
    "while #b > 0 do table.remove(b) end", "setmetatable(s, V)",
    "setmetatable(s.metadata, V)", "setmetatable(b, V)", "setmetatable(r, V)",
    "setmetatable(s, { __index = function() error(V) end }) s.id = nil",
    "kept = kept or s", "if kept then kept.metadata.backend_url = V end",
    "count = count + 1 if count % 2 == 0 then error(V) end",
    "coroutine.yield(V)", "return coroutine.wrap(function() error(V) end)()",
    "local function g() return 1 + g() end g()", "for k in pairs(s) do s[k] = V end",
    "local t = {} t[1] = t s.data = t", "s.data = { f = { g = { h = V } } }",
    "s:set_metadata('a', V)", "s:touch()", "while true do end",
    "repeat pcall(error) until false", "x = V", "return (V)(V)", "return V .. V",
    "local t = s.data for i = 1, 99 do t = { t } end s.data = t",
    "pcall(error, V)", "return pcall(function() error(V) end)",
    "xpcall(function() error(V) end, function() error(V) end)",
}

local filled

-- Each V of a text becomes a value, in which there may be more of them.
function filled(rng, text)
    return (text:gsub("%f[%w]V%f[%W]", function()
        return filled(rng, rng:pick(VALUES))
    end))
end

local function random_function(rng)
    local body = {}
    for i = 1, rng:below(3) do
        body[i] = "do " .. filled(rng, rng:pick(STATEMENTS)) .. " end"
    end
    -- on_bind(s, r), route(r, b), key(r), start(name, n): which is which, the
    -- text finds out, so that most statements make sense in most functions.
    return "function(p, q) local s, r, b = sort_out(p, q) "
        .. table.concat(body, " ") .. " end"
end

local HEAD = [[
local kept, count = nil, 0
local function sort_out(p, q)
    if type(p) == "table" and p.metadata then
        return p, type(q) == "table" and q or {}, {}
    end
    return { metadata = {} }, type(p) == "table" and p or {},
        type(q) == "table" and q or {}
end
local s, r, b = sort_out()
]]

local function random_fields(rng)
    local fields = {}
    for i = 1, rng:below(6) - 1 do
        local key = rng:once_in(30) and rng:pick(ODD_KEYS) or rng:pick(FIELDS)
        local of = rng:once_in(25) and filled(rng, "V") or random_function(rng)
        if (key == "name" or key == "watches_answers") and not rng:once_in(6) then
            of = key == "name" and "'x'" or "true"
        end
        fields[i] = key .. " = " .. of
    end
    return "{ " .. table.concat(fields, ",\n") .. " }"
end

local RETURNS = { "return P", "return P", "return P", "return P", "local M = P\nreturn M",
    "return setmetatable({}, { __index = P })",
    "return setmetatable(P, { __index = function() error(V) end })",
    "return setmetatable(P, { __index = function(_, k) return V end })",
    "return setmetatable(P, V)", "return setmetatable(P, { __pairs = error })",
    "return setmetatable(P, { __metatable = V, __tostring = error, __len = error })",
    "return P, V", "return { P, P }", "return { 'round_robin', P, name = V }",
    "return { P, nil, P }", "return V", "error(V)", "error(V, 0)", "M = P return M",
    "local function f() n = V end return { admit = f }",
    "_G.mooring_fuzz = P return _G.mooring_fuzz", "do return P end",
    "local function f() return f() + 1 end return f()",
    "return coroutine.wrap(function() return P end)()", "coroutine.yield(P)",
    "return (function(...) return ... end)(P)", "while true do end" }

--- A text that most often is a policy.
function _M.make(rng)
    local made = rng:pick(RETURNS):gsub("%f[%w]P%f[%W]", function()
        return random_fields(rng)
    end)
    local text = HEAD .. filled(rng, made)
    if rng:once_in(30) then -- a file that was cut off
        text = text:sub(1, rng:below(#text))
    elseif rng:once_in(30) then -- compiled, and maybe damaged
        local chunk = loadstring(text)
        text = chunk and string.dump(chunk, rng:once_in(2)) or text
    end
    return text
end

_M.SEEDS = {
    "return {}",
    "return { name = 'x', route = function(req, backends) return backends[2] end }",
    "local M = {}\nfunction M.admit(session) return session.metadata.owner == 'ann' end\n"
        .. "function M.on_bind(session, req)\n  session:set_metadata('owner', "
        .. "req.headers['X-User'])\nend\nreturn M",
    "return { key = function(req) return req.cookies.a or req.args.x end,\n"
        .. "on_unreachable = function() return 'keep' end, on_evict = function() end }",
    "return { 'round_robin', { admit = function() return false end } }",
    "return 'least_sessions'",
    "error(setmetatable({}, { __tostring = error }))",
    "return { admit = function(s)\n error(setmetatable({}, { __tostring = error }))\nend,"
        .. "\non_bind = function(s) s.metadata = setmetatable({}, { __index = function()\n"
        .. "error(setmetatable({}, { __tostring = function() return {} end })) end }) end }",
    "return 'no such policy'",
    "\239\187\191return {}",
    "#!/usr/bin/luajit\nreturn {}",
    "\27LJ\2\10return {}",
    "",
}

_M.WORDS = { "return ", "{", "}", "function() ", " end ", "(", ")", "=", ",", "'",
    '"', "[[", "]]", "--", "\n", "local ", "nil", "error()", "setmetatable(",
    "__index", "key", "admit", "route", "on_bind", "on_evict", "on_unreachable",
    "start", "name", "goto x", "::x::", "...", "0x", "1e999", "\\", "\0", "\27LJ",
    "#!", "while true do end", "for i = 1, 2 do ", "coroutine.yield()", "x = 1" }

return _M
