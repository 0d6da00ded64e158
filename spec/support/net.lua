-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Ports of this machine and HTTP requests for the specs. support.servers
-- re-exports all of it.

local ffi = require "ffi"
local process = require "support.process"

local C = ffi.C

ffi.cdef [[
int mooring_spec_socket(int, int, int) __asm__("socket");
int mooring_spec_bind(int, const void *, unsigned) __asm__("bind");
int mooring_spec_connect(int, const void *, unsigned) __asm__("connect");
int mooring_spec_shut(int) __asm__("close");
int mooring_spec_getpid(void) __asm__("getpid");
]]

local _M = {}

local AF_INET, SOCK_STREAM_CLOEXEC = 2, 0x80001

------------------------------------------------------------------- ports ---

local function address(port)
    local bytes = ffi.new("uint8_t[16]")
    ffi.cast("uint16_t *", bytes)[0] = AF_INET
    bytes[2], bytes[3] = math.floor(port / 256), port % 256
    bytes[4], bytes[7] = 127, 1
    return bytes
end

local function with_socket(fn, port)
    local fd = C.mooring_spec_socket(AF_INET, SOCK_STREAM_CLOEXEC, 0)
    local rc = fn(fd, address(port), 16)
    C.mooring_spec_shut(fd)
    return rc == 0
end

-- Between the choice of a port and the start of the server another process may
-- choose it, too. So each has blocks of ports to itself, by a name in the abstract
-- namespace that goes with the process.
local FIRST, BLOCKS, BLOCK = 11000, 80, 250
local AF_UNIX = 1

-- @return whether the block was to be had
local function claim(block)
    local name = "\0mooring-spec-ports-" .. block
    local bytes = ffi.new("uint8_t[?]", 2 + #name)
    ffi.cast("uint16_t *", bytes)[0] = AF_UNIX
    ffi.copy(bytes + 2, name, #name)
    local fd = C.mooring_spec_socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0)
    if C.mooring_spec_bind(fd, bytes, 2 + #name) == 0 then
        return true -- and the socket stays
    end
    C.mooring_spec_shut(fd)
    return false
end

-- The blocks of this process, and the port looked at last.
local blocks, at = {}, 0

local function claim_one()
    for i = 0, BLOCKS - 1 do
        local block = (C.mooring_spec_getpid() * 37 + i) % BLOCKS
        if claim(block) then
            blocks[#blocks + 1] = block
            return
        end
    end
    error("no free ports: all are claimed by others")
end

--- A TCP port of 127.0.0.1 nobody listens on. Below the range the kernel takes
-- the ports of outgoing connections from, which could otherwise be faster.
function _M.free_port()
    while true do
        for _ = 1, #blocks * BLOCK do
            at = (at + 1) % (#blocks * BLOCK)
            local port = FIRST + blocks[math.floor(at / BLOCK) + 1] * BLOCK + at % BLOCK
            if with_socket(C.mooring_spec_bind, port) then
                return port
            end
        end
        claim_one()
    end
end

--- Does somebody accept connections on this port of 127.0.0.1?
function _M.listening(port)
    return with_socket(C.mooring_spec_connect, port)
end

-------------------------------------------------------------------- http ---

local function parse_headers(text)
    local status, headers, version
    for line in text:gmatch("([^\r\n]+)") do
        local spoken, code = line:match("^HTTP/(%S+) (%d+)")
        local name, value = line:match("^([^:]+):%s*(.*)$")
        if code then -- after a 100 the real one
            status, headers, version = tonumber(code), {}, spoken
        elseif name and headers then
            name = name:lower()
            headers[name] = (headers[name] and headers[name] .. ", " or "")
                .. value
        end
    end
    return status, headers, version
end

--- One HTTP request, with curl.
-- @param url   "http://..."
-- @param opts  { method =, headers = { Name = value or array of values },
--              body =, flags = { more curl arguments }, timeout = s (10) }
-- @return { status =, headers = { lower_case_name = value }, body =,
--         version = "1.1" or "2" }, or nil, message when there was no answer
function _M.http(url, opts)
    opts = opts or {}
    local base = os.tmpname()
    local argv = { "curl", "-sS", "-D", base, "-o", base .. ".body",
        "--max-time", opts.timeout or 10, "--noproxy", "*" }
    local function add(...)
        for _, arg in ipairs { ... } do
            argv[#argv + 1] = arg
        end
    end
    if opts.method then
        add("-X", opts.method)
    end
    for name, values in pairs(opts.headers or {}) do
        values = type(values) == "table" and values or { values }
        for _, value in ipairs(values) do
            add("-H", value == "" and name .. ";" or name .. ": " .. value)
        end
    end
    if opts.body then
        add("--data-binary", "@-")
    end
    add(unpack(opts.flags or {}))
    add(url)
    argv.stdin = opts.body
    argv.timeout = (opts.timeout or 10) + 5
    local result = process.run(argv)
    local status, headers, version = parse_headers(process.read_file(base))
    local body = process.read_file(base .. ".body")
    os.remove(base)
    os.remove(base .. ".body")
    if result.code ~= 0 then
        return nil, result.err, status
    end
    return {
        status = status, headers = headers, version = version, body = body,
    }
end

return _M
