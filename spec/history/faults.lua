-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What can be done to the servers of a run: function(run, action), with an
-- action of history.schedule. None of them waits for the consequences longer
-- than it must.

local servers = require "support.servers"

local _M = {}


local function signal(pid, name)
    os.execute(("kill -%s %d 2>/dev/null"):format(name, pid))
end


local function is_running(pid)
    -- Nothing can be read of one that ends between open and read.
    local stat = servers.read_file(("/proc/%d/stat"):format(pid)) or ""
    return stat ~= "" and not stat:find("^%d+ %(.*%) [ZX]")
end


-- One of the two workers of a replica, or nil while there are none.
local function victim(run, action)
    local pids = run:worker_pids(action.replica)
    return pids[(action.worker - 1) % math.max(#pids, 1) + 1]
end


function _M.kill_worker(run, action)
    local pid = victim(run, action)
    if pid then
        signal(pid, "KILL")
        servers.wait_for(function() return not is_running(pid) end, 5,
            "the death of a worker")
        run.record:dead(("r%d-%d"):format(action.replica, pid))
    end
end


function _M.freeze_worker(run, action)
    action.fault.pid = victim(run, action)
    if action.fault.pid then
        signal(action.fault.pid, "STOP")
    end
end


function _M.thaw_worker(_, action)
    if action.fault.pid then
        signal(action.fault.pid, "CONT")
    end
end


function _M.kill_pubsub(run)
    run:command("CLIENT", "KILL", "TYPE", "pubsub")
end


function _M.kill_data(run)
    run:command("CLIENT", "KILL", "TYPE", "normal")
end


function _M.freeze_redis(run)
    run:redis_is_away(true)
    run.redis:pause()
end


function _M.thaw_redis(run)
    run.redis:resume()
    run:redis_is_away(false)
end


-- As freeze_redis, but of Redis itself.
function _M.sleep_redis(run, action)
    run:redis_is_away(true)
    servers.spawn { "redis-cli", "-s", run.redis.socket, "DEBUG", "SLEEP",
        ("%.3f"):format(action.seconds) }
end


function _M.woken_redis(run)
    run:redis_is_away(false)
end


-- There is no persistence: all sessions are lost.
function _M.restart_redis(run)
    run:redis_is_away(true)
    run.record:write("restart", nil, nil, function()
        run.redis:kill()
        run.redis:start()
        return true
    end)
    run:redis_is_away(false)
    run:set_calm()
end


function _M.flush(run)
    run.record:write("flush", nil, nil, function()
        return run:command("FLUSHALL")
    end)
    run:set_calm()
end


-- One message about so many keys that the local tier gives up on single ones.
function _M.many_keys(run)
    run:set_many(5, 1200)
end


-- Does not wait, as Nginx:reload() would: a frozen worker hears of it later.
function _M.reload(run, action)
    run.replicas[action.replica]:signal("HUP")
end


function _M.hold_pushes(run)
    run.wire:ask { op = "hold" }
end


function _M.release_pushes(run)
    run.wire:ask { op = "release" }
end


function _M.cut_pushes(run)
    run.wire:ask { op = "cut" }
end


function _M.late_replies(run, action)
    run.wire:ask { op = "delay", ms = 70 * action.worker }
end


function _M.prompt_replies(run)
    run.wire:ask { op = "delay", ms = 0 }
end


return _M
