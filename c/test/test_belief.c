/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * What makes an entry a hit: lease, epoch, mark; and what lets a result of a
 * remote command in: the token. */
#include "support.h"

#include <stdio.h>
#include <string.h>

static void test_hits_require_the_lease(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double ref = put_ref(c, "a", "one", 1);
    mr_entry e;

    (void)state;
    mr_cache_set_lease(c, 100);
    assert_true(mr_cache_lease(c) == 100);
    assert_true(mr_hit(c, ref, 99.9) >= 0);
    assert_int_equal(mr_hit(c, ref, 100), -1);
    /* It is still there for who serves stale, but nobody vouches for it. */
    assert_int_equal(find(c, "a", 100, &e), MR_OK);
    assert_int_equal(e.believed, 0);
    mr_cache_set_lease(c, 200);
    assert_true(mr_hit(c, ref, 100) >= 0);
    mr_cache_set_lease(c, 0);
    assert_int_equal(mr_hit(c, ref, 100), -1);
    mr_cache_close(c);
}

static void test_hits_require_the_epoch(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double ref = put_ref(c, "a", "one", 1);
    uint32_t epoch = mr_cache_epoch(c);
    mr_entry e;

    (void)state;
    assert_int_equal(mr_cache_bump_epoch(c), epoch + 1);
    assert_int_equal(mr_cache_epoch(c), epoch + 1);
    assert_int_equal(mr_hit(c, ref, 2), -1);
    assert_int_equal(find(c, "a", 2, &e), MR_OK);
    assert_int_equal(e.believed, 0);
    ref = put_ref(c, "a", "one", 3);
    assert_true(mr_hit(c, ref, 4) >= 0);
    assert_int_equal(find(c, "a", 4, &e), MR_OK);
    assert_int_equal(e.believed, 1);
    mr_cache_close(c);
}

static void test_hits_require_the_mark(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_put p = put_of("a", "one", 1);
    double ref;

    (void)state;
    p.fresh_until = 50;
    p.expires_at = 80;
    assert_int_equal(mr_cache_put(c, &p, &ref), MR_OK);
    assert_true(mr_hit(c, ref, 49.5) >= 0);
    assert_int_equal(mr_hit(c, ref, 50), -1);
    assert_int_equal(mr_cache_renew(c, ref, 60, 80), MR_OK);
    assert_true(mr_hit(c, ref, 59) >= 0);
    /* A hit is never an entry that has expired, whatever the mark says. */
    assert_int_equal(mr_cache_renew(c, ref, MR_NEVER, 70), MR_OK);
    assert_true(mr_hit(c, ref, 69) >= 0);
    assert_int_equal(mr_hit(c, ref, 70), -1);
    mr_cache_close(c);
}

static void test_any_change_ends_a_ref(void **state) {
    mr_cache *c = open_private(2, 0, 0);
    double a = put_ref(c, "a", "one", 1), b = put_ref(c, "b", "one", 1);

    (void)state;
    put(c, "a", "two", 2);
    assert_int_equal(mr_hit(c, a, 3), -1);
    assert_true(mr_hit(c, b, 3) >= 0);
    mr_cache_remove(c, "b", 1, MR_DELETED);
    assert_int_equal(mr_hit(c, b, 3), -1);
    a = put_ref(c, "a", "three", 4);
    put(c, "c", "1", 5);
    put(c, "d", "1", 5);
    assert_int_equal(mr_hit(c, a, 6), -1);
    mr_cache_close(c);
}

static void test_one_claims_a_stale_mark(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_put p = put_of("a", "one", 1);
    double ref;

    (void)state;
    p.fresh_until = 50;
    p.expires_at = 100;
    assert_int_equal(mr_cache_put(c, &p, &ref), MR_OK);
    assert_int_equal(mr_cache_claim(c, ref, 49, 60), MR_CHANGED);
    assert_int_equal(mr_cache_claim(c, ref, 50, 60), MR_OK);
    assert_int_equal(mr_cache_claim(c, ref, 50, 60), MR_CHANGED);
    assert_true(mr_hit(c, ref, 59) >= 0);
    assert_int_equal(mr_cache_claim(c, ref, 60, 1000), MR_OK);
    assert_int_equal(mr_hit(c, ref, 100), -1); /* expired */
    put(c, "a", "two", 61);
    assert_int_equal(mr_cache_claim(c, ref, 70, 80), MR_CHANGED);
    mr_cache_close(c);
}

static int put_token(mr_cache *c, const char *value, const mr_token *t,
                     uint32_t flags) {
    mr_put p = put_of("k", value, 5);

    p.token = *t;
    p.flags = flags | MR_PUT_TOKEN;
    return mr_cache_put(c, &p, NULL);
}

static mr_token token_of(mr_cache *c) {
    mr_token t;

    mr_cache_token(c, "k", 1, &t);
    assert_true(mr_cache_token_valid(c, "k", 1, &t));
    return t;
}

static void test_a_token_lets_a_fill_in(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_token t = token_of(c);

    (void)state;
    assert_int_equal(put_token(c, "one", &t, 0), MR_OK);
    /* A fill is no change: another one of the same time may follow. */
    assert_int_equal(put_token(c, "two", &t, 0), MR_OK);
    assert_value(c, "k", "two", 6);
    mr_cache_close(c);
}

static void test_what_ends_a_token(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_put p = put_of("k", "new", 5);
    mr_token t;

    (void)state;
    t = token_of(c);
    mr_cache_bump(c, "k", 1);
    assert_false(mr_cache_token_valid(c, "k", 1, &t));
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);

    t = token_of(c);
    mr_cache_bump_epoch(c);
    assert_false(mr_cache_token_valid(c, "k", 1, &t));
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);

    t = token_of(c);
    assert_int_equal(mr_cache_remove(c, "k", 1, MR_DELETED), MR_NOT_FOUND);
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);

    t = token_of(c);
    mr_cache_invalidate(c, "k", 1, MR_GONE_QUIETLY);
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);

    t = token_of(c);
    p.flags = MR_PUT_BUMP;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);

    t = token_of(c);
    p.flags = MR_PUT_BUMP | MR_PUT_ABSENT; /* a change though it is refused */
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_EXISTS);
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);

    t = token_of(c);
    p.flags = MR_PUT_BUMP;
    p.value_len = 70000;
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_TOO_LARGE);
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);
    assert_value(c, "k", "new", 6);
    mr_cache_close(c);
}

static void test_of_two_writers_with_a_token_one_wins(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_token t = token_of(c), other;

    (void)state;
    assert_int_equal(put_token(c, "first", &t, MR_PUT_BUMP), MR_OK);
    other = token_of(c);
    assert_int_equal(put_token(c, "second", &t, MR_PUT_BUMP), MR_CHANGED);
    assert_value(c, "k", "first", 6);
    /* The refused one was a change all the same. */
    assert_false(mr_cache_token_valid(c, "k", 1, &other));
    mr_cache_close(c);
}

static void test_a_refused_put_changes_nothing(void **state) {
    mr_cache *c = open_private(1, 0, 0);
    mr_token t = token_of(c);
    double ref = put_ref(c, "other", "x", 1);

    (void)state;
    mr_cache_collect(c, 1);
    mr_cache_bump(c, "k", 1);
    assert_int_equal(put_token(c, "old", &t, 0), MR_CHANGED);
    assert_true(mr_hit(c, ref, 2) >= 0);
    assert_gone(c, NULL, NULL, 0);
    mr_cache_close(c);
}

static void test_a_fill_carries_the_epoch_of_its_token(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    mr_token t = token_of(c);
    mr_entry e;

    (void)state;
    assert_int_equal(put_token(c, "one", &t, 0), MR_OK);
    assert_int_equal(find(c, "k", 6, &e), MR_OK);
    assert_int_equal(e.believed, 1);
    mr_cache_bump_epoch(c);
    assert_int_equal(find(c, "k", 6, &e), MR_OK);
    assert_int_equal(e.believed, 0);
    mr_cache_close(c);
}

static void test_remove_ref_is_for_one_entry(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    double first = put_ref(c, "k", "one", 1), second;
    mr_token t;

    (void)state;
    mr_cache_collect(c, 1);
    second = put_ref(c, "k", "two", 2);
    assert_int_equal(mr_cache_remove_ref(c, first, MR_DELETED), MR_CHANGED);
    assert_value(c, "k", "two", 3);
    t = token_of(c);
    assert_int_equal(mr_cache_remove_ref(c, second, MR_VANISHED), MR_OK);
    assert_false(mr_cache_token_valid(c, "k", 1, &t));
    assert_gone(c, "k", "two", MR_VANISHED);
    assert_value(c, "k", NULL, 3);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits_require_the_lease),
        cmocka_unit_test(test_hits_require_the_epoch),
        cmocka_unit_test(test_hits_require_the_mark),
        cmocka_unit_test(test_any_change_ends_a_ref),
        cmocka_unit_test(test_one_claims_a_stale_mark),
        cmocka_unit_test(test_a_token_lets_a_fill_in),
        cmocka_unit_test(test_what_ends_a_token),
        cmocka_unit_test(test_of_two_writers_with_a_token_one_wins),
        cmocka_unit_test(test_a_refused_put_changes_nothing),
        cmocka_unit_test(test_a_fill_carries_the_epoch_of_its_token),
        cmocka_unit_test(test_remove_ref_is_for_one_entry),
    };

    return cmocka_run_group_tests_name("belief", tests, NULL, NULL);
}
