-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The way of an `initialize` or a DELETE to its backend: through the internal
-- server of this very nginx.
--
--     client ==> location ==cosocket==> internal server ==proxy_pass==> backend
--                access()   unix socket  the same location.conf
--
-- So Lua can wait for the store between the headers of the answer and its body,
-- while connections, TLS, timeouts and all other proxy settings stay nginx'.
-- (ngx.location.capture buffers everything and refuses HTTP/2, header filters
-- cannot wait.)
--
-- The internal server takes the backend from the request, so it has to know who
-- asks: a secret made at the start of nginx, which outlives reloads.

local bit = require "bit"
local http1 = require "resty.mooring.router.http1"
local mooring_ffi = require "resty.mooring.ffi"

local bor = bit.bor
local bxor = bit.bxor
local byte = string.byte
local concat = table.concat
local error = error
local find = string.find
local gsub = string.gsub
local match = string.match
local ngx = ngx
local normalize = http1.normalize
local setmetatable = setmetatable
local tonumber = tonumber
local type = type

local _M = {}
local mt = { __index = _M }

local CONNECT_TIMEOUT = 1000    -- ms: the peer is this nginx
local SEND_TIMEOUT = 60000      -- ms
local READ_TIMEOUT = 86400000   -- ms: proxy_read_timeout is what counts
local CHUNK = 65536             -- bytes

-- Headers of the internal server, see http1.PREFIX.
local BACKEND, OUTCOME = "Mooring-Backend", "Mooring-Outcome"


---
-- The check of the option `internal`, for resty.mooring.options.
function _M.check_address(address)
    return type(address) == "string" and find(address, "^unix:/.") ~= nil,
           'must be the address of the internal server, "unix:/path"'
end


---
-- The secret of this nginx, as a string of 32 characters.
function _M.secret()
    local secret = mooring_ffi.C.mr_secret()
    if secret == nil then
        error("could not make a secret: the kernel has no random bytes", 0)
    end
    return mooring_ffi.ffi.string(secret)
end


---
-- Compares in a time that does not depend on where the first difference is.
function _M.same(secret, given)
    if #secret ~= #given then
        return false
    end
    local difference = 0
    for i = 1, #secret do
        difference = bor(difference, bxor(byte(secret, i), byte(given, i)))
    end
    return difference == 0
end


-- ------------------------------------------------------- the outer server --

-- Path and query for the request line. A `rewrite` of the user's location has
-- to be kept, and the internal server knows nothing of it; everything else is
-- passed on as the client wrote it.
local function target(var)
    local uri, written = var.uri, var.request_uri
    local path = match(written, "^[^?]*")
    path = ngx.unescape_uri((gsub(path, "%+", "%%2B")))
    if (path == uri or normalize(path, true) == uri
        or normalize(path, false) == uri)
       and not find(written, "[%z\1-\32]")
    then
        return written
    end
    return http1.escape_path(uri) .. var.is_args .. (var.args or "")
end


---
-- What can be said of the client's request before a backend is chosen.
-- @param body string
-- @param session_id the value of Mcp-Session-Id for the backend, or nil
-- @return table for open(); may be used several times. Its field `timeout`, ms
--         between two parts of the answer, is for the caller to set
function _M.request(body, session_id)
    local var = ngx.var
    return {
        inner = var.mooring_role == "internal",
        method = var.request_method,
        target = target(var),
        client = var.mooring_remote_addr,
        headers = ngx.req.get_headers(0, true),
        body = body,
        extra = {
            ["Host"] = var.http_host or var.mooring_host,
            ["X-Forwarded-For"] = var.mooring_forwarded_for,
            ["X-Forwarded-Proto"] = var.mooring_forwarded_proto,
            ["Mcp-Session-Id"] = session_id,
        },
    }
end


local prepare_body -- below, with what reads the body


local function connect(address, timeout)
    local sock = ngx.socket.tcp()
    sock:settimeouts(CONNECT_TIMEOUT, SEND_TIMEOUT, timeout or READ_TIMEOUT)
    local ok, err = sock:connect(address)
    if not ok then
        return nil, "could not connect to the internal server at " .. address
                    .. ": " .. err
    end
    return sock
end


local function read_head(sock)
    local reader = sock:receiveuntil("\r\n\r\n")
    local text, err = reader()
    if not text then
        return nil, "could not read the answer of the internal server: " .. err
    end
    local head = http1.parse_head(text)
    if not head then
        return nil, "the internal server gave no HTTP answer"
    end
    return head
end


local function exchange(self, request, url)
    local sock, err = connect(self.address, request.timeout)
    if not sock then
        return nil, err
    end
    request.extra[BACKEND] = self.secret .. " " .. url .. " " .. request.client
    local sent
    sent, err = sock:send(http1.request(request))
    if not sent then
        sock:close()
        return nil, "could not send to the internal server: " .. err
    end
    local head
    head, err = read_head(sock)
    if not head then
        sock:close()
        return nil, err
    end
    head.sock = sock
    prepare_body(head)
    return head
end


---
-- Sends a request to a backend and waits for the head of the answer.
-- @param request as request() returns it
-- @param url of the backend
-- @return answer { status, headers, sock } for read(), pass() or drop(); or
--         nil, message, outcome: "connect" (nothing was sent to the backend),
--         "broken" or "timeout" (something was, there is no answer), or "hop"
--         (this nginx is at fault)
function _M.open(self, request, url)
    if request.inner then
        return nil, "the internal server has no rewrite_by_lua of "
                    .. "internal.conf: the request would come back", "hop"
    end
    local answer, err = exchange(self, request, url)
    if not answer then
        return nil, err, "hop"
    end
    local outcome = http1.single(answer.headers, "mooring-outcome")
    if outcome then
        answer.sock:close()
        return nil, "the backend could not be asked: " .. outcome, outcome
    end
    return answer
end


-- --------------------------------------------------------------- answers --

local function send_head(answer)
    local header = ngx.header
    ngx.ctx.mooring_carried = true -- its session id is in order
    ngx.status = answer.status
    header["Content-Type"] = "" -- else nginx would send its default_type
    for known, values in pairs(answer.headers) do
        if #values == 1 then
            header[values.name] = values[1]
        elseif known == "www-authenticate" then
            -- nginx-lua keeps only the last of these; they may also be a list
            -- (RFC 9110, 11.6.1).
            header[values.name] = concat(values, ", ")
        else
            header[values.name] = values
        end
    end
end


-- What is left of the current chunk, after its size has been read if need be.
-- @return bytes, 0 at the end of the body; nil when that cannot be read
local function left_in_chunk(answer)
    if answer.left > 0 then
        return answer.left
    end
    local line = answer.sock:receive()
    local size = line and http1.chunk_size(line)
    if size == 0 then
        repeat
            line = answer.sock:receive() -- trailers
        until not line or line == ""
        size = line and 0
    end
    answer.left = size or 0
    return size
end


local function read_counted(answer)
    if answer.left == 0 then
        return nil
    end
    local part = answer.sock:receiveany(answer.left)
    if not part then
        return nil, "the answer was cut off"
    end
    answer.left = answer.left - #part
    return part
end


local function read_chunked(answer)
    local left = left_in_chunk(answer)
    if not left then
        return nil, "the answer was cut off"
    elseif left == 0 then
        return nil
    end
    local part, err = read_counted(answer)
    -- Behind each chunk there is an empty line.
    if answer.left == 0 and answer.sock:receive() ~= "" then
        answer.cut = true
    end
    return part, err
end


-- Has no length, and no chunks either: `chunked_transfer_encoding off`.
local function read_to_the_end(answer)
    local part, err = answer.sock:receiveany(CHUNK)
    if not part and err ~= "closed" then
        return nil, "the answer was cut off"
    end
    return part
end


-- How long the body will be, where the head says so.
local function length_of(answer)
    if answer.status == 204 or answer.status == 304 then
        return 0
    end
    return tonumber(http1.single(answer.headers, "content-length") or nil)
end


function prepare_body(answer)
    answer.left = 0
    if answer.chunked then
        answer.next_part = read_chunked
        return
    end
    local length = length_of(answer)
    answer.next_part = length and read_counted or read_to_the_end
    answer.left = length or 0
end


---
-- The next part of the body of an answer. Waits.
-- @return string; nil at the end of the body; nil and a message when that is
--         not all of it, or does not come in time
function _M.read(answer)
    if answer.cut then
        return nil, "the answer was cut off"
    end
    return answer:next_part()
end


-- Copies the body as it comes in; true when all of it was there. The end of
-- one whose length is known needs no flush: it goes out with the request's.
local function copy_body(answer, length)
    while true do
        local part, err = _M.read(answer)
        if not part then
            return not err
        end
        local sent = ngx.print(part)
        if not (length and answer.left == 0)
           and not (sent and ngx.flush(true))
        then
            return true -- the client has gone: nobody is told anything
        end
    end
end


---
-- Passes an answer on to the client as it comes, and ends the request.
function _M.pass(answer)
    local length = not answer.chunked and length_of(answer)
    send_head(answer)
    -- An SSE stream may be silent: its head does not wait for a body. Any other
    -- answer has a length and goes out as one.
    if not length or length == 0 then
        ngx.send_headers()
        ngx.flush(true)
    end
    local complete = copy_body(answer, length)
    answer.sock:close()
    return ngx.exit(complete and ngx.HTTP_OK or ngx.ERROR)
end


---
-- Gives an answer the session id that its client knows; any other is none of
-- the client's business.
-- @param id the client's
-- @param there the id of the session at the backend, nil: the same
function _M.own_id(router, answer, id, there)
    local values = answer.headers["mcp-session-id"]
    if values and #values == 1 and values[1] == (there or id) then
        values[1] = id
    elseif values then
        answer.headers["mcp-session-id"] = nil
        router.counters:add("foreign_ids")
    end
end


---
-- Ends an exchange whose answer nobody wants.
function _M.drop(answer)
    answer.sock:close()
end


---
-- @param address "unix:/path" of the internal server
function _M.new(address)
    return setmetatable({ address = address, secret = _M.secret() }, mt)
end


-- ---------------------------------------------------- the internal server --

---
-- In the internal server: the backend the outer one asks for.
-- @return url, address of the client; nil when the request comes from somebody
--         else
function _M.requested_backend(self)
    local given, url, client = match(ngx.var.http_mooring_backend or "",
                                     "^(%S+) (%S+) ?(%S*)$")
    if given and _M.same(self.secret, given) then
        return url, client
    end
end


---
-- In the internal server: tells the outer one that there is no answer.
-- @param outcome "connect", "broken", "timeout" or "refused"
function _M.report(status, outcome)
    ngx.status = status
    ngx.header[OUTCOME] = outcome
    ngx.header["Content-Length"] = 0
    ngx.send_headers()
    return ngx.exit(ngx.HTTP_OK)
end


return _M
