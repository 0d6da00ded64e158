-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local isolated = require "resty.mooring.isolated"

describe("resty.mooring.isolated.pcall", function()
    local timer_at = ngx.timer.at

    local function stub(at) rawset(ngx.timer, "at", at) end

    after_each(function() stub(timer_at) end)

    it("returns what the function returns, also nil", function()
        local function all(...) return select("#", ...), { ... } end
        local n, values = all(isolated.pcall(function(x) return nil, x, nil end,
                                             7))
        assert.equal(4, n)
        assert.same({ true, nil, 7 }, values)
    end)

    it("returns what the function raises", function()
        local thrown = {}
        assert.same({ false, thrown },
            { isolated.pcall(function() error(thrown) end) })
    end)

    it("waits for the function longer than it takes to look after it",
       function()
        assert.same({ true, "late" }, { isolated.pcall(function()
            ngx.sleep(0.7)
            return "late"
        end) })
    end)

    for name, fn in pairs {
        ["at once"] = function() ngx.exit(500) end,
        ["after a while"] = function() ngx.sleep(0.3) ngx.exit(0) end,
        ["in a thread"] = function()
            ngx.thread.wait(ngx.thread.spawn(function() ngx.exit(500) end))
        end,
    } do
        it("survives a function that calls ngx.exit " .. name, function()
            local ok, err = isolated.pcall(fn)
            assert.is_false(ok)
            assert.matches("ngx.exit", err, 1, true)
        end)
    end

    it("is pcall where there is no timer to be had", function()
        stub(function() return nil, "too many pending timers" end)
        assert.same({ true, 8 }, { isolated.pcall(function(x) return x + 1 end,
                                                  7) })
        assert.is_false((isolated.pcall(error)))
    end)

    it("does not wait for a timer that nginx drops, nor calls the function "
        .. "when it comes too late", function()
        local late, called
        stub(function(_, ...)
            late = { ... }
            return true
        end)
        local ok, err = isolated.pcall(function() called = true end)
        assert.is_false(ok)
        assert.matches("lua_max_running_timers are not enough", err, 1, true)
        late[1](false, unpack(late, 2))
        assert.is_nil(called)
    end)
end)
