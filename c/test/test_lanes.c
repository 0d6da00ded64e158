/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Uses that several processes note, each in a lane of its own: all of them
 * count, and those of an entry that has left count for no other. */
#include "support.h"

#include <string.h>

typedef struct user {
    mr_cache *c;
    double ref;
    double now;
} user;

/* Hits note uses in a lane once the process has a line; that takes a lock. */
static int hit_in_child(void *arg) {
    const user *u = arg;
    mr_entry e;

    mr_cache_find(u->c, "no such key", 11, u->now, 0, &e);
    return mr_hit(u->c, u->ref, u->now) >= 0 ? 0 : 1;
}

static void use_elsewhere(mr_cache *c, double ref, double now) {
    user u = {c, ref, now};

    assert_int_equal(wait_child(run_child(hit_in_child, &u)), 0);
}

static uint64_t tick_of(mr_cache *c, double ref) {
    uint32_t slot;

    assert_true(mr_ref_live(c, ref, &slot));
    return mr_slot_tick(c, &c->slots[slot]);
}

static void test_uses_in_other_processes_keep_an_entry(void **state) {
    mr_cache *c = open_private(2, 0, 0);
    double a = put_ref(c, "a", "1", 1);
    double b = put_ref(c, "b", "2", 2);

    (void)state;
    use_elsewhere(c, a, 3);
    put(c, "c", "3", 4);
    assert_true(mr_hit(c, a, 5) >= 0);
    assert_int_equal(mr_hit(c, b, 5), -1);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_the_latest_use_counts_whoever_noted_it(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double a = put_ref(c, "a", "1", 1);

    (void)state;
    for (int now = 2; now < 2 + 2 * MR_LANES; now++) {
        use_elsewhere(c, a, now);
        assert_int_equal(tick_of(c, a) / (uint64_t)MR_TICKS_PER_MS, now);
        assert_int_equal(tick_of(c, a) & 1, 1);
    }
    assert_true(mr_hit(c, a, 100) >= 0);
    use_elsewhere(c, a, 50);
    assert_int_equal(tick_of(c, a) / (uint64_t)MR_TICKS_PER_MS, 100);
    mr_cache_close(c);
}

static void test_a_new_entry_in_the_same_slot_is_not_used(void **state) {
    mr_cache *c = open_private(1, 0, 0);
    double a = put_ref(c, "a", "1", 1000), b;
    mr_put p = put_of("b", "2", 6000);
    uint32_t slot, same, cursor = 0;

    (void)state;
    use_elsewhere(c, a, 5000);
    assert_true(mr_ref_split(c, a, &slot, &same));
    assert_int_equal(mr_cache_remove(c, "a", 1, 0), MR_OK);
    p.stamp = 1000;
    assert_int_equal(mr_cache_put(c, &p, &b), MR_OK);
    assert_true(mr_ref_live(c, b, &same));
    assert_int_equal(same, slot);
    assert_int_equal(tick_of(c, b) & 1, 0);
    assert_int_equal(mr_cache_remove_unused(c, 4000, &cursor, 100), 1);
    mr_cache_close(c);
}

static void test_a_use_slides_the_expiry_wherever_it_is_noted(void **state) {
    mr_cache *c = open_private(4, 0, 1000);
    double a = put_ref(c, "a", "1", 1);

    (void)state;
    use_elsewhere(c, a, 900);
    assert_value(c, "a", "1", 1800);
    assert_value(c, "a", NULL, 1900 + 1000);
    mr_cache_close(c);
}

static void
test_large_regions_have_no_lanes_and_note_uses_all_the_same(void **state) {
    mr_cache *c = open_private(MR_LANES_MOST + 1, 0, 0);
    double a = put_ref(c, "a", "1", 1);

    (void)state;
    assert_int_equal(c->region->geometry.lanes, 0);
    use_elsewhere(c, a, 7);
    assert_int_equal(tick_of(c, a) / (uint64_t)MR_TICKS_PER_MS, 7);
    assert_sound(c);
    mr_cache_close(c);
    c = open_private(MR_LANES_MOST, 0, 0);
    assert_int_not_equal(c->region->geometry.lanes, 0);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uses_in_other_processes_keep_an_entry),
        cmocka_unit_test(test_the_latest_use_counts_whoever_noted_it),
        cmocka_unit_test(test_a_new_entry_in_the_same_slot_is_not_used),
        cmocka_unit_test(test_a_use_slides_the_expiry_wherever_it_is_noted),
        cmocka_unit_test(
            test_large_regions_have_no_lanes_and_note_uses_all_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
