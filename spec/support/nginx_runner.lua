-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- Runs busted inside the nginx worker that run-in-nginx has started, in a
-- timer, since specs have to be able to wait.

local ffi = require "ffi"

ffi.cdef "void mooring_spec_exit(int) __asm__(\"_exit\");"

local _M = {}


-- Ends the process at once: neither nginx' nor the VM's own end is wanted in
-- the middle of a running timer. Exit codes have 8 bits.
local function exit(code)
    io.stdout:flush()
    io.stderr:flush()
    ffi.C.mooring_spec_exit(math.min(tonumber(code) or 1, 255))
end


local function arguments()
    local arg = { [0] = "busted", "--output=plainTerminal", "--shuffle" }
    for line in (os.getenv("SPEC_ARGUMENTS") or ""):gmatch("[^\n]+") do
        arg[#arg + 1] = line
    end
    return arg
end


local function run(premature)
    if premature then
        return
    end

    -- busted takes its command line from here, and ends by os.exit when
    -- something has failed.
    rawset(_G, "arg", arguments())
    rawset(os, "exit", exit)
    local ok, err = xpcall(function()
        require("busted.runner")({ standalone = false })
    end, debug.traceback)
    if err then -- busted itself raises nil
        io.stderr:write("could not run the specs: ", tostring(err), "\n")
    end
    exit(ok and 0 or 1)
end


--- For init_worker_by_lua.
function _M.start()
    assert(ngx.timer.at(0, run))
end


return _M
