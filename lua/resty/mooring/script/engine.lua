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

local C = mooring_ffi.C

local copy = record.copy
local encode = record.encode
local find = string.find
local format = string.format
local getinfo = debug.getinfo
local gsub = string.gsub
local ipairs = ipairs
local pcall = pcall
local setmetatable = setmetatable
local sub = string.sub
local tostring = tostring
local type = type
local xpcall = xpcall

local _M = {}
local mt = { __index = _M }

local MAX_MESSAGE = 500 -- bytes of what a script has thrown
local MAX_DEPTH = 20
local PLACE = "^[^\n]-:%d+:" -- what a message with file and line begins with

local UNREACHABLE = { forget = true, keep = true, reinitialize = true }


-- ------------------------------------------------------------------ blame --

local function as_text(err)
    if type(err) == "string" then
        return err
    end
    local ok, text = pcall(tostring, err)
    return ok and text or "a " .. type(err)
end


-- The handler of errors: one that does not say where it comes from is told by
-- the stack, which exists only here.
local function located(err)
    local text = as_text(err)
    if find(text, PLACE) then
        return text
    end
    for level = 2, MAX_DEPTH do
        local info = getinfo(level, "Sl")
        if not info then
            break
        elseif info.what ~= "C" and info.currentline > 0 then
            return format("%s:%d: %s", info.short_src, info.currentline, text)
        end
    end
    return text
end


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
        if backends[i] == answer then
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


local function compare(before, after)
    local name = first_change(FIXED, before, after)
    if name then
        return "it must not change session." .. name
    end
    local text, err = encode(after)
    if not text then
        return "the session cannot be stored any more: " .. err
    end
    name = first_change(FIXED_METADATA, before.metadata, after.metadata)
    return name and "it must not change session.metadata." .. name
end


-- Why a session cannot be stored the way on_bind has left it; nil if it can.
local function spoilt(before, after)
    local ok, wrong = pcall(compare, before, after)
    return ok and wrong or not ok and as_text(wrong) or nil
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
        local wrong = not failed and spoilt(session, draft)
        if wrong then
            blame(slot, slot.place .. ": " .. wrong)
        elseif not failed then
            session.metadata, session.data = draft.metadata, draft.data
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
