-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The rights in Redis that the README tells to give are enough for everything
-- two replicas do, and each of them is used.

local proxy = require "support.proxy"
local servers = require "support.servers"

-- The command of the README, as words without the name and the password.
local function rights_of_readme()
    local text = servers.read_file(servers.root .. "/README.md")
    local command = text:match("\nACL SETUSER mooring on >%S+ (.-)\n```")
    assert(command, "no ACL SETUSER in the README")
    local rights = {}
    for word in command:gsub("\\\n", " "):gmatch("%S+") do
        rights[#rights + 1] = word
    end
    return rights
end

describe("a Redis user with the rights of the README", function()
    local rights = rights_of_readme()
    local a, b, redis, replicas

    local function give(list)
        assert.equal("OK", redis:cli("ACL", "SETUSER", "mooring", "reset", "on",
            ">s3cret", unpack(list)))
    end

    setup(function()
        a, b = proxy.backend("a"), proxy.backend("b")
        redis = servers.redis()
    end)
    teardown(function() servers.stop_all() end)

    local function start()
        replicas = {}
        for i = 1, 2 do
            replicas[i] = proxy.start { backends = { a, b }, workers = 1,
                options = ("session_ttl = 1, storage = %q"):format(
                    (redis.url:gsub("//", "//mooring:s3cret@"))),
                server = [[
                    location = /admin { content_by_lua_block { router:admin() } }
                ]] }
        end
    end
    after_each(function()
        for _, web in ipairs(replicas) do
            web:stop()
        end
    end)

    local function admin(web, url, what)
        local answer = assert(servers.http(web.url .. "/admin?backend="
            .. url:gsub("[:/]", { [":"] = "%3A", ["/"] = "%2F" })
            .. "&do=" .. what, { method = "POST" }))
        return answer.status, answer.body
    end

    local function coherent(web)
        return web:stats().storage.coherence.coherent
    end

    local function state(web, url)
        for _, backend in ipairs(web:stats().backends) do
            if backend.url == url then
                return backend.state
            end
        end
    end

    -- What was refused since it was last asked: { ["get"] = true,
    -- ["mooring:session:"] = true, ... }, keys without what is behind the last
    -- colon.
    local function refusals()
        local found = {}
        for object in redis:cli("ACL", "LOG", "128"):gmatch("object\n([^\n]+)") do
            found[object] = true
            found[object:gsub("^(mooring:%l+:).*", "%1")] = true
        end
        return found
    end

    -- Something of everything, whatever comes of it.
    local function use(one, two)
        local id = one:open()
        one:call(id or "x")
        two:call(id or "x")
        two:delete(id or "x")
        one:call("unknown")
        id = one:open()
        local owner = (id or ""):find("^a%-") and a or b
        servers.wait_for(function() -- half a ttl, and it is renewed
            two:call(id or "x")
            return not id or two:stats().storage.remote.renewals > 0
                or next(refusals())
        end, 10, "a renewal")
        owner:ask("stop")
        two:call(id or "x")
        owner:ask("start")
        for _, what in ipairs { "drain", "undrain" } do
            admin(one, a.url, what)
        end
    end

    it("does all that there is to do, without being refused what it needs", function()
        give(rights)
        redis:cli("ACL", "LOG", "RESET")
        start()
        local one, two = replicas[1], replicas[2]
        for _, web in ipairs(replicas) do
            servers.wait_for(function() return coherent(web) end, 10, "coherence")
        end
        local id, opened = one:open()
        assert.equal(200, opened.status)
        assert.equal(200, two:call(id).status)
        assert.equal(200, two:delete(id).status)
        assert.equal(404, one:call(id).status)
        assert.equal(200, admin(one, a.url, "drain"))
        servers.wait_for(function() return state(two, a.url) == "draining" end, 10,
            "the other replica to know")
        assert.equal(200, admin(two, a.url, "undrain"))
        servers.wait_for(function() return state(one, a.url) == "up" end, 10,
            "the other replica to know")
        use(one, two)
        use(two, one)
        -- The look at maxmemory-policy is for a warning only.
        assert.same({ ["config|get"] = true }, refusals())
        for _, web in ipairs(replicas) do
            assert.is_true(coherent(web))
            assert.is_nil(web:error_log():find("refuses us", 1, true))
        end
    end)

    local function without(right)
        local list = {}
        for _, one in ipairs(rights) do
            if one ~= right then
                list[#list + 1] = one
            end
        end
        return list
    end

    for _, right in ipairs(rights) do
        local object = right:match("^%+(.*)$") or right:match("^[~&]([^*]*)")
        -- (resetchannels is the default of Redis 7, not of 6)
        if object then
            it("needs each of them: " .. right, function()
                give(without(right))
                redis:cli("ACL", "LOG", "RESET")
                start()
                servers.wait_for(function()
                    use(replicas[1], replicas[2])
                    return refusals()[object]
                end, 60, "a refusal of " .. object)
            end)
        end
    end
end)
