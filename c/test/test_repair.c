/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * A process dies at any point of a change, or while it repairs after another
 * one; the next owner of the lock finds everything in order, with the old
 * record or the new one. */
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

typedef struct death {
    mr_cache *c;
    int point;
    const char *what; /* the operation, for a failure */
    int (*operation)(mr_cache *c);
    int touched; /* the key it changes or adds; others have to stay */
    int evicts;  /* the key that may leave, or -1 */
} death;

static int overwrite(mr_cache *c) { return put(c, "key-20", new_value, 200); }
static int add(mr_cache *c) { return put(c, "key-90", new_value, 200); }
static int delete_one(mr_cache *c) {
    return mr_cache_remove(c, "key-20", 6, MR_DELETED);
}
static int expire_one(mr_cache *c) { return mr_cache_sweep(c, 1000, 1); }

static int die(void *arg) {
    death *d = arg;

    mr_fault_at = d->point;
    d->operation(d->c);
    return 0;
}

static int repair_and_die(void *arg) {
    death *d = arg;

    mr_fault_at = d->point;
    return mr_cache_lock(d->c) == MR_OK ? 0 : 1;
}

static void assert_others_stay(const death *d) {
    char key[16];

    for (int i = 0; i < ENTRIES; i++) {
        key_of(i, key);
        if (i != d->touched && i != d->evicts)
            assert_value(d->c, key, old_value, 300);
    }
}

/* Old, new, or (when the operation was to remove it) nothing. */
static void assert_whole(const death *d) {
    mr_entry e;
    char key[16];
    int rc;

    key_of(d->touched, key);
    rc = mr_cache_find(d->c, key, 6, 300, MR_FIND_PEEK, &e);
    if (rc == MR_NOT_FOUND) {
        assert_true(d->operation != overwrite);
        return;
    }
    assert_int_equal(rc, MR_OK);
    if (e.value_len == sizeof old_value - 1)
        assert_memory_equal(e.value, old_value, e.value_len);
    else
        assert_string_equal(e.value, new_value);
}

/* The region can be used to its full extent: nothing has leaked. */
static void assert_usable(mr_cache *c) {
    char key[16];

    mr_cache_clear(c, MR_CLOSED, 1000);
    for (int i = 0; i < 3 * ENTRIES; i++) {
        key_of(i % (2 * ENTRIES), key);
        assert_int_equal(put(c, key, i % 2 ? old_value : new_value, 400 + i),
                         MR_OK);
    }
    assert_true(stats_of(c).entries == ENTRIES);
    assert_sound(c);
}

/* Returns whether the operation passed the point, and so died there. */
static int die_at(death *d) {
    int code;

    d->c = full_region();
    code = wait_child(run_child(die, d));
    assert_true(code == -SIGKILL || code == 0);
    assert_sound(d->c);
    assert_true(stats_of(d->c).repairs == (code == -SIGKILL));
    assert_others_stay(d);
    assert_whole(d);
    assert_usable(d->c);
    mr_cache_close(d->c);
    return code == -SIGKILL;
}

static void test_death_in_a_change(void **state) {
    death deaths[] = {
        {.what = "overwrite",
         .operation = overwrite,
         .touched = 20,
         .evicts = -1},
        {.what = "add and evict", .operation = add, .touched = 90, .evicts = 0},
        {.what = "delete",
         .operation = delete_one,
         .touched = 20,
         .evicts = -1},
        {.what = "expire",
         .operation = expire_one,
         .touched = 0,
         .evicts = -1}};

    (void)state;
    for (int point = 1; point < MR_FAULT_IN_REPAIR; point++) {
        int died = 0;

        for (size_t i = 0; i < sizeof deaths / sizeof deaths[0]; i++) {
            deaths[i].point = point;
            died += die_at(&deaths[i]);
        }
        if (died == 0)
            fail_msg("nothing passes point %d", point);
    }
}

/* The points of the repair itself, after a death between the two stores of an
 * overwrite. */
static void test_death_in_a_repair(void **state) {
    (void)state;
    for (int point = MR_FAULT_IN_REPAIR; point <= MR_FAULT_POINTS; point++) {
        death d = {.operation = overwrite, .touched = 20, .evicts = -1};

        d.c = full_region();
        d.point = 12;
        assert_int_equal(wait_child(run_child(die, &d)), -SIGKILL);
        d.point = point;
        assert_int_equal(wait_child(run_child(repair_and_die, &d)), -SIGKILL);
        assert_sound(d.c);
        assert_others_stay(&d);
        assert_value(d.c, "key-20", new_value, 300);
        assert_usable(d.c);
        mr_cache_close(d.c);
    }
}

static void test_the_order_of_use_survives(void **state) {
    death d = {.operation = overwrite, .touched = 20, .point = 12};
    char key[16];
    mr_entry e;

    (void)state;
    d.c = full_region();
    assert_int_equal(find(d.c, "key-00", 150, &e), MR_OK);
    assert_int_equal(wait_child(run_child(die, &d)), -SIGKILL);
    mr_cache_collect(d.c, 1);
    for (int i = 1; i < 10; i++) {
        char fresh[16];

        sprintf(fresh, "fresh-%d", i);
        put(d.c, fresh, "v", 300);
        key_of(i, key);
        assert_gone(d.c, key, old_value, MR_EVICTED);
    }
    mr_cache_close(d.c);
}

static int lock_and_die(void *arg) {
    death *d = arg;

    mr_cache_lock(d->c);
    raise(SIGKILL);
    return 0;
}

/* A chain that leads nowhere costs its entry, and no other. */
static void test_broken_records_are_dropped(void **state) {
    death d = {.c = full_region()};
    uint32_t shared = d.c->slots[5].first;

    (void)state;
    d.c->slots[3].first = 0;
    d.c->slots[4].first = 4000000;
    d.c->slots[6].first = shared; /* two entries, one cell */
    d.c->slots[7].value_len = 60; /* longer than its chain */
    d.c->cells[d.c->slots[8].first - 1].next = d.c->slots[8].first; /* a loop */
    assert_int_equal(wait_child(run_child(lock_and_die, &d)), -SIGKILL);
    assert_sound(d.c);
    assert_true(stats_of(d.c).entries == ENTRIES - 5);
    assert_true(stats_of(d.c).repairs == 1);
    assert_value(d.c, "key-02", old_value, 300);
    assert_value(d.c, "key-09", old_value, 300);
    assert_value(d.c, "key-05", old_value, 300); /* whose the cell was */
    assert_value(d.c, "key-06", NULL, 300);
    mr_cache_close(d.c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_death_in_a_change),
        cmocka_unit_test(test_death_in_a_repair),
        cmocka_unit_test(test_the_order_of_use_survives),
        cmocka_unit_test(test_broken_records_are_dropped),
    };

    return cmocka_run_group_tests_name("repair", tests, NULL, NULL);
}
