-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- A helper of busted for runs under a sanitizer (c/test/run-under): the programs
-- that the specs start are to run without.

local ffi = require "ffi"

ffi.cdef "int unsetenv(const char *);"
ffi.C.unsetenv "LD_PRELOAD"
