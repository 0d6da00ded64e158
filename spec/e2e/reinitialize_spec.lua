-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- kill -9 of an MCP server with 100 live sessions of the SDK's client, two
-- replicas in front: what the clients see of it, with and without the policy
-- "reinitialize".

local replica = require "support.replica"
local servers = require "support.servers"

local SESSIONS = 100

describe("kill -9 of a server with 100 live sessions", function()
    local backends, redis, a, b, clients

    local function start(policy)
        redis = servers.redis()
        backends = replica.backends(3)
        local opts = { backends = backends, storage = redis.url,
            options = "max_fails = 0, " .. policy }
        a, b = replica.start(opts), replica.start(opts)
        clients = replica.clients()
    end

    after_each(function() servers.stop_all() end)

    -- Asks of all at once; returns the answers.
    local function all(list, command)
        local waits, answers = {}, {}
        for i, each in ipairs(list) do
            local copy = { as = each.name }
            for name, value in pairs(command) do
                copy[name] = value
            end
            if copy.op == "open" then
                copy.urls = each.urls
            end
            waits[i] = clients:begin(copy)
        end
        for i, wait in ipairs(waits) do
            answers[i] = wait(60)
        end
        return answers
    end

    local function message(answer)
        return answer.error and answer.error.message
    end

    local function open_all()
        local list = {}
        for n = 1, SESSIONS do
            list[n] = { name = "s" .. n, urls = n % 2 == 0
                and { a.mcp, b.mcp } or { b.mcp, a.mcp } }
        end
        for i, answer in ipairs(all(list, { op = "open" })) do
            assert.is_true(answer.ok, message(answer))
            list[i].session = answer.session
        end
        for i, answer in ipairs(all(list, { op = "call", tool = "counter" })) do
            assert.is_true(answer.ok, message(answer))
            list[i].server = answer.value.server
        end
        return list
    end

    local function kill_one()
        backends[1]:kill()
        return backends[1].ready.name
    end

    it("costs no client anything with re-initialisation", function()
        start('policy = { "round_robin", "reinitialize" },')
        local list = open_all()
        local gone, moved = kill_one(), 0
        for round = 1, 3 do
            local answers = all(list, { op = "call", tool = "counter" })
            for i, answer in ipairs(answers) do
                assert.is_true(answer.ok, message(answer))
                assert.is_not.equal(gone, answer.value.server)
                if list[i].server == gone then
                    moved = moved + (round == 1 and 1 or 0)
                    assert.equal(round, answer.value.count)
                else
                    assert.equal(list[i].server, answer.value.server)
                    assert.equal(round + 1, answer.value.count)
                end
            end
        end
        assert.is_true(moved > SESSIONS / 6, moved)
        for i, answer in ipairs(all(list, { op = "session" })) do
            assert.equal(list[i].session, answer.session)
        end
        -- What a server sends and asks finds its way, too.
        for _, each in ipairs(list) do
            if each.server == gone then
                local answer = clients:ask { op = "call", as = each.name,
                    tool = "ask" }
                assert.is_true(answer.ok, message(answer))
                assert.same({ "file:///harbour" }, answer.value.roots)
                break
            end
        end
        -- And the end of a session ends it where it is now.
        for _, answer in ipairs(all(list, { op = "end" })) do
            assert.is_true(answer.ok, message(answer))
        end
        for i = 2, 3 do
            assert.same({}, replica.inside(backends[i]).sessions)
        end
    end)

    it("costs no client anything when the server is back at once", function()
        start('policy = { "round_robin", "reinitialize" },')
        local list = open_all()
        local victim = backends[1]
        local lost = #replica.inside(victim).sessions
        assert.is_true(lost > SESSIONS / 6, lost)
        kill_one()
        backends[1] = servers.node("spec/fixtures/mcp/server.mjs",
            { "--name=b1", "--port=" .. victim.port })
        for _ = 1, 2 do
            local answers = all(list, { op = "call", tool = "counter" })
            for _, answer in ipairs(answers) do
                assert.is_true(answer.ok, message(answer))
            end
        end
        for i, answer in ipairs(all(list, { op = "session" })) do
            assert.equal(list[i].session, answer.session)
        end
        -- Nothing is left over of what was opened in vain.
        servers.wait_for(function()
            local now = 0
            for _, backend in ipairs(backends) do
                now = now + #replica.inside(backend).sessions
            end
            return now == SESSIONS, now .. " sessions"
        end, 20, "the servers to have one session for each client")
    end)

    it("costs its clients one initialize without", function()
        start("")
        local list = open_all()
        local gone, lost = kill_one(), {}
        for i, answer in ipairs(all(list, { op = "call", tool = "counter" })) do
            if list[i].server == gone then
                assert.is_false(answer.ok)
                assert.equal(404, answer.error.code)
                lost[#lost + 1] = list[i]
            else
                assert.is_true(answer.ok, message(answer))
                assert.equal(2, answer.value.count)
            end
        end
        assert.is_true(#lost > SESSIONS / 6, #lost)
        for _, answer in ipairs(all(lost, { op = "open" })) do
            assert.is_true(answer.ok, message(answer))
        end
        for round = 1, 2 do
            for _, answer in ipairs(all(lost, { op = "call",
                tool = "counter" }))
            do
                assert.is_true(answer.ok, message(answer))
                assert.equal(round, answer.value.count)
                assert.is_not.equal(gone, answer.value.server)
            end
        end
    end)
end)
