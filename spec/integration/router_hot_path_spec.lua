-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What must stay true of the router's handlers for a request of a known session:
-- they are compiled and leave no garbage behind. They are called in a loop of one
-- request here, in a real worker: nothing in them knows that.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

-- The handlers of one request; the balancer's runs in its own phase only.
local LOOP = [[
  location = /loop {
    content_by_lua_block {
      -- It tries again from elsewhere: retry, leaving and inner loop, loop and call unroll
      -- limit, down-recursion, return to a lower frame.
      local RETRIED = { [6] = true, [8] = true, [9] = true, [10] = true, [13] = true, [14] = true,
                        [16] = true }
      local traceinfo = require("jit.util").traceinfo
      local aborts, interpreted = {}, 0

      local function requests(n)
        for _ = 1, n do
          router:access()
          router:header_filter()
          router:log()
        end
      end

      local function on_trace(what, trace, _, _, code, reason)
        if what == "abort" and not RETRIED[code] then
          aborts[#aborts + 1] = code .. " " .. tostring(reason)
        elseif what == "stop" and traceinfo(trace).linktype == "stitch" then
          aborts[#aborts + 1] = "a call that is not compiled"
        end
      end

      ngx.status = 200 -- as of a response that has come
      requests(10)
      -- a worker begins with misses of its memo
      for _ = 1, 1000 do
        router.storage.cache.refs = {}
        requests(1)
      end
      jit.attach(on_trace, "trace")
      requests(2000)
      jit.attach(on_trace)

      -- compiled code calls no hooks
      debug.sethook(function() interpreted = interpreted + 1 end, "", 1000)
      requests(20000)
      debug.sethook()

      collectgarbage()
      collectgarbage("stop")
      local before = collectgarbage("count")
      requests(20000)
      local grown = (collectgarbage("count") - before) * 1024
      collectgarbage("restart")
      ngx.say(require("cjson").encode {
        aborts = table.concat(aborts, "; "), interpreted = interpreted, bytes = grown / 20000,
        bound = router:stats().results.bound,
      })
    }
  }
]]

for _, storage in ipairs { "local", "redis" } do
    describe("a request of a known session, storage " .. storage, function()
        local result

        setup(function()
            local a = proxy.backend("a")
            local web = proxy.start {
                backends = { a },
                options = storage == "redis"
                    and ('storage = "%s"'):format(servers.redis().url) or nil,
                server = LOOP,
            }
            local id = web:open()
            assert.equal(200, web:call(id).status)
            local answer = assert(web:request {
                method = "GET", path = "/loop", id = id,
            })
            assert.equal(200, answer.status, answer.body)
            result = cjson.decode(answer.body)
        end)
        teardown(function() servers.stop_all() end)

        it("is decided as a hit", function()
            -- those of the loop, and the call before it
            assert.is_true(result.bound >= 43010, result.bound)
        end)

        it("is compiled, and nothing in it cannot be", function()
            assert.equal("", result.aborts)
            -- interpreted, the loop would pass far more than a million instructions
            assert.is_true(result.interpreted < 100, result.interpreted)
        end)

        it("leaves no garbage behind", function()
            assert.is_true(result.bytes < 0.5, result.bytes .. " bytes a request")
        end)
    end)
end
