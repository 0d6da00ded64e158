-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, clients of bad will", function()
    local a, b, other, odd, web

    setup(function()
        a, b, other = proxy.backend("a"), proxy.backend("b"),
            proxy.backend("other")
        odd = servers.node("spec/fixtures/backends/odd_client.mjs")
        web = proxy.start { backends = { a, b }, workers = 2 }
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    local function send(text, path)
        return odd:ask { op = "send", text = text, path = path,
            port = not path and web.port or nil }.answer
    end

    -- Requests that any backend has seen.
    local function seen()
        local list = proxy.seen(a)
        for _, request in ipairs(proxy.seen(b)) do
            list[#list + 1] = request
        end
        return list
    end

    local function internal_request(headers)
        return send("POST /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            .. "Content-Length: 0\r\n" .. headers .. "\r\n",
            web.dir .. "/internal.sock")
    end

    it("cannot choose a backend by the headers of the internal server",
       function()
        local answer = assert(web:request { body = proxy.CALL, headers = {
            ["Mooring-Backend"] = "x " .. other.url } })
        assert.equal(200, answer.status)
        web:open { headers = { ["Mooring-Backend"] = other.url,
            ["mooring-backend"] = other.url } }
        assert.equal(0, #proxy.seen(other))
        assert.equal(2, #seen())
        for _, request in ipairs(seen()) do
            for name in pairs(request.headers) do
                assert.is_nil(name:find("^mooring"))
            end
        end
    end)

    it("cannot fake an outcome of the internal server as a backend", function()
        for _, backend in ipairs { a, b } do
            proxy.rule(backend, { initialize = true, body = "x", headers = {
                ["Mooring-Outcome"] = "connect", ["Mcp-Session-Id"] = "m" } })
        end
        local id, answer = web:open()
        assert.same({ "m", 200 }, { id, answer.status })
        assert.equal(1, #seen())
    end)

    for name, headers in pairs {
        ["no secret"] = "Mooring-Backend: $url\r\n",
        ["no backend"] = "Mooring-Backend: $wrong\r\n",
        ["a wrong secret"] = "Mooring-Backend: $wrong $url\r\n",
        ["an empty secret"] = "Mooring-Backend:  $url\r\n",
        ["a short secret"] = "Mooring-Backend: 0 $url\r\n",
        ["all but the secret"] = "Mooring-Backend: $wrong $url 127.0.0.1\r\n",
    } do
        it("are refused by the internal server with " .. name, function()
            local answer = internal_request((headers:gsub("%$(%l+)",
                { url = other.url, wrong = ("0"):rep(32) })))
            assert.matches("^HTTP/1.1 403 ", answer)
            assert.equal(0, #proxy.seen(other))
        end)
    end

    it("are not needed for a loop: an internal server without its check is "
        .. "noticed", function()
        local wrong = proxy.start { backends = { a, b },
            location = "rewrite_by_lua_block { local _ = 1 }" }
        assert.equal(502, select(2, wrong:open()).status)
        assert.equal(0, #seen())
        assert.is_truthy(wrong:error_log():find("would come back", 1, true))
    end)

    it("cannot write headers by an id", function()
        for _, id in ipairs { "x\ry: 1", "x\n y: 1", "x\r\n y: 1", "x\0y" } do
            send("POST /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                .. "Content-Length: 0\r\nMcp-Session-Id: " .. id .. "\r\n\r\n")
        end
        assert.equal(0, #seen())
    end)

    it("cannot write headers by what the hop passes on", function()
        -- A tab is all that nginx lets through of the control characters.
        web:open { path = "/mcp?a=%0d%0aX-Evil:%201",
            headers = { ["X-Tab"] = "a\tb" } }
        local request = seen()[1]
        assert.equal("/mcp?a=%0d%0aX-Evil:%201", request.url)
        assert.equal("a\tb", request.headers["x-tab"])
        assert.is_nil(request.headers["x-evil"])
    end)

    it("cannot smuggle a second request behind the first", function()
        local inner = "POST /mcp HTTP/1.1\r\nHost: smuggled\r\n\r\n"
        local body = proxy.INITIALIZE
        send("POST /mcp HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            .. "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
            .. ("%x\r\n%s\r\n0\r\n\r\n%s"):format(#body, body, inner))
        send("POST /mcp HTTP/1.1\r\nHost: x\r\n"
            .. "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            .. ("%x\r\n%s\r\n0\r\n\r\n%s"):format(#body, body, inner))
        for _, request in ipairs(seen()) do
            assert.not_equal("smuggled", request.headers.host)
        end
    end)

    it("crash no worker and cause no Lua error by odd requests", function()
        local ids = { web:open(), web:open(), "unknown", "a b",
            ("x"):rep(5000) }
        local seed = tonumber(os.getenv("FUZZ_SEED")) or os.time()
        local pids = web:worker_pids()
        local all = odd:ask({ op = "fuzz", seed = seed, count = 300,
            port = web.port, ids = ids }, 60)
        local inner = odd:ask({ op = "fuzz", seed = seed + 1, count = 60,
            path = web.dir .. "/internal.sock", ids = ids }, 60)
        local note = ("FUZZ_SEED=%d %s"):format(seed,
            cjson.encode(all.statuses))
        assert.same(pids, web:worker_pids(), note)
        assert.is_true((all.statuses["200"] or 0) > 10, note)
        assert.is_true((all.statuses["404"] or 0) > 5, note)
        assert.is_nil(inner.statuses["200"], note)
        assert.is_nil(all.statuses["500"], note)
        local log = web:error_log()
        for _, trouble in ipairs { "[alert]", "[emerg]", "[crit]",
                                   "runtime error", "exited on signal",
                                   "lua entry thread aborted",
                                   "attempt to " } do
            local at = log:find(trouble, 1, true)
            assert.is_nil(at, note .. (at and log:sub(at, at + 300) or ""))
        end
        assert.equal(0, #proxy.seen(other))
        assert.is_string((web:open()))
    end)

    it("find no session id in the error log", function()
        -- (the debug level of nginx itself does log headers)
        local id = web:open()
        local owner = id:find("^a%-") and a or b
        proxy.rule(owner, { action = "reset" })
        web:call(id)
        proxy.rule(owner, { method = "DELETE", action = "reset", times = 3 })
        web:delete(id)
        owner:ask("stop")
        web:call(id)
        owner:ask("start")
        web:call("secret-unknown-id")
        web:call(("secret-long-id"):rep(500))
        local log = web:error_log()
        assert.is_truthy(log:find("is forgotten", 1, true))
        for line in log:gmatch("[^\n]+") do
            assert.is_nil(line:find(id, 1, true), line)
            assert.is_nil(line:find("secret-", 1, true), line)
        end
    end)
end)
