-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- The binding to libmooring: the only module that calls ffi.cdef and ffi.load.
--
-- The declarations are generated from c/mooring.h (resty.mooring.cdef). The
-- library is looked for along package.cpath, as `require` would, and is then
-- compared with the declarations: in a reloaded nginx an upgraded Lua side may
-- meet the library that an earlier generation has mapped, since dlopen hands
-- out the loaded copy for a known path.

local ffi = require "ffi"
local cdef = require "resty.mooring.cdef"

local tonumber = tonumber
local error = error

local _M = { _VERSION = cdef.version, ffi = ffi }


-- The ABI of the declarations this VM has had since this module was loaded
-- before, in whatever version; 0: one that did not say.
local function declared_abi()
    local known, abi = pcall(function() return ffi.C.MR_DECLARED_ABI end)
    return known and tonumber(abi) or 0
end


-- A module table that is loaded anew comes by here again, and ffi.cdef raises
-- on the redefinition of an enum or a struct. Declarations cannot be taken
-- back: with those of another version calls would pass other structs than the
-- library takes.
if not pcall(ffi.typeof, "mr_stats") then
    ffi.cdef(cdef.cdef)
elseif declared_abi() ~= cdef.abi then
    error("this Lua VM has loaded another version of mooring before (ABI "
          .. declared_abi() .. "), and these modules need ABI " .. cdef.abi
          .. " (" .. cdef.version .. "): a VM holds one version, so remove the "
          .. "other one from package.path and package.cpath and restart", 0)
end

if not pcall(function() return ffi.C.ngx_current_msec end) then
    pcall(ffi.cdef, "uintptr_t ngx_current_msec;")
end


if not pcall(function() return ffi.C.getpid end) then
    ffi.cdef "int getpid(void);"
end


local function load_library()
    local path, tried = package.searchpath("libmooring", package.cpath)
    if not path then
        error("could not find libmooring.so along package.cpath; "
              .. "run `make` and `eval \"$(make -s env)\"`, or `make install`:"
              .. tried, 0)
    end

    local C = ffi.load(path)
    local abi = C.mr_abi()
    if abi ~= cdef.abi then
        error("libmooring at " .. path .. " has ABI " .. abi .. " ("
              .. ffi.string(C.mr_version()) .. "), the Lua modules need "
              .. cdef.abi .. " (" .. cdef.version .. "): a process keeps the "
              .. "library it has loaded, so restart it after an upgrade "
              .. "instead of reloading it", 0)
    end

    return C
end


-- Kept in the module for as long as the VM lives: the collector would close a
-- library that nothing refers to.
_M.C = load_library()


-- The clock of everything in a region, in milliseconds. nginx keeps the same
-- clock as a variable that is set once per turn of its event loop.
--
-- The results are in parentheses, here and elsewhere, so that they are no tail
-- calls: LuaJIT cannot compile a function by itself that ends in one of C or of
-- a built-in function. It tries eleven times, in some hours of a worker's life,
-- and then compiles nothing any more that calls the function.
local in_nginx = pcall(function() return ffi.C.ngx_current_msec end)

if in_nginx then
    local nginx = ffi.C

    function _M.now()
        return (tonumber(nginx.ngx_current_msec))
    end

else
    local C = _M.C

    function _M.now()
        return (C.mr_now())
    end
end


_M.in_nginx = in_nginx


---
-- The id of this process, which is another one after a fork.
function _M.pid()
    return (ffi.C.getpid())
end


---
-- What a code of the core (`mr_rc`) means, in English.
-- @param rc number
-- @return string
function _M.strerror(rc)
    return ffi.string(_M.C.mr_strerror(rc))
end


return _M
