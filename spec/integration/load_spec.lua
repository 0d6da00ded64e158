-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The load table among the workers of a real nginx: requests that hang are in
-- flight for all of them, over a reload, until they end or their worker dies.

local servers = require "support.servers"

local wait_for = servers.wait_for

local CONF = [[
    init_by_lua_block {
        loads = require("resty.mooring.router.load").open("load_spec")
        label = loads:label("http://10.0.0.1:8080")
    }
    server {
        listen 127.0.0.1:$port;
        location = /hang {
            access_by_lua_block { loads:begin(label) }
            content_by_lua_block {
                ngx.say(ngx.worker.pid())
                ngx.flush(true)
                while not ngx.var.arg_file or not io.open(ngx.var.arg_file) do
                    ngx.sleep(0.01)
                end
            }
            log_by_lua_block { loads:finish(label) }
        }
        location = /inflight {
            content_by_lua_block { ngx.print(loads:inflight(label)) }
        }
        location = /bump {
            content_by_lua_block { ngx.print(loads:bump_version()) }
        }
        location = /label {
            content_by_lua_block { ngx.print(loads:label("http://" .. ngx.var.arg_host)) }
        }
    }
]]

describe("resty.mooring.router.load in nginx", function()
    local web, file

    before_each(function()
        web = servers.nginx { conf = CONF, workers = 2 }
        file = web.dir .. "/go-on"
    end)
    teardown(function() servers.stop_all() end)

    local function ask(path)
        return tonumber(assert(servers.http(web.url .. path)).body)
    end

    local function wait_for_inflight(n)
        wait_for(function()
            local now = ask("/inflight")
            return now == n, now .. " are in flight"
        end, 20, n .. " in flight")
    end

    -- Returns the pid of its worker.
    local function hang()
        local out = servers.tmpdir() .. "/out"
        servers.spawn { "curl", "-sSN", web.url .. "/hang?file=" .. file, out = out,
                        err = out .. ".err" }
        return wait_for(function()
            return tonumber(servers.read_file(out):match("^(%d+)\n"))
        end, 20, "the worker of a request")
    end

    it("counts the requests of all workers", function()
        for n = 1, 4 do
            hang()
            wait_for_inflight(n)
        end
        servers.write_file(file, "")
        wait_for_inflight(0)
    end)

    it("forgets those of a worker that is killed", function()
        local count = {}
        for _ = 1, 6 do
            local pid = hang()
            count[pid] = (count[pid] or 0) + 1
        end
        wait_for_inflight(6)
        local pid, its = next(count)
        servers.run { "kill", "-9", tostring(pid) }
        wait_for_inflight(6 - its)
        servers.write_file(file, "")
        wait_for_inflight(0)
    end)

    it("keeps labels, counts and version over a reload", function()
        local label = ask("/label?host=b")
        assert.equal(2, ask("/bump"))
        hang()
        hang()
        web:reload()
        assert.equal(label, ask("/label?host=b"))
        assert.equal(3, ask("/bump"))
        wait_for_inflight(2)
        hang()
        wait_for_inflight(3)
        servers.write_file(file, "")
        wait_for_inflight(0)
    end)
end)
