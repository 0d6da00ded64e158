-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Lists of backends that change without a reload.

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

local wait_for = servers.wait_for

local function served_by(answer)
    return answer.headers["x-served-by"]
end

local function urls_of(web)
    local urls = {}
    for i, backend in ipairs(web:stats().backends) do
        urls[i] = backend.url
    end
    table.sort(urls)
    return urls
end

-- Waits until a router has exactly these backends.
local function has(web, ...)
    local wanted = {}
    for i, backend in ipairs { ... } do
        wanted[i] = type(backend) == "string" and backend or backend.url
    end
    table.sort(wanted)
    wanted = table.concat(wanted, " ")
    wait_for(function() return table.concat(urls_of(web), " ") == wanted end, 10,
        "the backends " .. wanted)
end

describe("router, backends from a function", function()
    local a, b, c, dir

    setup(function()
        a, b, c = proxy.backend("a"), proxy.backend("b"), proxy.backend("c")
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        dir = servers.tmpdir()
        for _, backend in ipairs { a, b, c } do
            backend:ask("reset")
        end
    end)

    -- What the function does next, as Lua.
    local function says(text)
        servers.write_file(dir .. "/next", text)
        os.rename(dir .. "/next", dir .. "/list.lua")
    end

    local function list(...)
        local entries = {}
        for i, backend in ipairs { ... } do
            entries[i] = ("%q"):format(backend.url)
        end
        says("return { " .. table.concat(entries, ", ") .. " }")
    end

    local function start(more)
        return proxy.start {
            workers = 2,
            -- What dofile calls cannot wait, nor end its timer.
            before = ("function listed() return loadfile(%q)() end"):format(
                dir .. "/list.lua"),
            backends_lua = "listed",
            options = "backends_interval = 0.2, " .. (more or ""),
        }
    end

    it("need the dictionary of http.conf, or nginx does not start", function()
        local ok, err = pcall(servers.nginx, { conf = [[
            init_by_lua_block {
                require("resty.mooring.router").new { backends = function() return {} end }
            } ]] })
        assert.is_false(ok)
        assert.matches("opts.backends that may change need lua_shared_dict mooring of http.conf",
            err, 1, true)
    end)

    it("are read again and again, and keep their sessions when they leave",
       function()
        list(a)
        local web = start()
        has(web, a)
        local id = web:open()
        list(b, c)
        has(web, b, c)
        assert.equal("a", served_by(web:call(id)))
        local seen = {}
        for _ = 1, 8 do
            seen[served_by(select(2, web:open()))] = true
        end
        assert.same({ b = true, c = true }, seen)
    end)

    it("get new sessions 503 with Retry-After until there is a list",
       function()
        says("return nil, 'not yet'")
        local web = start()
        local _, answer = web:open()
        assert.same({ 503, "1" },
            { answer.status, answer.headers["retry-after"] })
        assert.equal(503, web:request({ body = proxy.CALL }).status)
        list(a)
        has(web, a)
        assert.equal("a", served_by(select(2, web:open())))
    end)

    for name, text in pairs {
        ["that throws"] = "error('the registry is away')",
        ["that throws a table"] = "error({})",
        ["that calls ngx.exit"] = "ngx.exit(500)",
        ["that calls ngx.exit when it has waited"] =
            "ngx.sleep(0.01) ngx.exit(0)",
        ["that returns nothing"] = "return nil",
        ["that returns a reason"] = "return nil, 'the registry is away'",
        ["that returns a string"] = "return 'http://127.0.0.1:1'",
        ["that returns an empty list"] = "return {}",
        ["that returns a list with nonsense"] = "return { 'x' }",
        ["that returns a list with a hole"] =
            "return { 'http://x', nil, 'http://y' }",
        ["that returns a list with a stray key"] =
            "return { 'http://x', y = 'http://y' }",
        ["that returns a backend twice"] = "return { 'http://x', 'http://x' }",
    } do
        it(name .. " leave the last good list, counted and logged", function()
            list(a, b)
            local web = start()
            has(web, a, b)
            says(text)
            web:wait_for_count("refresh_errors", 2)
            has(web, a, b)
            assert.equal(200, select(2, web:open()).status)
            assert.matches("could not read the backends from function, the "
                .. "last good list stays", web:error_log(), 1, true)
            list(b)
            has(web, b)
        end)
    end

    it("have weights and states", function()
        says(("return { { url = %q, weight = 3 }, { url = %q, "
            .. "state = 'draining' } }"):format(a.url, b.url))
        local web = start()
        has(web, a, b)
        for _, backend in ipairs(web:stats().backends) do
            local is_a = backend.url == a.url
            assert.same({ is_a and 3 or 1, is_a and "up" or "draining" },
                { backend.weight, backend.state })
        end
        assert.equal("a", served_by(select(2, web:open())))
    end)

    it("may wait, and are asked by one worker at a time", function()
        list(a)
        local web = proxy.start {
            workers = 2,
            before = [[
                function listed()
                    local dict = ngx.shared.mooring
                    if dict:incr("spec:asking", 1, 0) > 1 then
                        dict:set("spec:overlap", true)
                    end
                    ngx.sleep(0.3)
                    dict:incr("spec:asking", -1)
                    dict:incr("spec:asked", 1, 0)
                    return { "]] .. a.url .. [[" }
                end]],
            backends_lua = "listed",
            options = "backends_interval = 0.05,",
            server = [[location = /asked { content_by_lua_block {
                local dict = ngx.shared.mooring
                ngx.say(dict:get("spec:asked") or 0, " ",
                    tostring(dict:get("spec:overlap")))
            } }]],
        }
        local answer
        wait_for(function()
            answer = servers.http(web.url .. "/asked").body
            return tonumber(answer:match("%d+")) >= 5
        end, 20, "five calls")
        assert.matches(" nil", answer, 1, true)
    end)

    it("are read by another worker when one is killed while it reads",
       function()
        local web = proxy.start {
            workers = 2,
            before = [[
                function listed()
                    ngx.shared.mooring:set("spec:reader", ngx.worker.pid())
                    ngx.sleep(1)
                    return { "]] .. a.url .. [[" }
                end]],
            backends_lua = "listed",
            options = "backends_interval = 0.1,",
            server = [[location = /reader { content_by_lua_block {
                ngx.say(ngx.shared.mooring:get("spec:reader"))
            } }]],
        }
        local pid = wait_for(function()
            return servers.http(web.url .. "/reader").body:match("%d+")
        end, 5, "a reader")
        servers.run { "kill", "-9", pid }
        has(web, a)
    end)

    it("stay over a reload, without a gap", function()
        list(a, b)
        local web = start()
        has(web, a, b)
        says("error('away')")
        web:reload()
        has(web, a, b)
        assert.equal(200, select(2, web:open()).status)
    end)

    it("are read by another worker when the one that reads is killed",
       function()
        list(a)
        local web = start()
        has(web, a)
        for i, backend in ipairs { b, c, a } do
            servers.run { "kill", "-9", tostring(web:worker_pids()[i % 2 + 1]) }
            list(backend)
            has(web, backend)
        end
    end)
end)

describe("router, backends from DNS", function()
    local a, b, dns
    local NAME = "mcp.test"

    setup(function()
        dns = servers.node("spec/fixtures/backends/dns.mjs")
        a = proxy.backend("a", { "--host=127.0.0.1" })
        b = proxy.backend("b", { "--host=127.0.0.2", "--port=" .. a.port })
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
        dns:ask { op = "fail", code = 0 }
        dns:ask { op = "mute", on = false }
        dns:ask { op = "glue", on = true }
    end)

    local function records(name, list)
        dns:ask { op = "records", name = name, records = list }
    end

    local function addresses(...)
        local list = {}
        for i, address in ipairs { ... } do
            list[i] = { type = "A", address = address }
        end
        records(NAME, list)
    end

    local function start(fields, more)
        more = more or {}
        more.workers = 2
        more.backends_lua = ('{ dns = %q, interval = 0.2, timeout = 0.3, '
            .. 'nameservers = { "127.0.0.1:%d" }, %s }'):format(NAME, dns.port,
                fields or ("port = %d"):format(a.port))
        return proxy.start(more)
    end

    it("are the addresses of a name, read again without a reload", function()
        addresses("127.0.0.1")
        local web = start()
        has(web, a)
        local id = web:open()
        addresses("127.0.0.2", "127.0.0.1")
        has(web, a, b)
        addresses("127.0.0.2")
        has(web, b)
        assert.equal("a", served_by(web:call(id)))
        assert.equal("b", served_by(select(2, web:open())))
    end)

    it("that were ever seen under the name may be dialled, and no others",
       function()
        local redis = servers.redis()
        local function bind(id, url)
            redis:cli("SET", "mooring:session:" .. id, cjson.encode {
                id = id, type = "mcp", created_at = "2026-01-01T00:00:00Z",
                updated_at = "2026-01-01T00:00:00Z",
                metadata = { backend_url = url },
            }, "PX", "1000000")
        end
        addresses("127.0.0.1")
        local web = start(nil, { options = ("storage = %q,"):format(
            redis.url) })
        has(web, a)
        proxy.rule(b, { body = "ok", times = 9 })
        bind("first", b.url)
        assert.equal(503, web:call("first").status)
        addresses("127.0.0.2")
        has(web, b)
        assert.equal(200, web:call("first").status)
        addresses("127.0.0.1")
        has(web, a)
        bind("second", b.url)
        assert.equal(200, web:call("second").status)
        web:reload()
        assert.equal(200, web:call("second").status)
    end)

    it("keep the last good list when the server fails, is silent, knows no "
        .. "address, or not the name", function()
        addresses("127.0.0.1", "127.0.0.2")
        local web = start()
        has(web, a, b)
        local function errors_until(count)
            web:wait_for_count("refresh_errors", count)
            has(web, a, b)
            return web:stats().results.refresh_errors
        end
        dns:ask { op = "fail", code = 2 }
        local n = errors_until(2)
        dns:ask { op = "fail", code = 0 }
        dns:ask { op = "mute", on = true }
        n = errors_until(n + 2)
        dns:ask { op = "mute", on = false }
        addresses()
        n = errors_until(n + 2)
        dns:ask { op = "name", name = NAME, address = cjson.null }
        errors_until(n + 2)
        assert.matches("DNS for mcp.test, the last good list stays",
            web:error_log(), 1, true)
        addresses("127.0.0.2")
        has(web, b)
    end)

    it("are one backend where an address is there twice", function()
        addresses("127.0.0.1", "127.0.0.1", "127.0.0.2")
        has(start(), a, b)
    end)

    it("are found through an alias", function()
        records(NAME, { { type = "CNAME", target = "other.test" } })
        records("other.test", { { type = "A", address = "127.0.0.1" } })
        has(start(), a)
    end)

    it("have IPv6 addresses with type AAAA", function()
        records(NAME, { { type = "AAAA", address = "fd00::17" },
            { type = "A", address = "127.0.0.1" } })
        has(start('type = "AAAA", port = 8080'),
            "http://[fd00:0:0:0:0:0:0:17]:8080")
    end)

    local function service(priority, weight, port, target)
        return { type = "SRV", priority = priority, weight = weight,
            port = port, target = target }
    end

    for _, glue in ipairs { true, false } do
        it("are the targets of SRV records, whose addresses "
            .. (glue and "come along" or "are asked for"), function()
            dns:ask { op = "glue", on = glue }
            records(NAME, { service(0, 30, a.port, "pod-a.test"),
                service(0, 0, a.port, "Pod-B.test"),
                service(10, 50, 1, "spare.test") })
            records("pod-a.test", { { type = "A", address = "127.0.0.1" } })
            records("pod-b.test", { { type = "A", address = "127.0.0.2" } })
            records("spare.test", { { type = "A", address = "127.0.0.3" } })
            local web = start('type = "SRV"')
            has(web, a, b)
            for _, backend in ipairs(web:stats().backends) do
                assert.equal(backend.url == a.url and 30 or 1, backend.weight)
            end
        end)
    end

    it("keep the last good list when a target of an SRV record has no address",
       function()
        records(NAME, { service(0, 0, a.port, "pod-a.test") })
        records("pod-a.test", { { type = "A", address = "127.0.0.1" } })
        local web = start('type = "SRV"')
        has(web, a)
        records(NAME, { service(0, 0, a.port, "nowhere.test") })
        web:wait_for_count("refresh_errors", 2)
        has(web, a)
    end)

    it("are the right ones among many", function()
        local many, urls = {}, {}
        for i = 1, 20 do
            many[i] = "127.0.1." .. i
            urls[i] = ("http://%s:%d"):format(many[i], a.port)
        end
        addresses(unpack(many))
        has(start(), unpack(urls))
    end)
end)
