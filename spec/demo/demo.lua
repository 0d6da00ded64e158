-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- `make demo`: real MCP clients, two nginx replicas with two workers each,
-- three real MCP servers that keep their sessions in memory, one real Redis.
--
--   clients --> replica A --.  .--> b1
--          `--> replica B --+--+--> b2      A and B share nothing but Redis
--                  |        '  '--> b3
--                redis
--
-- Opens 30 sessions, calls each one's counter 20 times alternating between the
-- replicas, ends every third through the replica that did not open it, and
-- exits with 1 if a single answer was wrong. Takes about ten seconds.
--
--   KEEP=1         leaves everything running and says how to stop it
--   STORAGE=local  one replica, sessions in its own memory, no Redis

local checkout = arg[0]:match("^(.*)/spec/demo/[^/]*$") or "."
package.path = checkout .. "/spec/?.lua;" .. package.path

local cjson = require "cjson"
local support = require "support.replica"
local servers = require "support.servers"

local SESSIONS, END_EVERY = 30, 3
local ROUNDS, LATER_ROUNDS = 14, 6 -- calls of each session
local CALLS = SESSIONS * (ROUNDS + LATER_ROUNDS)
-- Longer than a replica would believe its copies if Redis did not keep telling
-- it what has changed.
local PAUSE = 2.1 -- seconds
local REPLICAS = { "A", "B" }
local BAR = 40

local is_terminal = os.execute("test -t 1") == 0
local is_local = os.getenv("STORAGE") == "local"
local wrong = 0

local function say(...)
    io.write(string.format(...), "\n")
    io.flush()
end

local function problem(...)
    wrong = wrong + 1
    say("  WRONG: " .. (...), select(2, ...))
end

----------------------------------------------------------------- servers ---

local function start_backends()
    local backends = support.backends(3)
    for _, backend in ipairs(backends) do
        say("  server %s    %s/mcp", backend.ready.name, backend.url)
    end
    return backends
end

local function start_replicas(backends, storage)
    local urls, replicas = {}, {}
    for i, backend in ipairs(backends) do
        urls[i] = ("%q"):format(backend.url)
    end
    for i = 1, is_local and 1 or #REPLICAS do
        replicas[i] = servers.nginx {
            conf = servers.read_file(servers.root .. "/spec/demo/nginx.conf"),
            workers = 2,
            vars = { backends = table.concat(urls, ", "), storage = storage },
        }
        say("  replica %s    %s/mcp   (nginx, 2 workers)", REPLICAS[i],
            replicas[i].url)
    end
    return replicas
end

local function start_all()
    say("Starting:")
    local all = { storage = "local" }
    if not is_local then
        all.redis = servers.redis()
        all.storage = all.redis.url
        say("  redis        %s", all.redis.url)
    end
    all.backends = start_backends()
    all.replicas = start_replicas(all.backends, all.storage)
    all.client = servers.node("spec/demo/client.mjs")
    return all
end

---------------------------------------------------------------- progress ---

local function draw(what, total, done, bad)
    local filled = math.floor(BAR * done / total)
    io.write(("\r  %-28s [%s%s] %d/%d%s"):format(what, ("#"):rep(filled),
        ("."):rep(BAR - filled), done, total,
        bad > 0 and ("  %d wrong"):format(bad) or ""))
    io.flush()
end

-- One command for the clients, with a bar that fills meanwhile.
local function perform(client, what, total, command)
    local start = servers.now()
    local answer = client:ask(command, 60, function(event)
        if is_terminal then
            draw(what, total, event.done, event.wrong)
        end
    end)
    if not answer.ok then
        error(answer.message, 0)
    end
    draw(what, total, answer.done, answer.wrong)
    say("  %.1f s", servers.now() - start)
    wrong = wrong + answer.wrong
    return answer.sessions
end

------------------------------------------------------------------ tables ---

local function row(session)
    local calls = {}
    for i, count in ipairs(session.calls) do
        calls[i] = ("%4d"):format(count)
    end
    return ("%-9s %-7s %-6s %s %6d %6d"):format(session.id:sub(1, 8),
        session.backend, REPLICAS[session.opened + 1], table.concat(calls),
        session.count, session.wrong)
end

-- Two columns of sessions, so that the table fits a screen.
local function print_sessions(sessions)
    local names = table.concat(REPLICAS, "   ", 1, #sessions[1].calls)
    local head = ("%-9s %-7s %-6s    %s %6s %6s"):format("session", "server",
        "opened", names, "count", "wrong")
    local half = math.ceil(#sessions / 2)
    say("")
    say("  %s  | %s", head, head)
    for i = 1, half do
        local right = sessions[i + half]
        say("  %s  | %s", row(sessions[i]), right and row(right) or "")
    end
    for _, session in ipairs(sessions) do
        if session.problem then
            say("  %s: %s", session.id:sub(1, 8), session.problem:sub(1, 86))
        end
    end
    say("")
end

-- Redis commands executed since `before`, without the ones of the demo itself.
local function commands_since(redis, before)
    local total, parts = 0, {}
    for name, count in pairs(redis:command_counts()) do
        local delta = count - (before[name] or 0)
        if delta > 0 and name ~= "info" then
            total = total + delta
            parts[#parts + 1] = ("%s %d"):format(name, delta)
        end
    end
    table.sort(parts)
    return total, #parts > 0 and " (" .. table.concat(parts, ", ") .. ")" or ""
end

local function measured(redis, what, units, fn)
    local before = redis and redis:command_counts()
    local sessions = fn()
    local line
    if redis then
        local total, detail = commands_since(redis, before)
        line = ("  %-27s %4d commands, %.2f each%s"):format(what, total,
            total / units, detail)
    end
    return sessions, line
end

-------------------------------------------------------------------- checks ---

-- No server may still know a session that was ended.
local function check_ended(backends, sessions)
    local known = {}
    for _, backend in ipairs(backends) do
        local answer = assert(servers.http(backend.url .. "/admin/sessions"))
        for _, id in ipairs(cjson.decode(answer.body).sessions) do
            known[id] = backend.ready.name
        end
    end
    local ended, slowest = 0, 0
    for _, session in ipairs(sessions) do
        if session.ended then
            ended = ended + 1
            slowest = math.max(slowest, tonumber(session.refused) or 0)
            if known[session.id] then
                problem("%s still lives on %s", session.id, known[session.id])
            end
        elseif not known[session.id] then
            problem("%s is lost", session.id)
        end
    end
    say("  %d sessions are unknown to their servers, and every replica answered"
        .. "\n  404 to calls in them at most %.0f ms after their end", ended,
        slowest)
end

-- Lines of the table of counters: where in the status, what it is.
local COUNTERS = {
    { "results.created", "sessions opened" },
    { "results.bound", "requests sent to the server of their session" },
    { "results.deleted", "sessions ended" },
    { "results.not_found", "requests of unknown sessions" },
    { "storage.local.hits", "local tier: hits" },
    { "storage.local.misses", "local tier: misses" },
    { "storage.local.entries", "local tier: entries" },
    { "storage.local.evicted", "local tier: evicted" },
    { "storage.hits", "sessions in memory: hits" },
    { "storage.misses", "sessions in memory: misses" },
    { "storage.entries", "sessions in memory: entries" },
}

local function status_of(replica)
    local answer = assert(servers.http(replica.url .. "/mooring-status"))
    return cjson.decode(answer.body)
end

local function value_at(status, path)
    for name in path:gmatch("[^.]+") do
        status = type(status) == "table" and status[name]
    end
    return status or nil
end

-- A worker tells its counts to the others within a second: waits until
-- nothing has changed for longer.
local function settled(replicas)
    local last, since
    return servers.wait_for(function()
        local list, text = {}, {}
        for i, replica in ipairs(replicas) do
            list[i] = status_of(replica)
            text[i] = list[i].results.bound .. " " .. list[i].results.deleted
        end
        text = table.concat(text, " ")
        if text ~= last then
            last, since = text, servers.now()
        end
        return servers.now() - since > 1.2 and list
    end, 5, "the counts of all workers")
end

local function print_status(replicas)
    local list = settled(replicas)
    say("\nStatus of the replicas: %38s%s", "A",
        list[2] and ("%10s"):format("B") or "")
    for _, counter in ipairs(COUNTERS) do
        local path, what = counter[1], counter[2]
        if value_at(list[1], path) then
            local cells = {}
            for i, status in ipairs(list) do
                cells[i] = ("%10d"):format(value_at(status, path))
            end
            say("  %-50s%s", what, table.concat(cells))
        end
    end
end

local function keep(all)
    local guard = servers.keep()
    say("\nEverything is left running:")
    for i, replica in ipairs(all.replicas) do
        say("  replica %s   %s/mcp   status: %s/mooring-status", REPLICAS[i],
            replica.url, replica.url)
    end
    if all.redis then
        say("  redis       redis-cli -p %d", all.redis.port)
    end
    say("Stop it with:  kill %d", guard)
end

-- Runs the steps; returns the sessions and lines about Redis commands.
local function scenario(all)
    local urls, lines = {}, {}
    for i, replica in ipairs(all.replicas) do
        urls[i] = replica.url .. "/mcp"
    end
    local function step(what, total, command)
        local sessions, line = measured(all.redis, what, total, function()
            return perform(all.client, what, total, command)
        end)
        lines[#lines + 1] = line
        return sessions
    end
    local function call(what, rounds)
        return step(what, SESSIONS * rounds, { op = "call", rounds = rounds })
    end
    local through = is_local and "" or ", A and B in turn"

    step("opening sessions", SESSIONS,
        { op = "open", replicas = urls, count = SESSIONS })
    call("calling" .. through, ROUNDS)
    servers.nap(PAUSE)
    local sessions = call("calling again after a pause", LATER_ROUNDS)
    print_sessions(sessions)
    sessions = step(is_local and "ending" or "ending through the other",
        SESSIONS / END_EVERY, { op = "end", every = END_EVERY })
    check_ended(all.backends, sessions)
    return lines
end

local function main()
    local all = start_all()
    say("\nRunning:")
    local lines = scenario(all)
    if all.redis then
        say("\nRedis commands:\n%s", table.concat(lines, "\n"))
        say("  (with pexpire and set each replica checks, about twice a second,"
            .. " that Redis' messages\n  about changes still reach it)")
    end
    print_status(all.replicas)
    say("\n%d sessions, %d calls, %d wrong answers", SESSIONS, CALLS, wrong)
    if os.getenv("KEEP") == "1" then
        keep(all)
    else
        servers.stop_all()
    end
end

local ok, err = pcall(main)
if not ok then
    say("\n%s", tostring(err):gsub("^.*interrupted!$", "interrupted"))
    wrong = wrong + 1
end
os.exit(wrong == 0 and 0 or 1)
