-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Makes Lua source count what it does. In front of each statement comes a mark
-- that it has run, and around each condition a call that marks its outcome and
-- returns it:
--
--     if a and not f(b) then g() end
--     __c[0]=1;if __b(1,a) and not __b(3,f(b)) then __c[5]=1;g() end
--
-- Lines stay where they are. A condition is what an if, elseif, while or until
-- asks, in its parts around `and`, `or` and `not`; elsewhere it is each operand
-- of `and` and `or` but the last, which only is the value. What can be but true
-- has one outcome and is not counted: by its form (a number, a table, a + b), as
-- a constant (by its name, LIKE_THIS), and the b of `a and b or c` where a says
-- so (`n > 0 and n or c`, `type(b) == "table" and b or c`).
--
-- The parser is luacheck's.
--
--     source, points = instrument(text, header)
--
-- points[i] belongs to byte i - 1 of the counters:
--     { kind = "statement" | "true" | "false", line =, text = of a condition,
--       statement = the point of the innermost statement around it,
--       before = the statement before it in its block, first = what block it
--       is the first one of: "function", "for" or "other",
--       body = the block of the innermost function around it }

local decoder = require "luacheck.decoder"
local parser = require "luacheck.parser"

local ALWAYS_TRUE = { Number = true, String = true, Table = true, Function = true }
local CONSTANT = { Nil = true, True = true, False = true }
local COMPARISON = { eq = true, ne = true, lt = true, le = true, gt = true, ge = true }

local Writer = {}
Writer.__index = Writer

function Writer:insert(offset, text)
    self.insertions[#self.insertions + 1] = {
        offset = offset, text = text, order = #self.insertions,
    }
end

function Writer:add(point)
    point.body = self.body
    self.points[#self.points + 1] = point
    return #self.points - 1
end

function Writer:text_of(node)
    return self.text:sub(node.offset, node.end_offset):gsub("%s+", " ")
end

local function is_constant_name(node)
    local name = node.tag == "Id" and node[1] or node.tag == "Index" and node[2][1]
    return type(name) == "string" and name:find("^%u[%u%d_]*$") ~= nil
end

-- An operator that is not a comparison makes a number or a string.
function Writer:has_one_outcome(node, facts)
    return CONSTANT[node.tag] or ALWAYS_TRUE[node.tag] or is_constant_name(node)
        or node.tag == "Op" and not COMPARISON[node[1]]
        or facts and facts[self:text_of(node)]
end

-- ---------------------------------------------------- what a condition says --

-- Neither nil nor false can be ordered, calculated with, measured or searched.
local USES = {
    lt = true, le = true, gt = true, ge = true, add = true, sub = true, mul = true,
    div = true, mod = true, unm = true, concat = true, len = true,
}
local SEARCH = { find = true, match = true }
local TYPE = { type = true }
local FALSE_TYPES = { ["nil"] = true, boolean = true }

local function is_call_of(node, names)
    return node.tag == "Call" and node[1].tag == "Id" and names[node[1][1]]
end

-- Adds the texts of what is true where an == is.
function Writer:add_equal(node, facts)
    local value = node[3]
    if not ALWAYS_TRUE[value.tag] then
        return
    elseif not is_call_of(node[2], TYPE) then
        self:add_facts(node[2], facts)
    elseif value.tag == "String" and not FALSE_TYPES[value[1]] then
        self:add_facts(node[2][2], facts)
    end
end

-- Adds the texts of what is true where the node is.
function Writer:add_facts(node, facts)
    local op = node.tag == "Op" and node[1]
    if node.tag == "Paren" then
        self:add_facts(node[1], facts)
    elseif op == "and" or USES[op] then
        self:add_facts(node[2], facts)
        self:add_facts(node[3] or node[2], facts)
    elseif op == "eq" then
        self:add_equal(node, facts)
    elseif is_call_of(node, SEARCH) then
        self:add_facts(node[2], facts)
    elseif node.tag == "Id" or node.tag == "Index" then
        facts[self:text_of(node)] = true
    end
end

function Writer:facts_beyond(node, facts)
    local more = setmetatable({}, { __index = facts })
    self:add_facts(node, more)
    return more
end

function Writer:outcome(node)
    local text = self:text_of(node)
    local function point(kind)
        return { kind = kind, line = node.line, text = text, statement = self.current }
    end
    local index = self:add(point("true"))
    self:add(point("false"))
    self:insert(node.offset, ("__b(%d,"):format(index))
    self:insert(node.end_offset + 1, ")")
end

-- An expression that something is decided by. `facts`: texts of what is true
-- when it is asked.
function Writer:condition(node, facts)
    local op = node.tag == "Op" and node[1]
    if node.tag == "Paren" then
        self:condition(node[1], facts)
    elseif op == "not" then
        self:condition(node[2])
    elseif op == "and" or op == "or" then
        self:condition(node[2], facts)
        self:condition(node[3], op == "and" and self:facts_beyond(node[2], facts) or facts)
    else
        if not self:has_one_outcome(node, facts) then
            self:outcome(node)
        end
        self:expression(node)
    end
end

-- An expression, for its value.
function Writer:expression(node)
    if node.tag == "Function" then
        self:body_of(node[2])
    elseif node.tag == "Op" and (node[1] == "and" or node[1] == "or") then
        self:condition(node[2])
        self:expression(node[3])
    else
        self:expressions(node)
    end
end

function Writer:expressions(list)
    for _, node in ipairs(list or {}) do
        if type(node) == "table" then
            self:expression(node)
        end
    end
end

local statements = {}

function statements.If(self, node)
    for i = 1, #node - 1, 2 do
        self:condition(node[i])
        self:block(node[i + 1], "other")
    end
    if #node % 2 == 1 then
        self:block(node[#node], "other")
    end
end

function statements.While(self, node)
    self:condition(node[1])
    self:block(node[2], "other")
end

function statements.Repeat(self, node)
    self:block(node[1], "other")
    self:condition(node[2])
end

function statements.Do(self, node)
    self:block(node, "other")
end

function statements.Fornum(self, node)
    for i = 2, #node - 1 do
        self:expression(node[i])
    end
    self:block(node[#node], "for")
end

function statements.Forin(self, node)
    self:expressions(node[2])
    self:block(node[3], "for")
end

function statements.Set(self, node)
    self:expressions(node[1])
    self:expressions(node[2])
end

function statements.Local(self, node)
    self:expressions(node[2])
end
statements.Localrec = statements.Local

statements.Call = Writer.expressions
statements.Invoke = Writer.expressions
statements.Return = Writer.expressions

function statements.Break() end
function statements.Goto() end

function Writer:block(block, kind)
    local outer, before = self.current, nil
    for _, node in ipairs(block) do
        if node.tag ~= "Label" then -- which has to stay the last of its block
            local point = {
                kind = "statement", line = node.line, statement = outer,
                before = before, first = not before and kind,
            }
            self:insert(node.offset, ("__c[%d]=1;"):format(self:add(point)))
            self.current = point
            statements[node.tag](self, node)
            before = point
        end
    end
    self.current = outer
end

function Writer:body_of(block)
    local outer = self.body
    self.body = block
    self:block(block, "function")
    self.body = outer
end

local function written(text, insertions)
    table.sort(insertions, function(a, b)
        if a.offset ~= b.offset then
            return a.offset < b.offset
        end
        return a.order < b.order
    end)
    local parts, from = {}, 1
    for _, insertion in ipairs(insertions) do
        parts[#parts + 1] = text:sub(from, insertion.offset - 1)
        parts[#parts + 1] = insertion.text
        from = insertion.offset
    end
    parts[#parts + 1] = text:sub(from)
    return table.concat(parts)
end

---
-- @param text Lua source
-- @param header what defines __c and __b there, with %d for their number: one
--        line, or none for the points alone
-- @return source, points
return function(text, header)
    -- Bytes and characters have the same offsets in ASCII.
    local ast = parser.parse(decoder.decode((text:gsub("[\128-\255]", "_"))))
    local self = setmetatable({ text = text, insertions = {}, points = {} }, Writer)
    self:body_of(ast)
    local source = written(text, self.insertions)
    return (header or ""):format(#self.points) .. source, self.points
end
