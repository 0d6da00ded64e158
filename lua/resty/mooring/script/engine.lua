-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Calls the functions of policies so that no script fails a request.
--
--     chains.route = { slot, slot }     slot: one function of one policy, with
--     chains.admit = { slot }           its counts
--
-- A script that throws, or answers what makes no sense, is counted and logged
-- (at most once a second for each function), and is taken to have no opinion:
-- the next policy in the list is asked, then there is the default.
--
--     key             no answer: what the option `key` finds
--     admit           yes
--     route           smooth weighted round robin (false: none, a 503)
--     on_bind         the session as it was
--     on_evict        nothing
--     on_unreachable  "forget"
--
-- A script may wait where its phase can; where it cannot, nginx throws. Its
-- request may be killed while it waits: nothing here is left half done by that,
-- since a call changes only its own slot. What a script does to its arguments
-- harms nobody: the array of backends is a copy, the backends in it take no
-- changes, and the session is a copy (admit's is the caller's own), which is
-- taken over when on_bind has been found in order.

local contract = require "resty.mooring.script.contract"
local facades = require "resty.mooring.script.facades"
local log = require "resty.mooring.log"
local mooring_ffi = require "resty.mooring.ffi"
local record = require "resty.mooring.record"
local round_robin = require "resty.mooring.policy.round_robin"
local text_of = require "resty.mooring.script.text"

local C = mooring_ffi.C

local as_text = text_of.of
local collectgarbage = collectgarbage
local copy = record.copy
local decode = record.decode
local encode = record.encode
local find = string.find
local format = string.format
local gsub = string.gsub
local ipairs = ipairs
local located = text_of.located
local pcall = pcall
local rawequal = rawequal
local setmetatable = setmetatable
local sub = string.sub
local tostring = tostring
local type = type
local xpcall = xpcall

local _M = {}
local mt = { __index = _M }

local MAX_MESSAGE = 500 -- bytes of what a script has thrown
local NO_MEMORY = "not enough memory" -- as LuaJIT says it
local PLACE = text_of.PLACE

local UNREACHABLE = { forget = true, keep = true, reinitialize = true }


-- ------------------------------------------------------------------ blame --

local function blame(slot, text)
    slot.errors = slot.errors + 1
    log.err_limited(slot.key, 'the policy "', slot.policy, '" failed in ',
                    slot.name, " (the default is used): ",
                    (gsub(sub(text, 1, MAX_MESSAGE), "%c", " ")))
end


-- Strings are not shown: one may hold the id of a session.
local function blame_answer(slot, answer, must)
    local kind = type(answer)
    local shown = (kind == "number" or kind == "boolean") and tostring(answer)
                  or "a " .. kind
    blame(slot, format("%s: it answered %s and must answer %s", slot.place,
                       shown, must))
end


-- Returns what the script has answered, and true when it has failed.
local function run(slot, x, y)
    slot.calls = slot.calls + 1
    local began = C.mr_now()
    local ok, answer = xpcall(slot.script, located, x, y)
    slot.seconds = slot.seconds + (C.mr_now() - began) / 1000
    if ok then
        return answer
    end
    -- What took all there was is garbage by now, and the request needs some.
    if answer == NO_MEMORY then
        pcall(collectgarbage)
    end
    -- The handler may fail, too, when the stack has overflowed.
    local text = as_text(answer)
    blame(slot, find(text, PLACE) and text or slot.place .. ": " .. text)
    return nil, true
end


-- ------------------------------------------------------------- the makings --

local function slot_of(entry, name)
    local script = entry.policy[name]
    return {
        policy = entry.name,
        name = name,
        script = script,
        place = contract.place_of(script) or "a C function",
        key = "policy " .. entry.name .. " " .. name,
        trusted = entry.trusted,
        calls = 0, errors = 0, seconds = 0,
    }
end


local function add_chain(self, entries, name)
    local chain = {}
    for _, entry in ipairs(entries) do
        if entry.policy[name] then
            local slot = slot_of(entry, name)
            chain[#chain + 1] = slot
            self.slots[#self.slots + 1] = slot
        end
    end
    self.chains[name] = chain
    self.has[name] = #chain > 0
end


---
-- @param entries see resty.mooring.script.source
-- @return engine with .has: table of function name to boolean, and
--         .watches_answers: a policy wants to know of each 404 of a backend
function _M.new(entries)
    local self = setmetatable({
        has = {}, chains = {}, slots = {}, fallback = round_robin.new(),
        facades = facades.new(),
    }, mt)
    for _, name in ipairs(contract.FUNCTIONS) do
        add_chain(self, entries, name)
    end
    add_chain(self, entries, "start")
    for _, entry in ipairs(entries) do
        self.watches_answers = entry.policy.watches_answers
                               or self.watches_answers
    end
    return self
end


---
-- Tells policies in which worker they are. For init_worker_by_lua.
-- @param router_name string
-- @param worker number from 0
function _M.start(self, router_name, worker)
    self.fallback.start(router_name, worker)
    for _, slot in ipairs(self.chains.start) do
        run(slot, router_name, worker)
    end
end


-- -------------------------------------------------------------- decisions --

---
-- The id of the session a request belongs to.
-- @return string, or nil: as the router itself would find it
function _M.key(self, req)
    for _, slot in ipairs(self.chains.key) do
        local id = run(slot, req)
        if type(id) == "string" and id ~= "" then
            return id
        elseif id ~= nil and id ~= "" then
            blame_answer(slot, id, "a string or nil")
        end
    end
end


---
-- May this request use this session?
-- @param session of the caller's own, who does not look at it any more: it
--        costs no copy where there is one policy to ask
-- @return false when a policy refuses it, else true
function _M.admit(self, session, req)
    local chain = self.chains.admit
    for i, slot in ipairs(chain) do
        local answer = run(slot, i < #chain and copy(session) or session, req)
        if answer == false then
            return false
        elseif answer ~= nil and answer ~= true then
            blame_answer(slot, answer, "true, false or nil")
        end
    end
    return true
end


local function is_one_of(backends, answer)
    for i = 1, #backends do
        if rawequal(backends[i], answer) then
            return true
        end
    end
    return false
end


-- Built-in policies are given the backends themselves.
local function ask_route(self, slot, req, backends)
    if slot.trusted then
        return run(slot, req, backends)
    end
    return self.facades:original(run(slot, req, self.facades:list(backends)),
                                 backends)
end


---
-- The backend of a new session, or of a request that belongs to none.
-- @param backends array of those that may take it
-- @return one of them; nil when there is none, or when a policy has answered
--         false: none of them may have it
function _M.route(self, req, backends)
    if #backends == 0 then
        return nil
    end
    for _, slot in ipairs(self.chains.route) do
        local answer = ask_route(self, slot, req, backends)
        if answer == false then
            return nil
        elseif answer ~= nil then
            if is_one_of(backends, answer) then
                return answer
            end
            blame_answer(slot, answer, "one of the backends it was given, "
                                       .. "false for none of them, or nil")
        end
    end
    return self.fallback.route(req, backends)
end


---
-- What becomes of a session whose backend is unreachable?
-- @return "forget", "keep" or "reinitialize"
function _M.on_unreachable(self, session, req)
    for _, slot in ipairs(self.chains.on_unreachable) do
        local answer = run(slot, copy(session), req)
        if UNREACHABLE[answer] then
            return answer
        elseif answer ~= nil then
            blame_answer(slot, answer, '"forget", "keep" or nil')
        end
    end
    return "forget"
end


-- ------------------------------------------------------------------ hooks --

local FIXED = { "id", "type", "created_at", "updated_at" }
local FIXED_METADATA = { "backend_url", "endpoint" }


local function first_change(names, before, after)
    for _, name in ipairs(names) do
        if before[name] ~= after[name] then
            return name
        end
    end
end


-- The session as it will be read again: of tables that a script has made, their
-- text alone counts. What answers differently the next time cannot do so then,
-- and nobody but us can change it.
-- @return session; or nil, what is wrong
local function as_stored(before, after)
    local name = first_change(FIXED, before, after)
    if name then
        return nil, "it must not change session." .. name
    end
    local text, err = encode(after)
    local stored
    if text then
        stored, err = decode(text, before.id)
    end
    if not stored then
        return nil, "the session cannot be stored any more: " .. err
    end
    name = first_change(FIXED_METADATA, before.metadata, stored.metadata)
    if name then
        return nil, "it must not change session.metadata." .. name
    end
    return stored
end


-- The session the way on_bind has left it; or nil, why that cannot be stored.
local function taken_over(before, after)
    local ok, stored, wrong = pcall(as_stored, before, after)
    if not ok then
        return nil, as_text(stored)
    end
    return stored, wrong
end


local function take_over(slot, session, draft)
    local stored, wrong = taken_over(session, draft)
    if stored then
        session.metadata, session.data = stored.metadata, stored.data
        session._data = stored._data
    else
        blame(slot, slot.place .. ": " .. wrong)
    end
end


---
-- Lets policies add to a session before it is stored.
-- @param session is changed: its metadata and data only, and only by hooks that
--        leave it fit to be stored
-- @return session
function _M.on_bind(self, session, req)
    for _, slot in ipairs(self.chains.on_bind) do
        local draft = copy(session)
        local _, failed = run(slot, draft, req)
        if not failed then
            take_over(slot, session, draft)
        end
    end
    return session
end


---
-- The storage would not take a session with what on_bind has added.
-- @param err as the storage returned it
function _M.blame_on_bind(self, err)
    for _, slot in ipairs(self.chains.on_bind) do
        blame(slot, slot.place .. ": the session cannot be stored with what "
                    .. "was added to it: " .. as_text(err))
    end
end


---
-- A session has left memory.
-- @param reason "capacity", "expired", "deleted", "gone" or "closed"
function _M.on_evict(self, session, reason)
    for _, slot in ipairs(self.chains.on_evict) do
        run(slot, copy(session), reason)
    end
end


-- ----------------------------------------------------------------- counts --

---
-- @return table of policy name to table of function name to { calls, errors,
--         seconds }, of this process
function _M.stats(self)
    local stats = {}
    for _, slot in ipairs(self.slots) do
        local policy = stats[slot.policy] or {}
        stats[slot.policy] = policy
        policy[slot.name] = { calls = slot.calls, errors = slot.errors,
                              seconds = slot.seconds }
    end
    return stats
end


return _M
