-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Starts, watches and stops other programs on behalf of the specs.
--
--   spec (luajit) --- starts ---> servers, each the leader of a process group
--        |                                    ^
--        `--- pipe ---> guard (sh) -- kills --'  when the pipe closes
--
-- However a run ends (exit, error, Ctrl-C, SIGKILL), the kernel closes the
-- spec's end of the pipe; the guard then kills every group that is still
-- registered and removes the temporary directories. Process groups rather
-- than PR_SET_PDEATHSIG, because a death signal does not reach what a server
-- itself forked (the workers of a killed nginx would live on).
--
-- Works in plain LuaJIT and in an nginx worker. There nginx reaps our children
-- before we can, so exit codes of run() go through a file.

local ffi = require "ffi"

local C = ffi.C

-- Names of our own through __asm__: other modules of the same process may
-- declare these functions with other types.
ffi.cdef [[
int mooring_spec_spawn(int *pid, const char *file, const void *actions,
        const void *attr, char *const argv[], char *const envp[])
        __asm__("posix_spawnp");
int mooring_spec_actions_init(void *) __asm__("posix_spawn_file_actions_init");
int mooring_spec_actions_destroy(void *)
        __asm__("posix_spawn_file_actions_destroy");
int mooring_spec_actions_open(void *, int fd, const char *path, int flags,
        unsigned mode) __asm__("posix_spawn_file_actions_addopen");
int mooring_spec_actions_dup2(void *, int from, int to)
        __asm__("posix_spawn_file_actions_adddup2");
int mooring_spec_actions_closefrom(void *, int from)
        __asm__("posix_spawn_file_actions_addclosefrom_np");
int mooring_spec_attr_init(void *) __asm__("posix_spawnattr_init");
int mooring_spec_attr_destroy(void *) __asm__("posix_spawnattr_destroy");
int mooring_spec_attr_flags(void *, short) __asm__("posix_spawnattr_setflags");
int mooring_spec_attr_sigmask(void *, const void *)
        __asm__("posix_spawnattr_setsigmask");
int mooring_spec_attr_sigdefault(void *, const void *)
        __asm__("posix_spawnattr_setsigdefault");
int mooring_spec_sigfillset(void *) __asm__("sigfillset");
int mooring_spec_sigemptyset(void *) __asm__("sigemptyset");
int mooring_spec_waitpid(int pid, int *status, int options) __asm__("waitpid");
int mooring_spec_prctl(int, unsigned long, unsigned long, unsigned long,
        unsigned long) __asm__("prctl");
int mooring_spec_kill(int pid, int sig) __asm__("kill");
int mooring_spec_socketpair(int, int, int, int *) __asm__("socketpair");
long mooring_spec_send(int, const char *, size_t, int) __asm__("send");
int mooring_spec_close(int) __asm__("close");
int mooring_spec_poll(void *, unsigned long, int) __asm__("poll");
char *mooring_spec_strerror(int) __asm__("strerror");
int mooring_spec_gettime(int clock, int64_t *spec) __asm__("clock_gettime");
extern char **mooring_spec_environ __asm__("environ");
]]

local _M = {}

local SIGNALS = {
    HUP = 1, INT = 2, QUIT = 3, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15,
    CONT = 18, STOP = 19,
}
local O_RDONLY, APPEND = 0, 0x441 -- O_WRONLY | O_CREAT | O_APPEND
local MODE_644 = 0x1a4
local SETPGROUP, SETSIGDEF, SETSIGMASK = 0x02, 0x04, 0x08
local AF_UNIX, SOCK_STREAM_CLOEXEC = 1, 0x80001
local MSG_NOSIGNAL = 0x4000
local WNOHANG = 1
local CLOCK_MONOTONIC = 1
local ESRCH = 3
local PR_SET_CHILD_SUBREAPER = 36

local GUARD = [[
trap '' INT HUP
groups= dirs= keep= sleeper=
clean() {
    for g in $groups; do kill -KILL "-$g"; done
    [ -z "$sleeper" ] || kill -KILL "$sleeper"
    for d in $dirs; do
        rm -rf -- "$d" || { sleep 0.2; rm -rf -- "$d"; } # they are still dying
    done
    exit 0
}
trap clean TERM
while read -r verb arg; do
    case $verb in
        started) groups="$groups $arg " ;;
        stopped) groups="${groups%% $arg *} ${groups#* $arg }" ;;
        made) dirs="$dirs $arg" ;;
        keep) keep=1 ;;
    esac
done
if [ -n "$keep" ]; then
    sleep infinity & sleeper=$!
    wait "$sleeper"
fi
clean
]]

--- The checkout this file belongs to, absolute.
_M.root = (function()
    local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
    local pipe = assert(io.popen("cd '" .. here .. "../..' && pwd -P"))
    local path = pipe:read("*l")
    pipe:close()
    return assert(path, "could not find the checkout")
end)()

-------------------------------------------------------------------- time ---

local timespec = ffi.new("int64_t[2]")

--- Seconds of the monotonic clock.
function _M.now()
    C.mooring_spec_gettime(CLOCK_MONOTONIC, timespec)
    return tonumber(timespec[0]) + tonumber(timespec[1]) / 1e9
end

--- Waits for `seconds`. In nginx the worker goes on serving meanwhile.
function _M.nap(seconds)
    if ngx and ngx.sleep then
        ngx.sleep(seconds)
    else
        C.mooring_spec_poll(nil, 0, seconds * 1000)
    end
end

--- Calls fn every few milliseconds until it returns something true.
-- @param fn       function() -> value, detail: `detail` of the last call is
--                 added to the error
-- @param seconds  deadline (default 5)
-- @param what     what is waited for, named in the error
-- @return what fn returned; raises when the deadline passes
function _M.wait_for(fn, seconds, what)
    seconds = seconds or 5
    local deadline = _M.now() + seconds
    local pause = 0.001
    while true do
        local value, detail = fn()
        if value then
            return value
        end
        if _M.now() > deadline then
            error(("waited %g s in vain for %s%s"):format(seconds,
                what or "a condition",
                detail and ": " .. tostring(detail) or ""), 2)
        end
        _M.nap(pause)
        pause = math.min(pause * 1.5, 0.05)
    end
end

------------------------------------------------------------------- files ---

--- The whole content of a file, "" when it does not exist.
function _M.read_file(path)
    local file = io.open(path, "rb")
    if not file then
        return ""
    end
    local text = file:read("*a")
    file:close()
    return text or ""
end

function _M.write_file(path, text)
    local file = assert(io.open(path, "wb"))
    assert(file:write(text))
    file:close()
end

------------------------------------------------------------------- spawn ---

local function c_strings(list)
    local array = ffi.new("const char *[?]", #list + 1)
    for i, text in ipairs(list) do
        array[i - 1] = text
    end
    return ffi.cast("char *const *", array), array
end

local function signal_set(fill)
    local set = ffi.new("char[128]")
    if fill then
        C.mooring_spec_sigfillset(set)
    else
        C.mooring_spec_sigemptyset(set)
    end
    return set
end

local function file_actions(input, out, err)
    local actions = ffi.new("char[512]")
    C.mooring_spec_actions_init(actions)
    if type(input) == "number" then
        C.mooring_spec_actions_dup2(actions, input, 0)
    else
        C.mooring_spec_actions_open(actions, 0, input, O_RDONLY, 0)
    end
    C.mooring_spec_actions_open(actions, 1, out, APPEND, MODE_644)
    if err == out then
        C.mooring_spec_actions_dup2(actions, 1, 2)
    else
        C.mooring_spec_actions_open(actions, 2, err, APPEND, MODE_644)
    end
    -- Not inherited: an nginx worker's listening sockets, the guard's pipe.
    C.mooring_spec_actions_closefrom(actions, 3)
    return actions
end

local function attributes()
    local attr = ffi.new("char[1024]")
    C.mooring_spec_attr_init(attr)
    C.mooring_spec_attr_flags(attr, SETPGROUP + SETSIGDEF + SETSIGMASK)
    C.mooring_spec_attr_sigmask(attr, signal_set(false))
    C.mooring_spec_attr_sigdefault(attr, signal_set(true))
    return attr
end

-- Runs argv in a process group of its own; returns its pid.
local function spawn(argv, input, out, err)
    local pid = ffi.new("int[1]")
    local actions, attr = file_actions(input, out, err), attributes()
    local args, anchor = c_strings(argv)
    local rc = C.mooring_spec_spawn(pid, argv[1], actions, attr, args,
        C.mooring_spec_environ)
    C.mooring_spec_actions_destroy(actions)
    C.mooring_spec_attr_destroy(attr)
    if rc ~= 0 or not anchor then
        error("could not start " .. argv[1] .. ": "
            .. ffi.string(C.mooring_spec_strerror(rc)), 3)
    end
    return pid[0]
end

-- A connected pair of close-on-exec sockets: ours and the child's. A socket,
-- not a pipe, so that writing to a dead child raises no SIGPIPE.
local function channel()
    local pair = ffi.new("int[2]")
    assert(C.mooring_spec_socketpair(AF_UNIX, SOCK_STREAM_CLOEXEC, 0,
        pair) == 0)
    return pair[0], pair[1]
end

local function send(fd, text)
    return tonumber(C.mooring_spec_send(fd, text, #text, MSG_NOSIGNAL)) == #text
end

------------------------------------------------------------------- guard ---

local guard -- { fd, pid }, started with the first process or directory

local function tell_guard(verb, arg)
    if not guard then
        C.mooring_spec_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        local ours, theirs = channel()
        local argv = { "sh", "-c", GUARD, "mooring-spec-guard" }
        local pid = spawn(argv, theirs, "/dev/null", "/dev/null")
        guard = { fd = ours, pid = pid }
        C.mooring_spec_close(theirs)
    end
    assert(send(guard.fd, verb .. " " .. arg .. "\n"), "the guard is gone")
end

--- Lets everything started so far outlive this process.
-- @return pid: everything is stopped by sending it SIGTERM
function _M.keep()
    tell_guard("keep", "1")
    return guard.pid
end

--- Makes a temporary directory, removed at the end of the run (unless the
-- environment has KEEP_TMP=1, for looking at logs).
function _M.tmpdir()
    local base = os.getenv("TMPDIR") or "/tmp"
    local pipe = assert(io.popen("mktemp -d '" .. base .. "/mooring.XXXXXX'"))
    local path = assert(pipe:read("*l"), "could not make a directory")
    pipe:close()
    if os.getenv("KEEP_TMP") ~= "1" then
        tell_guard("made", path)
    end
    return path
end

----------------------------------------------------------------- process ---

local Process = {}
Process.__index = Process

-- env(1) changes directory and environment, then becomes the program.
local function command_line(spec)
    local argv = { "env" }
    if spec.cwd then
        argv[#argv + 1] = "--chdir=" .. spec.cwd
    end
    for name, value in pairs(spec.env or {}) do
        argv[#argv + 1] = name .. "=" .. tostring(value)
    end
    for _, arg in ipairs(spec) do
        argv[#argv + 1] = tostring(arg)
    end
    return argv
end

--- Starts a program in the background.
-- @param spec  { "program", args...,
--                cwd =, env = { NAME = value },
--                out = file its output is appended to (default /dev/null),
--                err = the same for stderr (default: as out),
--                input = true: :write() feeds its stdin }
-- @return process: .pid, methods below; raises when it cannot be started
function _M.spawn(spec)
    local self = setmetatable({ name = spec[1] }, Process)
    local out = spec.out or "/dev/null"
    local theirs
    if spec.input then
        self.fd, theirs = channel()
    end
    self.pid = spawn(command_line(spec), theirs or "/dev/null", out,
        spec.err or out)
    tell_guard("started", self.pid)
    if theirs then
        C.mooring_spec_close(theirs)
    end
    return self
end

--- Sends a signal by name ("TERM") to the process, not to its children.
-- @return true, or false when it is gone
function Process:signal(name)
    local number = SIGNALS[name]
        or error("no such signal: " .. tostring(name), 2)
    return C.mooring_spec_kill(self.pid, number) == 0
end

--- Is it running (or paused)?
function Process:alive()
    if self.exited then
        return false
    end
    local status = ffi.new("int[1]")
    local rc = C.mooring_spec_waitpid(self.pid, status, WNOHANG)
    if rc == 0 then
        return true
    end
    -- Reaped by somebody else (nginx does that in its workers): then ask.
    if rc < 0 and C.mooring_spec_kill(self.pid, 0) == 0 then
        return true
    end
    self.exited = true
    self.status = rc > 0 and status[0] or nil
    return false
end

--- Waits until it has ended by itself; raises after `seconds`.
function Process:wait(seconds)
    _M.wait_for(function() return not self:alive() end, seconds,
        "the end of " .. self.name)
    return true
end

--- Writes to the stdin of a process started with input = true.
function Process:write(text)
    return send(self.fd, text)
end

-- Have all members of the group ended? As their subreaper we inherit the
-- orphans; a zombie that nobody reaps would count as a member for ever.
local function reaped(group)
    while C.mooring_spec_waitpid(-group, nil, WNOHANG) > 0 do end
    return C.mooring_spec_kill(-group, 0) ~= 0 and ffi.errno() == ESRCH
end

--- Kills it and everything it has forked. Never raises.
function Process:kill()
    if self.stopped then
        return
    end
    self.stopped = true
    C.mooring_spec_kill(-self.pid, SIGNALS.KILL)
    pcall(self.wait, self, 5)
    pcall(_M.wait_for, function() return reaped(self.pid) end, 5)
    tell_guard("stopped", self.pid)
    if self.fd then
        C.mooring_spec_close(self.fd)
        self.fd = nil
    end
end

--- Ends it: SIGTERM (or another signal), SIGKILL after `seconds` (default 5),
-- which children that outlived it get in any case. Idempotent.
function Process:stop(name, seconds)
    if self.stopped then
        return
    end
    self:signal(name or "TERM")
    self:signal("CONT") -- a paused process would not see the other one
    pcall(self.wait, self, seconds or 5)
    self:kill()
end

--- Stops it from running, as if it or its host were frozen.
function Process:pause()
    assert(self:signal("STOP"), self.name .. " is not running")
end

function Process:resume()
    assert(self:signal("CONT"), self.name .. " is not running")
end

--------------------------------------------------------------------- run ---

local function quoted(arg)
    return "'" .. tostring(arg):gsub("'", [['\'']]) .. "'"
end

local scratch
local runs = 0
local RUN = [[
b=$BASE; $COMMAND <"$b.in" >"$b.out" 2>"$b.err"; echo $? >"$b.new"
mv "$b.new" "$b.code"]]

--- Runs a program to its end.
-- @param spec  { "program", args..., cwd =, env =, stdin = text,
--                timeout = seconds (default 30) }
-- @return { code = exit code, out = text, err = text }; raises on time-out
function _M.run(spec)
    scratch = scratch or _M.tmpdir()
    runs = runs + 1
    local base = scratch .. "/" .. runs
    local words = {}
    for i, arg in ipairs(command_line(spec)) do
        words[i] = quoted(arg)
    end
    _M.write_file(base .. ".in", spec.stdin or "")
    local process = _M.spawn { "sh", "-c", RUN:gsub("%$(%u+)",
        { COMMAND = table.concat(words, " "), BASE = quoted(base) }) }
    local done = pcall(_M.wait_for, function()
        return _M.read_file(base .. ".code") ~= ""
    end, spec.timeout or 30)
    process:kill()
    local result = {
        code = tonumber(_M.read_file(base .. ".code")),
        out = _M.read_file(base .. ".out"),
        err = _M.read_file(base .. ".err"),
    }
    for _, suffix in ipairs { ".in", ".out", ".err", ".code" } do
        os.remove(base .. suffix)
    end
    if not done then
        error(("%s took longer than %g s\n%s%s"):format(spec[1],
            spec.timeout or 30, result.out, result.err), 2)
    end
    return result
end

return _M
