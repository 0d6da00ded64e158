-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The policies of spec/examples as a user would have them: copied and edited.

local process = require "support.process"

local _M = {}

--- Where an example is.
function _M.path(name)
    return process.root .. "/spec/examples/" .. name
end

--- Copies an example and edits it.
-- @param name     of the file
-- @param changes  { [text as it stands there, which must be in it] = other text }
-- @return path of the copy
function _M.copy(name, changes)
    local text = process.read_file(_M.path(name))
    for from, to in pairs(changes) do
        local n
        text, n = text:gsub(from:gsub("%p", "%%%0"), (to:gsub("%%", "%%%%")))
        assert(n > 0, name .. " has no " .. from)
    end
    local path = process.tmpdir() .. "/" .. name
    process.write_file(path, text)
    return path
end

return _M
