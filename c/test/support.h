/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * support.h - what the tests of the cache have in common. They are linked with
 * support.c and the objects of the core, those built with MR_TESTING. */
#ifndef MR_TEST_SUPPORT_H
#define MR_TEST_SUPPORT_H

#ifndef MR_TESTING
#define MR_TESTING
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../alloc.h"
#include "../cache.h"
#include "../mooring.h"

/* A private region with room for that many entries of up to 64 KiB. */
mr_cache *open_private(uint32_t max_entries, double max_bytes, double slide);
mr_cache *open_with(const mr_cache_options *opts);

/* mr_cache_check, with its text in the failure; waits for busy others. */
void assert_sound(mr_cache *c);

/* A put of two strings that never goes stale nor expires. */
int put(mr_cache *c, const char *key, const char *value, double now);
/* As put, must succeed; returns the ref. */
double put_ref(mr_cache *c, const char *key, const char *value, double now);
mr_put put_of(const char *key, const char *value, double now);
int find(mr_cache *c, const char *key, double now, mr_entry *out);
/* Found, unused, and with that value (NULL: not there). */
void assert_value(mr_cache *c, const char *key, const char *value, double now);
/* The next entry handed back; NULL: there is none. */
void assert_gone(mr_cache *c, const char *key, const char *value, int reason);
mr_stats stats_of(mr_cache *c);

/* Random numbers that a failure can be repeated with: the seed is printed, and
 * taken from MR_TEST_SEED if that is set. */
typedef struct rng {
    uint64_t state;
} rng;
rng rng_seeded(const char *what);
uint32_t rng_below(rng *r, uint32_t n);

/* Runs fn(arg) in a child; its pid. The child leaves with what fn returns. */
int run_child(int (*fn)(void *), void *arg);
/* Waits for it. Returns the exit code, or minus the signal that killed it. */
int wait_child(int pid);

#endif
