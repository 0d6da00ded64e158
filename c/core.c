/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * core.c - what belongs to the library rather than to a part of it: version,
 * texts of the codes, clocks, the secret of a process and its allocator. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "alloc.h"
#include "fault.h"
#include "mooring.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum { SECRET_BYTES = 16 };

const char *mr_version(void) { return MOORING_VERSION; }

int mr_abi(void) { return MOORING_ABI; }

const char *mr_strerror(int rc) {
    static const char *const texts[] = {
        [-MR_OK] = "ok",
        [-MR_NOT_FOUND] = "not found",
        [-MR_EXISTS] = "already exists",
        [-MR_FULL] = "full",
        [-MR_BUSY] = "the region is locked",
        [-MR_CHANGED] = "changed in the meantime",
        [-MR_TOO_LARGE] = "key or value too large",
        [-MR_INVALID] = "invalid argument",
        [-MR_NOMEM] = "out of memory",
        [-MR_CORRUPT] = "corrupt region",
        [-MR_AGAIN] = "incomplete reply",
        [-MR_TIMEOUT] = "timeout",
        [-MR_IO] = "connection failed",
        [-MR_PROTOCOL] = "protocol error",
    };
    const int count = sizeof texts / sizeof texts[0];

    return rc <= 0 && rc > -count ? texts[-rc] : "unknown error";
}

double mr_now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

double mr_time(void) {
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)(t.tv_nsec / 1000) / 1e6;
}

/* Filled before main, or while dlopen runs, and so before any fork: a process
 * and its children agree on it. */
static char secret[2 * SECRET_BYTES + 1];

__attribute__((constructor)) static void make_secret(void) {
    unsigned char bytes[SECRET_BYTES];

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return;
    for (int i = 0; i < SECRET_BYTES; i++)
        snprintf(secret + 2 * i, 3, "%02x", bytes[i]);
}

const char *mr_secret(void) { return secret[0] != '\0' ? secret : NULL; }

#ifdef MR_TESTING
long mr_alloc_left = -1;
int mr_fault_at;
long mr_fault_skip;
long mr_fault_passes[MR_FAULT_END];

void mr_fault_point(int point) {
    mr_fault_passes[point]++;
    if (point == mr_fault_at && mr_fault_skip-- == 0)
        raise(SIGKILL);
}

static int allocation_fails(void) {
    if (mr_alloc_left == 0)
        return 1;
    if (mr_alloc_left > 0)
        mr_alloc_left--;
    return 0;
}
#else
static int allocation_fails(void) { return 0; }
#endif

void *mr_alloc(size_t size) { return allocation_fails() ? NULL : malloc(size); }

void *mr_realloc(void *old, size_t size) {
    return allocation_fails() ? NULL : realloc(old, size);
}

void mr_free(void *memory) { free(memory); }
