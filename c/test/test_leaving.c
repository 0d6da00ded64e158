/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * How entries leave: by expiry, by sliding expiry, unused, removed, cleared;
 * what is handed back of them, and what is counted. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double put_expiring(mr_cache *c, const char *key, double now,
                           double expires_at) {
    mr_put p = put_of(key, "v", now);
    double ref = -1;

    p.expires_at = expires_at;
    assert_int_equal(mr_cache_put(c, &p, &ref), MR_OK);
    return ref;
}

static void test_find_removes_what_has_expired(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_entry e;

    (void)state;
    mr_cache_collect(c, 1);
    put_expiring(c, "a", 1, 10.5);
    assert_int_equal(find(c, "a", 10, &e), MR_OK);
    assert_int_equal(find(c, "a", 10.5, &e), MR_NOT_FOUND);
    assert_gone(c, "a", "v", MR_EXPIRED);
    assert_true(stats_of(c).entries == 0 && stats_of(c).expired == 1);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_sweep_removes_in_bounded_steps(void **state) {
    mr_cache *c = open_private(100, 0, 0);
    char key[16];

    (void)state;
    mr_cache_collect(c, 1);
    for (int i = 0; i < 50; i++) {
        sprintf(key, "k%02d", i);
        put_expiring(c, key, 1, 100 - i);
    }
    assert_int_equal(mr_cache_sweep(c, 50, 1000), 0);
    assert_int_equal(mr_cache_sweep(c, 90, 40), 10);
    /* In order of expiry: k49 expires first. */
    assert_gone(c, "k49", "v", MR_EXPIRED);
    assert_gone(c, "k48", "v", MR_EXPIRED);
    assert_int_equal(mr_cache_sweep(c, 90, 1000), 30);
    assert_int_equal(mr_cache_sweep(c, 90, 1000), 0);
    assert_value(c, "k09", "v", 90);
    assert_true(stats_of(c).entries == 10);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_renew_moves_the_expiry_both_ways(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double a = put_expiring(c, "a", 1, 10), b = put_expiring(c, "b", 1, 20);

    (void)state;
    assert_int_equal(mr_cache_renew(c, a, 50, 50), MR_OK);
    assert_int_equal(mr_cache_renew(c, b, 5, 5), MR_OK);
    assert_sound(c);
    assert_int_equal(mr_cache_sweep(c, 20, 100), 1);
    assert_value(c, "a", "v", 20);
    assert_value(c, "b", NULL, 20);
    assert_int_equal(mr_cache_renew(c, b, 90, 90), MR_CHANGED);
    mr_cache_close(c);
}

static void test_a_slide_starts_at_the_last_use(void **state) {
    mr_cache *c = open_private(4, 0, 100);
    double ref = put_expiring(c, "a", 1000, MR_NEVER);
    mr_entry e;

    (void)state;
    assert_int_equal(find(c, "a", 1000, &e), MR_OK);
    assert_true(e.expires_at == 1100 && e.fresh_until == 1100);
    /* A hit moves the expiry, not the mark: that has to be looked at. */
    assert_true(mr_hit(c, ref, 1090) >= 0);
    assert_int_equal(mr_hit(c, ref, 1100), -1);
    assert_int_equal(mr_cache_sweep(c, 1150, 10), 0);
    assert_int_equal(find(c, "a", 1150, &e), MR_OK);
    assert_true(e.expires_at == 1250 && e.fresh_until == 1250);
    assert_true(mr_hit(c, ref, 1249) >= 0);
    assert_int_equal(find(c, "a", 1349, &e), MR_NOT_FOUND);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_peek_is_no_use(void **state) {
    mr_cache *c = open_private(4, 0, 100);
    mr_entry e;

    (void)state;
    put(c, "a", "v", 1000);
    for (int t = 1000; t < 1100; t += 10)
        assert_int_equal(mr_cache_find(c, "a", 1, t, MR_FIND_PEEK, &e), MR_OK);
    assert_true(e.expires_at == 1100);
    assert_int_equal(mr_cache_find(c, "a", 1, 1100, MR_FIND_PEEK, &e),
                     MR_NOT_FOUND);
    assert_true(stats_of(c).hits == 0 && stats_of(c).misses == 0);
    mr_cache_close(c);
}

static void test_a_slide_ends_at_expires_at(void **state) {
    mr_cache *c = open_private(4, 0, 100);
    double ref = put_expiring(c, "a", 1000, 1150);
    mr_entry e;

    (void)state;
    assert_int_equal(find(c, "a", 1090, &e), MR_OK);
    assert_true(e.expires_at == 1150 && e.fresh_until == 1150);
    assert_true(mr_hit(c, ref, 1149) >= 0);
    assert_int_equal(mr_hit(c, ref, 1150), -1);
    assert_int_equal(mr_cache_sweep(c, 1150, 10), 1);
    mr_cache_close(c);
}

/* Whole and half milliseconds: never dead before the slide is over, and never
 * dead while it is hit. */
static void test_a_slide_makes_no_copy_believed_for_longer(void **state) {
    mr_cache *c = open_private(4, 0, 100);
    mr_put p = put_of("k", "v", 1000);
    mr_entry e;

    (void)state;
    p.fresh_until = 1010;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_int_equal(mr_cache_find(c, "k", 1, 1001, MR_FIND_PEEK, &e), MR_OK);
    assert_true(e.fresh_until == 1010);
    mr_cache_close(c);
}

static void test_a_slide_is_never_cut_short(void **state) {
    mr_cache *c = open_private(4, 0, 100);
    mr_entry e;

    (void)state;
    put(c, "a", "v", 1000.75);
    assert_int_equal(mr_cache_sweep(c, 1100.5, 10), 0);
    assert_int_equal(find(c, "a", 1100.5, &e), MR_OK);
    assert_int_equal(mr_cache_sweep(c, 1200.25, 10), 0);
    assert_true(mr_hit(c, e.ref, 1200.25) >= 0);
    assert_int_equal(mr_cache_sweep(c, 1300.25, 10), 1);
    mr_cache_close(c);
}

static void test_refusing_finds_what_slid_out(void **state) {
    mr_cache *c = open_private(50, 0, 100);
    double refs[50];
    mr_put p;

    (void)state;
    for (int i = 0; i < 50; i++) {
        char key[16];

        sprintf(key, "k%d", i);
        refs[i] = put_ref(c, key, "v", 1000);
    }
    for (int i = 0; i < 49; i++)
        assert_true(mr_hit(c, refs[i], 1099) >= 0);
    p = put_of("new", "v", 1150);
    p.flags = MR_PUT_REFUSE;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_value(c, "k49", NULL, 1150);
    assert_value(c, "k48", "v", 1150);
    p.key = "ne2";
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_FULL);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_remove_unused(void **state) {
    mr_cache *c = open_private(10, 0, 0);
    uint32_t cursor = 0;
    mr_put p = put_of("young", "v", 1000);
    double used;

    (void)state;
    mr_cache_collect(c, 1);
    p.stamp = 900;
    mr_cache_put(c, &p, NULL);
    p.key = "older";
    p.stamp = 100;
    mr_cache_put(c, &p, NULL);
    p.key = "usedd";
    p.stamp = 100;
    mr_cache_put(c, &p, &used);
    mr_hit(c, used, 1500);
    /* The time of the put does not count, the stamp and the uses do. */
    assert_int_equal(mr_cache_remove_unused(c, 900, &cursor, 100), 1);
    assert_int_equal(cursor, 0);
    assert_gone(c, "older", "v", MR_EXPIRED);
    assert_int_equal(mr_cache_remove_unused(c, 1500, &cursor, 100), 1);
    assert_gone(c, "young", "v", MR_EXPIRED);
    assert_int_equal(mr_cache_remove_unused(c, 1501, &cursor, 100), 1);
    assert_gone(c, "usedd", "v", MR_EXPIRED);
    assert_int_equal(mr_cache_remove_unused(c, 1e9, &cursor, 100), 0);
    mr_cache_close(c);
}

/* As of a copy whose original was seen after its last use here. */
static void test_news_after_the_last_use_count(void **state) {
    mr_cache *c = open_private(10, 0, 0);
    uint32_t cursor = 0;
    mr_put p = put_of("k", "v", 1000);
    double ref;

    (void)state;
    p.stamp = 2000;
    mr_cache_put(c, &p, &ref);
    mr_hit(c, ref, 1500);
    assert_int_equal(mr_cache_remove_unused(c, 2000, &cursor, 100), 0);
    assert_int_equal(mr_cache_remove_unused(c, 2001, &cursor, 100), 1);
    mr_cache_close(c);
}

static void test_remove_unused_walks_in_steps(void **state) {
    mr_cache *c = open_private(100, 0, 0);
    uint32_t cursor = 0;
    int removed = 0, calls = 0;
    char key[16];

    (void)state;
    for (int i = 0; i < 100; i++) {
        sprintf(key, "k%d", i);
        put(c, key, "v", i);
    }
    do {
        removed += mr_cache_remove_unused(c, 60, &cursor, 7);
        calls++;
    } while (cursor != 0);
    assert_int_equal(removed, 60);
    assert_int_equal(calls, 15);
    cursor = 4000000000u;
    assert_int_equal(mr_cache_remove_unused(c, 60, &cursor, 7), 0);
    assert_int_equal(cursor, 0);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_clear(void **state) {
    mr_cache *c = open_private(100, 0, 0);
    char key[16];
    mr_evicted gone;
    int handed_back = 0;

    (void)state;
    mr_cache_collect(c, 1);
    for (int i = 0; i < 100; i++) {
        sprintf(key, "k%d", i);
        put(c, key, "v", i);
    }
    assert_int_equal(mr_cache_clear(c, MR_CLOSED, 60), 60);
    assert_sound(c);
    assert_int_equal(mr_cache_clear(c, MR_CLOSED, 60), 40);
    assert_int_equal(mr_cache_clear(c, MR_CLOSED, 60), 0);
    while (mr_cache_next_evicted(c, &gone)) {
        assert_int_equal(gone.reason, MR_CLOSED);
        handed_back++;
    }
    assert_int_equal(handed_back, 100);
    assert_true(stats_of(c).removed == 100 && stats_of(c).bytes_used == 0);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_reasons_and_collecting(void **state) {
    mr_cache *c = open_private(10, 0, 0);

    (void)state;
    put(c, "a", "v", 1);
    mr_cache_remove(c, "a", 1, MR_DELETED);
    assert_gone(c, NULL, NULL, 0); /* off by default */
    mr_cache_collect(c, 1);
    put(c, "a", "v", 1);
    mr_cache_remove(c, "a", 1, MR_GONE_QUIETLY);
    assert_gone(c, NULL, NULL, 0);
    put(c, "a", "v", 1);
    mr_cache_invalidate(c, "a", 1, MR_VANISHED);
    assert_gone(c, "a", "v", MR_VANISHED);
    put(c, "a", "v", 1);
    mr_cache_remove(c, "a", 1, MR_DELETED);
    mr_cache_collect(c, 0);
    assert_gone(c, NULL, NULL, 0);
    mr_cache_close(c);
}

/* Many at once, as a caller that takes them late would see them. */
static void test_the_buffer_of_what_left_grows(void **state) {
    enum { N = 3000 };
    mr_cache *c = open_private(N, 0, 0);
    static int seen[N];
    char key[16], value[200];
    mr_evicted gone;
    int n = 0;

    (void)state;
    mr_cache_collect(c, 1);
    memset(value, 'x', sizeof value);
    value[199] = '\0';
    for (int round = 0; round < 2; round++) {
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < N; i++) {
            sprintf(key, "%d", i);
            put(c, key, value, i);
        }
        while (mr_cache_clear(c, MR_CLOSED, 100) > 0)
            ;
        for (n = 0; mr_cache_next_evicted(c, &gone); n++) {
            sprintf(key, "%.*s", (int)gone.key_len, gone.key);
            assert_int_equal(seen[atoi(key)]++, 0);
            assert_int_equal(gone.value_len, 199);
            assert_memory_equal(gone.value, value, 199);
        }
        assert_int_equal(n, N);
    }
    mr_cache_close(c);
}

/* The buffer of a large record is kept for one as large, and given up for a
 * small one. */
static void test_a_large_buffer_is_not_kept_for_ever(void **state) {
    enum { LARGE = 300 * 1024 };
    mr_cache_options o = {.max_entries = 4, .max_value = LARGE};
    mr_cache *c = open_with(&o);
    mr_put p = put_of("k", calloc(1, LARGE), 1);
    mr_evicted gone;

    (void)state;
    mr_cache_collect(c, 1);
    for (int i = 0; i < 3; i++) {
        p.value_len = i < 2 ? LARGE : 1;
        assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
        assert_int_equal(mr_cache_remove(c, "k", 1, MR_DELETED), MR_OK);
        assert_true((c->gone.capacity > LARGE) == (i < 2));
        assert_int_equal(mr_cache_next_evicted(c, &gone), 1);
        assert_int_equal(gone.value_len, p.value_len);
        assert_int_equal(mr_cache_next_evicted(c, &gone), 0);
    }
    free((void *)(uintptr_t)p.value);
    mr_cache_close(c);
}

static void test_counters(void **state) {
    mr_cache *c = open_private(2, 0, 0);
    double ref = put_ref(c, "a", "v", 1);
    mr_entry e;
    mr_stats s;

    (void)state;
    put(c, "b", "v", 1);
    mr_hit(c, ref, 2);
    mr_hit(c, ref, 2);
    find(c, "a", 2, &e);
    find(c, "x", 2, &e);
    put(c, "c", "v", 3); /* evicts b */
    mr_cache_remove(c, "a", 1, MR_DELETED);
    s = stats_of(c);
    assert_true(s.hits == 3 && s.misses == 1 && s.puts == 3);
    assert_true(s.evicted == 1 && s.removed == 1 && s.entries == 1);
    assert_true(s.max_entries == 2 && s.bytes_used == 32 && s.expired == 0);
    assert_true(s.lock_timeouts == 0 && s.repairs == 0 && s.refused == 0);
    assert_true(s.lease == MR_NEVER && s.epoch == 0);
    mr_cache_close(c);
}

/* A slot's generations are used up: it is left alone, spare ones take over,
 * and no ref is ever valid twice. */
static void test_generations_do_not_wrap(void **state) {
    mr_cache *c = open_private(2, 0, 0);
    uint32_t slots = c->slot_count;

    (void)state;
    put(c, "a", "v", 1);
    mr_cache_remove(c, "a", 1, MR_DELETED);
    for (uint32_t i = 0; i < slots; i++) {
        double ref;

        atomic_store(&c->slots[i].generation, MR_LAST_GENERATION - 2);
        ref = put_ref(c, "a", "v", 1);
        assert_true(ref < 9007199254740992.0);
        assert_true(mr_hit(c, ref, 2) >= 0);
        mr_cache_remove(c, "a", 1, MR_DELETED);
        assert_int_equal(mr_hit(c, ref, 2), -1);
        assert_sound(c);
        if (i + 1 < slots) {
            put(c, "b", "v", 1);
            mr_cache_remove(c, "b", 1, MR_DELETED);
        }
    }
    /* The last of them is gone: refused, and not a crash. */
    assert_int_equal(put(c, "a", "v", 2), MR_FULL);
    assert_sound(c);
    mr_cache_close(c);
}

/* Where slots are used up, evicting gives no slot back, and more leave than
 * there is need for elsewhere: all of them are handed back. */
static mr_cache *used_up_region(void) {
    mr_cache *c = open_private(8, 0, 0);
    char key[16];

    mr_cache_collect(c, 1);
    for (uint32_t i = 0; i < c->slot_count; i++)
        atomic_store(&c->slots[i].generation, MR_LAST_GENERATION - 2);
    for (int i = 0; i < 8; i++) {
        sprintf(key, "k%d", i);
        assert_int_equal(put(c, key, "a value that fills a cell", i), MR_OK);
        assert_int_equal(put(c, key, "a value that fills a cell", i), MR_OK);
    }
    return c;
}

static void test_what_leaves_in_vain_is_handed_back(void **state) {
    mr_cache *c = used_up_region();
    char key[16];

    (void)state;
    assert_int_equal(put(c, "b", "v", 10), MR_FULL);
    for (int i = 0; i < 8; i++) {
        sprintf(key, "k%d", i);
        assert_gone(c, key, "a value that fills a cell", MR_EVICTED);
    }
    assert_gone(c, NULL, NULL, 0);
    assert_sound(c);
    mr_cache_close(c);
}

/* A put that found no room in the end has left the record it was to replace
 * where it was in the order of use: not behind all others for ever. */
/* The room for it grows on the way; those for whom there is none stay. */
static void test_what_leaves_in_vain_without_memory(void **state) {
    mr_cache *c = used_up_region();
    mr_evicted gone;
    uint32_t n = 0;

    (void)state;
    mr_alloc_left = 1;
    assert_int_equal(put(c, "b", "v", 10), MR_NOMEM);
    mr_alloc_left = -1;
    while (mr_cache_next_evicted(c, &gone))
        n++;
    assert_true(n > 0 && n < 8);
    assert_true(stats_of(c).entries == 8 - n);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_put_in_vain_leaves_the_order_alone(void **state) {
    mr_cache *c = open_private(2, 0, 0);

    (void)state;
    for (uint32_t i = 0; i < c->slot_count; i++)
        atomic_store(&c->slots[i].generation, MR_LAST_GENERATION - 2);
    for (uint32_t i = 0; i + 1 < c->slot_count; i++)
        assert_int_equal(put(c, "a", "v", 1), MR_OK);
    assert_int_equal(put(c, "b", "v", 2), MR_OK);
    assert_int_equal(put(c, "b", "w", 3), MR_FULL);
    assert_value(c, "b", "v", 4);
    assert_sound(c);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find_removes_what_has_expired),
        cmocka_unit_test(test_sweep_removes_in_bounded_steps),
        cmocka_unit_test(test_renew_moves_the_expiry_both_ways),
        cmocka_unit_test(test_a_slide_starts_at_the_last_use),
        cmocka_unit_test(test_a_peek_is_no_use),
        cmocka_unit_test(test_a_slide_ends_at_expires_at),
        cmocka_unit_test(test_a_slide_makes_no_copy_believed_for_longer),
        cmocka_unit_test(test_a_slide_is_never_cut_short),
        cmocka_unit_test(test_refusing_finds_what_slid_out),
        cmocka_unit_test(test_remove_unused),
        cmocka_unit_test(test_news_after_the_last_use_count),
        cmocka_unit_test(test_remove_unused_walks_in_steps),
        cmocka_unit_test(test_clear),
        cmocka_unit_test(test_reasons_and_collecting),
        cmocka_unit_test(test_the_buffer_of_what_left_grows),
        cmocka_unit_test(test_a_large_buffer_is_not_kept_for_ever),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_generations_do_not_wrap),
        cmocka_unit_test(test_what_leaves_in_vain_is_handed_back),
        cmocka_unit_test(test_what_leaves_in_vain_without_memory),
        cmocka_unit_test(test_a_put_in_vain_leaves_the_order_alone),
    };

    return cmocka_run_group_tests_name("leaving", tests, NULL, NULL);
}
