-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Compares gaps with the list of those that are meant to stay.
--
--     justify(gaps, texts, entries) -> wrong
--
-- An entry is { reason, text, text..., by_chance =, open = }. A text is a line of the
-- source, or several with "\n" between them, without the space at both ends. It
-- justifies the gaps of every place where the source has it, and each of these
-- places has to have one: an entry that is no longer needed, or that would hide
-- other gaps, is wrong. With by_chance the gap is there in some runs only. What is
-- open is no reason: a spec could go there, and none does yet.
--
-- Sets gap.reason and gap.open, and returns texts that say what is wrong with the entries.

local function trimmed(text)
    return text:match("^%s*(.-)%s*$")
end

local function split(text)
    local lines = {}
    for line in (text .. "\n"):gmatch("(.-)\n") do
        lines[#lines + 1] = trimmed(line)
    end
    return lines
end

local function is_at(texts, first, lines)
    for i, line in ipairs(lines) do
        if not texts[first + i - 1] or trimmed(texts[first + i - 1]) ~= line then
            return false
        end
    end
    return true
end

-- How many gaps there are from line `first` on, which get the reason.
local function mark(gaps, first, count, entry)
    local marked = 0
    for _, gap in ipairs(gaps) do
        if gap.line >= first and gap.line < first + count then
            gap.reason, gap.open = entry[1], entry.open
            marked = marked + 1
        end
    end
    return marked
end

---
-- @param gaps of figures
-- @param texts lines of the source
-- @param entries or nil
return function(gaps, texts, entries)
    local wrong = {}
    local function compare(entry, text)
        local lines, found = split(text), false
        for first = 1, #texts do
            if is_at(texts, first, lines) then
                found = true
                if mark(gaps, first, #lines, entry) == 0 and not entry.by_chance then
                    table.insert(wrong, ("line %d is covered: %s"):format(first, lines[1]))
                end
            end
        end
        if not found then
            table.insert(wrong, "there is no such line: " .. lines[1])
        end
    end
    for _, entry in ipairs(entries or {}) do
        for i = 2, #entry do
            compare(entry, entry[i])
        end
    end
    return wrong
end
