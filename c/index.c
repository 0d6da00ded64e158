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

/* Read by others without the lock, written under it. */
static void add_to(_Atomic uint32_t *count, int32_t n) {
    uint32_t was = atomic_load_explicit(count, memory_order_relaxed);

    atomic_store_explicit(count, was + (uint32_t)n, memory_order_relaxed);
}

static void count_entry(mr_cache *c, const mr_slot *s, int32_t sign) {
    int32_t cells = (int32_t)mr_slot_cells(s);

    add_to(&c->region->entries, sign);
    MR_FAULT(HALF_COUNTED);
    add_to(&c->region->cells_used, sign < 0 ? -cells : cells);
    MR_FAULT(UNTAGGED);
    add_to(&c->tags[mr_slot_tag(s)], sign);
}

void mr_slot_link(mr_cache *c, uint32_t slot) {
    const mr_slot *s = &c->slots[slot];

    mr_index_add(c, slot);
    MR_FAULT(INDEXED);
    mr_heap_push(&c->lru, slot, mr_slot_tick(c, s));
    MR_FAULT(IN_LRU);
    mr_heap_push(&c->expiry, slot, mr_bits_of(mr_slot_expiry(c, s)));
    MR_FAULT(IN_HEAPS);
    count_entry(c, s, 1);
}

void mr_slot_unlink(mr_cache *c, uint32_t slot) {
    const mr_slot *s = &c->slots[slot];

    index_remove(c, slot);
    MR_FAULT(UNINDEXED);
    mr_heap_remove(&c->lru, slot);
    MR_FAULT(OUT_OF_LRU);
    mr_heap_remove(&c->expiry, slot);
    MR_FAULT(OUT_OF_HEAPS);
    count_entry(c, s, -1);
}
