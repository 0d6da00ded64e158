/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * hammer.c - threads that do everything at once to one small region, for the
 * thread sanitizer, which sees the threads of a process and not processes that
 * share memory. `make tsan` builds and runs it: build/tsan/hammer [SECONDS].
 *
 *     thread 0 .. 5   a handle of its own on the same map, random operations
 *     each value      begins with its key: what is found is that entry's,
 *                     whole, or nothing
 *
 * The lock is a robust process-shared mutex, which the sanitizer knows. A hit,
 * stripes, lease and epoch are read without it. Ends with mr_cache_check(). */
#include "cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 6, KEYS = 40, ENTRIES = 24, VALUE = 120 };

typedef struct worker {
    pthread_t thread;
    mr_cache *cache;
    unsigned seed;
    double refs[KEYS];
    long done, hits, found, torn;
} worker;

static _Atomic int stop;

static double now_ms(void) { return mr_now(); }

static uint32_t make_key(char *out, int key) {
    return (uint32_t)sprintf(out, "session-%02d", key);
}

static void put(worker *w, int key, uint32_t flags) {
    char name[32], value[VALUE];
    mr_put p = {.key = name, .value = value, .flags = flags, .now = now_ms()};

    p.key_len = make_key(name, key);
    p.value_len = 10 + (uint32_t)rand_r(&w->seed) % (VALUE - 10);
    memset(value, key, sizeof value);
    p.tag = (uint32_t)key % 5;
    p.fresh_until = p.now + rand_r(&w->seed) % 50;
    p.expires_at = p.now + rand_r(&w->seed) % 200;
    p.stamp = p.now;
    mr_cache_token(w->cache, name, p.key_len, &p.token);
    mr_cache_put(w->cache, &p, &w->refs[key]);
}

static void find(worker *w, int key) {
    char name[32];
    mr_entry e;
    uint32_t len = make_key(name, key);

    if (mr_cache_find(w->cache, name, len, now_ms(), 0, &e) != MR_OK)
        return;
    w->found++;
    w->refs[key] = e.ref;
    for (uint32_t i = 0; i < e.value_len; i++)
        w->torn += e.value[i] != key;
}

static void take_evicted(worker *w) {
    mr_evicted out;

    while (mr_cache_next_evicted(w->cache, &out) == 1)
        w->torn += out.value_len > 0 && memchr(out.value, 0x7f, out.value_len);
}

static void one(worker *w) {
    int key = rand_r(&w->seed) % KEYS, what = rand_r(&w->seed) % 100;
    char name[32], err[128];
    uint32_t len = make_key(name, key), cursor = 0;
    double now = now_ms();
    mr_stats stats;

    if (what < 40)
        w->hits += mr_hit(w->cache, w->refs[key], now) >= 0;
    else if (what < 55)
        find(w, key);
    else if (what < 75)
        put(w, key, what < 65 ? MR_PUT_TOKEN : MR_PUT_BUMP);
    else if (what < 80)
        mr_cache_remove(w->cache, name, len, MR_DELETED);
    else if (what < 84)
        mr_cache_invalidate(w->cache, name, len, MR_DELETED);
    else if (what < 87)
        mr_cache_doubt(w->cache, name, len);
    else if (what < 90)
        mr_cache_renew(w->cache, w->refs[key], now + 50, now + 100);
    else if (what < 92)
        mr_cache_sweep(w->cache, now, 10);
    else if (what < 93)
        mr_cache_remove_unused(w->cache, now - 30, &cursor, 10);
    else if (what < 95)
        mr_cache_set_lease(w->cache, now + rand_r(&w->seed) % 20);
    else if (what < 96)
        mr_cache_bump_epoch(w->cache);
    else if (what < 97)
        mr_cache_stats(w->cache, &stats);
    else if (what < 98)
        w->torn += mr_cache_check(w->cache, err, sizeof err) == MR_CORRUPT;
    else
        take_evicted(w);
    w->done++;
}

static void *work(void *arg) {
    while (!atomic_load(&stop))
        one(arg);
    return NULL;
}

static mr_cache *open_region(void) {
    mr_cache_options opts = {.fingerprint = "",
                             .max_entries = ENTRIES,
                             .max_value = VALUE,
                             .max_bytes = 32.0 * 90};
    mr_cache *c;
    char err[256];

    if (mr_cache_open(&opts, &c, err, sizeof err) != MR_OK) {
        fprintf(stderr, "hammer: %s\n", err);
        exit(1);
    }
    return c;
}

static void start(worker *w, mr_cache *first, int i) {
    w->seed = (unsigned)(i + 1) * 7919;
    w->cache = first;
    if (i > 0) {
        mr_registry_lock();
        w->cache = mr_cache_attach(first->map);
        mr_registry_unlock();
    }
    mr_cache_collect(w->cache, i % 2);
}

int main(int argc, char **argv) {
    static worker workers[THREADS];
    mr_cache *first = open_region();
    struct timespec pause = {argc > 1 ? atoi(argv[1]) : 10, 0};
    long done = 0, hits = 0, found = 0, torn = 0;
    char err[256] = "";
    int rc;

    for (int i = 0; i < THREADS; i++)
        start(&workers[i], first, i);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    nanosleep(&pause, NULL);
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        done += workers[i].done, hits += workers[i].hits;
        found += workers[i].found, torn += workers[i].torn;
    }
    rc = mr_cache_check(first, err, sizeof err);
    printf("hammer: %ld operations, %ld hits, %ld found, %ld torn; check: %s\n",
           done, hits, found, torn, rc == MR_OK ? "ok" : err);
    return rc != MR_OK || torn != 0 || hits == 0 || found == 0;
}
