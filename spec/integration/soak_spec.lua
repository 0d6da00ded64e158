-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The soak of a minute, some killed workers, and whether the checks of both are
-- able to fail: each is fed what must not pass.

local cjson = require "cjson"
local kills = require "soak.kills"
local servers = require "support.servers"
local soak = require "soak.soak"
local verdict = require "soak.verdict"

local function told(result)
    local list = { cjson.encode(result.counts.violations) }
    for name, wrongs in pairs(result.wrongs) do
        for _, text in ipairs(wrongs) do
            list[#list + 1] = name .. ": " .. text
        end
    end
    return table.concat(list, "\n")
end

describe("two replicas under mixed traffic", function()
    teardown(function() servers.stop_all() end)

    it("do nothing wrong in a minute of reloads and restarts", function()
        local result = soak.run { seconds = 60, least = 4 }
        assert.equal(0, result.violated, told(result))
        assert.is_true(#result.watch.left >= 4, "old workers have left")
        assert.is_true(result.counts.excused_sum > 0, "restarts are noticed")
    end)

    it("lose no session and answer nothing wrong when workers are killed", function()
        local result = kills.run { kills = 15, think = 150, clients = 24 }
        assert.equal(0, result.violated, told(result))
        assert.is_true(result.listeners > 0, "one that listened was killed")
        assert.is_true(result.repairs > 0, "one that held the lock was killed")
        assert.is_true(result.counts.requests > 500, "there was traffic")
    end)
end)

describe("what judges an answer", function()
    local clients
    local SESSION = { backend = "b1", opened = 1000, count = 5, lost = 0 }

    setup(function() clients = servers.node("spec/soak/traffic.mjs") end)
    teardown(function() servers.stop_all() end)

    local function judge(kind, answer, windows, changes)
        local request = { kind = kind, replica = 0, start = 5000, ["end"] = 5100,
                          session = kind ~= "open" and SESSION or nil }
        for name, value in pairs(changes or {}) do
            request[name] = value
        end
        return clients:ask { op = "judge", request = request, answer = answer,
                             windows = windows }
    end

    local function refused(pattern, ...)
        local verdict_of = judge(...)
        assert.is_false(verdict_of.ok)
        assert.matches(pattern, verdict_of.why)
    end

    local function allowed(...)
        assert.is_true(judge(...).ok)
    end

    local function use(count, server)
        return { status = 200, server = server or "b1", count = count }
    end

    local REDIS = { { kind = "redis", from = 4000, to = 6000 } }
    local LOST = { { kind = "lost", from = 4000, to = 4500 } }
    local BACKEND = { { kind = "backend", backend = "b1", from = 4000, to = 4500 } }
    local KILL = { { kind = "kill", replica = 0, worker = 7, from = 5050, to = 5060 } }

    it("takes what is right", function()
        allowed("open", { status = 200 })
        allowed("use", use(6))
        allowed("unknown", { status = 404, code = -32001 })
        allowed("gone", { status = 404 })
    end)

    it("never takes another backend, whatever goes wrong", function()
        refused("b2 instead of b1", "use", use(6, "b2"))
        for _, windows in ipairs { REDIS, LOST, BACKEND, KILL } do
            refused("b2 instead of b1", "use", use(6, "b2"), windows)
        end
    end)

    it("does not take a session that began anew, nor one that skips calls", function()
        refused("count 1 after 5", "use", use(1))
        refused("count 8 after 5", "use", use(8))
        allowed("use", use(7), nil, { session = { backend = "b1", opened = 1000,
            count = 5, lost = 1 } })
    end)

    it("takes a 404 of a session only where its store or its backend lost it", function()
        local gone = { status = 404, code = -32001 }
        refused("status 404", "use", gone)
        refused("status 404", "use", gone, REDIS)
        refused("status 404", "use", gone, KILL)
        allowed("use", gone, LOST)
        allowed("use", gone, BACKEND)
        local young = { backend = "b1", opened = 4800, count = 5, lost = 0 }
        refused("status 404", "use", gone, LOST, { session = young })
        refused("status 404", "use", gone, BACKEND, { session = young })
        local elsewhere = { backend = "b2", opened = 1000, count = 5, lost = 0 }
        refused("status 404", "use", gone, BACKEND, { session = elsewhere })
    end)

    it("takes a 503 only of a store that is away, and not for long after", function()
        local away = { status = 503, code = -32050 }
        refused("status 503", "use", away)
        refused("status 503", "use", away, BACKEND)
        allowed("use", away, REDIS)
        allowed("open", away, REDIS)
        refused("status 503", "use", { status = 503 }, REDIS)
        refused("status 503", "use", away, REDIS, { start = 20000, ["end"] = 20100 })
    end)

    it("takes a cut only in the killed worker, and at that time", function()
        local cut = { error = "ECONNRESET" }
        refused("ECONNRESET", "use", cut)
        allowed("use", cut, KILL)
        refused("ECONNRESET", "use", cut, KILL, { replica = 1 })
        refused("ECONNRESET", "use", cut, KILL, { start = 5061 })
        refused("ECONNRESET", "use", { error = "ECONNRESET", worker = 8 }, KILL)
        refused("cut", "cut", { worker = 8 }, KILL)
        refused("status 502", "use", { status = 502 }, KILL)
        allowed("open", { status = 502 }, KILL)
    end)

    it("does not take a deleted session that answers", function()
        refused("status 200", "gone", use(6))
        refused("status 200", "gone", use(6), KILL)
    end)
end)

describe("what judges the processes of a soak", function()
    local function samples(fn, role)
        local list = {}
        for i = 0, 99 do
            local private, fds = fn(i)
            list[#list + 1] = { t = 2 * i, web = 1, role = role or "worker",
                                pid = 100, private = private, fds = fds }
        end
        return list
    end

    local function region(changes)
        local r = { t = 1, web = 1, sound = true, entries = 5, max_entries = 10,
                    bytes_used = 100, max_bytes = 1000, region_bytes = 5000,
                    hits = 7 }
        for name, value in pairs(changes or {}) do
            r[name] = value
        end
        return r
    end

    it("takes memory that is flat after a warm-up, with its ups and downs", function()
        assert.same({}, verdict.memory(samples(function(i)
            return (i < 20 and 3000 + 100 * i or 5000) + 700 * (i % 5)
        end), 100))
    end)

    it("does not take a leak", function()
        local wrongs = verdict.memory(samples(function(i)
            return 5000 + 40 * i + 300 * (i % 5)
        end), 100)
        assert.matches("memory of the worker 100 .* grew", wrongs[1])
    end)

    it("does not take too few samples for memory that is flat", function()
        assert.matches("long enough", verdict.memory({}, 100)[1])
        assert.matches("long enough", verdict.memory(samples(function() return 1 end), 500)[1])
    end)

    it("does not take generations that need more each time", function()
        local function generations(more)
            local list = {}
            for pid = 1, 12 do
                for i = 0, 9 do
                    list[#list + 1] = { t = 20 * pid + i, web = 1, role = "worker",
                                        pid = pid, private = 5000 + more * pid }
                end
            end
            return list
        end
        assert.same({}, verdict.generations(generations(10)))
        assert.matches("more each generation", verdict.generations(generations(300))[1])
    end)

    it("takes a last generation that needs more since it lives longer", function()
        local list = {}
        for pid = 1, 12 do
            for i = 0, pid < 12 and 9 or 400 do
                list[#list + 1] = { t = 20 * pid + i, web = 1, role = "worker",
                                    pid = pid, private = 4000 + 100 * math.sqrt(100 * i) }
            end
        end
        assert.same({}, verdict.generations(list))
    end)

    it("does not take descriptors that grow", function()
        assert.same({}, verdict.descriptors(samples(function(i) return 1, 50 + i % 20 end)))
        assert.matches("descriptors of the worker .* grew",
            verdict.descriptors(samples(function(i) return 1, 50 + i end))[1])
        assert.matches("no samples", verdict.descriptors({})[1])
    end)

    it("does not take an old worker that stays", function()
        local function leaver(seen, last)
            return { pid = 1, web = 1, since = 100, seen = seen, last = last }
        end
        assert.same({}, verdict.leavers({ leaver(101), leaver(130, 129.5) }, 0))
        assert.matches("was there 3.00 s", verdict.leavers({ leaver(103) }, 0)[1])
        assert.matches("was there 9.50 s", verdict.leavers({ leaver(130, 120.5) }, 0)[1])
        assert.matches("never left", verdict.leavers({}, 1)[1])
    end)

    it("does not take a region that is damaged, too full, or forgets its hits", function()
        assert.same({}, verdict.regions { region(), region { t = 2, hits = 9 } })
        assert.matches("LRU heap", verdict.regions { region { sound = "LRU heap" } }[1])
        assert.matches("fuller", verdict.regions { region { entries = 11 } }[1])
        assert.matches("fuller", verdict.regions { region { bytes_used = 1001 } }[1])
        assert.matches("size", verdict.regions { region(), region { region_bytes = 1 } }[1])
        assert.matches("hits", verdict.regions { region(), region { hits = 3 } }[1])
        assert.matches("no region", verdict.regions({})[1])
    end)

    it("does not take a log that tells of a crash or an error in Lua", function()
        assert.same({}, verdict.log("[notice] exiting\n[warn] mooring: lost the connection"))
        for _, line in ipairs {
            "[alert] 1#1: worker process 2 exited on signal 11",
            "[error] lua entry thread aborted: runtime error: x.lua:1: attempt to index",
            "[emerg] bind() failed",
        } do
            assert.equal(1, #verdict.log("[notice] a\n" .. line .. "\n[notice] b"))
        end
    end)
end)
