-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What a binding refers to: whatever was written is read back, and whatever
-- Redis holds is read as something that could have been written, or not at all.

local reference = require "resty.mooring.router.reference"

local rep = string.rep

local function check_text(input)
    local url, incarnation, id = reference.parse(input)
    local shown = reference.strip(input)
    assert(not shown:find("#", 1, true), "a fragment is shown: " .. shown)
    if url == nil then
        assert(input:find("#", 1, true), "a URL without fragment is none")
        return
    end
    assert(url == shown, "another URL than is shown")
    assert(incarnation >= 0 and incarnation < 2 ^ 53 and incarnation % 1 == 0,
        "incarnation " .. incarnation)
    assert(id == nil or id:find("^[\33-\126]+$"), "an id no client can send")
    local url2, incarnation2, id2 =
        reference.parse(reference.format(url, incarnation, id))
    assert(url2 == url and incarnation2 == incarnation and id2 == id,
        "not what was written")
end

local function check_written(input, rng)
    local url = "http://10.0.0." .. rng:below(254) .. ":8080"
    local incarnation = rng:once_in(3) and 0 or rng:below(1000000)
    local id = input:gsub("[^\33-\126]", "")
    if id == "" or rng:once_in(4) then
        id = nil
    end
    local written = reference.format(url, incarnation, id)
    local url2, incarnation2, id2 = reference.parse(written)
    assert(url2 == url and incarnation2 == incarnation and id2 == id,
        "not what was written: " .. written)
    assert(not written:find("[^\33-\126]"), "bytes that are no URL's")
    assert(reference.strip(written) == url, "strip")
end

return {
    name = "reference",
    seeds = { "http://10.0.0.1:8080", "http://10.0.0.1:8080#2",
              "http://10.0.0.1:8080#2;7f3a", "http://10.0.0.1:8080#;a%20b%25" },
    words = { "#", ";", "%", "%41", "%00", "%0a", "%7F", "0", "01", "9", "http://",
              "999999999999999", "1000000000000000", "##", "a" },
    check = function(input, rng)
        check_text(input)
        check_written(input, rng)
    end,
    large = {
        ["escapes"] = function(n) return "http://a#;" .. rep("%41", n / 3) end,
        ["percents"] = function(n) return "http://a#;" .. rep("%", n) end,
        ["digits"] = function(n) return "http://a#" .. rep("1", n) end,
        ["hashes"] = function(n) return rep("#", n) end,
    },
}
