-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router, on_evict of a policy", function()
    local a, b, running

    setup(function() a, b = proxy.backend("a"), proxy.backend("b") end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        running = {}
        a:ask("reset")
        b:ask("reset")
    end)
    after_each(function()
        for _, server in ipairs(running) do
            server:stop()
        end
    end)

    -- Notes what it is told; what it is told twice, too.
    local EVICT = [[policy = { on_evict = function(session, reason)
        local notes, url = ngx.shared.notes, session.metadata.backend_url
        notes:incr("told", 1, 0)
        notes:set(session.id, reason .. " " .. url)
    end },]]

    local NOTES = [[location = /notes { content_by_lua_block {
        local notes = {}
        for _, name in ipairs(ngx.shared.notes:get_keys(0)) do
            notes[name] = ngx.shared.notes:get(name)
        end
        ngx.say(require("cjson").encode(notes))
    } }]]

    local function start(options, before)
        local web = proxy.start {
            backends = { a, b }, options = EVICT .. options, before = before,
            http = "lua_shared_dict notes 1m;", server = NOTES,
        }
        running[#running + 1] = web
        return web
    end

    local function notes(web)
        return cjson.decode(assert(servers.http(web.url .. "/notes")).body)
    end

    local function url_of(id)
        return (id:find("^a%-") and a or b).url
    end

    it("is called for a session that its client has ended", function()
        local web = start ""
        local id = web:open()
        web:delete(id)
        assert.same({ [id] = "deleted " .. url_of(id), told = 1 }, notes(web))
    end)

    it("is called for sessions that expire, without any traffic", function()
        local web = start "session_ttl = 1,"
        local id = web:open()
        local opened = os.time()
        servers.wait_for(function() return notes(web)[id] end, 10, "the hook")
        assert.same({ [id] = "expired " .. url_of(id), told = 1 }, notes(web))
        assert.is_true(os.time() - opened <= 10)
    end)

    it("is called for sessions in a storage that was made elsewhere", function()
        local web = start("storage = storage,", [[
            storage = require("resty.mooring.local_storage").new {
                name = "own", max_entries = 1, full = "evict" }]])
        local first = web:open()
        web:open()
        assert.same({ [first] = "capacity " .. url_of(first), told = 1 }, notes(web))
    end)

    it("is not called by a storage that cannot, which is said", function()
        local web = start("storage = storage,", [[
            local own = require("resty.mooring.local_storage").new {
                name = "wrapped", max_entries = 10 }
            storage = {}
            for _, name in ipairs { "store", "load", "delete", "delete_expired", "close" } do
                storage[name] = function(_, ...) return own[name](own, ...) end
            end]])
        local id = web:open()
        assert.equal(200, web:delete(id).status)
        assert.same({}, notes(web))
        assert.matches("on_evict of the policy will not be called", web:error_log())
    end)

    describe("over Redis, of two replicas", function()
        local redis, one, two

        before_each(function()
            redis = servers.redis()
            running[#running + 1] = redis
            local options = ("storage = %q, max_local_entries = 2,"):format(redis.url)
            one, two = start(options), start(options)
        end)

        it("is called once on each for a session that one of them has ended", function()
            local id = one:open()
            assert.equal(200, two:call(id).status)
            assert.equal(200, one:delete(id).status)
            servers.wait_for(function() return notes(two)[id] end, 10, "the hook of the other")
            assert.equal(404, two:call(id).status)
            assert.same({ [id] = "deleted " .. url_of(id), told = 1 }, notes(one))
            assert.same({ [id] = "gone " .. url_of(id), told = 1 }, notes(two))
        end)

        it("is called for a session whose client does not wait for its end", function()
            local web = start("storage = storage,", ([[
                storage = require("resty.mooring.routing_storage").new {
                    name = "patient", max_local_entries = 10,
                    remote = require("resty.mooring.redis_storage").new {
                        url = %q, command_timeout = 10 } }]]):format(redis.url))
            local id = web:open()
            redis:cli("CLIENT", "PAUSE", "1500")
            assert.is_nil(servers.http(web.url .. "/mcp", { method = "DELETE",
                flags = { "--max-time", "0.5" }, headers = { ["Mcp-Session-Id"] = id } }))
            servers.wait_for(function() return notes(web)[id] end, 10, "the hook")
            assert.same({ [id] = "deleted " .. url_of(id), told = 1 }, notes(web))
            assert.equal(404, web:call(id).status)
        end)

        it("is not called for a session that was only written anew elsewhere", function()
            local id = one:open()
            assert.equal(200, two:call(id).status)
            local key = "mooring:session:" .. id
            redis:cli("SET", key, (redis:cli("GET", key)))
            redis:cli("PEXPIRE", key, "7000000")
            for _ = 1, 5 do
                assert.equal(200, one:call(id).status)
                assert.equal(200, two:call(id).status)
            end
            assert.same({ {}, {} }, { notes(one), notes(two) })
        end)

        it("is called for a copy that has to make room, and the session lives on", function()
            local ids = {}
            for i = 1, 3 do
                ids[i] = one:open()
            end
            servers.wait_for(function() return notes(one).told end, 10, "the hook")
            assert.same({ [ids[1]] = "capacity " .. url_of(ids[1]), told = 1 }, notes(one))
            assert.equal(200, one:call(ids[1]).status)
        end)

        it("may use the storage, and wait for it, in a request and in the sweep", function()
            one:stop()
            -- Each session that leaves is looked up, and leaves a mark.
            local policy = [[policy = { on_evict = function(s, reason)
                if s.id:find("^mark%-") then
                    return
                end
                local _, _, code = router.storage:load(s.id)
                assert(router.storage:store(require("resty.mooring.session").new(
                    "mark-" .. s.id, { metadata = { backend_url = "x", reason = reason,
                                                    found = tostring(code) } })))
            end },]]
            local web = proxy.start { backends = { a, b }, options = policy
                .. ("storage = %q, session_ttl = 2,"):format(redis.url) }
            running[#running + 1] = web
            local function mark_of(id)
                local text = redis:cli("GET", "mooring:session:mark-" .. id)
                return text ~= "" and cjson.decode(text).metadata or nil
            end
            local ended, unused = web:open(), web:open()
            assert.equal(200, web:delete(ended).status)
            assert.same({ backend_url = "x", reason = "deleted", found = "not_found" },
                mark_of(ended))
            servers.wait_for(function() return mark_of(unused) end, 10, "the mark of the sweep")
            assert.equal(0, web:stats().policies.inline.on_evict.errors)
        end)

        it("is called when a session expires in memory, without any traffic", function()
            one:stop()
            local short = start(("storage = %q, session_ttl = 1,"):format(redis.url))
            local id = short:open()
            servers.wait_for(function() return notes(short)[id] end, 10, "the hook")
            local reason = notes(short)[id]:match("^%l+")
            assert.is_true(reason == "expired" or reason == "gone", reason)
            assert.equal(1, notes(short).told)
        end)
    end)
end)
