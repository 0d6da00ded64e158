/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * The cache against a naive LRU: an array in which every operation searches
 * from end to end. Same victims in the same order, same hits, same bytes. */
#include "support.h"

#include <stdio.h>
#include <string.h>

enum { MAX_KEYS = 1600, MAX_BYTES = 200, OPERATIONS = 100000 };

typedef struct entry {
    int present;
    uint32_t version; /* its value is made from key and version */
    uint64_t used;    /* when, in operations */
    double ref;       /* of the cache; kept when the entry has gone */
    uint32_t ref_version;
} entry;

typedef struct model {
    entry entries[MAX_KEYS];
    uint32_t keys;
    uint32_t capacity;
    uint32_t count;
    uint32_t version;
    uint64_t clock;
} model;

static uint32_t key_of(uint32_t n, char *out) {
    return (uint32_t)sprintf(out, "session-%u-%s", n,
                             n % 3 == 0 ? "with-a-key-of-two-cells" : "x");
}

static uint32_t value_of(uint32_t n, uint32_t version, char *out) {
    uint32_t len = (n * 7 + version * 13) % MAX_BYTES;

    for (uint32_t i = 0; i < len; i++)
        out[i] = (char)(n + version * 31 + i);
    return len;
}

static entry *oldest(model *m) {
    entry *best = NULL;

    for (uint32_t i = 0; i < m->keys; i++)
        if (m->entries[i].present &&
            (best == NULL || m->entries[i].used < best->used))
            best = &m->entries[i];
    return best;
}

static void assert_record(uint32_t n, uint32_t version, const char *value,
                          uint32_t len) {
    char want[MAX_BYTES];

    assert_int_equal(len, value_of(n, version, want));
    assert_memory_equal(value, want, len);
}

static void expect_gone(mr_cache *c, model *m, entry *e, int reason) {
    uint32_t n = (uint32_t)(e - m->entries);
    char key[64];
    mr_evicted gone;

    assert_int_equal(mr_cache_next_evicted(c, &gone), 1);
    assert_int_equal(gone.reason, reason);
    assert_int_equal(gone.key_len, key_of(n, key));
    assert_memory_equal(gone.key, key, gone.key_len);
    assert_record(n, e->version, gone.value, gone.value_len);
    e->present = 0;
    m->count--;
}

static void do_put(mr_cache *c, model *m, uint32_t n, double now) {
    entry *e = &m->entries[n];
    char key[64], value[MAX_BYTES];
    mr_put p = {.key = key,
                .value = value,
                .now = now,
                .fresh_until = MR_NEVER,
                .expires_at = MR_NEVER};

    p.key_len = key_of(n, key);
    p.value_len = value_of(n, ++m->version, value);
    assert_int_equal(mr_cache_put(c, &p, &e->ref), MR_OK);
    if (!e->present && m->count == m->capacity)
        expect_gone(c, m, oldest(m), MR_EVICTED);
    m->count += !e->present;
    e->present = 1;
    e->version = e->ref_version = m->version;
    e->used = ++m->clock;
}

static void do_find(mr_cache *c, model *m, uint32_t n, double now,
                    uint32_t flags) {
    entry *e = &m->entries[n];
    char key[64];
    mr_entry out;
    int rc = mr_cache_find(c, key, key_of(n, key), now, flags, &out);

    assert_int_equal(rc, e->present ? MR_OK : MR_NOT_FOUND);
    if (rc != MR_OK)
        return;
    assert_record(n, e->version, out.value, out.value_len);
    assert_true(out.ref == e->ref);
    if (!(flags & MR_FIND_PEEK))
        e->used = ++m->clock;
}

static void do_hit(mr_cache *c, model *m, uint32_t n, double now) {
    entry *e = &m->entries[n];
    int valid = e->present && e->ref_version == e->version;
    int slot = mr_hit(c, e->ref, now);

    assert_int_equal(slot >= 0, valid);
    if (valid)
        e->used = ++m->clock;
}

static void do_remove(mr_cache *c, model *m, uint32_t n) {
    entry *e = &m->entries[n];
    char key[64];
    int rc = mr_cache_remove(c, key, key_of(n, key), MR_DELETED);

    assert_int_equal(rc, e->present ? MR_OK : MR_NOT_FOUND);
    if (rc == MR_OK)
        expect_gone(c, m, e, MR_DELETED);
}

static void step(mr_cache *c, model *m, rng *r, double now) {
    uint32_t n = rng_below(r, m->keys);
    uint32_t what = rng_below(r, 100);

    if (what < 30)
        do_put(c, m, n, now);
    else if (what < 65)
        do_hit(c, m, n, now);
    else if (what < 85)
        do_find(c, m, n, now, 0);
    else if (what < 92)
        do_find(c, m, n, now, MR_FIND_PEEK);
    else if (what < 98)
        do_remove(c, m, n);
    else
        mr_cache_sweep(c, now, rng_below(r, 50));
}

static void run(uint32_t capacity, int check_every) {
    static model m;
    mr_cache *c = open_private(capacity, 512.0 * capacity, 0);
    rng r;
    double now = 1000;
    mr_evicted none;

    printf("size %u ", capacity);
    r = rng_seeded("lru");
    memset(&m, 0, sizeof m);
    m.keys = capacity + capacity / 2 + 2;
    m.capacity = capacity;
    for (uint32_t i = 0; i < m.keys; i++)
        m.entries[i].ref = -1;
    mr_cache_collect(c, 1);
    for (int i = 0; i < OPERATIONS; i++) {
        if (rng_below(&r, 20) == 0)
            now += rng_below(&r, 3);
        step(c, &m, &r, now);
        assert_int_equal(mr_cache_next_evicted(c, &none), 0);
        assert_int_equal((uint32_t)stats_of(c).entries, m.count);
        if (i % check_every == 0)
            assert_sound(c);
    }
    assert_sound(c);
    mr_cache_close(c);
}

static void test_one_entry(void **state) {
    (void)state;
    run(1, 1);
}

static void test_two_entries(void **state) {
    (void)state;
    run(2, 1);
}

static void test_seven_entries(void **state) {
    (void)state;
    run(7, 1);
}

static void test_a_thousand_entries(void **state) {
    (void)state;
    run(1000, 1000);
}

static void test_as_many_entries_as_an_eviction_looks_at(void **state) {
    (void)state;
    run(1024, 1024);
}

/* Beyond 256 uses since an entry was last seen the oldest *seen* is taken; the
 * sweep sees to it that this is the oldest. */
static void test_swept_order_is_exact_beyond_the_looks(void **state) {
    enum { N = 5000 };
    mr_cache *c = open_private(N, 0, 0);
    static double refs[N];
    char key[32];

    (void)state;
    mr_cache_collect(c, 1);
    for (int i = 0; i < N; i++) {
        sprintf(key, "k%d", i);
        refs[i] = put_ref(c, key, "v", 1);
    }
    for (int i = N - 1; i >= 0; i--) /* the last put is now the oldest */
        assert_true(mr_hit(c, refs[i], 2) >= 0);
    mr_cache_sweep(c, 3, 2 * N);
    assert_sound(c);
    for (int i = N - 1; i > N - 100; i--) {
        char fresh[32];

        sprintf(fresh, "fresh%d", i);
        sprintf(key, "k%d", i);
        put(c, fresh, "v", 4);
        assert_gone(c, key, "v", MR_EVICTED);
    }
    mr_cache_close(c);
}

static void test_eviction_from_many_looks_at_no_more_than_256(void **state) {
    enum { N = 5000 };
    mr_cache *c = open_private(N, 0, 0);
    static double refs[N];
    char key[32];
    mr_evicted gone;

    (void)state;
    mr_cache_collect(c, 1);
    for (int i = 0; i < N; i++) {
        sprintf(key, "k%d", i);
        refs[i] = put_ref(c, key, "v", 1);
    }
    for (int i = 0; i < N; i++)
        mr_hit(c, refs[i], 2);
    put(c, "one more", "v", 3);
    /* k0..k255 were seen to be used, k256 was not looked at. */
    assert_int_equal(mr_cache_next_evicted(c, &gone), 1);
    assert_int_equal(gone.key_len, 4);
    assert_memory_equal(gone.key, "k256", 4);
    assert_sound(c);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_entry),
        cmocka_unit_test(test_two_entries),
        cmocka_unit_test(test_seven_entries),
        cmocka_unit_test(test_a_thousand_entries),
        cmocka_unit_test(test_as_many_entries_as_an_eviction_looks_at),
        cmocka_unit_test(test_swept_order_is_exact_beyond_the_looks),
        cmocka_unit_test(test_eviction_from_many_looks_at_no_more_than_256),
    };

    return cmocka_run_group_tests_name("lru", tests, NULL, NULL);
}
