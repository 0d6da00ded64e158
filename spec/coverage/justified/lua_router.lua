-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- See spec/coverage/justified.lua.

local VALUE = "what is chosen is never nil nor false"
local TIMER = "nginx gives every timer that is asked for here, and ends some at its own end"
local PCALL = "no error is known that would get here: a guard, so that it is a line in the log"
local RACE = "two requests or workers at the same instant"
local CHANCE = "whether it happens is a matter of time, and runs differ"
local JSON = "a decoder has read the text before: it is valid JSON"
local NGX = "nginx and LuaJIT have it; the guard is for other places the file is read in"
local OWN = "our own side has it always: a guard"
local SOCKET = "the internal server and its sockets are this nginx's, which is there"
local DICT = "lua_shared_dict mooring is in http.conf; without it there are warnings"
local FULL = "lua_shared_dict mooring is full (spec/nginx/full_dictionary_spec.lua: other uses)"
local FRAMED = "nginx gives every answer of the internal server a length or chunks (internal.conf)"
local SYSTEM = "what the system does not refuse in a test"

return {
    ["lua/resty/mooring/policy.lua"] = {
        { NGX,
          "local env = setmetatable({ ngx = ngx or placeholder }, { __index = _G })" },
    },
    ["lua/resty/mooring/policy/power_of_two.lua"] = {
        { VALUE,
          "return load_of(second) < load_of(first) and second or first" },
    },
    ["lua/resty/mooring/policy/reinitialize.lua"] = {
        { OWN, by_chance = true,
          'if type(data) == "table" and type(data.initialize) == "string" then' },
    },
    ["lua/resty/mooring/router.lua"] = {
        { NGX,
          "return ngx.shared and ngx.shared[DICT]" },
        { VALUE,
          "self.protocol = self.mcp and mcp or keyed",
          "self.serve = self.engine.watches_answers and reinitialize.carry",
          "self.engine:start(self.name, ngx.worker.id() or 0)",
          'storage = type(storage.stats) == "function" and storage:stats() or nil,' },
    },
    ["lua/resty/mooring/router/admin.lua"] = {
        { VALUE,
          "return refuse(STATUS[code] or 503, err, code)" },
    },
    ["lua/resty/mooring/router/allow.lua"] = {
        { FULL,
          'elseif err ~= "exists" then' },
    },
    ["lua/resty/mooring/router/answer.lua"] = {
        { SYSTEM,
          "if not file then",
          "return text and #text <= MAX_FILE and text or nil" },
    },
    ["lua/resty/mooring/router/backends.lua"] = {
        { VALUE,
          "address = address and host or nil,",
          "tls_name = byte(host, 1) == 91 and sub(host, 2, -2) or host," },
    },
    ["lua/resty/mooring/router/choice.lua"] = {
        { VALUE,
          "and without(candidates, tried)" },
        { RACE, by_chance = true,
          "if not view or set:admits(view) then" },
    },
    ["lua/resty/mooring/router/counters.lua"] = {
        { DICT, by_chance = true,
          'return (ok or err == "exists") and dict:incr(name, n) ~= nil' },
        { DICT,
          "if not dict then",
          "totals[name] = self.dict and self.dict:get(self.prefix .. name) or count" },
    },
    ["lua/resty/mooring/router/disowned.lua"] = {
        { CHANCE, by_chance = true,
          'self.router.counters:add("dropped")' },
        { RACE, by_chance = true,
          "self.count = self.count + (self.waiting[id] and 0 or 1)",
          "return (not seen.at or s.created_at <= seen.at)",
          "elseif not self.waiting[id] then",
          "if not self.waiting[id] then" },
        { TIMER, by_chance = true,
          "if seen.tries >= MAX_TRIES or exiting() then",
          "if not forget(self, id, seen) and not exiting() then",
          "and ngx.timer.at(PAUSE, run, self) or false",
          "self.busy = ngx.timer.at(0, run, self) or false" },
        { PCALL, by_chance = true,
          "if not ok then",
          "self.busy = next(self.waiting) ~= nil and not (ok and done)" },
    },
    ["lua/resty/mooring/router/dns.lua"] = {
        { VALUE,
          "for line in file and file:lines() or function() end do",
          'or self.scheme == "https" and self.name or nil,',
          'or self.scheme == "https" and target or nil,' },
        { SYSTEM,
          "if #nameservers == 0 then",
          "local bytes = file and file:read(2)",
          "local bytes = file and file:read(2)",
          "if file then",
          "return bytes and bytes:byte(1) * 256 + bytes:byte(2) or ngx.time() % 65536" },
    },
    ["lua/resty/mooring/router/ending.lua"] = {
        { OWN,
          "return status >= 200 and status < 300 or status == 404" },
        { SYSTEM,
          "if not body then" },
        { RACE, by_chance = true,
          "if not peer then" },
    },
    ["lua/resty/mooring/router/forward.lua"] = {
        { OWN,
          'return times and find(times, "%- : $") ~= nil' },
        { CHANCE, by_chance = true,
          "if not peer or peer.upstream == last.upstream then" },
    },
    ["lua/resty/mooring/router/headers.lua"] = {
        { "nginx-lua refuses the list in requests of timers alone",
          "if n < 0 or truncated[0] ~= 0 then" },
    },
    ["lua/resty/mooring/router/health.lua"] = {
        { DICT,
          "dict = opts.max_fails > 0 and opts.dict or nil," },
        { FULL,
          "if again or fails and fails >= self.max_fails then" },
    },
    ["lua/resty/mooring/router/hop.lua"] = {
        { SYSTEM,
          "if secret == nil then" },
        { OWN,
          'and not find(written, "[%z\\1-\\32]")' },
        { SOCKET,
          "until not line or line == \"\"",
          "size = line and 0",
          'if answer.left == 0 and answer.sock:receive() ~= "" then',
          "if answer.cut then" },
        { FRAMED,
          "local part, err = answer.sock:receiveany(CHUNK)",
          'return tonumber(http1.single(answer.headers, "content-length") or nil)',
          "answer.next_part = length and read_counted or read_to_the_end",
          "answer.left = length or 0" },
        { SOCKET, by_chance = true,
          "if not ok then",
          "if not head then" .. "\n"
              .. 'return nil, "the internal server gave no HTTP answer"',
          "if not sock then",
          "if not sent then" },
        { CHANCE, by_chance = true,
          "and not (sent and ngx.flush(true))" },
    },
    ["lua/resty/mooring/router/jsonrpc.lua"] = {
        { JSON,
          "if not at or byte(text, at) == QUOTE then",
          "return list ~= nil and list[1] == name",
          "if not rest then",
          "if at and byte(text, at) == QUOTE then",
          "if not stop then",
          "last_string = depth == 1 and at or nil",
          "elseif c == COLON and depth == 1 and last_string" },
        { VALUE,
          'return not find(raw, "[%z\\1-\\31]") and raw or nil' },
    },
    ["lua/resty/mooring/router/keyed.lua"] = {
        { RACE, by_chance = true,
          "if reference or not is_unknown(err, code) then",
          "if forgotten == nil then",
          'elseif router:proxy(var, id, reference, code) == "dropped" then' },
    },
    ["lua/resty/mooring/router/legacy.lua"] = {
        { "a Host that is missing, and that the configuration has looked for before",
          by_chance = true,
          "host = var.http_host or var.mooring_host, path = var.uri," },
        { "a session of ours that the store finds fault with after an outage alone",
          by_chance = true,
          "if code == errors.INVALID and opening.scripted then" },
        { CHANCE, by_chance = true,
          'elseif router:proxy(var, id, reference, code) == "dropped" then',
          "if not self.busy then",
          "if opening.ended then",
          "if self.unsaved[opening] and not save(self, opening)",
          "self.busy = next(self.unsaved) ~= nil",
          "elseif not opening.ended then" },
        { TIMER, by_chance = true,
          "self.busy = ngx.timer.at(RETRY, retry, self) or false",
          "and ngx.timer.at(RETRY, retry, self) or false" },
        { PCALL, by_chance = true,
          "if not ok then" .. "\n"
              .. 'log.warn_limited("save", "could not store sessions: ", err)' },
    },
    ["lua/resty/mooring/router/load.lua"] = {
        { OWN,
          'or type(storage.tagged) ~= "function"',
          "local url = session.metadata and session.metadata.backend_url" },
        { VALUE,
          "return url and tag_of_binding(self, url) or NONE" },
    },
    ["lua/resty/mooring/router/membership.lua"] = {
        { OWN,
          'return type(storage.is_coherent) == "function"',
          "return weight > 0 and sum / weight or 0" },
        { CHANCE, by_chance = true,
          "if now >= due[name] then",
          "recheck_at = min(recheck_at, tried and now + TRIED or due)",
          "if not view.trial or self.health:claim_trial(view.url) then" },
        { VALUE,
          "return SEVERITY[said] > SEVERITY[own] and said or own" },
    },
    ["lua/resty/mooring/router/opening.lua"] = {
        { TIMER, by_chance = true,
          "if premature then" },
    },
    ["lua/resty/mooring/router/outcomes.lua"] = {
        { CHANCE, by_chance = true,
          "return reinitialize.resend(self)" },
        { VALUE,
          '#url <= 256 and ngx.escape_uri(url, 0) or "a long URL",' },
    },
    ["lua/resty/mooring/router/peers.lua"] = {
        { OWN,
          "if peer then" .. "\n"
              .. "label(self, peer)" },
    },
    ["lua/resty/mooring/router/reference.lua"] = {
        { VALUE,
          'return incarnation == 0 and url or format("%s#%d", url, incarnation)',
          'return not find(id, "[^\\33-\\126]") and id or nil',
          "return at and sub(reference, 1, at - 1) or reference" },
    },
    ["lua/resty/mooring/router/refresh.lua"] = {
        { OWN,
          "return content and content.tag == self.source.tag and content.text or nil" },
        { FULL,
          "if not ok then" .. "\n"
              .. 'error("the list does not fit into lua_shared_dict mooring: " .. err, 0)' },
        { TIMER, by_chance = true,
          "if exiting() then" },
    },
    ["lua/resty/mooring/router/reinitialize.lua"] = {
        { VALUE,
          'return new_id == "forgotten" and forget(router, id, s) or new_id' },
        { PCALL, by_chance = true,
          "if not ok then" .. "\n"
              .. 'log.err("could not reinitialize a session: ", answer)' },
    },
    ["lua/resty/mooring/router/replay.lua"] = {
        { VALUE,
          'return type(result) == "table" and result.protocolVersion or nil' },
    },
    ["lua/resty/mooring/router/script_counts.lua"] = {
        { DICT,
          "if not dict then",
          "for _, slot in ipairs(dict and self.engine.slots or {}) do" },
    },
    ["lua/resty/mooring/router/scripts.lua"] = {
        { VALUE,
          "return router.mcp and access_mcp or access_keyed" },
    },
    ["lua/resty/mooring/router/sole.lua"] = {
        { VALUE,
          "local name = decode_argument(at and sub(part, 1, at - 1) or part)",
          "value = name and (at and sub(part, at + 1) or \"\")",
          "return first and match(text, \"^.*[!-~]\", first) or \"\"" },
    },
    ["lua/resty/mooring/router/sse_id.lua"] = {
        { NGX,
          "local unescape = ngx and ngx.unescape_uri" },
        { VALUE,
          'rest = sub(behind, 1, 1) == "/" and behind or "/" .. behind' },
    },
    ["lua/resty/mooring/router/states/replicated.lua"] = {
        { VALUE,
          'state = STATES[value.state] and value.state or "up",',
          "local newer = value.revision >= old.revision and value or old",
          "return text and cjson.decode(text) or nil",
          'return value and value.state or "up"',
          "return value and value.incarnation or 0",
          'known and write_value(known) or "")' },
        { CHANCE, by_chance = true,
          "or self.as_of < (self.dict:get(self.wanted_key) or 0)",
          "or there.incarnation ~= value.incarnation",
          "or there.incarnation < value.incarnation",
          "local as_of = self.dict:get(self.wanted_key) or 0",
          "and self.reading.as_of >= (self.dict:get(self.wanted_key) or 0)",
          "if reading then",
          "if clock() - self.looked_at >= RETRY and not is_under_way(self) then" },
        { FULL,
          "if not ok then" .. "\n"
              .. 'log.warn_limited("states", "the states of backends do not fit into ",' },
    },
    ["lua/resty/mooring/router/store.lua"] = {
        { TIMER, by_chance = true,
          "if not ok then" },
    },
    ["lua/resty/mooring/router/streams.lua"] = {
        { RACE, by_chance = true,
          "local left = (self.open[id] or 0) - 1",
          "if self.open[ids[i]] then" },
        { PCALL, by_chance = true,
          "if not ok then" },
    },
    ["lua/resty/mooring/router/unreachable.lua"] = {
        { CHANCE, by_chance = true,
          "elseif forgotten == false and not seen" },
    },
    ["lua/resty/mooring/script/contract.lua"] = {
        { "fields of several types at once: spec/fuzz/policy_target.lua", by_chance = true,
          "if type(a) ~= type(b) then",
          'return type(a) == "string" and a < b' },
        { VALUE,
          'or last_line(source.text, "^%s*return%f[^%w_]")' },
    },
    ["lua/resty/mooring/script/engine.lua"] = {
        { OWN, by_chance = true,
          "if not ok then" .. "\n"
              .. "return nil, as_text(stored)" },
        { VALUE,
          'local shown = (kind == "number" or kind == "boolean") and tostring(answer)',
          'place = contract.place_of(script) or "a C function",',
          "local answer = run(slot, i < #chain and copy(session) or session, req)" },
        { CHANCE, by_chance = true,
          'blame(slot, find(text, PLACE) and text or slot.place .. ": " .. text)' },
    },
    ["lua/resty/mooring/script/text.lua"] = {
        { OWN, by_chance = true,
          "if not info then",
          'elseif info.what ~= "C" and info.currentline > 0 then',
          'elseif kind == "number" or kind == "boolean" then' },
    },
    ["lua/resty/mooring/script/globals.lua"] = {
        { NGX,
          'local GSET = found and band(util.funcbc(loadstring("x = 1"), 2), 0xff)',
          "for pc = 1, (info.bytecodes or 0) - 1 do",
          "for k = -1, -(info.gcconsts or 0), -1 do",
          "if not found then" },
    },
    ["lua/resty/mooring/script/source.lua"] = {
        { NGX,
          'if sub(path, 1, 1) ~= "/" and ngx and ngx.config and ngx.config.prefix then',
          "local found = package.loaded[name] or package.preload[name]" },
        { OWN,
          'return type(module) == "table" and module.new and module or nil',
          "if module_of(name) then",
          "return policy and { name = policy.name or text, policy = policy,",
          "return not wrong and list or nil, wrong" },
    },
}
