/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * failing.c - a library for LD_PRELOAD whose allocations fail on demand: those
 * that libmooring and hiredis ask for, and nobody else's in the process.
 *
 *     mr_failing_watch()    after libmooring was loaded: learns where it is
 *     mr_failing_arm(n)     the n-th allocation from now on fails; 0: none
 *     mr_failing_seen()     allocations since then
 *     mr_failing_failed()   how many of them have failed: 0 or 1
 *
 * Who asks is told by the return address. glibc only. Called by spec/memory
 * through the FFI. */
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_RANGES = 16 };

/* Mapped code of a library that is watched. */
typedef struct range {
    uintptr_t from, to;
} range;

static range ranges[MAX_RANGES];
static int range_count;
static long fail_at, seen, failed;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

void mr_failing_watch(void);
void mr_failing_arm(long n);
long mr_failing_seen(void);
long mr_failing_failed(void);

static int note_code(struct dl_phdr_info *info, size_t size, void *arg) {
    (void)size, (void)arg;
    if (strstr(info->dlpi_name, "libmooring") == NULL &&
        strstr(info->dlpi_name, "libhiredis") == NULL)
        return 0;
    for (int i = 0; i < info->dlpi_phnum && range_count < MAX_RANGES; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t from = (uintptr_t)(info->dlpi_addr + p->p_vaddr);

        if (p->p_type == PT_LOAD && (p->p_flags & PF_X))
            ranges[range_count++] = (range){from, from + p->p_memsz};
    }
    return 0;
}

void mr_failing_watch(void) {
    range_count = 0;
    dl_iterate_phdr(note_code, NULL);
}

void mr_failing_arm(long n) {
    fail_at = n;
    seen = failed = 0;
}

long mr_failing_seen(void) { return seen; }

long mr_failing_failed(void) { return failed; }

static int is_watched(const void *caller) {
    uintptr_t at = (uintptr_t)caller;

    for (int i = 0; i < range_count; i++)
        if (at >= ranges[i].from && at < ranges[i].to)
            return 1;
    return 0;
}

static int refused(const void *caller) {
    if (!is_watched(caller) || ++seen != fail_at)
        return 0;
    failed++;
    return 1;
}

void *malloc(size_t size) {
    return refused(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size) {
    return refused(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size) {
    return refused(__builtin_return_address(0)) ? NULL
                                                : __libc_realloc(old, size);
}

/* glibc's own would ask malloc from its own code. */
char *strdup(const char *text) {
    size_t len = strlen(text) + 1;
    char *copy =
        refused(__builtin_return_address(0)) ? NULL : __libc_malloc(len);

    return copy != NULL ? memcpy(copy, text, len) : NULL;
}

void *mmap(void *at, size_t len, int protection, int flags, int fd,
           off_t offset) {
    if (refused(__builtin_return_address(0)))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, len, protection, flags, fd, offset);
}
