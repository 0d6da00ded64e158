/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * gone.c - entries that leave, and which one leaves next.
 *
 * What leaves is appended to a buffer of the handle, as head, key and value
 * one after another, before its slot is retired. Room for it is reserved
 * before anything is changed, so a failed allocation changes nothing.
 *
 * Exact LRU without moving anything on a hit: a hit only stores a tick in the
 * slot. The LRU heap holds the tick each slot was last seen with, which is
 * never newer than the true one by more than the scatter of the processes'
 * clocks. So when the root's true tick is its key, it is the oldest of all;
 * when it is newer, it is re-keyed and the next root looked at. */
#include "alloc.h"
#include "cache.h"

#include <string.h>

enum {
    LOOKS = 1024,       /* at most, before the oldest *seen* is taken */
    LOOKS_BEYOND = 256, /* the same with more than LOOKS entries */
    KEEP = 256 * 1024   /* bytes a drained buffer may keep */
};

typedef struct head {
    uint32_t key_len;
    uint32_t value_len;
    int32_t reason;
} head;

uint64_t mr_gone_size(uint32_t records, uint64_t bytes) {
    return (uint64_t)records * sizeof(head) + bytes;
}

/* Starts over in a buffer all of which was taken. An empty one is left alone:
 * room may have been reserved in it. */
static void rewind_gone(mr_cache *c, uint64_t need) {
    if (c->gone_filled == 0 || c->gone_taken < c->gone_filled)
        return;
    c->gone_taken = c->gone_filled = 0;
    if (c->gone.capacity > KEEP && need < KEEP) {
        mr_free(c->gone.bytes);
        memset(&c->gone, 0, sizeof c->gone);
    }
}

int mr_gone_reserve(mr_cache *c, uint64_t bytes) {
    uint64_t need, capacity;
    unsigned char *grown;

    if (!c->collecting)
        return MR_OK;
    rewind_gone(c, bytes);
    need = c->gone_filled + bytes;
    if (need <= c->gone.capacity)
        return MR_OK;
    capacity = c->gone.capacity * 2 > need ? c->gone.capacity * 2 : need;
    grown = mr_realloc(c->gone.bytes, capacity);
    if (grown == NULL)
        return MR_NOMEM;
    c->gone.bytes = grown;
    c->gone.capacity = capacity;
    return MR_OK;
}

int mr_gone_reserve_slot(mr_cache *c, uint32_t slot) {
    const mr_slot *s = &c->slots[slot];

    return mr_gone_reserve(
        c, mr_gone_size(1, (uint64_t)mr_slot_key_len(s) + s->value_len));
}

static void hand_back(mr_cache *c, const mr_slot *s, int reason) {
    head h = {mr_slot_key_len(s), s->value_len, reason};
    uint32_t bytes = h.key_len + h.value_len;
    unsigned char *at;

    if (!c->collecting || reason == MR_GONE_QUIETLY ||
        c->gone_filled + sizeof h + bytes > c->gone.capacity)
        return;
    at = c->gone.bytes + c->gone_filled;
    memcpy(at, &h, sizeof h);
    mr_slot_copy(c, s, 0, bytes, at + sizeof h);
    c->gone_filled += sizeof h + bytes;
}

int mr_cache_next_evicted(mr_cache *c, mr_evicted *out) {
    const unsigned char *at;
    head h;

    if (c->gone_taken == c->gone_filled)
        return 0;
    at = c->gone.bytes + c->gone_taken;
    memcpy(&h, at, sizeof h);
    out->key = (const char *)at + sizeof h;
    out->value = out->key + h.key_len;
    out->key_len = h.key_len;
    out->value_len = h.value_len;
    out->reason = h.reason;
    c->gone_taken += sizeof h + h.key_len + h.value_len;
    return 1;
}

void mr_cache_collect(mr_cache *c, int on) {
    c->collecting = on != 0;
    if (!on)
        c->gone_taken = c->gone_filled = 0;
}

void mr_drop(mr_cache *c, uint32_t slot, int reason, enum mr_counter count) {
    mr_slot *s = &c->slots[slot];

    hand_back(c, s, reason);
    MR_FAULT(HANDED_BACK);
    mr_slot_retire(s);
    MR_FAULT(RETIRED);
    mr_slot_unlink(c, slot);
    MR_FAULT(UNLINKED);
    mr_slot_release(c, slot);
    MR_FAULT(RELEASED);
    mr_cache_count(c, count);
}

int mr_expire_one(mr_cache *c, double now, uint32_t *looks) {
    while (c->region->expiry_count > 0 && *looks > 0) {
        const mr_heap_node *root = mr_heap_root(&c->expiry);
        uint32_t slot = root->slot;
        double expiry;

        if (mr_double_of(mr_heap_key(root)) > now)
            return 0;
        (*looks)--;
        expiry = mr_slot_expiry(c, &c->slots[slot]);
        if (expiry <= now) {
            if (mr_gone_reserve_slot(c, slot) != MR_OK)
                return MR_NOMEM;
            mr_drop(c, slot, MR_EXPIRED, MR_COUNT_EXPIRED);
            return 1;
        }
        /* Used since, and so living longer than when it was last seen. */
        mr_heap_update(&c->expiry, slot, mr_bits_of(expiry));
    }
    return 0;
}

/* In a region of LOOKS entries a look at all of them takes 0.1 ms. In one of a
 * million a look misses the processor's caches at every level of the heap and
 * takes 0.5 us, and the lock must not be held for long: fewer of them. */
uint32_t mr_lru_oldest(mr_cache *c) {
    int most = *c->lru.count > LOOKS ? LOOKS_BEYOND : LOOKS;

    for (int looks = 0; looks < most; looks++) {
        const mr_heap_node *root = mr_heap_root(&c->lru);
        uint64_t tick = mr_slot_tick(c, &c->slots[root->slot]);

        if (tick <= mr_heap_key(root))
            break;
        mr_heap_update(&c->lru, root->slot, tick);
    }
    return mr_heap_root(&c->lru)->slot;
}

int mr_lru_freshen(mr_cache *c, uint32_t slot) {
    uint64_t tick = mr_slot_tick(c, &c->slots[slot]);

    if (tick <= mr_heap_key_of(&c->lru, slot))
        return 0;
    mr_heap_update(&c->lru, slot, tick);
    return 1;
}
