-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Allocations of libmooring and hiredis that fail, one at a time. Needs
-- c/test/failing.c before everything else (LD_PRELOAD), which spec/memory/run
-- sees to.

local mooring_ffi = require "resty.mooring.ffi"

local ffi = mooring_ffi.ffi
local C = ffi.C

if not pcall(function() return C.mr_failing_watch end) then
    ffi.cdef [[
        void mr_failing_watch(void);
        void mr_failing_arm(long n);
        long mr_failing_seen(void);
        long mr_failing_failed(void);
        int unsetenv(const char *name);
    ]]
end

C.mr_failing_watch() -- raises where there is no such library
C.unsetenv("LD_PRELOAD") -- servers that are started have allocators of their own

local MOST = 300 -- allocations of one call

local _M = {}

--- Runs act(subject) with the n-th allocation failing, for n = 1, 2, ... until
-- there is no n-th one. That last time it has to succeed as `examine` sees it.
-- @param prepare  function() -> subject: a new one each time
-- @param act      function(subject); may raise
-- @param examine  function(subject, failed, ok, ...): what pcall(act) returned
-- @return how many allocations there were
function _M.each(prepare, act, examine)
    for n = 1, MOST do
        local subject = prepare()
        C.mr_failing_arm(n)
        local results = { pcall(act, subject) }
        local failed = C.mr_failing_failed() > 0
        C.mr_failing_arm(0)
        examine(subject, failed, unpack(results, 1, 4))
        if not failed then
            return n - 1
        end
    end
    error("there is no end of allocations")
end

return _M
