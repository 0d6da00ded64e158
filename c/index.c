/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * index.c - from key to slot: buckets of chains through the slots.
 *
 *     hash  23 ........ 12 | 11 ......... 0
 *           stripe         |
 *           bucket: as many of the low bits as it takes
 *
 * With a bucket an entry or more, a chain has one entry on average. */
#include "cache.h"

uint32_t mr_cache_hash(const mr_cache *c, const void *key, uint32_t key_len) {
    return (uint32_t)mr_hash(c->region->seed, key, key_len) & 0xffffff;
}

_Atomic uint32_t *mr_cache_stripe(const mr_cache *c, uint32_t hash) {
    return &c->stripes[hash >> 12];
}

static uint32_t *bucket_of(const mr_cache *c, uint32_t hash) {
    return &c->buckets[hash & (c->region->geometry.bucket_count - 1)];
}

uint32_t mr_index_find(const mr_cache *c, const unsigned char *key,
                       uint32_t key_len, uint32_t hash) {
    uint32_t link = *bucket_of(c, hash);

    while (link != 0) {
        const mr_slot *s = &c->slots[link - 1];

        if (s->hash == hash && mr_slot_has_key(c, s, key, key_len))
            return link;
        link = s->next;
    }
    return 0;
}

void mr_index_add(mr_cache *c, uint32_t slot) {
    mr_slot *s = &c->slots[slot];
    uint32_t *bucket = bucket_of(c, s->hash);

    s->next = *bucket;
    *bucket = slot + 1;
}

static void index_remove(mr_cache *c, uint32_t slot) {
    const mr_slot *s = &c->slots[slot];
    uint32_t *link = bucket_of(c, s->hash);

    while (*link != slot + 1)
        link = &c->slots[*link - 1].next;
    *link = s->next;
}

static void count_entry(mr_cache *c, int32_t entries, int32_t cells) {
    mr_region *r = c->region;
    uint32_t had = atomic_load_explicit(&r->entries, memory_order_relaxed);
    uint32_t used = atomic_load_explicit(&r->cells_used, memory_order_relaxed);

    atomic_store_explicit(&r->entries, had + (uint32_t)entries,
                          memory_order_relaxed);
    atomic_store_explicit(&r->cells_used, used + (uint32_t)cells,
                          memory_order_relaxed);
}

void mr_slot_link(mr_cache *c, uint32_t slot) {
    const mr_slot *s = &c->slots[slot];

    mr_index_add(c, slot);
    MR_FAULT(4);
    mr_heap_push(&c->lru, slot, mr_slot_tick(s));
    mr_heap_push(&c->expiry, slot, mr_bits_of(mr_slot_expiry(c, s)));
    MR_FAULT(5);
    count_entry(c, 1, (int32_t)mr_slot_cells(s));
}

void mr_slot_unlink(mr_cache *c, uint32_t slot) {
    const mr_slot *s = &c->slots[slot];

    index_remove(c, slot);
    MR_FAULT(6);
    mr_heap_remove(&c->lru, slot);
    MR_FAULT(7);
    mr_heap_remove(&c->expiry, slot);
    count_entry(c, -1, -(int32_t)mr_slot_cells(s));
}
