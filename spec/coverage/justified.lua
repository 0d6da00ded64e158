-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What no test reaches, and why that is left so: by file, entries of a reason
-- and the lines that it is for (see justify.lua). `make coverage` fails for a
-- gap that is not there, and for an entry without a gap.

local all = {}
for _, part in ipairs { "c", "lua_router", "lua_storage" } do
    for file, entries in pairs(require("coverage.justified." .. part)) do
        all[file] = entries
    end
end

return all
