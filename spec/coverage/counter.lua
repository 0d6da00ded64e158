-- SPDX-FileCopyrightText: The mooring authors
-- SPDX-License-Identifier: Apache-2.0
--
-- What instrumented source calls first: the counters of a file, one byte each.
-- They are the file counts/<name>, mapped by every process that runs the source
-- (nginx and its workers, the specs, what they fork), so that nothing is lost
-- when one is killed and nothing has to be merged.
--
--     counters, outcome = counter(path, count)

local ffi = require "ffi"

local C = ffi.C

-- Names of our own: the source that counts may declare these functions, too.
ffi.cdef [[
int mooring_coverage_open(const char *path, int flags, ...) __asm__("open");
int mooring_coverage_close(int) __asm__("close");
void *mooring_coverage_mmap(void *, size_t, int protection, int flags, int fd,
        long offset) __asm__("mmap");
]]

local O_RDWR, O_CLOEXEC = 2, 0x80000
local PROT_READ_WRITE, MAP_SHARED = 3, 1
local MAP_FAILED = ffi.cast("void *", -1)

local mapped = {}

local function map(path, count)
    local fd = C.mooring_coverage_open(path, O_RDWR + O_CLOEXEC)
    assert(fd >= 0, "could not open " .. path)
    local at = C.mooring_coverage_mmap(nil, count, PROT_READ_WRITE, MAP_SHARED, fd, 0)
    assert(at ~= MAP_FAILED, "could not map " .. path)
    C.mooring_coverage_close(fd)
    return ffi.cast("uint8_t *", at)
end

local function counter(path, count)
    local counters = mapped[path] or map(path, count)
    mapped[path] = counters
    return counters, function(index, value)
        counters[value and index or index + 1] = 1
        return value
    end
end

package.loaded["coverage.counter"] = counter
return counter
