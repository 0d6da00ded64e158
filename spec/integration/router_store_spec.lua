-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0

local cjson = require "cjson"
local proxy = require "support.proxy"
local servers = require "support.servers"

describe("router over Redis", function()
    local a, b, redis, one, two

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        redis = servers.redis()
        local opts = {
            backends = { a, b },
            options = ("storage = %q,"):format(redis.url),
        }
        one, two = proxy.start(opts), proxy.start(opts)
    end)
    teardown(function() servers.stop_all() end)
    before_each(function()
        a:ask("reset")
        b:ask("reset")
    end)

    -- Redis is back, and both replicas have noticed.
    local function serves_again()
        for _, web in ipairs { one, two } do
            servers.wait_for(function()
                local id = web:open()
                return id and web:delete(id).status == 200
            end, 5, "a session")
        end
    end

    local function record(id)
        return cjson.decode(redis:cli("GET", "mooring:session:" .. id))
    end

    it("finds a session through the replica that did not open it", function()
        local id, opened = one:open()
        for n = 1, 3 do
            local answer = two:call(id)
            assert.same({ n, opened.headers["x-served-by"] },
                { cjson.decode(answer.body).count,
                    answer.headers["x-served-by"] })
        end
    end)

    it("stores type, backend and endpoint of a session", function()
        local id, opened = one:open { path = "/mcp/x" }
        local stored = record(id)
        local owner = opened.headers["x-served-by"] == "a" and a or b
        assert.equal("mcp", stored.type)
        assert.same({ backend_url = owner.url, endpoint = "/mcp/x" },
            stored.metadata)
    end)

    it("ends a session on all replicas", function()
        local id = one:open()
        assert.equal(200, two:delete(id).status)
        assert.equal("0", redis:cli("EXISTS", "mooring:session:" .. id))
        assert.equal(404, two:call(id).status)
    end)

    it("follows a session that is bound anew elsewhere", function()
        local id, opened = one:open()
        local owner = opened.headers["x-served-by"] == "a" and a or b
        local other = owner == a and b or a
        one:call(id)
        proxy.rule(other, { body = "other", times = 1000 })
        local moved = record(id)
        moved.metadata.backend_url = other.url
        redis:cli("SET", "mooring:session:" .. id, cjson.encode(moved), "PX",
            "100000")
        owner:ask("stop")
        servers.wait_for(function()
            return one:call(id).body == "other"
        end, 5, "an answer of the other backend")
        owner:ask("start")
        assert.equal(other.url, record(id).metadata.backend_url)
    end)

    it("asks Redis nothing for requests of a session it knows", function()
        local id = one:open()
        servers.wait_for(function() -- other specs have taken Redis away
            local before = redis:command_counts().get or 0
            one:call(id)
            return one:stats().storage.coherence.coherent
                   and (redis:command_counts().get or 0) == before
        end, 10, "a call that is a hit")
        redis:cli("CONFIG RESETSTAT")
        for _ = 1, 10 do
            assert.equal(200, one:call(id).status)
        end
        assert.is_nil(redis:command_counts().get)
    end)

    describe("that is away", function()
        it("opens no session, and no backend is asked", function()
            local answer
            redis:stop()
            local ok, err = pcall(function()
                answer = select(2, one:open())
                assert.equal(503, answer.status)
                assert.equal(-32050, cjson.decode(answer.body).error.code)
                assert.equal(0, #proxy.seen(a) + #proxy.seen(b))
            end)
            redis:start()
            serves_again()
            assert.is_true(ok, err)
        end)

        it("answers unknown ids with 503, never 404", function()
            redis:stop()
            local ok, err = pcall(function()
                for _, method in ipairs { "POST", "GET", "DELETE" } do
                    local answer = assert(two:request { method = method,
                        id = "never-seen" })
                    assert.same({ 503, "1" },
                        { answer.status, answer.headers["retry-after"] })
                end
            end)
            redis:start()
            serves_again()
            assert.is_true(ok, err)
            assert.equal(404, two:call("never-seen").status)
        end)

        it("goes on with sessions it knows, marked stale", function()
            local id = one:open()
            one:call(id)
            redis:stop()
            local ok, err = pcall(function()
                local stale = one:stats().results.stale
                servers.wait_for(function()
                    assert.equal(200, one:call(id).status)
                    local results = one:results()
                    return results[#results] == "stale"
                end, 10, "a request that is marked stale")
                assert.equal(stale + 1, one:stats().results.stale)
            end)
            redis:start()
            serves_again()
            assert.is_true(ok, err)
        end)

        it("goes on with requests of no session", function()
            redis:stop()
            local ok, err = pcall(function()
                assert.equal(200, one:request({ body = proxy.CALL }).status)
            end)
            redis:start()
            serves_again()
            assert.is_true(ok, err)
        end)
    end)

    it("frozen while a session is opened: 503, no id, and the backend is told "
        .. "to end it", function()
        -- ready() is answered from the connection that is there, so that it is
        -- the write that runs into the time-out.
        redis:pause()
        local id, answer = one:open()
        redis:resume()
        serves_again()
        assert.same({ nil, 503 }, { id, answer.status })
        -- serves_again ends what it opens; this one nobody else ends
        servers.wait_for(function()
            return #proxy.seen(a, "DELETE") + #proxy.seen(b, "DELETE")
                >= #proxy.seen(a, "POST") + #proxy.seen(b, "POST")
        end, 5, "the DELETE")
    end)
end)

describe("router", function()
    teardown(function() servers.stop_all() end)

    it("takes any object with the five methods as its storage", function()
        local a = proxy.backend("a")
        local web = proxy.start {
            backends = { a },
            before = [[
              -- one worker's plain table: enough for a spec of one worker
              local sessions = {}
              local errors = require "resty.mooring.errors"
              local storage = {}
              function storage:store(s) sessions[s.id] = s return true end
              function storage:load(id)
                if sessions[id] then return sessions[id] end
                return errors.not_found()
              end
              function storage:delete(id) sessions[id] = nil return true end
              function storage:delete_expired() return 0 end
              function storage:close() return true end
            ]],
            options = "storage = storage,",
        }
        local id = web:open()
        assert.equal(1, cjson.decode(web:call(id).body).count)
        proxy.rule(a, { initialize = true,
            headers = { ["Mcp-Session-Id"] = id } })
        assert.equal(502, select(2, web:open()).status)
        assert.equal(200, web:delete(id).status)
        assert.equal(404, web:call(id).status)
    end)
end)
