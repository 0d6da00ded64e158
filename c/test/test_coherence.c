/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is known of the originals: doubt and flush; and the election of the
 * process that listens for it. */
#include "support.h"

#include <stdio.h>
#include <string.h>

enum { PATIENCE = 100 };

static int is_dead(mr_cache *c, const char *key) {
    mr_entry e;

    assert_int_equal(find(c, key, 2, &e), MR_OK);
    return e.dead != 0;
}

static void test_a_doubted_entry_stays_but_is_no_hit(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double ref = put_ref(c, "k", "v", 1), other = put_ref(c, "o", "v", 1);
    mr_token t;

    (void)state;
    mr_cache_token(c, "k", 1, &t);
    assert_false(is_dead(c, "k"));
    assert_int_equal(mr_cache_doubt(c, "k", 1), 1);
    assert_int_equal(mr_cache_doubt(c, "x", 1), 0);
    assert_int_equal(mr_cache_doubt(c, "", 0), 0);
    assert_true(is_dead(c, "k"));
    assert_int_equal(mr_hit(c, ref, 2), -1);
    assert_false(mr_cache_token_valid(c, "k", 1, &t));
    assert_false(is_dead(c, "o"));
    assert_true(mr_hit(c, other, 2) >= 0);
    put(c, "k", "new", 2);
    assert_false(is_dead(c, "k"));
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_flush_is_the_end_of_all_there_is(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double ref = put_ref(c, "k", "v", 1);
    uint32_t epoch = mr_cache_epoch(c);

    (void)state;
    mr_cache_bump_epoch(c);
    assert_false(is_dead(c, "k")); /* not verified, and no more than that */
    mr_cache_flush(c);
    assert_int_equal(mr_cache_epoch(c), epoch + 2);
    assert_true(is_dead(c, "k"));
    assert_int_equal(mr_hit(c, ref, 2), -1);
    ref = put_ref(c, "k", "v", 2);
    assert_false(is_dead(c, "k"));
    assert_true(mr_hit(c, ref, 2) >= 0);
    mr_cache_close(c);
}

static void test_the_dead_stay_dead_when_carried_over(void **state) {
    mr_cache_options o = {.name = "dead",
                          .name_len = 4,
                          .fingerprint = "",
                          .max_entries = 10,
                          .max_value = 100,
                          .carry_over = 1};
    mr_cache *c = open_with(&o);

    (void)state;
    put(c, "k", "v", 1);
    mr_cache_flush(c);
    mr_cache_close(c);
    o.max_entries = 20;
    c = open_with(&o);
    assert_true(is_dead(c, "k"));
    mr_cache_close(c);
}

static void test_each_region_has_its_instance(void **state) {
    mr_cache *a = open_private(4, 0, 0), *b = open_private(4, 0, 0);
    char one[17], again[17], two[17];

    (void)state;
    mr_cache_instance(a, one);
    mr_cache_instance(a, again);
    mr_cache_instance(b, two);
    assert_string_equal(one, again);
    assert_string_not_equal(one, two);
    assert_int_equal(strspn(one, "0123456789abcdef"), 16);
    mr_cache_close(a);
    mr_cache_close(b);
}

static void test_one_owner_while_it_beats(void **state) {
    mr_cache *c = open_private(4, 0, 0);

    (void)state;
    assert_int_equal(mr_listener_claim(c, 1, 1000, PATIENCE), 1);
    assert_int_equal(mr_listener_claim(c, 1, 1000, PATIENCE), 1);
    assert_int_equal(mr_listener_claim(c, 2, 1050, PATIENCE), 0);
    assert_int_equal(mr_listener_beat(c, 1, 1090), 1);
    assert_int_equal(mr_listener_beat(c, 2, 1090), 0);
    assert_int_equal(mr_listener_claim(c, 2, 1180, PATIENCE), 0);
    /* Silent for too long: another one takes over, and it knows. */
    assert_int_equal(mr_listener_claim(c, 2, 1190, PATIENCE), 1);
    assert_int_equal(mr_listener_is_owner(c, 1), 0);
    assert_int_equal(mr_listener_is_owner(c, 2), 1);
    assert_int_equal(mr_listener_beat(c, 1, 1191), 0);
    assert_int_equal(mr_listener_claim(c, 3, 1289, PATIENCE), 0);
    mr_listener_resign(c, 2);
    assert_int_equal(mr_listener_claim(c, 3, 1289, PATIENCE), 1);
    mr_cache_close(c);
}

static void test_handing_over_to_one_that_listens(void **state) {
    mr_cache *c = open_private(4, 0, 0);

    (void)state;
    assert_int_equal(mr_listener_claim(c, 1, 1000, PATIENCE), 1);
    assert_int_equal(mr_listener_succeed(c, 2), 0); /* nobody is leaving */
    assert_int_equal(mr_listener_leave(c, 2), 0);
    assert_int_equal(mr_listener_leave(c, 1), 1);
    assert_int_equal(mr_listener_succeed(c, 1), 0);
    assert_int_equal(mr_listener_succeed(c, 2), 1);
    assert_int_equal(mr_listener_succeed(c, 3), 0);
    assert_int_equal(mr_listener_ready(c, 3), 0);
    assert_int_equal(mr_listener_has_successor(c, 1), 0);
    assert_int_equal(mr_listener_grant(c, 1, 1001), 0);
    assert_int_equal(mr_listener_ready(c, 2), 1);
    assert_int_equal(mr_listener_has_successor(c, 1), 1);
    assert_int_equal(mr_listener_has_successor(c, 2), 0);
    assert_int_equal(mr_listener_grant(c, 1, 1002), 1);
    assert_int_equal(mr_listener_is_owner(c, 2), 1);
    assert_int_equal(mr_listener_claim(c, 1, 1050, PATIENCE), 0);
    mr_cache_close(c);
}

static void test_a_successor_may_give_up(void **state) {
    mr_cache *c = open_private(4, 0, 0);

    (void)state;
    mr_listener_claim(c, 1, 1000, PATIENCE);
    mr_listener_leave(c, 1);
    mr_listener_succeed(c, 2);
    mr_listener_ready(c, 2);
    mr_listener_resign(c, 2);
    assert_int_equal(mr_listener_has_successor(c, 1), 0);
    assert_int_equal(mr_listener_grant(c, 1, 1001), 0);
    assert_int_equal(mr_listener_is_owner(c, 1), 1);
    assert_int_equal(mr_listener_succeed(c, 3), 1);
    assert_int_equal(mr_listener_has_successor(c, 1), 0);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_doubted_entry_stays_but_is_no_hit),
        cmocka_unit_test(test_a_flush_is_the_end_of_all_there_is),
        cmocka_unit_test(test_the_dead_stay_dead_when_carried_over),
        cmocka_unit_test(test_each_region_has_its_instance),
        cmocka_unit_test(test_one_owner_while_it_beats),
        cmocka_unit_test(test_handing_over_to_one_that_listens),
        cmocka_unit_test(test_a_successor_may_give_up),
    };

    return cmocka_run_group_tests_name("coherence", tests, NULL, NULL);
}
