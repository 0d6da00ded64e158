-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Passive health, shared by the workers of an nginx: what became of requests.
--
--     max_fails failures within fail_timeout --> failed: no new sessions
--     fail_timeout later                     --> one request tries it
--     that fails                             --> failed for fail_timeout more
--     any request gets an answer from it     --> healthy
--
-- as in nginx (ngx_http_upstream_round_robin.c). It says where new sessions go
-- and nothing else: a session stays with its backend.
--
-- In the dictionary, by URL: the failures of the last fail_timeout (they expire
-- by themselves), until when it is failed, and that somebody tries it now (this
-- expires, too: who tries may be killed). Times are monotonic.

local clock = require("resty.mooring.ffi").now

local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


---
-- @param opts { dict = ngx.shared dictionary, or nil: then nothing ever fails,
--        prefix = of its keys, max_fails =, fail_timeout = seconds,
--        on_change = function(): a backend has failed or is healthy again }
function _M.new(opts)
    return setmetatable({
        dict = opts.max_fails > 0 and opts.dict or nil,
        prefix = opts.prefix .. ":health:",
        max_fails = opts.max_fails,
        fail_timeout = opts.fail_timeout,
        on_change = opts.on_change,
        suspects = {}, -- url -> true: has failed lately, as this worker knows
    }, mt)
end


local function key(self, what, url)
    return self.prefix .. what .. ":" .. url
end


---
-- A request found that nobody answers there.
function _M.failed(self, url)
    local dict = self.dict
    if not dict then
        return
    end
    self.suspects[url] = true
    -- Never at the cost of another entry; without room nothing fails.
    local fails_key = key(self, "fails", url)
    local until_key = key(self, "until", url)
    dict:safe_add(fails_key, 0, self.fail_timeout)
    local fails = dict:incr(fails_key, 1)
    local again = dict:get(until_key) ~= nil
    if again or fails and fails >= self.max_fails then
        dict:safe_set(until_key, clock() + self.fail_timeout * 1000)
        dict:delete(key(self, "trial", url))
        self.on_change()
    end
end


---
-- A request got an answer.
function _M.succeeded(self, url)
    local dict = self.dict
    if not dict or not self.suspects[url] then
        return
    end
    self.suspects[url] = nil
    local was_failed = dict:get(key(self, "until", url)) ~= nil
    for _, what in ipairs { "until", "fails", "trial" } do
        dict:delete(key(self, what, url))
    end
    if was_failed then
        self.on_change()
    end
end


---
-- @return nil for a healthy backend; else the time (ms) from which on one
--         request may try it, and whether somebody does so now
function _M.failed_until(self, url)
    local dict = self.dict
    local failed_until = dict and dict:get(key(self, "until", url))
    if failed_until then
        self.suspects[url] = true
        return failed_until, dict:get(key(self, "trial", url)) ~= nil
    end
end


---
-- May this request be the one that tries? Yes when nobody can note it: whoever
-- is told no chooses again, and would for ever.
function _M.claim_trial(self, url)
    local ok, err = self.dict:safe_add(key(self, "trial", url), true,
                                       self.fail_timeout)
    return ok == true or err ~= "exists"
end


return _M
