/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * mr_cache_check finds what is planted, each kind of damage that it has a text
 * for, and a region is sound again when that is taken back. */
#include "support.h"

#include <stdio.h>
#include <string.h>

/* Entries a to e in slots 0 to 4, a cell each; slot 5 and its cell are free. */
static mr_cache *region_of_five(void) {
    mr_cache *c = open_private(6, 6 * 32, 0);

    for (int i = 0; i < 6; i++) {
        char key[2] = {(char)('a' + i), '\0'};

        assert_int_equal(put(c, key, "v", 100 + i), MR_OK);
    }
    mr_cache_remove(c, "f", 1, MR_DELETED);
    assert_sound(c);
    return c;
}

static void expect_corrupt(mr_cache *c, const char *says) {
    char err[200] = "";

    assert_int_equal(mr_cache_check(c, err, sizeof err), MR_CORRUPT);
    if (strstr(err, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err, says);
    assert_int_equal(mr_cache_check(c, NULL, 0), MR_CORRUPT);
}

static void test_what_is_wrong_is_found(void **state) {
    mr_cache *c = region_of_five();
    mr_region *r = c->region;
    uint32_t cell = c->slots[2].first, link;

    (void)state;
    c->slots[2].first = c->slots[3].first;
    expect_corrupt(c, "not its own");
    c->slots[2].first = 0;
    expect_corrupt(c, "not its own");
    c->slots[2].first = cell;
    assert_sound(c);
    c->cells[cell - 1].bytes[0] ^= 1;
    expect_corrupt(c, "hash");
    c->cells[cell - 1].bytes[0] ^= 1;
    assert_sound(c);
    link = r->free_cell;
    r->free_cell = 0;
    expect_corrupt(c, "accounted");
    r->free_cell = cell;
    expect_corrupt(c, "in use");
    r->free_cell = link;
    assert_sound(c);
    link = r->free_slot;
    r->free_slot = 0;
    expect_corrupt(c, "listed");
    r->free_slot = 1;
    expect_corrupt(c, "is not one");
    r->free_slot = link;
    assert_sound(c);
    atomic_fetch_add(&r->entries, 1);
    expect_corrupt(c, "counted");
    atomic_fetch_sub(&r->entries, 1);
    atomic_fetch_add(&r->cells_used, 1);
    expect_corrupt(c, "counted");
    atomic_fetch_sub(&r->cells_used, 1);
    r->lru_count--;
    expect_corrupt(c, "LRU heap");
    r->lru_count++;
    c->expiry.nodes[0].slot = 5;
    expect_corrupt(c, "expiry");
    c->expiry.nodes[0].slot = 0;
    assert_sound(c);
    atomic_store(&r->journal, 1);
    expect_corrupt(c, "journal");
    atomic_store(&r->journal, 0);
    atomic_fetch_add(&c->slots[0].generation, 1);
    expect_corrupt(c, "entries");
    atomic_fetch_sub(&c->slots[0].generation, 1);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_wrong_headers_are_found(void **state) {
    mr_cache *c = region_of_five();
    mr_region *r = c->region;
    uint32_t slots = r->slot_high, cells = r->cell_high;

    (void)state;
    atomic_store(&r->repairing, 1);
    expect_corrupt(c, "a repair that nobody is doing");
    atomic_store(&r->repairing, 0);
    r->slot_high = c->slot_count + 1;
    expect_corrupt(c, "slots used of");
    r->slot_high = slots;
    r->cell_high = r->geometry.cell_count + 1;
    expect_corrupt(c, "cells used of");
    r->cell_high = cells;
    atomic_store(&r->entries, 7);
    expect_corrupt(c, "7 entries");
    atomic_store(&r->entries, 5);
    r->header_size++;
    expect_corrupt(c, "its header has another size");
    r->header_size--;
    assert_sound(c);
    mr_cache_close(c);
}

static void test_wrong_records_are_found(void **state) {
    mr_cache *c = region_of_five();
    mr_region *r = c->region;
    uint32_t usable = r->geometry.usable_cells;

    (void)state;
    c->slots[1].key_len_low = 0;
    expect_corrupt(c, "slot 1: key of 0");
    c->slots[1].key_len_low = 1;
    c->slots[1].value_len = 0xffffff;
    expect_corrupt(c, "value of 16777215 bytes");
    c->slots[1].value_len = 1;
    r->geometry.usable_cells = 4;
    expect_corrupt(c, "5 cells, 5 counted, 4 allowed");
    r->geometry.usable_cells = usable;
    assert_sound(c);
    mr_cache_close(c);
}

static void test_wrong_free_lists_are_found(void **state) {
    mr_cache *c = region_of_five();
    mr_region *r = c->region;
    uint32_t cell = r->free_cell, next = c->slots[5].next;

    (void)state;
    r->free_cell = r->cell_high + 1;
    expect_corrupt(c, "does not exist");
    r->free_cell = cell;
    r->free_slot = r->slot_high + 1;
    expect_corrupt(c, "is not one");
    r->free_slot = 6;
    c->slots[5].next = 6; /* for ever */
    expect_corrupt(c, "1 free slots, 2 listed");
    c->slots[5].next = next;
    assert_sound(c);
    mr_cache_close(c);
}

/* The bucket of a slot: the one whose chain begins there. */
static uint32_t *bucket_of(mr_cache *c, uint32_t slot) {
    for (uint32_t b = 0; b < c->region->geometry.bucket_count; b++)
        if (c->buckets[b] == slot + 1)
            return &c->buckets[b];
    fail_msg("slot %u is in no bucket's front", slot);
    return NULL;
}

static void test_a_wrong_index_is_found(void **state) {
    mr_cache *c = region_of_five();
    mr_region *r = c->region;
    uint32_t last = c->buckets[0], *bucket, link, next;

    (void)state;
    c->buckets[0] = r->slot_high + 1;
    expect_corrupt(c, "does not belong");
    c->buckets[0] = 6; /* a free one */
    expect_corrupt(c, "does not belong");
    c->buckets[0] = last;
    /* The entry put last is in front of its chain. */
    bucket = bucket_of(c, 4);
    link = *bucket;
    *bucket = 0;
    expect_corrupt(c, "entries in the index");
    *bucket = link;
    next = c->slots[4].next;
    c->slots[4].next = 5; /* in a circle */
    expect_corrupt(c, "does not belong");
    c->slots[4].next = next;
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_key_that_is_there_twice_is_found(void **state) {
    mr_cache *c = region_of_five();
    unsigned char *key = c->cells[c->slots[4].first - 1].bytes;
    uint32_t hash = c->slots[4].hash;

    (void)state;
    key[0] = 'a';
    c->slots[4].hash = c->slots[0].hash;
    expect_corrupt(c, "its key leads to slot");
    key[0] = 'e';
    c->slots[4].hash = hash & 0xffffff;
    assert_sound(c);
    mr_cache_close(c);
}

static void test_wrong_heaps_are_found(void **state) {
    mr_cache *c = region_of_five();
    mr_heap_node *node = &c->lru.nodes[4];
    uint32_t slot = node->slot;

    (void)state;
    memcpy(c->slots[5].lru_place, c->slots[slot].lru_place, MR_HEAP_PLACE);
    node->slot = 5;
    expect_corrupt(c, "LRU heap: node 4 is of a free slot");
    node->slot = slot;
    mr_heap_update(&c->lru, 2, UINT64_MAX);
    expect_corrupt(c, "would never leave");
    mr_heap_update(&c->lru, 2, mr_slot_tick(c, &c->slots[2]));
    assert_sound(c);
    mr_cache_close(c);
}

/* The key of a slot is compared in a buffer of the handle. */
static void test_a_check_without_memory_says_so(void **state) {
    mr_cache *c = open_private(6, 0, 0); /* not checked, so without one */
    char err[8] = "x";

    (void)state;
    put(c, "a", "v", 1);
    mr_alloc_left = 0;
    assert_int_equal(mr_cache_check(c, err, sizeof err), MR_NOMEM);
    mr_alloc_left = -1;
    assert_string_equal(err, "");
    assert_sound(c);
    mr_cache_close(c);
}

static void test_no_text_is_written_where_there_is_no_room(void **state) {
    mr_cache *c = region_of_five();
    char err[2] = "x";

    (void)state;
    atomic_store(&c->region->journal, 1);
    assert_int_equal(mr_cache_check(c, err, 0), MR_CORRUPT);
    assert_string_equal(err, "x");
    assert_int_equal(mr_cache_check(c, NULL, 10), MR_CORRUPT);
    atomic_store(&c->region->journal, 0);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_wrong_is_found),
        cmocka_unit_test(test_wrong_headers_are_found),
        cmocka_unit_test(test_wrong_records_are_found),
        cmocka_unit_test(test_wrong_free_lists_are_found),
        cmocka_unit_test(test_a_wrong_index_is_found),
        cmocka_unit_test(test_a_key_that_is_there_twice_is_found),
        cmocka_unit_test(test_wrong_heaps_are_found),
        cmocka_unit_test(test_a_check_without_memory_says_so),
        cmocka_unit_test(test_no_text_is_written_where_there_is_no_room),
    };

    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
