-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- How wrong a replica was: one replica writes versions of a session all the
-- time, workers of another one ask for it all the time.
--
--   local seen = observation.begin(writer, "id", { { app, pid }, ... })
--   ... something breaks ...
--   local worst, about = seen:finish()   -- ms, what the observers counted

local servers = require "support.servers"

local _M = {}
local mt = { __index = _M }

--- Begins to write and to ask.
-- @param writer  storage_app that writes
-- @param id      of the session
-- @param observers  array of { storage_app, pid }
function _M.begin(writer, id, observers)
    writer:ask { op = "store", id = id, url = "http://v:0" }
    local self = setmetatable({ writer = writer, id = id, observers = observers, answers = {} }, mt)
    for _, observer in ipairs(observers) do
        local app, pid = unpack(observer)
        app:wait_for_hit(id, pid)
        self:add(app, pid)
    end
    self.written = writer:begin { op = "write_versions", id = id, seconds = 40, pause = 0.02 }
    return self
end

--- Has one more worker ask from now on.
function _M:add(app, pid)
    self.answers[#self.answers + 1] = app:begin({ op = "observe", id = self.id, seconds = 40 }, pid)
end

-- For how long after the acknowledgement of a newer version was an older one
-- still given to who asked? Milliseconds; negative: never.
local function lateness(acknowledged, last)
    local worst = -math.huge
    for version, asked in pairs(last) do
        for _, write in ipairs(acknowledged) do
            if write[1] > tonumber(version) then -- the first one that is newer
                worst = math.max(worst, asked - write[2])
                break
            end
        end
    end
    return worst
end

--- Stops writing and asking.
-- @return worst lateness in ms, array of what each observer has counted, number
--         of the last version that was written
function _M:finish()
    for _, app in ipairs { self.writer, self.observers[1][1] } do
        servers.wait_for(function() -- a worker that leaves may drop a connection
            return pcall(app.ask, app, { op = "stop", id = self.id })
        end)
    end
    local acknowledged = self.written().acknowledged
    local worst, abouts = -math.huge, {}
    for i, answer in ipairs(self.answers) do
        abouts[i] = answer()
        worst = math.max(worst, lateness(acknowledged, abouts[i].last))
    end
    local last = acknowledged[#acknowledged]
    return worst, abouts, last and last[1] or 0
end

return _M
