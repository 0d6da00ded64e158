-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Puts instrumented sources into the place of others. Counters begin at zero, but
-- those that are there and of the right size are gone on with.
--
--     luajit spec/coverage/tree.lua TREE COUNTS
--
-- TREE is a copy of the checkout, COUNTS a directory; both absolute.

local instrument = require "coverage.instrument"

local _M = {}

local HEADER = "local __c,__b=(package.loaded['coverage.counter']"
    .. " or dofile(%q))(%q,%%d);"

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

local function write(path, text)
    local file = assert(io.open(path, "wb"))
    assert(file:write(text))
    assert(file:close())
end

local function size(path)
    local file = io.open(path, "rb")
    local bytes = file and file:seek("end")
    if file then
        file:close()
    end
    return bytes
end

--- The counters of a source: lua/resty/mooring.lua is lua.resty.mooring.lua.
function _M.counters(counts, name)
    return counts .. "/" .. name:gsub("/", ".")
end

--- The Lua sources of a tree: lua/..., sorted.
function _M.sources(tree)
    local names = {}
    local found = io.popen(("cd '%s' && find lua -name '*.lua' | LC_ALL=C sort"):format(tree))
    for name in found:lines() do
        names[#names + 1] = name
    end
    found:close()
    return names
end

---
-- Instruments one file.
-- @param path it is read and written at
-- @param counters the file of its counters
-- @param counter path of counter.lua
function _M.instrument(path, counters, counter)
    local source, points = instrument(read(path), HEADER:format(counter, counters))
    if size(counters) ~= #points then
        write(counters, ("\0"):rep(#points))
        os.execute(("chmod a+rw '%s'"):format(counters)) -- workers may be others
    end
    write(path, source)
end

function _M.main(tree, counts)
    for _, name in ipairs(_M.sources(tree)) do
        _M.instrument(tree .. "/" .. name, _M.counters(counts, name),
            tree .. "/spec/coverage/counter.lua")
    end
end

if arg and arg[0] and arg[0]:find("coverage/tree.lua", 1, true) then
    _M.main(arg[1], arg[2])
end

return _M
