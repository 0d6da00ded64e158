/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is known of the originals: doubts, the dead, the server; and which
 * process is the one to listen. */
#include "support.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PATIENCE = 100 }; /* ms */

static mr_cache *open_some(void) { return open_private(8, 0, 0); }

static mr_cache *open_named(const char *name) {
    mr_cache_options o = {.name = name,
                          .name_len = (uint32_t)strlen(name),
                          .fingerprint = "",
                          .max_entries = 8,
                          .max_value = 100};

    return open_with(&o);
}

static mr_entry entry_of(mr_cache *c, const char *key) {
    mr_entry e;

    assert_int_equal(find(c, key, 5, &e), MR_OK);
    return e;
}

/* ----------------------------------------------------------- doubts --- */

static void test_a_doubted_entry_is_kept_but_no_hit(void **state) {
    mr_cache *c = open_some();
    double ref = put_ref(c, "k", "v", 1);
    double other = put_ref(c, "other", "v", 1);
    mr_entry e;

    (void)state;
    assert_int_equal(entry_of(c, "k").dead, 0);
    assert_int_equal(mr_cache_doubt(c, "k", 1), 1);
    assert_int_equal(mr_hit(c, ref, 2), -1);
    e = entry_of(c, "k");
    assert_int_equal(e.believed, 0);
    assert_int_equal(e.dead, 1);
    assert_value(c, "k", "v", 3);
    assert_true(mr_hit(c, other, 2) >= 0);
    assert_int_equal(entry_of(c, "other").dead, 0);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_doubt_ends_tokens_also_of_what_is_not_here(void **state) {
    mr_cache *c = open_some();
    mr_put p = put_of("k", "old", 1);

    (void)state;
    mr_cache_token(c, "k", 1, &p.token);
    p.flags = MR_PUT_TOKEN;
    assert_int_equal(mr_cache_doubt(c, "k", 1), 0);
    assert_int_equal(mr_cache_put(c, &p, NULL), MR_CHANGED);
    assert_value(c, "k", NULL, 2);
    assert_int_equal(mr_cache_doubt(c, NULL, 1), 0);
    assert_int_equal(mr_cache_doubt(c, "k", 0), 0);
    mr_cache_close(c);
}

static void test_a_fill_after_the_doubt_is_believed(void **state) {
    mr_cache *c = open_some();
    double ref;

    (void)state;
    put(c, "k", "old", 1);
    mr_cache_doubt(c, "k", 1);
    ref = put_ref(c, "k", "new", 2);
    assert_true(mr_hit(c, ref, 3) >= 0);
    assert_int_equal(entry_of(c, "k").dead, 0);
    mr_cache_close(c);
}

static void test_a_doubt_outlasts_epochs_and_flushes(void **state) {
    mr_cache *c = open_some();

    (void)state;
    put(c, "k", "v", 1);
    mr_cache_doubt(c, "k", 1);
    for (int i = 0; i < 5; i++) {
        mr_cache_bump_epoch(c);
        assert_int_equal(entry_of(c, "k").believed, 0);
        assert_int_equal(entry_of(c, "k").dead, 1);
        mr_cache_flush(c);
        assert_int_equal(entry_of(c, "k").believed, 0);
        assert_int_equal(entry_of(c, "k").dead, 1);
    }
    mr_cache_close(c);
}

static void test_a_doubted_entry_leaves_with_its_record(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_cache_collect(c, 1);
    put(c, "k", "v", 1);
    mr_cache_doubt(c, "k", 1);
    assert_gone(c, NULL, NULL, 0);
    mr_cache_remove_ref(c, entry_of(c, "k").ref, MR_VANISHED);
    assert_gone(c, "k", "v", MR_VANISHED);
    mr_cache_close(c);
}

/* Nobody must go on believing because somebody else has the lock. */
static void test_a_doubt_without_the_lock_is_an_epoch(void **state) {
    mr_cache *c = open_some();
    double ref = put_ref(c, "k", "v", 1);
    uint32_t epoch = mr_cache_epoch(c);

    (void)state;
    assert_int_equal(mr_cache_lock(c), MR_OK);
    assert_int_equal(mr_cache_doubt(c, "k", 1), 0);
    mr_cache_unlock(c);
    assert_int_equal(mr_cache_epoch(c), epoch + 1);
    assert_int_equal(mr_hit(c, ref, 2), -1);
    mr_cache_close(c);
}

static void test_a_flush_kills_what_was_filled_before_it(void **state) {
    mr_cache *c = open_some();
    double ref = put_ref(c, "k", "v", 1);

    (void)state;
    mr_cache_bump_epoch(c);
    assert_int_equal(entry_of(c, "k").believed, 0);
    assert_int_equal(entry_of(c, "k").dead, 0);
    mr_cache_flush(c);
    assert_int_equal(mr_hit(c, ref, 2), -1);
    assert_int_equal(entry_of(c, "k").dead, 1);
    ref = put_ref(c, "k", "v", 3);
    assert_true(mr_hit(c, ref, 4) >= 0);
    assert_int_equal(entry_of(c, "k").dead, 0);
    mr_cache_close(c);
}

static void test_another_server_is_another_epoch_without_lease(void **state) {
    mr_cache *c = open_some();
    uint32_t epoch = mr_cache_epoch(c);

    (void)state;
    mr_cache_set_lease(c, 100);
    assert_true(mr_cache_server(c) == 0);
    assert_int_equal(mr_cache_set_server(c, 7), 0); /* the first to be known */
    assert_int_equal(mr_cache_set_server(c, 7), 0);
    assert_true(mr_cache_lease(c) == 100);
    assert_int_equal(mr_cache_epoch(c), epoch);
    assert_int_equal(mr_cache_set_server(c, 281474976710655.0), 1);
    assert_true(mr_cache_server(c) == 281474976710655.0);
    assert_true(mr_cache_lease(c) == 0);
    assert_true(mr_cache_epoch(c) > epoch);
    mr_cache_close(c);
}

static void test_each_region_is_an_instance_of_its_own(void **state) {
    mr_cache *c = open_some(), *d = open_named("an instance");
    mr_cache *e = open_named("an instance");
    char one[17], two[17], three[17];

    (void)state;
    mr_cache_instance(c, one);
    mr_cache_instance(d, two);
    mr_cache_instance(e, three);
    assert_int_equal(strspn(one, "0123456789abcdef"), 16);
    assert_int_equal(one[16], '\0');
    assert_string_not_equal(one, two);
    assert_string_equal(two, three);
    mr_cache_close(c);
    mr_cache_close(d);
    mr_cache_close(e);
}

/* --------------------------------------------------------- election --- */

static void test_one_of_two_claims(void **state) {
    mr_cache *c = open_some();

    (void)state;
    assert_int_equal(mr_listener_is_owner(c, 1), 0);
    assert_int_equal(mr_listener_beat(c, 1, 10), 0);
    assert_int_equal(mr_listener_claim(c, 1, 10, PATIENCE), 1);
    assert_int_equal(mr_listener_claim(c, 2, 10, PATIENCE), 0);
    assert_int_equal(mr_listener_claim(c, 1, 10, PATIENCE), 1);
    assert_int_equal(mr_listener_is_owner(c, 1), 1);
    assert_int_equal(mr_listener_is_owner(c, 2), 0);
    mr_cache_close(c);
}

static void test_an_owner_lives_while_it_beats(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    assert_int_equal(mr_listener_claim(c, 2, 109, PATIENCE), 0);
    assert_int_equal(mr_listener_beat(c, 1, 109), 1);
    assert_int_equal(mr_listener_claim(c, 2, 208, PATIENCE), 0);
    assert_int_equal(mr_listener_claim(c, 2, 209, PATIENCE), 1);
    /* The old one finds out the next time it wants to beat. */
    assert_int_equal(mr_listener_beat(c, 1, 210), 0);
    assert_int_equal(mr_listener_leave(c, 1), 0);
    mr_listener_resign(c, 1);
    assert_int_equal(mr_listener_is_owner(c, 2), 1);
    mr_cache_close(c);
}

static void test_a_resigned_owner_is_followed_at_once(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    mr_listener_resign(c, 1);
    assert_int_equal(mr_listener_is_owner(c, 1), 0);
    assert_int_equal(mr_listener_claim(c, 2, 11, PATIENCE), 1);
    mr_cache_close(c);
}

static void test_an_owner_that_leaves_hands_over(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    assert_int_equal(mr_listener_succeed(c, 2), 0); /* nobody leaves */
    assert_int_equal(mr_listener_leave(c, 1), 1);
    assert_int_equal(mr_listener_succeed(c, 1), 0);
    assert_int_equal(mr_listener_succeed(c, 2), 1);
    assert_int_equal(mr_listener_succeed(c, 3), 0); /* there is one */
    assert_int_equal(mr_listener_is_successor(c, 2), 1);
    assert_int_equal(mr_listener_is_successor(c, 3), 0);

    /* Not before it listens. */
    assert_true(mr_listener_ready_successor(c, 1) == 0);
    assert_int_equal(mr_listener_grant(c, 1, 2, 20), 0);
    assert_int_equal(mr_listener_grant(c, 1, 0, 20), 0);
    assert_int_equal(mr_listener_ready(c, 3), 0);
    assert_int_equal(mr_listener_ready(c, 2), 1);
    assert_true(mr_listener_ready_successor(c, 1) == 2);
    assert_true(mr_listener_ready_successor(c, 2) == 0);
    assert_int_equal(mr_listener_grant(c, 1, 2, 20), 1);

    assert_int_equal(mr_listener_is_owner(c, 2), 1);
    assert_int_equal(mr_listener_is_successor(c, 2), 0);
    assert_int_equal(mr_listener_claim(c, 3, 119, PATIENCE), 0);
    assert_int_equal(mr_listener_succeed(c, 3), 0); /* the new one stays */
    mr_listener_resign(c, 1);
    assert_int_equal(mr_listener_is_owner(c, 2), 1);
    mr_cache_close(c);
}

static void test_a_claim_ends_a_hand_over(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    mr_listener_leave(c, 1);
    mr_listener_succeed(c, 2);
    mr_listener_ready(c, 2);
    assert_int_equal(mr_listener_claim(c, 3, 110, PATIENCE), 1);
    assert_int_equal(mr_listener_is_successor(c, 2), 0);
    assert_int_equal(mr_listener_ready(c, 2), 0);
    assert_int_equal(mr_listener_grant(c, 1, 2, 111), 0);
    assert_true(mr_listener_ready_successor(c, 3) == 0);
    assert_int_equal(mr_listener_is_owner(c, 3), 1);
    mr_cache_close(c);
}

static void test_nobody_succeeds_who_has_gone(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    mr_listener_leave(c, 1);
    mr_listener_resign(c, 1);
    assert_int_equal(mr_listener_succeed(c, 2), 0);
    assert_int_equal(mr_listener_claim(c, 2, 11, PATIENCE), 1);
    mr_cache_close(c);
}

static void test_a_successor_that_gives_up_makes_room(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    mr_listener_leave(c, 1);
    mr_listener_succeed(c, 2);
    mr_listener_ready(c, 2);
    mr_listener_resign(c, 2);
    assert_true(mr_listener_ready_successor(c, 1) == 0);
    assert_int_equal(mr_listener_is_owner(c, 1), 1);
    assert_int_equal(mr_listener_succeed(c, 3), 1);
    assert_true(mr_listener_ready_successor(c, 1) == 0); /* not ready */
    mr_cache_close(c);
}

/* The owner has read up to where 2 began to listen, and 3 came after that. */
static void test_no_hand_over_to_another_than_was_read_for(void **state) {
    mr_cache *c = open_some();

    (void)state;
    mr_listener_claim(c, 1, 10, PATIENCE);
    mr_listener_leave(c, 1);
    mr_listener_succeed(c, 2);
    mr_listener_ready(c, 2);
    double seen = mr_listener_ready_successor(c, 1);
    mr_listener_resign(c, 2);
    mr_listener_succeed(c, 3);
    mr_listener_ready(c, 3);
    assert_int_equal(mr_listener_grant(c, 1, seen, 20), 0);
    assert_int_equal(mr_listener_is_owner(c, 1), 1);
    mr_cache_close(c);
}

/* What children that claim at the same moment share. */
typedef struct race {
    mr_cache *c;
    _Atomic int go;
    _Atomic int winners;
} race;

static int claim_in_child(void *arg) {
    race *r = arg;

    while (atomic_load(&r->go) == 0)
        ;
    if (mr_listener_claim(r->c, getpid(), 1000, PATIENCE))
        atomic_fetch_add(&r->winners, 1);
    return 0;
}

static void run_race(race *r) {
    int pids[4];

    atomic_store(&r->go, 0);
    atomic_store(&r->winners, 0);
    for (int i = 0; i < 4; i++)
        pids[i] = run_child(claim_in_child, r);
    atomic_store(&r->go, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(wait_child(pids[i]), 0);
    assert_int_equal(atomic_load(&r->winners), 1);
}

static void test_of_many_that_claim_at_once_one_wins(void **state) {
    race *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE,
                   /* cppcheck-suppress invalidFunctionArg ; -1: no file */
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_true(r != MAP_FAILED);
    r->c = open_some();
    for (int round = 0; round < 25; round++) {
        run_race(r);
        /* Next time they follow a dead one, or nobody. */
        assert_int_equal(mr_listener_claim(r->c, 1, 5000, PATIENCE), 1);
        if (round % 2 == 0)
            mr_listener_beat(r->c, 1, 0);
        else
            mr_listener_resign(r->c, 1);
    }
    mr_cache_close(r->c);
    munmap(r, sizeof *r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_doubted_entry_is_kept_but_no_hit),
        cmocka_unit_test(test_a_doubt_ends_tokens_also_of_what_is_not_here),
        cmocka_unit_test(test_a_fill_after_the_doubt_is_believed),
        cmocka_unit_test(test_a_doubt_outlasts_epochs_and_flushes),
        cmocka_unit_test(test_a_doubted_entry_leaves_with_its_record),
        cmocka_unit_test(test_a_doubt_without_the_lock_is_an_epoch),
        cmocka_unit_test(test_a_flush_kills_what_was_filled_before_it),
        cmocka_unit_test(test_another_server_is_another_epoch_without_lease),
        cmocka_unit_test(test_each_region_is_an_instance_of_its_own),
        cmocka_unit_test(test_one_of_two_claims),
        cmocka_unit_test(test_an_owner_lives_while_it_beats),
        cmocka_unit_test(test_a_resigned_owner_is_followed_at_once),
        cmocka_unit_test(test_an_owner_that_leaves_hands_over),
        cmocka_unit_test(test_a_claim_ends_a_hand_over),
        cmocka_unit_test(test_nobody_succeeds_who_has_gone),
        cmocka_unit_test(test_a_successor_that_gives_up_makes_room),
        cmocka_unit_test(test_no_hand_over_to_another_than_was_read_for),
        cmocka_unit_test(test_of_many_that_claim_at_once_one_wins),
    };

    return cmocka_run_group_tests_name("coherence", tests, NULL, NULL);
}
