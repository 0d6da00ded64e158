/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Records: bytes and lengths, room for them, and what is refused. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 32 };

static void test_what_was_put_is_found(void **state) {
    mr_cache *c = open_private(10, 0, 0);
    mr_put p = put_of("a", "one", 100);
    mr_entry e;
    double ref;

    (void)state;
    p.stamp = 90.25;
    p.fresh_until = 200.5;
    p.expires_at = 300.125;
    assert_int_equal(mr_cache_put(c, &p, &ref), MR_OK);
    assert_int_equal(find(c, "a", 150, &e), MR_OK);
    assert_int_equal(e.value_len, 3);
    assert_string_equal(e.value, "one");
    assert_true(e.ref == ref && e.stamp == 90.25);
    assert_true(e.fresh_until == 200.5 && e.expires_at == 300.125);
    assert_int_equal(e.believed, 1);
    assert_int_equal(find(c, "b", 150, &e), MR_NOT_FOUND);
    mr_cache_close(c);
}

static void test_never_comes_back_as_never(void **state) {
    mr_cache *c = open_private(10, 0, 0);
    mr_entry e;

    (void)state;
    assert_true(mr_cache_lease(c) == MR_NEVER);
    put(c, "a", "one", 1);
    assert_int_equal(find(c, "a", 8e12, &e), MR_OK);
    assert_true(e.fresh_until == MR_NEVER && e.expires_at == MR_NEVER);
    assert_true(mr_hit(c, e.ref, 8e12) >= 0);
    mr_cache_close(c);
}

static void test_any_byte_in_a_key(void **state) {
    mr_cache *c = open_private(300, 0, 0);
    char key[3] = "\0\0";

    (void)state;
    for (int i = 0; i < 256; i++) {
        mr_put p = put_of("", "", 1);

        key[1] = (char)i;
        p.key = key;
        p.key_len = sizeof key;
        p.value = &key[1];
        p.value_len = 1;
        assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    }
    for (int i = 0; i < 256; i++) {
        mr_entry e;

        key[1] = (char)i;
        assert_int_equal(mr_cache_find(c, key, 3, 2, 0, &e), MR_OK);
        assert_int_equal((unsigned char)e.value[0], i);
        assert_int_equal(mr_cache_find(c, key, 2, 2, 0, &e), MR_NOT_FOUND);
    }
    assert_sound(c);
    mr_cache_close(c);
}

static void check_lengths(mr_cache *c, uint32_t key_len, uint32_t value_len) {
    static char key[MR_MAX_KEY], value[65536];
    mr_put p = {.key = key,
                .value = value,
                .key_len = key_len,
                .value_len = value_len,
                .now = 1,
                .fresh_until = MR_NEVER,
                .expires_at = MR_NEVER};
    mr_entry e;

    for (uint32_t i = 0; i < key_len; i++)
        key[i] = (char)(i * 3 + key_len);
    for (uint32_t i = 0; i < value_len; i++)
        value[i] = (char)(i * 5 + value_len);
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_int_equal(mr_cache_find(c, key, key_len, 2, 0, &e), MR_OK);
    assert_int_equal(e.value_len, value_len);
    assert_memory_equal(e.value, value, value_len);
    assert_true(stats_of(c).bytes_used ==
                (double)((key_len + value_len + 27) / 28 * CELL));
    assert_int_equal(mr_cache_remove(c, key, key_len, MR_DELETED), MR_OK);
}

static void test_lengths_around_the_cells(void **state) {
    static const uint32_t keys[] = {1,  2,  27, 28, 29,   55,
                                    56, 57, 84, 85, 1000, MR_MAX_KEY};
    static const uint32_t values[] = {0,  1,  2,  27,  28,   29,    54,
                                      55, 56, 57, 140, 4096, 65535, 65536};
    mr_cache *c = open_private(4, 300000, 0);

    (void)state;
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            check_lengths(c, keys[k], values[v]);
            assert_sound(c);
        }
    mr_cache_close(c);
}

static void test_what_is_too_large(void **state) {
    mr_cache_options o = {.fingerprint = "",
                          .max_entries = 4,
                          .max_value = 100,
                          .max_bytes = 10 * CELL};
    mr_cache *c = open_with(&o);
    static char bytes[MR_MAX_KEY + 1];
    mr_put p = put_of("k", "", 1);

    (void)state;
    p.value = bytes;
    p.value_len = 100;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    p.value_len = 101;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_TOO_LARGE);
    p.value_len = 0;
    p.key = bytes;
    p.key_len = 280;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    p.key_len = 281; /* more cells than there are */
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_TOO_LARGE);
    p.key_len = MR_MAX_KEY + 1;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_TOO_LARGE);
    assert_sound(c);
    mr_cache_close(c);
}

static int put_with(mr_cache *c, double now, double stamp, double fresh,
                    double expires) {
    mr_put p = put_of("k", "v", now);

    p.stamp = stamp;
    p.fresh_until = fresh;
    p.expires_at = expires;
    return mr_cache_put(c, &p, NULL);
}

static void test_invalid_arguments(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    const double bad[] = {NAN, -1, INFINITY, -INFINITY, 1e300, 1e13};
    mr_put p = put_of("k", "v", 1);
    mr_entry e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(put_with(c, bad[i], 1, 1, 1), MR_INVALID);
        assert_int_equal(find(c, "k", bad[i], &e), MR_INVALID);
        assert_int_equal(mr_cache_sweep(c, bad[i], 10), MR_INVALID);
    }
    assert_int_equal(put_with(c, 1, NAN, 2, 2), MR_INVALID);
    assert_int_equal(put_with(c, 1, 1, NAN, 2), MR_INVALID);
    assert_int_equal(put_with(c, 1, 1, 2, NAN), MR_INVALID);
    p.key_len = 0;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_INVALID);
    p.key_len = 1;
    p.key = NULL;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_INVALID);
    p = put_of("k", "v", 1);
    p.flags = MR_PUT_ABSENT | MR_PUT_PRESENT;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_INVALID);
    p.flags = 64;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_INVALID);
    p.flags = 0;
    p.value = NULL;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_INVALID);
    p.value_len = 0;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    mr_cache_close(c);
}

static void test_a_key_has_to_be_one(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_entry e;

    (void)state;
    put(c, "k", "v", 1);
    assert_int_equal(mr_cache_find(c, NULL, 1, 1, 0, &e), MR_INVALID);
    assert_int_equal(mr_cache_find(c, "", 0, 1, 0, &e), MR_INVALID);
    assert_int_equal(mr_cache_find(c, "k", 1, 1, 2, &e), MR_INVALID);
    assert_int_equal(mr_cache_remove(c, NULL, 1, MR_DELETED), MR_INVALID);
    assert_int_equal(mr_cache_remove(c, "", 0, MR_DELETED), MR_INVALID);
    mr_cache_invalidate(c, NULL, 1, MR_DELETED);
    mr_cache_invalidate(c, "", 0, MR_DELETED);
    assert_int_equal(mr_cache_doubt(c, NULL, 1), 0);
    assert_int_equal(mr_cache_doubt(c, "", 0), 0);
    assert_true(stats_of(c).entries == 1);
    mr_cache_close(c);
}

static void test_times_out_of_range_are_clamped(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_entry e;

    (void)state;
    assert_int_equal(put_with(c, 1, -INFINITY, -1e300, INFINITY), MR_OK);
    assert_int_equal(find(c, "k", 2, &e), MR_OK);
    assert_true(e.fresh_until == 0 && e.expires_at == MR_NEVER);
    assert_true(isfinite(e.stamp));
    assert_int_equal(mr_cache_renew(c, e.ref, INFINITY, INFINITY), MR_OK);
    assert_true(mr_hit(c, e.ref, 5) >= 0);
    assert_int_equal(mr_cache_renew(c, e.ref, NAN, 1), MR_INVALID);
    assert_int_equal(mr_cache_renew(c, e.ref, 1, NAN), MR_INVALID);
    assert_int_equal(mr_cache_claim(c, e.ref, 1, NAN), MR_INVALID);
    mr_cache_set_lease(c, NAN);
    assert_true(mr_cache_lease(c) == 0);
    mr_cache_set_lease(c, -5);
    assert_int_equal(mr_hit(c, e.ref, 5), -1);
    mr_cache_set_lease(c, INFINITY);
    assert_true(mr_cache_lease(c) == MR_NEVER);
    assert_int_equal(put_with(c, 1, INFINITY, 5, -1), MR_OK);
    assert_int_equal(find(c, "k", 2, &e), MR_NOT_FOUND);
    mr_cache_close(c);
}

static void test_garbage_refs(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double good = put_ref(c, "a", "one", 1);
    const double bad[] = {NAN,
                          -1,
                          INFINITY,
                          -INFINITY,
                          1e300,
                          9.1e15,
                          0,
                          1,
                          good - 1,
                          good + 1,
                          good + 16777216,
                          16777215.,
                          -0.5,
                          2 * 16777216.};
    rng r = rng_seeded("garbage");

    (void)state;
    assert_true(mr_hit(c, good, 2) >= 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(mr_hit(c, bad[i], 2), -1);
        assert_int_equal(mr_cache_renew(c, bad[i], 5, 5), MR_CHANGED);
        assert_int_equal(mr_cache_claim(c, bad[i], 2, 5), MR_CHANGED);
        assert_int_equal(mr_cache_remove_ref(c, bad[i], MR_DELETED),
                         MR_CHANGED);
    }
    for (int i = 0; i < 200000; i++) {
        union {
            uint64_t u;
            double d;
        } any = {(uint64_t)rng_below(&r, UINT32_MAX) << 32 |
                 rng_below(&r, UINT32_MAX)};
        int slot = mr_hit(c, any.d, 2);

        assert_true(slot == -1 || any.d == good);
        assert_int_equal(mr_hit(c, good, any.d) >= 0,
                         any.d >= 0 && any.d < 8796093022208.0);
    }
    assert_sound(c);
    mr_cache_close(c);
}

static void test_absent_and_present(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_put p = put_of("k", "one", 1);

    (void)state;
    p.flags = MR_PUT_PRESENT;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_NOT_FOUND);
    p.flags = MR_PUT_ABSENT;
    p.expires_at = 10;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    p.value = "two";
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_EXISTS);
    p.flags = MR_PUT_PRESENT;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_value(c, "k", "two", 2);
    /* Past its expiry it is not there for either. */
    mr_cache_collect(c, 1);
    p.now = 10;
    p.expires_at = 20;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_NOT_FOUND);
    assert_gone(c, "k", "two", MR_EXPIRED);
    p.flags = MR_PUT_ABSENT;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    mr_cache_close(c);
}

static void test_overwriting_is_no_eviction(void **state) {
    mr_cache *c = open_private(2, 0, 0);
    double first, second;

    (void)state;
    mr_cache_collect(c, 1);
    put(c, "other", "x", 1);
    first = put_ref(c, "k", "one", 1);
    second = put_ref(c, "k", "two", 2);
    assert_int_equal(mr_hit(c, first, 3), -1);
    assert_true(mr_hit(c, second, 3) >= 0);
    assert_value(c, "other", "x", 3);
    assert_gone(c, NULL, NULL, 0);
    assert_sound(c);
    mr_cache_close(c);
}

/* 10 cells: what is put last always fits, the oldest make room. */
static void test_eviction_for_space(void **state) {
    mr_cache *c = open_private(100, 10 * CELL, 0);
    char big[200];

    (void)state;
    memset(big, 'x', sizeof big);
    big[139] = '\0'; /* with its key of 1: 5 cells */
    mr_cache_collect(c, 1);
    put(c, "a", big, 1);
    put(c, "b", big, 2);
    assert_true(stats_of(c).bytes_used == 10 * CELL);
    put(c, "c", "small", 3);
    assert_gone(c, "a", big, MR_EVICTED);
    /* An old record of the same key is not counted against the new one. */
    put(c, "b", big, 4);
    assert_gone(c, NULL, NULL, 0);
    assert_true(stats_of(c).evicted_for_space == 1);
    assert_true(stats_of(c).evicted == 0);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_growing_in_a_full_region_spares_its_own_key(void **state) {
    mr_cache *c = open_private(100, 10 * CELL, 0);
    char big[280];

    (void)state;
    memset(big, 'x', sizeof big);
    big[279] = '\0'; /* with its key of 1: all 10 cells */
    mr_cache_collect(c, 1);
    put(c, "k", "oldest", 1);
    put(c, "a", "1", 2);
    put(c, "b", "2", 3);
    put(c, "k", big, 4);
    assert_gone(c, "a", "1", MR_EVICTED);
    assert_gone(c, "b", "2", MR_EVICTED);
    assert_gone(c, NULL, NULL, 0);
    put(c, "k", big, 5);
    assert_gone(c, NULL, NULL, 0);
    assert_value(c, "k", big, 6);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_refuse(void **state) {
    mr_cache *c = open_private(2, 10 * CELL, 0);
    mr_put p = put_of("a", "1", 1);

    (void)state;
    p.flags = MR_PUT_REFUSE;
    p.expires_at = 10;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    p.key = "b";
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    p.key = "c";
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_FULL);
    assert_true(stats_of(c).refused == 1 && stats_of(c).entries == 2);
    /* A full store can still be updated, ... */
    p.key = "b";
    p.value = "2";
    p.expires_at = 20;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    /* ... and what has expired makes room. */
    mr_cache_collect(c, 1);
    p.key = "c";
    p.now = 10;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_gone(c, "a", "1", MR_EXPIRED);
    assert_value(c, "b", "2", 10);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_refuse_for_cells(void **state) {
    mr_cache *c = open_private(100, 10 * CELL, 0);
    char big[280];
    mr_put p;

    (void)state;
    memset(big, 'x', sizeof big);
    big[251] = '\0'; /* 9 cells */
    p = put_of("k", big, 1);
    p.flags = MR_PUT_REFUSE;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK); /* overwrites */
    p.key = "l";
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_FULL);
    assert_value(c, "k", big, 2);
    assert_sound(c);
    mr_cache_close(c);
}

/* Random sizes in few cells: every put succeeds, what is found is what was put
 * last, and what went was handed back once. */
static void test_random_sizes_in_few_cells(void **state) {
    enum { KEYS = 40, MAX = 600 };
    mr_cache *c = open_private(25, 60 * CELL, 0);
    rng r = rng_seeded("sizes");
    char values[KEYS][MAX + 1];
    int present[KEYS] = {0};

    (void)state;
    mr_cache_collect(c, 1);
    for (int i = 0; i < 30000; i++) {
        uint32_t k = rng_below(&r, KEYS), len = rng_below(&r, MAX);
        char key[2] = {(char)('0' + k), '\0'};
        mr_evicted gone;

        memset(values[k], 'a' + i % 26, len);
        values[k][len] = '\0';
        assert_int_equal(put(c, key, values[k], 1), MR_OK);
        present[k] = 1;
        while (mr_cache_next_evicted(c, &gone)) {
            k = (uint32_t)(gone.key[0] - '0');
            assert_int_equal(present[k], 1);
            assert_int_equal(gone.value_len, strlen(values[k]));
            present[k] = 0;
        }
        k = rng_below(&r, KEYS);
        key[0] = (char)('0' + k);
        assert_value(c, key, present[k] ? values[k] : NULL, 2);
        assert_true(stats_of(c).bytes_used <= 60 * CELL);
        assert_sound(c);
    }
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_found),
        cmocka_unit_test(test_never_comes_back_as_never),
        cmocka_unit_test(test_any_byte_in_a_key),
        cmocka_unit_test(test_lengths_around_the_cells),
        cmocka_unit_test(test_what_is_too_large),
        cmocka_unit_test(test_invalid_arguments),
        cmocka_unit_test(test_a_key_has_to_be_one),
        cmocka_unit_test(test_times_out_of_range_are_clamped),
        cmocka_unit_test(test_garbage_refs),
        cmocka_unit_test(test_absent_and_present),
        cmocka_unit_test(test_overwriting_is_no_eviction),
        cmocka_unit_test(test_eviction_for_space),
        cmocka_unit_test(test_growing_in_a_full_region_spares_its_own_key),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_refuse_for_cells),
        cmocka_unit_test(test_random_sizes_in_few_cells),
    };

    return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
