/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * The heap against an array that is searched from end to end. */
#include "support.h"

#include <string.h>

enum { SLOTS = 300 };

typedef struct fixture {
    mr_heap_node nodes[SLOTS];
    uint32_t count;
    unsigned char places[SLOTS][MR_HEAP_PLACE];
    mr_heap heap;
    uint64_t key[SLOTS]; /* the model */
    int present[SLOTS];
} fixture;

static void set_up(fixture *f) {
    memset(f, 0, sizeof *f);
    f->heap.nodes = f->nodes;
    f->heap.count = &f->count;
    f->heap.places = f->places[0];
    f->heap.stride = sizeof f->places[0];
}

static uint64_t smallest(const fixture *f) {
    uint64_t least = UINT64_MAX;

    for (int i = 0; i < SLOTS; i++)
        if (f->present[i] && f->key[i] < least)
            least = f->key[i];
    return least;
}

/* Few different keys make ties, high bits test both halves. */
static uint64_t any_key(rng *r) {
    return (uint64_t)rng_below(r, 50) << rng_below(r, 58);
}

static void step(fixture *f, rng *r) {
    uint32_t slot = rng_below(r, SLOTS);
    uint64_t key = any_key(r);

    if (!f->present[slot]) {
        mr_heap_push(&f->heap, slot, key);
        f->present[slot] = 1;
        f->key[slot] = key;
    } else if (rng_below(r, 2) == 0) {
        mr_heap_update(&f->heap, slot, key);
        f->key[slot] = key;
    } else {
        assert_true(mr_heap_key_of(&f->heap, slot) == f->key[slot]);
        mr_heap_remove(&f->heap, slot);
        f->present[slot] = 0;
    }
}

static void test_equals_a_naive_one(void **state) {
    rng r = rng_seeded("heap");
    fixture f;

    (void)state;
    set_up(&f);
    for (int i = 0; i < 30000; i++) {
        step(&f, &r);
        assert_true(mr_heap_check(&f.heap, SLOTS) == -1);
        if (f.count > 0)
            assert_true(mr_heap_key(mr_heap_root(&f.heap)) == smallest(&f));
    }
}

static void test_order_makes_a_heap_of_anything(void **state) {
    rng r = rng_seeded("heap order");
    fixture f;

    (void)state;
    for (uint32_t n = 0; n <= SLOTS; n += n < 25 ? 1 : 25) {
        set_up(&f);
        for (uint32_t i = 0; i < n; i++)
            mr_heap_append(&f.heap, i, any_key(&r));
        mr_heap_order(&f.heap);
        assert_int_equal(f.count, n);
        assert_true(mr_heap_check(&f.heap, SLOTS) == -1);
    }
}

static void test_check_finds_what_is_out_of_place(void **state) {
    fixture f;

    (void)state;
    set_up(&f);
    for (uint32_t i = 0; i < 20; i++)
        mr_heap_push(&f.heap, i, 100 + i);
    f.nodes[7].key_low = 3;
    assert_true(mr_heap_check(&f.heap, SLOTS) == 7);
    f.nodes[7].key_low = 107;
    assert_true(mr_heap_check(&f.heap, SLOTS) == -1);
    f.places[4][0] = 5;
    assert_true(mr_heap_check(&f.heap, SLOTS) >= 0);
    f.places[4][0] = 4;
    assert_true(mr_heap_check(&f.heap, 19) == 19);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_a_naive_one),
        cmocka_unit_test(test_order_makes_a_heap_of_anything),
        cmocka_unit_test(test_check_finds_what_is_out_of_place),
    };

    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
