-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local servers = require "support.servers"

-- Prints 200 ports, and then, still alive, those of a child.
local SCRIPT = [[
    local ports = {}
    for i = 1, 200 do
        ports[i] = require("support.net").free_port()
    end
    print(table.concat(ports, " "))
    if arg[1] == "parent" then
        io.stdout:flush()
        os.execute(arg[-1] .. " " .. arg[0] .. " child")
    end
]]

describe("ports of the specs", function()
    teardown(function() servers.stop_all() end)

    it("are chosen by one process only, before anybody listens there", function()
        local script = servers.tmpdir() .. "/ports.lua"
        servers.write_file(script, SCRIPT)
        local result = servers.run { os.getenv("LUAJIT") or "luajit", script, "parent" }
        local count, seen = 0, {}
        for port in result.out:gmatch("%d+") do
            count = count + 1
            assert.is_nil(seen[port], port)
            seen[port] = true
        end
        assert.equal(400, count, result.err)
    end)
end)
