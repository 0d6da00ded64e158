-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Judges what a soak has recorded. Functions of tables alone, so that a spec
-- can feed them what must not pass. Each returns a list of texts, empty when
-- all is well, and numbers for the report.

local format = string.format
local max = math.max

local _M = {}

-- A worker grows while it meets the paths of the code and fills its memo, and
-- for minutes after that, ever more slowly, by what LuaJIT still compiles: at
-- some 20 requests a second rare ones get hot late. (With the compiler off a
-- worker stays at 5.3 MiB from its first minute on, under ten times as many.) So
-- the first part of its life is not looked at.
_M.WARM_UP = 0.5        -- of the time that a process was seen
_M.GROWTH = 0.08        -- of the memory, from the beginning of the line to its end
_M.SLACK = 1536         -- KiB that are nothing: a collector has its cycles
_M.DESCRIPTORS = 24     -- more than before: what clients have open at a time
_M.STAY = 2             -- seconds of an old worker after its last request
_M.TURN = 0.2           -- seconds that clocks and turns of event loops take
_M.LEAST = 4            -- samples, for a line through them to mean anything


-- The straight line through points { x, y }: value at the first and last x.
local function line_through(points)
    local n, sx, sy, sxx, sxy = #points, 0, 0, 0, 0
    for _, p in ipairs(points) do
        sx, sy = sx + p[1], sy + p[2]
        sxx, sxy = sxx + p[1] * p[1], sxy + p[1] * p[2]
    end
    local spread = n * sxx - sx * sx
    local slope = spread > 0 and (n * sxy - sx * sy) / spread or 0
    local base = (sy - slope * sx) / n
    return base + slope * points[1][1], base + slope * points[n][1]
end


-- By process: { pid =, web =, role =, points = { { t, value }, ... } }
local function series_of(list, field)
    local by, order = {}, {}
    for _, sample in ipairs(list) do
        local key = sample.role .. sample.pid
        local s = by[key]
        if not s then
            s = { pid = sample.pid, web = sample.web, role = sample.role,
                  points = {} }
            by[key] = s
            order[#order + 1] = s
        end
        if sample[field] then
            s.points[#s.points + 1] = { sample.t, sample[field] }
        end
    end
    return order
end


local function after_warm_up(points)
    local first, last = points[1][1], points[#points][1]
    local from = first + _M.WARM_UP * (last - first)
    local kept = {}
    for _, p in ipairs(points) do
        if p[1] >= from then
            kept[#kept + 1] = p
        end
    end
    return kept
end


---
-- Is the memory of each process that lived long enough a flat line?
-- @param list of samples
-- @param seconds that a process has to have been seen for
-- @return wrongs, { { pid =, web =, role =, from =, to = KiB, seconds = } }
function _M.memory(list, seconds)
    local wrongs, lines = {}, {}
    for _, s in ipairs(series_of(list, "private")) do
        local points = #s.points > 0 and after_warm_up(s.points) or {}
        local lived = #points > 1 and s.points[#s.points][1] - s.points[1][1] or 0
        if lived >= seconds and #points >= _M.LEAST then
            local from, to = line_through(points)
            lines[#lines + 1] = { pid = s.pid, web = s.web, role = s.role,
                                  from = from, to = to, seconds = lived }
            if to - from > max(_M.SLACK, _M.GROWTH * from) then
                wrongs[#wrongs + 1] = format(
                    "memory of the %s %d (replica %d) grew from %.0f to %.0f KiB in %.0f s",
                    s.role, s.pid, s.web, from, to, lived)
            end
        end
    end
    if #lines == 0 then
        wrongs[1] = "no process was seen for long enough to judge its memory"
    end
    return wrongs, lines
end


-- The greatest value between two times.
local function peak(points, from, to)
    local most
    for _, p in ipairs(points) do
        if p[1] >= from and p[1] <= to then
            most = max(most or p[2], p[2])
        end
    end
    return most
end


---
-- Workers of one replica are replaced: what each generation needs at its most
-- must not grow from one to the next. Older workers need more than young ones,
-- so what counts is the most until the age that all of them have reached.
-- @return wrongs, number of generations seen
function _M.generations(list)
    local wrongs, workers, age = {}, {}, math.huge
    for _, s in ipairs(series_of(list, "private")) do
        local lived = #s.points > 1 and s.points[#s.points][1] - s.points[1][1] or 0
        if s.role == "worker" and lived > 5 then
            workers[#workers + 1] = s
            age = math.min(age, lived)
        end
    end
    local peaks = {}
    for _, s in ipairs(workers) do
        local born = s.points[1][1]
        peaks[s.web] = peaks[s.web] or {}
        table.insert(peaks[s.web], { born, peak(s.points, born, born + age) })
    end
    local count = 0
    for web, points in pairs(peaks) do
        count = max(count, #points)
        if #points >= _M.LEAST then
            local from, to = line_through(points)
            if to - from > max(_M.SLACK, _M.GROWTH * from) then
                wrongs[#wrongs + 1] = format(
                    "workers of replica %d need more each generation: %.0f KiB, later %.0f",
                    web, from, to)
            end
        end
    end
    return wrongs, count
end


---
-- Descriptors: the most a role needs in the last quarter of the run against the
-- most it needed before.
-- @return wrongs, { role .. web = most }
function _M.descriptors(list)
    local wrongs, most = {}, {}
    local by = {}
    local last = 0
    for _, sample in ipairs(list) do
        if sample.fds then
            local key = sample.role .. " of replica " .. sample.web
            by[key] = by[key] or {}
            table.insert(by[key], { sample.t, sample.fds })
            last = max(last, sample.t)
        end
    end
    for key, points in pairs(by) do
        local before = peak(points, 0, 0.5 * last)
        local after = peak(points, 0.75 * last, last)
        most[key] = peak(points, 0, last)
        if not before or not after then
            wrongs[#wrongs + 1] = "no samples of the descriptors of the " .. key
        elseif after > before + _M.DESCRIPTORS then
            wrongs[#wrongs + 1] = format("descriptors of the %s grew from %d to %d",
                                         key, before, after)
        end
    end
    if next(by) == nil then
        wrongs[1] = "no samples of descriptors"
    end
    return wrongs, most
end


---
-- Do old workers leave in time?
-- @param left list of { pid =, web =, since =, seen =, last = }: when it was
--        told to leave, when it was last seen, when its last request ended
-- @param leaving how many are leaving still, at the end
-- @return wrongs, the longest stay after the last request
function _M.leavers(left, leaving)
    local wrongs, longest = {}, 0
    for _, leaver in ipairs(left) do
        local stay = leaver.seen - max(leaver.since, leaver.last or 0)
        longest = max(longest, stay)
        if stay > _M.STAY + _M.TURN then
            wrongs[#wrongs + 1] = format(
                "the old worker %d of replica %d was there %.2f s after its last request",
                leaver.pid, leaver.web, stay)
        end
    end
    if leaving > 0 then
        wrongs[#wrongs + 1] = leaving .. " old workers never left"
    end
    return wrongs, longest
end


---
-- Is the region sound and within its bounds at all times?
-- @param regions list of { t =, web =, sound = true or text, entries =,
--        max_entries =, bytes_used =, max_bytes =, region_bytes =, hits = }
-- @return wrongs, most entries seen
function _M.regions(regions)
    local wrongs, most, size, hits = {}, 0, {}, {}
    for _, r in ipairs(regions) do
        local where = format("region of replica %d at %.0f s: ", r.web, r.t)
        most = max(most, r.entries)
        if r.sound ~= true then
            wrongs[#wrongs + 1] = where .. tostring(r.sound)
        end
        if r.entries > r.max_entries or r.bytes_used > r.max_bytes then
            wrongs[#wrongs + 1] = where .. "fuller than it may be"
        end
        size[r.web] = size[r.web] or r.region_bytes
        if r.region_bytes ~= size[r.web] then
            wrongs[#wrongs + 1] = where .. "its size has changed"
        end
        if r.hits < (hits[r.web] or 0) then
            wrongs[#wrongs + 1] = where .. "hits are fewer than before"
        end
        hits[r.web] = r.hits
    end
    if #regions == 0 then
        wrongs[1] = "no region was looked at"
    end
    return wrongs, most
end


local BAD_LINES = { "%[emerg%]", "%[alert%]", "%[crit%]", "stack traceback",
                    "attempt to ", "bad argument", "lua entry thread aborted",
                    "failed to run" }

---
-- What an error log must not hold.
-- @param text of the log
-- @param expected pattern of lines that are all right all the same, or nil
function _M.log(text, expected)
    local wrongs = {}
    for line in text:gmatch("[^\n]+") do
        for _, pattern in ipairs(BAD_LINES) do
            if line:find(pattern) and not (expected and line:find(expected)) then
                wrongs[#wrongs + 1] = line:sub(1, 300)
                break
            end
        end
    end
    return wrongs
end


---
-- What the clients saw.
-- @param counts of traffic.mjs
function _M.answers(counts)
    local wrongs = {}
    if counts.violated > 0 then
        local first = counts.violations[1]
        wrongs[1] = format("%d answers that nothing explains; the first: %s of replica %s: %s",
            counts.violated, tostring(first.request.kind),
            tostring(first.request.replica), tostring(first.why))
    end
    return wrongs
end


---
-- The same, and there was enough of everything.
-- @param least requests that make a soak
function _M.traffic(counts, least)
    local wrongs = _M.answers(counts)
    if counts.requests < least then
        wrongs[#wrongs + 1] = format("only %d requests", counts.requests)
    end
    for _, kind in ipairs { "open", "use", "stream", "listen", "delete", "gone",
                            "unknown" } do
        if (counts.kinds[kind] or 0) == 0 then
            wrongs[#wrongs + 1] = "no request of the kind " .. kind
        end
    end
    return wrongs
end


return _M
