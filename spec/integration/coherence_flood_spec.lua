-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Invalidations that come as fast as they are read: the worker that listens
-- has other things to do, too.

local servers = require "support.servers"
local storage_app = require "support.storage_app"

local TURNS = 300

describe("the worker that listens", function()
    teardown(function() servers.stop_all() end)

    for _, flood in ipairs { "flood", "flood_of_nothing", "flood_of_many" } do
        it("turns its event loop during a " .. flood:gsub("_", " "), function()
            local peer = servers.node("spec/fixtures/hostile_redis.mjs")
            local app = storage_app.start { url = "redis://127.0.0.1:" .. peer.port }
            local turned = app:begin({ op = "turn", n = TURNS }, (app:listener()))
            peer:ask { op = "push", as = flood }
            local took = turned(20)
            assert.is_true(took.slowest < 1000, ("%d ms"):format(took.slowest))
        end)
    end
end)
