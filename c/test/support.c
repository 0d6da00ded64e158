/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * support.c - see support.h. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

mr_cache *open_with(const mr_cache_options *opts) {
    mr_cache *c = NULL;
    char err[256] = "";

    if (mr_cache_open(opts, &c, err, sizeof err) != MR_OK)
        fail_msg("mr_cache_open: %s", err);
    return c;
}

mr_cache *open_private(uint32_t max_entries, double max_bytes, double slide) {
    mr_cache_options opts = {.fingerprint = "",
                             .max_entries = max_entries,
                             .max_value = 65536,
                             .max_bytes = max_bytes,
                             .slide = slide};

    return open_with(&opts);
}

void assert_sound(mr_cache *c) {
    char err[256];
    double deadline = mr_now() + 5000;
    int rc;

    do
        rc = mr_cache_check(c, err, sizeof err);
    while (rc == MR_BUSY && mr_now() < deadline);
    if (rc != MR_OK)
        fail_msg("mr_cache_check: %d %s", rc, err);
}

mr_put put_of(const char *key, const char *value, double now) {
    mr_put p = {.key = key,
                .value = value,
                .key_len = (uint32_t)strlen(key),
                .value_len = (uint32_t)strlen(value),
                .now = now,
                .stamp = now,
                .fresh_until = MR_NEVER,
                .expires_at = MR_NEVER};

    return p;
}

int put(mr_cache *c, const char *key, const char *value, double now) {
    mr_put p = put_of(key, value, now);

    return mr_cache_put(c, &p, NULL);
}

double put_ref(mr_cache *c, const char *key, const char *value, double now) {
    mr_put p = put_of(key, value, now);
    double ref = -1;

    assert_int_equal(mr_cache_put(c, &p, &ref), MR_OK);
    return ref;
}

int find(mr_cache *c, const char *key, double now, mr_entry *out) {
    return mr_cache_find(c, key, (uint32_t)strlen(key), now, 0, out);
}

void assert_value(mr_cache *c, const char *key, const char *value, double now) {
    mr_entry e;
    int rc =
        mr_cache_find(c, key, (uint32_t)strlen(key), now, MR_FIND_PEEK, &e);

    if (value == NULL) {
        assert_int_equal(rc, MR_NOT_FOUND);
        return;
    }
    assert_int_equal(rc, MR_OK);
    assert_int_equal(e.value_len, strlen(value));
    assert_memory_equal(e.value, value, e.value_len);
}

void assert_gone(mr_cache *c, const char *key, const char *value, int reason) {
    mr_evicted e;
    int got = mr_cache_next_evicted(c, &e);

    assert_int_equal(got, key != NULL);
    if (!got)
        return;
    assert_int_equal(e.key_len, strlen(key));
    assert_memory_equal(e.key, key, e.key_len);
    assert_int_equal(e.value_len, strlen(value));
    assert_memory_equal(e.value, value, e.value_len);
    assert_int_equal(e.reason, reason);
}

mr_stats stats_of(mr_cache *c) {
    mr_stats s;

    mr_cache_stats(c, &s);
    return s;
}

rng rng_seeded(const char *what) {
    const char *given = getenv("MR_TEST_SEED");
    rng r = {given != NULL ? strtoull(given, NULL, 10)
                           : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid()};

    printf("%s: MR_TEST_SEED=%llu\n", what, (unsigned long long)r.state);
    return r;
}

/* splitmix64 (Steele, Lea and Flood, OOPSLA 2014). */
uint32_t rng_below(rng *r, uint32_t n) {
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

/* Of a build with --coverage: writes its counts, as exit() does. */
extern void __gcov_dump(void) __attribute__((weak));

static _Noreturn void leave(int code) {
    if (__gcov_dump != NULL)
        __gcov_dump();
    _exit(code);
}

int run_child(int (*fn)(void *), void *arg) {
    int pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0)
        leave(fn(arg));
    assert_true(pid > 0);
    return pid;
}

int wait_child(int pid) {
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
