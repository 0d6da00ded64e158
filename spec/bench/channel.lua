-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- From the benchmark to the workers of the contenders (bench.worker) and back:
-- lists in a Redis. Each contender has an nginx of its own with two workers, on
-- two CPUs.

local blocking = require "resty.mooring.transport.blocking"
local cjson = require "cjson"
local pin = require "bench.pin"
local servers = require "support.servers"

local _M = {}
local mt = { __index = _M }

local WORKERS = 2
local PREPARING = 300 -- seconds, at most
local HEAD_START = 15 -- ms, for a command to reach both workers

local CONF = [[
    lua_shared_dict flags 64k;
    $dict
    init_by_lua_block { require("bench.worker").init("$contender", $size) }
    init_worker_by_lua_block { require("bench.worker").start("$socket", "$queue") }
]]

--- The Redis behind it.
function _M.open()
    local redis = servers.redis()
    return setmetatable({
        redis = redis,
        transport = blocking.new { path = redis.socket, connect_timeout = 5,
                                   command_timeout = PREPARING + 20 },
        started = 0,
    }, mt)
end

local function call(self, commands)
    local replies = assert(self.transport:call(commands))
    for i = 1, #commands do
        assert(type(replies[i]) ~= "table" or not replies[i].err, replies[i])
    end
    return replies
end

-- One answer of each of the first n workers, by worker.
local function collect(server, n)
    local answers = {}
    for _ = 1, n do
        local reply = call(server.channel, { { "BLPOP", server.queue .. ":answers",
                                               tostring(PREPARING) } })[1]
        local result = reply and cjson.decode(reply[2])
            or { error = "no answer\n" .. server.nginx:error_log() }
        if result.error or result.wrong ~= 0 then
            error(("%s at %d: %s"):format(server.name, server.size,
                result.error or result.wrong .. " wrong answers"), 0)
        end
        answers[result.worker] = result
    end
    return answers
end

local Server = {}
local server_mt = { __index = Server }

--- Has worker i run commands[i], both of them at the same time.
-- @param commands array of { what = a command of bench.worker, ... }
-- @return array of answers
function Server:ask(commands)
    local start = servers.now() * 1000 + HEAD_START
    local pushes = {}
    for i, command in ipairs(commands) do
        command.start = start
        pushes[i] = { "RPUSH", self.queue .. ":" .. i, cjson.encode(command) }
    end
    call(self.channel, pushes)
    return collect(self, #commands)
end

--- Waits until it is filled, and has given every answer once.
-- @return array of { heap = bytes its contents take in the worker's VM }
function Server:await()
    return collect(self, WORKERS)
end

function Server:stop()
    self.nginx:kill()
end

--- Starts a contender, and does not wait for it.
-- @param name in bench.contenders
-- @param size entries
-- @param dict bytes of the shared dictionary, or nil
function _M.contender(self, name, size, dict)
    self.started = self.started + 1
    local queue = "q" .. self.started
    local nginx = servers.nginx {
        conf = CONF, workers = WORKERS, main = pin.workers(pin.measured, pin.other),
        vars = {
            contender = name, size = ("%d"):format(size), socket = self.redis.socket,
            queue = queue,
            dict = dict and ("lua_shared_dict sessions %d;"):format(dict) or "",
        },
    }
    return setmetatable({ channel = self, name = name, size = size, queue = queue,
                          nginx = nginx }, server_mt)
end

return _M
