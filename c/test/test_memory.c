/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * With an allocator that fails at any one allocation: MR_NOMEM, and nothing has
 * changed. */
#include "support.h"

#include <stdio.h>
#include <string.h>

static void test_open_without_memory(void **state) {
    mr_cache_options o = {.name = "memory",
                          .name_len = 6,
                          .fingerprint = "",
                          .max_entries = 10,
                          .max_value = 100};
    mr_cache *c = NULL;
    char err[200] = "";
    int rc = MR_NOMEM;

    (void)state;
    for (long left = 0; rc == MR_NOMEM; left++) {
        mr_alloc_left = left;
        rc = mr_cache_open(&o, &c, err, sizeof err);
        mr_alloc_left = -1;
        assert_int_equal(rc == MR_OK, c != NULL);
        assert_non_null(rc == MR_OK ? "" : strstr(err, "out of memory"));
    }
    assert_int_equal(rc, MR_OK);
    put(c, "k", "v", 1);
    mr_cache_close(c);
    /* The same for a replacement: the old region stays the current one. */
    o.max_entries = 20;
    o.carry_over = 1;
    rc = MR_NOMEM;
    for (long left = 0; rc == MR_NOMEM; left++) {
        mr_alloc_left = left;
        rc = mr_cache_open(&o, &c, err, sizeof err);
        mr_alloc_left = -1;
        if (rc == MR_OK)
            break;
        o.max_entries = 10;
        c = open_with(&o);
        assert_value(c, "k", "v", 1);
        mr_cache_close(c);
        o.max_entries = 20;
    }
    assert_value(c, "k", "v", 1);
    assert_true(stats_of(c).max_entries == 20);
    mr_cache_close(c);
}

static void test_another_handle_without_memory(void **state) {
    mr_cache_options o = {
        .name = "handle", .name_len = 6, .max_entries = 10, .max_value = 100};
    mr_cache *a = open_with(&o), *b = a;
    char err[200] = "";

    (void)state;
    put(a, "k", "v", 1);
    mr_alloc_left = 0;
    assert_int_equal(mr_cache_open(&o, &b, err, sizeof err), MR_NOMEM);
    mr_alloc_left = -1;
    assert_null(b);
    assert_value(a, "k", "v", 1);
    mr_cache_close(a);
}

/* A region of six entries; a put of "big" has to evict four of them. */
static mr_cache *full_region(double slide) {
    mr_cache *c = open_private(6, 6 * 32, slide);

    mr_cache_collect(c, 1);
    for (int i = 0; i < 6; i++) {
        char key[2] = {(char)('a' + i), '\0'};

        put(c, key, "v", 10 + i);
    }
    return c;
}

static void assert_unchanged(mr_cache *c, double now) {
    mr_alloc_left = -1;
    assert_true(stats_of(c).entries == 6);
    for (int i = 0; i < 6; i++) {
        char key[2] = {(char)('a' + i), '\0'};

        assert_value(c, key, "v", now);
    }
    assert_gone(c, NULL, NULL, 0);
    assert_sound(c);
}

static void test_put_without_memory(void **state) {
    mr_cache *c = full_region(0);
    char big[111];

    (void)state;
    memset(big, 'x', sizeof big);
    big[110] = '\0';
    mr_alloc_left = 0;
    assert_int_equal(put(c, "g", big, 20), MR_NOMEM);
    assert_unchanged(c, 20);
    /* One allocation is all it may need: it is made before the first leaves. */
    mr_alloc_left = 1;
    assert_int_equal(put(c, "g", big, 20), MR_OK);
    mr_alloc_left = -1;
    assert_gone(c, "a", "v", MR_EVICTED);
    assert_gone(c, "b", "v", MR_EVICTED);
    assert_gone(c, "c", "v", MR_EVICTED);
    assert_gone(c, "d", "v", MR_EVICTED);
    assert_gone(c, NULL, NULL, 0);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_put_over_what_has_expired_without_memory(void **state) {
    mr_cache *c = full_region(1000);

    (void)state;
    mr_alloc_left = 0;
    assert_int_equal(put(c, "a", "w", 2000), MR_NOMEM);
    assert_unchanged(c, 20);
    assert_int_equal(put(c, "a", "w", 2000), MR_OK);
    assert_gone(c, "a", "v", MR_EXPIRED);
    mr_cache_close(c);
}

static void test_find_without_memory(void **state) {
    mr_cache *c = full_region(1000);
    mr_entry e;

    (void)state;
    mr_alloc_left = 0;
    assert_int_equal(find(c, "a", 20, &e), MR_NOMEM);
    assert_unchanged(c, 20);
    mr_alloc_left = 0;
    assert_int_equal(find(c, "a", 2000, &e), MR_NOMEM); /* has expired */
    assert_unchanged(c, 20);
    assert_int_equal(find(c, "a", 2000, &e), MR_NOT_FOUND);
    assert_gone(c, "a", "v", MR_EXPIRED);
    mr_cache_close(c);
}

static void test_removals_without_memory(void **state) {
    mr_cache *c = full_region(1000);
    uint32_t cursor = 0;
    mr_entry e;

    (void)state;
    find(c, "a", 20, &e);
    mr_alloc_left = 0;
    assert_int_equal(mr_cache_remove(c, "a", 1, MR_DELETED), MR_NOMEM);
    assert_int_equal(mr_cache_remove_ref(c, e.ref, MR_DELETED), MR_NOMEM);
    assert_int_equal(mr_cache_sweep(c, 5000, 100), MR_NOMEM);
    assert_int_equal(mr_cache_clear(c, MR_CLOSED, 100), MR_NOMEM);
    assert_int_equal(mr_cache_remove_unused(c, 5000, &cursor, 9), MR_NOMEM);
    assert_int_equal(cursor, 0);
    assert_unchanged(c, 20);
    /* Coherence comes first: it leaves, though nobody hears of it. */
    mr_alloc_left = 0;
    mr_cache_invalidate(c, "a", 1, MR_VANISHED);
    assert_int_equal(mr_cache_remove(c, "b", 1, MR_GONE_QUIETLY), MR_OK);
    mr_alloc_left = -1;
    assert_value(c, "a", NULL, 20);
    assert_value(c, "b", NULL, 20);
    assert_gone(c, NULL, NULL, 0);
    assert_sound(c);
    mr_cache_close(c);
}

/* Random operations, each of which may fail: what left was handed back, and
 * what was not handed back is there. */
static void test_random_failures(void **state) {
    enum { KEYS = 30 };
    mr_cache *c = open_private(20, 30 * 32, 0);
    rng r = rng_seeded("memory");
    int present[KEYS] = {0};
    char value[90];

    (void)state;
    memset(value, 'v', sizeof value);
    mr_cache_collect(c, 1);
    for (int i = 0; i < 20000; i++) {
        uint32_t k = rng_below(&r, KEYS);
        char key[2] = {(char)('0' + k), '\0'};
        mr_evicted gone;
        int rc;

        mr_alloc_left = rng_below(&r, 3) - 1;
        mr_free(c->gone.bytes); /* so that it has to be allocated */
        memset(&c->gone, 0, sizeof c->gone);
        c->gone_taken = c->gone_filled = 0;
        value[rng_below(&r, 89)] = '\0';
        if (rng_below(&r, 3) > 0) {
            rc = put(c, key, value, i);
            present[k] |= rc == MR_OK;
        } else {
            rc = mr_cache_remove(c, key, 1, MR_DELETED);
        }
        mr_alloc_left = -1;
        if (rc == MR_NOMEM)
            assert_gone(c, NULL, NULL, 0);
        memset(value, 'v', sizeof value);
        while (mr_cache_next_evicted(c, &gone))
            present[gone.key[0] - '0'] = 0;
        for (int j = 0; j < KEYS; j++) {
            mr_entry e;

            key[0] = (char)('0' + j);
            assert_int_equal(mr_cache_find(c, key, 1, i, MR_FIND_PEEK, &e) ==
                                 MR_OK,
                             present[j]);
        }
        assert_sound(c);
    }
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_another_handle_without_memory),
        cmocka_unit_test(test_put_without_memory),
        cmocka_unit_test(test_put_over_what_has_expired_without_memory),
        cmocka_unit_test(test_find_without_memory),
        cmocka_unit_test(test_removals_without_memory),
        cmocka_unit_test(test_random_failures),
    };

    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
