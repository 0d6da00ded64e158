/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * What a repair keeps beside the records themselves, and records that are not
 * whole. Deaths at every point are in test_kill_matrix.c. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { ENTRIES = 40 };

static const char old_value[] = "old";
/* Three cells, so that a chain can be cut anywhere. */
static const char new_value[] =
    "new: 0123456789 0123456789 0123456789 0123456789 0123456789";

static void key_of(int i, char *out) { sprintf(out, "key-%02d", i); }

/* Full to the last slot; key-00 is the least recently used. */
static mr_cache *full_region(void) {
    mr_cache *c = open_private(ENTRIES, 0, 0);
    char key[16];

    for (int i = 0; i < ENTRIES; i++) {
        mr_put p;

        key_of(i, key);
        p = put_of(key, old_value, 100 + i);
        p.expires_at = 1000 + i;
        assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    }
    return c;
}

static int die_in_a_swap(void *arg) {
    mr_fault_at = MR_FAULT_COMMITTED;
    return put(arg, "key-20", new_value, 200);
}

static void test_the_order_of_use_survives(void **state) {
    mr_cache *c = full_region();
    char key[16];
    mr_entry e;

    (void)state;
    assert_int_equal(find(c, "key-00", 150, &e), MR_OK);
    assert_int_equal(wait_child(run_child(die_in_a_swap, c)), -SIGKILL);
    mr_cache_collect(c, 1);
    for (int i = 1; i < 10; i++) {
        char fresh[16];

        sprintf(fresh, "fresh-%d", i);
        put(c, fresh, "v", 300);
        key_of(i, key);
        assert_gone(c, key, old_value, MR_EVICTED);
    }
    mr_cache_close(c);
}

static int lock_and_die(void *arg) {
    mr_cache_lock(arg);
    raise(SIGKILL);
    return 0;
}

/* A chain that leads nowhere costs its entry, and no other. */
static void test_broken_records_are_dropped(void **state) {
    mr_cache *c = full_region();
    uint32_t shared = c->slots[5].first;

    (void)state;
    c->slots[3].first = 0;
    c->slots[4].first = 4000000;
    c->slots[6].first = shared; /* two entries, one cell */
    c->slots[7].value_len = 60; /* longer than its chain */
    c->cells[c->slots[8].first - 1].next = c->slots[8].first; /* a loop */
    assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
    assert_sound(c);
    assert_true(stats_of(c).entries == ENTRIES - 5);
    assert_true(stats_of(c).repairs == 1);
    assert_value(c, "key-02", old_value, 300);
    assert_value(c, "key-09", old_value, 300);
    assert_value(c, "key-05", old_value, 300); /* whose the cell was */
    assert_value(c, "key-06", NULL, 300);
    mr_cache_close(c);
}

/* Nor does damage of the header: no index leads out of the region. */
static void test_a_damaged_header_is_put_right(void **state) {
    const uint64_t journals[] = {1, (uint64_t)1 << 32,
                                 (uint64_t)1 << 32 | UINT32_MAX,
                                 (uint64_t)UINT32_MAX << 32 | 1};
    mr_cache *c = full_region();

    (void)state;
    for (size_t i = 0; i < sizeof journals / sizeof journals[0]; i++) {
        atomic_store(&c->region->journal, journals[i]);
        assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
        assert_sound(c);
        assert_true(stats_of(c).entries == ENTRIES);
    }
    c->region->slot_high = c->slot_count + 1;
    c->region->cell_high = c->region->geometry.cell_count + 1;
    assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
    assert_sound(c);
    assert_true(stats_of(c).entries == ENTRIES);
    mr_cache_close(c);
}

static void test_impossible_records_are_dropped(void **state) {
    mr_cache *c = full_region();

    (void)state;
    c->slots[3].key_len_low = 0;
    c->slots[4].value_len = 0xffffff;
    c->slots[5].tag_high = 255;
    assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
    assert_sound(c);
    assert_true(stats_of(c).entries == ENTRIES - 3);
    assert_value(c, "key-02", old_value, 300);
    mr_cache_close(c);
}

/* Of more live slots than there may be entries some are dropped, and of more
 * cells than there may be. */
static void test_no_more_is_kept_than_there_may_be(void **state) {
    mr_cache *c = full_region();
    mr_geometry *g = &c->region->geometry;
    mr_geometry was = *g;

    (void)state;
    g->max_entries = ENTRIES - 1;
    g->usable_cells = ENTRIES - 2;
    assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
    assert_int_equal(mr_cache_lock(c), MR_OK);
    mr_cache_unlock(c);
    assert_int_equal(atomic_load(&c->region->entries), ENTRIES - 2);
    g->usable_cells = was.usable_cells;
    assert_int_equal(put(c, "another", "v", 400), MR_OK);
    g->max_entries = ENTRIES - 2;
    assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
    assert_int_equal(mr_cache_lock(c), MR_OK);
    mr_cache_unlock(c);
    assert_int_equal(atomic_load(&c->region->entries), ENTRIES - 2);
    *g = was;
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_slot_that_is_used_up_stays_so(void **state) {
    mr_cache *c = full_region();

    (void)state;
    mr_cache_remove(c, "key-07", 6, MR_DELETED);
    atomic_store(&c->slots[7].generation, MR_LAST_GENERATION);
    assert_int_equal(wait_child(run_child(lock_and_die, c)), -SIGKILL);
    assert_sound(c);
    for (int i = 0; i < 5; i++)
        assert_int_equal(put(c, "key-07", "v", 400 + i), MR_OK);
    assert_false(mr_slot_live(&c->slots[7]));
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_order_of_use_survives),
        cmocka_unit_test(test_broken_records_are_dropped),
        cmocka_unit_test(test_a_damaged_header_is_put_right),
        cmocka_unit_test(test_impossible_records_are_dropped),
        cmocka_unit_test(test_no_more_is_kept_than_there_may_be),
        cmocka_unit_test(test_a_slot_that_is_used_up_stays_so),
    };

    return cmocka_run_group_tests_name("repair", tests, NULL, NULL);
}
