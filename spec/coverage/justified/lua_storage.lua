-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- See spec/coverage/justified.lua.

local VALUE = "what is chosen is never nil nor false"
local CLOSED = "closed while the store was waited for, or while a request had it"
local TIMER = "nginx gives every timer that is asked for here, and ends some at its own end"
local PCALL = "no error is known that would get here: a guard, so that it is a line in the log"
local LOCK = "a lock that is not got in 10 ms, or no memory, in this very moment"
local RACE = "two requests or workers at the same instant"
local CHANCE = "whether it happens is a matter of time, and runs differ"
local JSON = "a decoder has read the text before: it is valid JSON"
local NGX = "nginx and LuaJIT have it; the guard is for other places the file is read in"
local OWN = "our own side has it always: a guard"
local HOSTILE = "a server that does not follow the protocol (the hostile Redis is fuzzed elsewhere)"
local GONE = "Redis has lost what was acknowledged in this very moment"
local REMOTE = "a remote that has this method and not that one: no storage of ours"
local SYSTEM = "what the system does not refuse in a test"

return {
    ["lua/resty/mooring/background.lua"] = {
        { NGX,
          "if not (ngx and ngx.timer and ngx.get_phase) then" },
        { VALUE,
          "ngx.timer.at(again == true and interval or again, tick)" },
    },
    ["lua/resty/mooring/bearer.lua"] = {
        { VALUE,
          "return #text % 4 ~= 1 and ffi.string(buffer, n) or nil" },
    },
    ["lua/resty/mooring/board.lua"] = {
        { NGX,
          "for i = 1, reply.n or #reply, 2 do" },
        { HOSTILE, by_chance = true,
          'return callback(nil, err or "unexpected reply")' },
        { CLOSED, by_chance = true,
          "if self.storage.closed then" },
    },
    ["lua/resty/mooring/cache.lua"] = {
        { VALUE,
          "rc = self.handle and C.mr_cache_find(self.handle, id, #id, clock(), 1,",
          "keep == _M.KEEP_SESSION and session or nil)" },
        { OWN,
          "if not session then",
          "local tag = self.classifier and session and tag_of(self, session) or 0",
          "if C.mr_cache_check(self.handle, err, 256) ~= OK then" },
        { LOCK, by_chance = true,
          "return nil, rc ~= NOT_FOUND and rc or nil",
          "if failed > MAX_TRIES then",
          "until count == 0 or tries == 0" },
        { LOCK, by_chance = true,
          "if count < 0 then",
          "until count >= 0 and cursor[0] == 0" },
    },
    ["lua/resty/mooring/cache/region.lua"] = {
        { CHANCE, by_chance = true,
          "if clash(name, fingerprint) then" },
    },
    ["lua/resty/mooring/coherence.lua"] = {
        { VALUE,
          'return id ~= "" and self.cache:doubt(id) and id or nil' },
        { OWN,
          "for i = 1, self.on_doubt and #doubted or 0 do" },
        { HOSTILE, by_chance = true,
          'if type(reply) ~= "table" or reply[1] ~= "subscribe" then',
          'return nil, reply.err, state ~= "live" and is_refusal(reply.err)' },
        { CHANCE, by_chance = true,
          "if reply == 0 and self.outstanding[key] == beacon then" },
    },
    ["lua/resty/mooring/coherence/election.lua"] = {
        { VALUE,
          "return successor ~= 0 and successor or nil" },
    },
    ["lua/resty/mooring/coherence/inline.lua"] = {
        { VALUE,
          "local say = refused and log.err or log.warn",
          'say(refused and err or "believes no copy until it hears of changes "' },
    },
    ["lua/resty/mooring/coherence/replies.lua"] = {
        { VALUE,
          "return run_id and max(1, tonumber(sub(run_id, 1, 12), 16)) or 0",
          'and match(reply.err, "^%u+") or nil',
          'return not PASSING[match(err, "^%u+") or ""]' },
        { CHANCE, by_chance = true,
          'return type(reply) == "table" and reply.err' },
    },
    ["lua/resty/mooring/coherence/worker.lua"] = {
        { CLOSED, by_chance = true,
          "if not bytes or self.stopped then",
          "if self.stopped then" },
        { CHANCE, by_chance = true,
          "self.ended, self.refused = tostring(err), ok and refused",
          "return not self.ended and not self.stopped and clock() < deadline",
          "while key do",
          'if self.coherence.state == "live" then' .. "\n"
              .. "cache:bump_epoch()",
          "or not election.leave(cache, self.token)",
          "and not self.successor and leave(self)",
          "if not self.complained then",
          "while clock() < deadline and not leaving(self) do" .. "\n"
              .. "if not election.beat(self.cache, self.token) then",
          "if not ok then" .. "\n"
              .. "self.coherence:retired()",
          "if bytes then",
          "return not sent and err or nil",
          "if err then" .. "\n"
              .. "return err",
          "if err then" .. "\n"
              .. "return err, nil, true",
          "again = mine and not leaving(self) and not self.successor",
          "local dropped = self.due and clock() - self.due > OVERDUE",
          "if self.owning and not dropped then",
          "if premature or loop ~= self.loop or leaving(self) then" },
        { TIMER, by_chance = true,
          'if self.ended or self.coherence.state ~= "live"',
          "if not premature and not leaving(self) then",
          "if not timer_at(0, listen, self) then",
          "if not premature then",
          "and not leaving(self)",
          "if self.wake then" },
    },
    ["lua/resty/mooring/evictions.lua"] = {
        { OWN,
          "if ok then" },
        { CHANCE, by_chance = true,
          "if item.id == id and item.reason == DELETED then",
          "while _M.notify(cache) do end" },
    },
    ["lua/resty/mooring/ffi.lua"] = {
        { OWN,
          "return known and tonumber(abi) or 0" },
        { NGX,
          "if not path then" },
    },
    ["lua/resty/mooring/isolated.lua"] = {
        { NGX,
          'local semaphore = ngx and ngx.get_phase and pcall(require, "ngx.semaphore")' },
        { TIMER, by_chance = true,
          "if call.is_given_up then",
          'if not semaphore or ngx.get_phase() ~= "timer" or ngx.worker.exiting() then' },
    },
    ["lua/resty/mooring/keys.lua"] = {
        { VALUE,
          'return prefix ~= key_prefix and prefix or root_of(key_prefix) .. "beacons:"' },
    },
    ["lua/resty/mooring/local_storage.lua"] = {
        { LOCK, by_chance = true,
          "if rc == 0 or rc == -1 then" },
        { CLOSED, by_chance = true,
          "if self.closed then" .. "\n"
              .. "return false" },
        { CHANCE, by_chance = true,
          "if not self.started and background.available() then" },
        { RACE, by_chance = true,
          "elseif rc == cache.CHANGED then",
          "if ok ~= false then" },
        { OWN,
          "if current._record ~= (seen._record or encode(seen)) then",
          "if s then" },
        { LOCK, by_chance = true,
          "if removed == nil then",
          "if rc then",
          "if not count then" },
    },
    ["lua/resty/mooring/log.lua"] = {
        { NGX,
          "local in_nginx = ffi.in_nginx and ngx and ngx.log" },
    },
    ["lua/resty/mooring/options.lua"] = {
        { OWN, by_chance = true,
          "if is_number(value) and value >= 0 then" },
    },
    ["lua/resty/mooring/record.lua"] = {
        { VALUE, by_chance = true,
          "local data = write_data(self.data, known and known.data ~= nil" },
        { JSON,
          "if not at then",
          "if not key_at then" },
        { VALUE,
          "return value == known and known_text or rfc3339.format(value)",
          "return ok and text or nil" },
    },
    ["lua/resty/mooring/redis/reads.lua"] = {
        { GONE, by_chance = true,
          "if not text or pttl == -2 then" },
        { CLOSED, by_chance = true,
          "if self.closed then",
          "if not ok then" },
        { CHANCE, by_chance = true,
          "if text == nil or pttl == nil or is_error(text) or is_error(pttl) then" },
    },
    ["lua/resty/mooring/redis/renewal.lua"] = {
        { CLOSED, by_chance = true,
          "if self.closed then" },
        { GONE, by_chance = true,
          "if reply == 1 or reply == 0 then" },
    },
    ["lua/resty/mooring/redis/writes.lua"] = {
        { HOSTILE, by_chance = true,
          "elseif is_error(reply) then",
          'elseif type(reply) ~= "number" then' .. "\n"
              .. 'return unexpected("update the session")' },
        { CHANCE, by_chance = true,
          '"1", command[2], text, command[3], command[5])' .. "\n"
              .. "if reply == nil then",
          "function _M.remove_if(self, id, seen)" .. "\n"
              .. "local _, err, code = refuse(self, id)" .. "\n"
              .. "if code then" .. "\n"
              .. "return nil, err, code",
          "if code then" .. "\n"
              .. "return nil, err, code" .. "\n"
              .. "end" .. "\n"
              .. "local text" .. "\n"
              .. "text, err, code = seen_text(seen)" .. "\n"
              .. "if not text then" .. "\n"
              .. "return nil, err, code" .. "\n"
              .. "end" },
    },
    ["lua/resty/mooring/redis_storage.lua"] = {
        { OWN, by_chance = true,
          'return type(value) == "string" and find(value, "^[\\33-\\126]*:$") ~= nil,' },
        { CLOSED, by_chance = true,
          "function _M.ready(self)" .. "\n"
              .. "if self.closed then" },
        { OWN,
          "if self.transport.start then" },
    },
    ["lua/resty/mooring/request.lua"] = {
        { VALUE,
          'return type(name) == "string" and gsub(lower(name), "-", "_") or nil' },
        { VALUE,
          'headers[name] = type(value) == "table" and value[1] or value' },
        { OWN,
          'values[normal(name)] = type(value) == "table" and concat(value, ", ")' },
    },
    ["lua/resty/mooring/routing/copies.lua"] = {
        { CLOSED, by_chance = true,
          "if self.closed then" },
        { LOCK, by_chance = true,
          "if not (ref or failed) or not tier:is_valid(id, token) then",
          "if failed or tier:remove_ref(ref, cache.VANISHED) == nil then" },
        { GONE, by_chance = true,
          "elseif renewed == false" },
        { RACE, by_chance = true,
          "if self.cache:claim(ref, clock() + claim_ms(self)) then",
          "and self.cache:remove_ref(ref, cache.VANISHED) == nil" },
    },
    ["lua/resty/mooring/routing/fetch.lua"] = {
        { OWN,
          "if text then" },
        { NGX,
          "local how = self.tells_expiry and ask_with_expiry or ask_plainly",
          'local semaphore = ngx and ngx.get_phase and pcall(require, "ngx.semaphore")' },
        { CLOSED, by_chance = true,
          "if not s and code == NOT_FOUND and not self.closed then",
          "elseif self.closed then",
          "if self.closed or not may_refetch(self) then",
          "if self.closed then" },
        { RACE, by_chance = true,
          "if not flight.landed:wait(self.patience) and not flight.done then" },
        { PCALL, by_chance = true,
          "if ok then",
          "if not ok then" },
    },
    ["lua/resty/mooring/routing/house.lua"] = {
        { CLOSED, by_chance = true,
          "if self.closed then" },
    },
    ["lua/resty/mooring/routing/reads.lua"] = {
        { OWN,
          "if s and self.tells_expiry and now >= entry.fresh_until then",
          "if s then" .. "\n"
              .. "self.stale = self.stale + 1" },
        { CLOSED, by_chance = true,
          "local entry = not self.closed and self.serve_stale and self.cache:find(id)" },
        { VALUE,
          "return shared and copy(s) or s, nil, code" },
    },
    ["lua/resty/mooring/routing/remote.lua"] = {
        { TIMER, by_chance = true,
          "if not ok then" },
    },
    ["lua/resty/mooring/routing/writes.lua"] = {
        { CLOSED, by_chance = true,
          "if not self.closed then" .. "\n"
              .. "self.cache:invalidate(id, QUIETLY)",
          "if not created and code ~= UNAVAILABLE and code ~= TIMEOUT",
          "and not self.closed" },
        { OWN, by_chance = true,
          "function _M.create_later(self, s, callback)" .. "\n"
              .. 'if type(s) ~= "table" or type(s.id) ~= "string" then' },
    },
    ["lua/resty/mooring/routing_storage.lua"] = {
        { VALUE,
          'fingerprint = remote.fingerprint and remote:fingerprint() or "",' },
        { REMOTE,
          "return self.coherence ~= nil and self.cache:is_leased()",
          'if type(self.remote.ready) == "function" then' },
        { REMOTE, by_chance = true,
          "if not count then" },
        { CLOSED, by_chance = true,
          "if count > 0 and not self.closed then",
          "function _M.ready(self)" .. "\n"
              .. "if self.closed then" },
        { OWN, by_chance = true,
          'if type(on_evict) ~= "function" then' },
    },
    ["lua/resty/mooring/testing.lua"] = {
        { OWN,
          'local peer, must = backends.parse(type(entry) == "table" and entry.url' },
    },
    ["lua/resty/mooring/transport/alone.lua"] = {
        { CHANCE, by_chance = true,
          "if not self.running then" },
        { VALUE,
          "for _ = 1, replies and slot.want or 0 do" },
    },
    ["lua/resty/mooring/transport/blocking.lua"] = {
        { "without memory there is no command: spec/memory, which others notice first",
          by_chance = true,
          "if not bytes then" },
    },
    ["lua/resty/mooring/transport/blocking/connection.lua"] = {
        { "without memory there is no command: spec/memory, which others notice first",
          by_chance = true,
          "if not bytes then" },
        { VALUE,
          "return sub(err, -#UNKNOWN) == UNKNOWN and sub(err, 1, -#UNKNOWN - 1) or err" },
    },
    ["lua/resty/mooring/transport/cosocket.lua"] = {
        { "a connection that was made, and is lost before the one who waited for it goes on",
          by_chance = true,
          'return nil, err or "lost the connection to " .. self.address,',
          "ok and UNAVAILABLE or code" },
    },
    ["lua/resty/mooring/transport/link.lua"] = {
        { "without memory there is no command: spec/memory, which others notice first",
          by_chance = true,
          "if bytes then" },
        { SYSTEM,
          "if not ok then" .. "\n"
              .. "return nil, err, UNAVAILABLE" },
    },
    ["lua/resty/mooring/transport/owner.lua"] = {
        { TIMER, by_chance = true,
          "if not premature then",
          "if timer ~= self.timer then" },
        { CHANCE, by_chance = true,
          "for i = 1, self.connected and #self.on_up or 0 do" },
        { PCALL, by_chance = true,
          "if not ok then" .. "\n"
              .. "self.connected = false",
          "if not ok then" .. "\n"
              .. 'finish(self, "could not make a timer: " .. err)',
          "if ok then" },
    },
    ["lua/resty/mooring/transport/pipeline.lua"] = {
        { VALUE, by_chance = true,
          "return large or at > 0 and ffi_string(out, at) or nil",
          'local text = type(reply) == "table" and reply.err' },
        { CHANCE, by_chance = true,
          "self.drain_until = self.drain_until or now() + self.command_timeout * 1000",
          "err = not ok and err or take_replies(self, reader)" },
        { OWN,
          "local seconds = self.sent.first and self.command_timeout or LONG" },
        { HOSTILE, by_chance = true,
          'return text or "a reply without a command"' },
    },
    ["lua/resty/mooring/transport/protocol.lua"] = {
        { OWN,
          'if password and password ~= "" then' },
    },
    ["lua/resty/mooring/url.lua"] = {
        { VALUE,
          'return user ~= "" and percent_decode(user) or nil,',
          'password ~= "" and percent_decode(password) or nil, rest' },
    },
}
