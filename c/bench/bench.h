/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * bench.h - what the two programs here have in common: a private region, and
 * keys and a value of the size that DESIGN speaks of, a 36-byte id and a
 * 150-byte record.
 *
 * Whatever returns something unexpected ends the program: a number that was
 * measured over wrong answers is worth nothing. */
#ifndef MR_BENCH_H
#define MR_BENCH_H

#include "../mooring.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_KEY = 36, BENCH_VALUE = 150 };

typedef struct bench {
    mr_cache *cache;
    uint32_t size;  /* entries the region holds */
    uint32_t keys;  /* that were made */
    char *key;      /* keys x BENCH_KEY bytes */
    double *ref;    /* of key i, as the last put has returned it */
    uint32_t *turn; /* 0 .. size - 1 in random order */
    double now;     /* ms, simulated: a microsecond an operation */
    uint64_t random;
    double expires_at; /* of entries that are put */
    char value[BENCH_VALUE];
} bench;

static inline void bench_die(const char *what, long code) {
    fprintf(stderr, "wrong answer: %s gave %ld\n", what, code);
    exit(1);
}

static inline void bench_expect(const char *what, long code, long expected) {
    if (code != expected)
        bench_die(what, code);
}

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
 * generators, scrambled", 2016); always the same sequence. */
static inline uint32_t bench_random(bench *b, uint32_t below) {
    b->random ^= b->random >> 12;
    b->random ^= b->random << 25;
    b->random ^= b->random >> 27;
    return (uint32_t)((b->random * 0x2545f4914f6cdd1dULL >> 32) * below >> 32);
}

static inline const char *bench_key(const bench *b, uint32_t i) {
    return b->key + (size_t)i * BENCH_KEY;
}

static inline double bench_tick(bench *b) { return b->now += 0.001; }

static inline void *bench_memory(size_t n, size_t size) {
    void *memory = calloc(n, size);

    if (memory == NULL)
        bench_die("calloc", (long)n);
    return memory;
}

static inline void bench_make_keys(bench *b) {
    for (size_t i = 0; i < (size_t)b->keys * BENCH_KEY; i++)
        b->key[i] = "0123456789abcdef"[bench_random(b, 16)];
    for (uint32_t i = 0; i < b->size; i++)
        b->turn[i] = i;
    for (uint32_t i = b->size; i > 1; i--) {
        uint32_t other = bench_random(b, i), was = b->turn[i - 1];

        b->turn[i - 1] = b->turn[other];
        b->turn[other] = was;
    }
    memset(b->value, 'v', sizeof b->value);
}

static inline mr_cache *bench_open(uint32_t size) {
    mr_cache_options opts = {
        .fingerprint = "", .max_entries = size, .max_value = 65536};
    mr_cache *cache = NULL;
    char err[256] = "";

    if (mr_cache_open(&opts, &cache, err, sizeof err) != MR_OK) {
        fprintf(stderr, "mr_cache_open: %s\n", err);
        exit(1);
    }
    return cache;
}

/* A region of `size` entries, still empty, and that many keys. */
static inline void bench_setup(bench *b, uint32_t size, uint32_t keys) {
    memset(b, 0, sizeof *b);
    b->random = 88172645463325252ULL;
    b->size = size;
    b->keys = keys;
    b->key = bench_memory(keys, BENCH_KEY);
    b->ref = bench_memory(keys, sizeof *b->ref);
    b->turn = bench_memory(size, sizeof *b->turn);
    b->now = mr_now();
    b->expires_at = MR_NEVER;
    bench_make_keys(b);
    b->cache = bench_open(size);
}

static inline void bench_put(bench *b, uint32_t i) {
    mr_put p = {.key = bench_key(b, i),
                .key_len = BENCH_KEY,
                .value = b->value,
                .value_len = BENCH_VALUE,
                .now = bench_tick(b),
                .fresh_until = MR_NEVER,
                .expires_at = b->expires_at};

    p.stamp = p.now;
    bench_expect("mr_cache_put", mr_cache_put(b->cache, &p, &b->ref[i]), MR_OK);
}

static inline void bench_hit(bench *b, uint32_t i) {
    int slot = mr_hit(b->cache, b->ref[i], bench_tick(b));

    if (slot < 0)
        bench_die("mr_hit", slot);
}

static inline void bench_find(bench *b, uint32_t i) {
    mr_entry e;

    bench_expect("mr_cache_find",
                 mr_cache_find(b->cache, bench_key(b, i), BENCH_KEY,
                               bench_tick(b), 0, &e),
                 MR_OK);
    if (e.value_len != BENCH_VALUE || e.ref != b->ref[i])
        bench_die("mr_cache_find, its value", (long)e.value_len);
}

static inline void bench_remove(bench *b, uint32_t i) {
    bench_expect(
        "mr_cache_remove",
        mr_cache_remove(b->cache, bench_key(b, i), BENCH_KEY, MR_DELETED),
        MR_OK);
}

static inline mr_stats bench_stats(const bench *b) {
    mr_stats s;

    mr_cache_stats(b->cache, &s);
    return s;
}

static inline void bench_check(const bench *b) {
    char err[256] = "";

    if (mr_cache_check(b->cache, err, sizeof err) != MR_OK) {
        fprintf(stderr, "mr_cache_check: %s\n", err);
        exit(1);
    }
}

#endif
