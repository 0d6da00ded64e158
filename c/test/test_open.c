/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Opening: private and named regions, what replaces one, what is carried over,
 * and what the library says of itself. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static mr_cache_options named(const char *name, uint32_t max_entries) {
    mr_cache_options o = {.name = name,
                          .name_len = (uint32_t)strlen(name),
                          .fingerprint = "redis a",
                          .fingerprint_len = 7,
                          .max_entries = max_entries,
                          .max_value = 1000};

    return o;
}

static void test_the_library(void **state) {
    double before = mr_now();

    (void)state;
    assert_string_equal(mr_version(), MOORING_VERSION);
    assert_int_equal(mr_abi(), MOORING_ABI);
    for (int rc = 0; rc >= MR_PROTOCOL; rc--)
        assert_string_not_equal(mr_strerror(rc), "unknown error");
    assert_string_equal(mr_strerror(1), "unknown error");
    assert_string_equal(mr_strerror(-1000), "unknown error");
    assert_string_equal(mr_strerror(INT32_MIN), "unknown error");
    assert_true(mr_now() >= before);
    assert_true(mr_time() > 1.6e9);
    assert_int_equal(strlen(mr_secret()), 32);
    assert_int_equal(strspn(mr_secret(), "0123456789abcdef"), 32);
}

static void expect_invalid(const mr_cache_options *o, const char *says) {
    mr_cache *c = (mr_cache *)&c;
    char err[200] = "";

    assert_int_equal(mr_cache_open(o, &c, err, sizeof err), MR_INVALID);
    assert_null(c);
    assert_non_null(strstr(err, says));
    assert_int_equal(mr_cache_open(o, &c, NULL, 0), MR_INVALID);
}

static void test_wrong_options(void **state) {
    mr_cache_options o = named("n", 10), good = o;

    (void)state;
    o.max_entries = 0;
    expect_invalid(&o, "max_entries");
    o.max_entries = MR_MAX_ENTRIES + 1;
    expect_invalid(&o, "max_entries");
    o = good;
    o.max_value = 0;
    expect_invalid(&o, "max_value");
    o = good;
    o.max_value = MR_MAX_VALUE + 1;
    expect_invalid(&o, "max_value");
    o = good;
    o.max_bytes = -1;
    expect_invalid(&o, "max_bytes");
    o = good;
    o.max_bytes = NAN;
    expect_invalid(&o, "max_bytes");
    o = good;
    o.max_bytes = 1e300;
    expect_invalid(&o, "max_bytes");
    o = good;
    o.slide = NAN;
    expect_invalid(&o, "slide");
    o = good;
    o.slide = MR_NEVER;
    expect_invalid(&o, "slide");
    o = good;
    o.name_len = 0;
    expect_invalid(&o, "name");
    o = good;
    o.name_len = 256;
    expect_invalid(&o, "name");
    o = good;
    o.fingerprint = NULL;
    expect_invalid(&o, "fingerprint");
    o = good;
    o.fingerprint_len = 65536;
    expect_invalid(&o, "fingerprint");
    /* The room for a record that is being replaced comes on top. */
    o = good;
    o.max_bytes = 32.0 * 0x7ffffffe;
    expect_invalid(&o, "64 GiB");
}

static void test_a_fault_is_told_where_there_is_room_for_it(void **state) {
    mr_cache_options o = named("n", 0);
    mr_cache *c;
    char err[2] = "x";

    (void)state;
    assert_int_equal(mr_cache_open(&o, &c, err, 0), MR_INVALID);
    assert_string_equal(err, "x");
}

static void test_private_regions_share_nothing(void **state) {
    mr_cache *a = open_private(4, 0, 0), *b = open_private(4, 0, 0);

    (void)state;
    put(a, "k", "v", 1);
    assert_value(b, "k", NULL, 1);
    assert_true(memcmp(a->region->seed, b->region->seed, MR_HASH_SEED) != 0);
    mr_cache_close(a);
    mr_cache_close(b);
    mr_cache_close(NULL);
}

static void test_the_same_name_is_the_same_region(void **state) {
    mr_cache_options o = named("same", 10);
    mr_cache *a = open_with(&o), *b = open_with(&o);
    double ref = put_ref(a, "k", "v", 1);

    (void)state;
    assert_true(mr_hit(b, ref, 2) >= 0);
    mr_cache_close(a);
    assert_true(mr_hit(b, ref, 2) >= 0);
    mr_cache_close(b);
    /* As after a reload: no handle was left, the region was. */
    a = open_with(&o);
    assert_true(mr_hit(a, ref, 2) >= 0);
    assert_value(a, "k", "v", 3);
    assert_sound(a);
    mr_cache_close(a);
}

static void test_another_fingerprint_gets_a_fresh_region(void **state) {
    mr_cache_options o = named("print", 10);
    mr_cache *a = open_with(&o), *b;

    (void)state;
    put(a, "k", "v", 1);
    o.fingerprint = "redis b";
    o.carry_over = 1;
    b = open_with(&o);
    assert_value(b, "k", NULL, 1);
    put(b, "k", "other", 1);
    /* Who still holds the old one keeps it. */
    assert_value(a, "k", "v", 1);
    assert_sound(a);
    mr_cache_close(a);
    mr_cache_close(b);
    b = open_with(&o);
    assert_value(b, "k", "other", 1);
    mr_cache_close(b);
    o.fingerprint_len--;
    b = open_with(&o);
    assert_value(b, "k", NULL, 1);
    mr_cache_close(b);
    o.fingerprint_len = 0;
    b = open_with(&o);
    put(b, "k", "v", 1);
    mr_cache_close(b);
    b = open_with(&o);
    assert_value(b, "k", "v", 1);
    mr_cache_close(b);
}

static void test_another_size_gets_a_fresh_region(void **state) {
    mr_cache_options o = named("size", 10);
    mr_cache *a = open_with(&o), *b;

    (void)state;
    put(a, "k", "v", 1);
    mr_cache_close(a);
    o.max_entries = 20;
    b = open_with(&o);
    assert_value(b, "k", NULL, 1);
    assert_true(stats_of(b).max_entries == 20);
    mr_cache_close(b);
}

static void test_another_slide_keeps_the_region(void **state) {
    mr_cache_options o = named("slide", 10);
    mr_cache *a = open_with(&o);
    mr_entry e;

    (void)state;
    put(a, "k", "v", 1000);
    mr_cache_close(a);
    o.slide = 50;
    a = open_with(&o);
    assert_int_equal(find(a, "k", 1010, &e), MR_OK);
    assert_true(e.expires_at == 1060);
    mr_cache_close(a);
}

static void fill_for_carrying(mr_cache *c, int n) {
    for (int i = 0; i < n; i++) {
        char key[16];
        mr_put p;

        sprintf(key, "k%02d", i);
        p = put_of(key, key, 100 + i);
        p.stamp = 50.5 + i;
        p.fresh_until = 5000 + i;
        p.expires_at = 6000 + i;
        assert_int_equal(mr_cache_put(c, &p, NULL), MR_OK);
    }
}

static void test_carrying_over_into_more_room(void **state) {
    mr_cache_options o = named("carry", 20);
    mr_cache *a = open_with(&o), *b;
    mr_entry e;

    (void)state;
    mr_cache_bump_epoch(a);
    mr_cache_set_lease(a, 7000);
    fill_for_carrying(a, 20);
    assert_int_equal(find(a, "k00", 300, &e), MR_OK); /* now the newest */
    o.max_entries = 30;
    o.carry_over = 1;
    b = open_with(&o);
    assert_sound(b);
    assert_true(stats_of(b).entries == 20 && mr_cache_epoch(b) == 1);
    assert_true(mr_cache_lease(b) == 7000);
    assert_int_equal(mr_cache_find(b, "k07", 3, 400, MR_FIND_PEEK, &e), MR_OK);
    assert_true(e.stamp == 57.5 && e.fresh_until == 5007);
    assert_true(e.expires_at == 6007 && e.believed);
    assert_memory_equal(e.value, "k07", 3);
    assert_true(mr_hit(b, e.ref, 400) >= 0);
    mr_cache_close(a);
    /* The order of use came along: k01 is the oldest, k00 is not. */
    mr_cache_collect(b, 1);
    for (int i = 0; i < 11; i++) {
        char key[16];

        sprintf(key, "new%d", i);
        put(b, key, "v", 500);
    }
    assert_gone(b, "k01", "k01", MR_EVICTED);
    assert_gone(b, NULL, NULL, 0);
    mr_cache_close(b);
}

static void test_carrying_over_into_less_room(void **state) {
    mr_cache_options o = named("shrink", 20);
    mr_cache *a = open_with(&o), *b;

    (void)state;
    fill_for_carrying(a, 20);
    mr_cache_close(a);
    o.max_entries = 5;
    o.carry_over = 1;
    b = open_with(&o);
    assert_sound(b);
    assert_true(stats_of(b).entries == 5 && stats_of(b).evicted == 15);
    assert_value(b, "k14", NULL, 400);
    for (int i = 15; i < 20; i++) {
        char key[16];

        sprintf(key, "k%02d", i);
        assert_value(b, key, key, 400);
    }
    mr_cache_close(b);
    o.max_bytes = 3 * 32;
    b = open_with(&o);
    assert_sound(b);
    assert_true(stats_of(b).entries == 3);
    assert_value(b, "k17", "k17", 400);
    mr_cache_close(b);
}

/* What was removed is not carried, nor what is larger than it may be now. Two
 * processes may have used two entries at the very same tick. */
static void test_what_is_carried_over(void **state) {
    mr_cache_options o = named("what", 10);
    mr_cache *a = open_with(&o), *b;

    (void)state;
    put(a, "a", "1", 100);
    put(a, "b", "2", 101);
    put(a, "c", "3", 102);
    put(a, "d", "longer than it may be", 103);
    mr_cache_remove(a, "c", 1, MR_DELETED);
    atomic_store(&a->slots[1].tick, mr_slot_tick(a, &a->slots[0]));
    o.max_value = 10;
    o.carry_over = 1;
    b = open_with(&o);
    assert_sound(b);
    assert_true(stats_of(b).entries == 2);
    assert_value(b, "a", "1", 200);
    assert_value(b, "b", "2", 200);
    mr_cache_close(a);
    mr_cache_close(b);
}

typedef struct holder {
    mr_cache *c;
    int repairs;
    int ready[2];
    int done[2];
} holder;

static int hold_the_lock(void *arg) {
    holder *h = arg;
    char byte;

    mr_cache_lock(h->c);
    atomic_store(&h->c->region->repairing, (uint32_t)h->repairs);
    if (write(h->ready[1], "", 1) != 1 || read(h->done[0], &byte, 1) != 1)
        return 1;
    atomic_store(&h->c->region->repairing, 0);
    mr_cache_unlock(h->c);
    return 0;
}

/* A reload that cannot get at the sessions is refused; the next one may. */
static void carry_from_a_locked_region(const char *name, int repairs) {
    mr_cache_options o = named(name, 10);
    holder h = {.c = open_with(&o), .repairs = repairs};
    mr_cache *b;
    char err[200] = "", byte;
    int pid;

    put(h.c, "k", "v", 100);
    assert_int_equal(pipe(h.ready), 0);
    assert_int_equal(pipe(h.done), 0);
    pid = run_child(hold_the_lock, &h);
    assert_int_equal(read(h.ready[0], &byte, 1), 1);
    o.max_entries = 20;
    o.carry_over = 1;
    assert_int_equal(mr_cache_open(&o, &b, err, sizeof err), MR_BUSY);
    assert_null(b);
    assert_non_null(strstr(err, "could not lock"));
    assert_int_equal(write(h.done[1], "", 1), 1);
    assert_int_equal(wait_child(pid), 0);
    b = open_with(&o);
    assert_value(b, "k", "v", 200);
    mr_cache_close(b);
    mr_cache_close(h.c);
}

static void test_carrying_over_waits_for_the_lock_in_vain(void **state) {
    (void)state;
    carry_from_a_locked_region("held", 0);
    carry_from_a_locked_region("repaired", 1);
}

static void test_a_damaged_header(void **state) {
    mr_cache_options o = named("damaged", 10);
    mr_cache *a = open_with(&o), *b;
    char err[300] = "";

    (void)state;
    a->region->magic++;
    assert_int_equal(mr_cache_open(&o, &b, err, sizeof err), MR_CORRUPT);
    assert_null(b);
    assert_non_null(strstr(err, "\"damaged\""));
    assert_non_null(strstr(err, "magic"));
    assert_non_null(strstr(err, "restart"));
    assert_int_equal(mr_cache_check(a, err, sizeof err), MR_CORRUPT);
    a->region->magic--;
    a->region->geometry.cells += 64;
    assert_int_equal(mr_cache_open(&o, &b, err, sizeof err), MR_CORRUPT);
    a->region->geometry.cells -= 64;
    a->region->geometry.max_entries *= 4;
    assert_int_equal(mr_cache_open(&o, &b, err, sizeof err), MR_CORRUPT);
    a->region->geometry.max_entries /= 4;
    a->map->size++;
    assert_int_equal(mr_cache_open(&o, &b, err, sizeof err), MR_CORRUPT);
    a->map->size--;
    b = open_with(&o);
    assert_sound(b);
    mr_cache_close(b);
    mr_cache_close(a);
}

static void test_another_abi_gets_a_fresh_region(void **state) {
    mr_cache_options o = named("abi", 10);
    mr_cache *a = open_with(&o), *b;

    (void)state;
    put(a, "k", "v", 1);
    a->region->abi++;
    o.carry_over = 1;
    b = open_with(&o);
    assert_value(b, "k", NULL, 1);
    mr_cache_close(a);
    mr_cache_close(b);
}

static int count_maps(void) {
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        n += strstr(line, "rw-s") != NULL;
    fclose(f);
    return n;
}

static void test_what_is_unmapped(void **state) {
    mr_cache_options o = named("unmapped", 1000);
    int before = count_maps();
    mr_cache *a = open_private(1000, 0, 0), *b, *c;

    (void)state;
    assert_int_equal(count_maps(), before + 1);
    mr_cache_close(a);
    assert_int_equal(count_maps(), before);
    a = open_with(&o);
    b = open_with(&o);
    o.max_entries = 2000;
    c = open_with(&o);
    assert_int_equal(count_maps(), before + 2);
    mr_cache_close(a);
    assert_int_equal(count_maps(), before + 2);
    mr_cache_close(b); /* the last of the replaced region */
    assert_int_equal(count_maps(), before + 1);
    mr_cache_close(c); /* a current one stays */
    assert_int_equal(count_maps(), before + 1);
    o.max_entries = 3000;
    c = open_with(&o); /* replaced while nobody used it */
    assert_int_equal(count_maps(), before + 1);
    mr_cache_close(c);
}

static void test_the_largest_region(void **state) {
    mr_cache_options o = {.max_entries = MR_MAX_ENTRIES,
                          .max_value = MR_MAX_VALUE,
                          .fingerprint = ""};
    mr_cache *c = open_with(&o);

    (void)state;
    /* One less than asked for: every slot has to fit a ref. */
    assert_true(stats_of(c).max_entries == MR_MAX_ENTRIES - 1);
    assert_int_equal(c->slot_count, MR_MAX_ENTRIES);
    put(c, "k", "v", 1);
    assert_value(c, "k", "v", 2);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_library),
        cmocka_unit_test(test_wrong_options),
        cmocka_unit_test(test_a_fault_is_told_where_there_is_room_for_it),
        cmocka_unit_test(test_private_regions_share_nothing),
        cmocka_unit_test(test_the_same_name_is_the_same_region),
        cmocka_unit_test(test_another_fingerprint_gets_a_fresh_region),
        cmocka_unit_test(test_another_size_gets_a_fresh_region),
        cmocka_unit_test(test_another_slide_keeps_the_region),
        cmocka_unit_test(test_carrying_over_into_more_room),
        cmocka_unit_test(test_carrying_over_into_less_room),
        cmocka_unit_test(test_what_is_carried_over),
        cmocka_unit_test(test_carrying_over_waits_for_the_lock_in_vain),
        cmocka_unit_test(test_a_damaged_header),
        cmocka_unit_test(test_another_abi_gets_a_fresh_region),
        cmocka_unit_test(test_what_is_unmapped),
        cmocka_unit_test(test_the_largest_region),
    };

    return cmocka_run_group_tests_name("open", tests, NULL, NULL);
}
