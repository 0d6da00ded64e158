-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local process = require "support.process"
local streams = require "resty.mooring.router.streams"

describe("resty.mooring.router.streams", function()
    it("goes on when somebody else's function has ended its timer", function()
        local uses = 0
        local open = streams.new(function()
            uses = uses + 1
            if uses == 1 then
                ngx.exit(500)
            end
        end, 0.03)
        open:add("a")
        open:start()
        process.wait_for(function() return uses >= 3 end, 5, "three uses")
        open:remove("a")
    end)
end)
