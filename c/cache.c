/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * cache.c - handles, what makes entries believed or not (tokens, epoch,
 * lease), and the hit.
 *
 * A handle is this process's view of a region and its own buffers; the region
 * belongs to everybody. Epoch, lease and stripes are lock-free. Who restores
 * belief bumps the epoch first and sets the lease second, and a hit reads the
 * lease first: it never sees a new lease with an old epoch. */
#include "cache.h"
#include "alloc.h"

#include <string.h>

static mr_heap heap_view(mr_region *r, uint64_t nodes, uint32_t *count,
                         size_t place) {
    mr_heap h;

    h.nodes = mr_region_at(r, nodes);
    h.count = count;
    h.places = (unsigned char *)mr_region_at(r, r->geometry.slots) + place;
    h.stride = sizeof(mr_slot);
    return h;
}

mr_cache *mr_cache_attach(mr_map *map) {
    mr_cache *c = mr_alloc(sizeof *c);
    mr_region *r = map->region;
    const mr_geometry *g = &r->geometry;

    if (c == NULL)
        return NULL;
    memset(c, 0, sizeof *c);
    c->region = r;
    c->map = map;
    c->slots = mr_region_at(r, g->slots);
    c->slot_count = g->slot_count;
    c->cells = mr_region_at(r, g->cells);
    c->buckets = mr_region_at(r, g->buckets);
    c->stripes = mr_region_at(r, g->stripes);
    c->tags = mr_region_at(r, g->tags);
    c->lru = heap_view(r, g->lru, &r->lru_count, offsetof(mr_slot, lru_place));
    c->expiry = heap_view(r, g->expiry, &r->expiry_count,
                          offsetof(mr_slot, expiry_place));
    map->handles++;
    return c;
}

void mr_cache_detach(mr_cache *c) {
    mr_registry_release(c->map);
    mr_free(c->value.bytes);
    mr_free(c->gone.bytes);
    mr_free(c);
}

void mr_cache_close(mr_cache *c) {
    if (c == NULL)
        return;
    mr_registry_lock();
    mr_cache_detach(c);
    mr_registry_unlock();
}

int mr_cache_lock_region(mr_cache *c) {
    int owner_died;

    if (mr_region_lock(c->region, &owner_died) != MR_OK) {
        mr_cache_count(c, MR_COUNT_LOCK_TIMEOUTS);
        return MR_BUSY;
    }
    if (owner_died) {
        mr_cache_repair(c);
        mr_region_consistent(c->region);
    }
    MR_FAULT(LOCKED);
    return MR_OK;
}

int mr_cache_lock(mr_cache *c) {
    if (mr_map_line(c->map) == &c->map->own)
        mr_map_claim_line(c->map);
    return mr_cache_lock_region(c);
}

void mr_cache_unlock(mr_cache *c) { mr_region_unlock(c->region); }

/* -------------------------------------------- tokens, epoch and lease --- */

void mr_cache_token(mr_cache *c, const char *key, uint32_t key_len,
                    mr_token *out) {
    uint32_t hash = mr_cache_hash(c, key, key_len);

    out->epoch = atomic_load(&c->region->epoch);
    out->stripe = atomic_load(mr_cache_stripe(c, hash));
}

int mr_cache_token_valid(mr_cache *c, const char *key, uint32_t key_len,
                         const mr_token *token) {
    mr_token current;

    mr_cache_token(c, key, key_len, &current);
    return current.epoch == token->epoch && current.stripe == token->stripe;
}

void mr_cache_bump(mr_cache *c, const char *key, uint32_t key_len) {
    atomic_fetch_add(mr_cache_stripe(c, mr_cache_hash(c, key, key_len)), 1);
}

uint32_t mr_cache_epoch(mr_cache *c) { return atomic_load(&c->region->epoch); }

uint32_t mr_cache_bump_epoch(mr_cache *c) {
    return atomic_fetch_add(&c->region->epoch, 1) + 1;
}

void mr_cache_set_lease(mr_cache *c, double until) {
    atomic_store(&c->region->lease, mr_bits_of(mr_time_kept(until)));
}

double mr_cache_lease(mr_cache *c) {
    return mr_time_shown(mr_double_of(atomic_load(&c->region->lease)));
}

/* ------------------------------------------------------------ the hit --- */

int mr_ref_split(const mr_cache *c, double ref, uint32_t *slot,
                 uint32_t *generation) {
    uint64_t number;

    if (!mr_below(ref, mr_bits_of(9007199254740992.0))) /* 2^53 */
        return 0;
    number = (uint64_t)(int64_t)ref;
    *slot = (uint32_t)number & MR_SLOT_MASK;
    *generation = (uint32_t)(number >> MR_SLOT_BITS);
    return *slot < c->slot_count && (*generation & 1) != 0;
}

int mr_ref_live(const mr_cache *c, double ref, uint32_t *slot) {
    uint32_t generation;

    return mr_ref_split(c, ref, slot, &generation) &&
           mr_slot_generation(&c->slots[*slot]) == generation;
}

int mr_cache_believes(const mr_cache *c, const mr_slot *s, double now) {
    const mr_region *r = c->region;
    uint64_t lease = atomic_load_explicit(&r->lease, memory_order_acquire);
    uint32_t epoch = atomic_load_explicit(&r->epoch, memory_order_acquire);

    /* The lease is at most MR_TIME_LIMIT, so this also bounds `now`. */
    return mr_below(now, lease) &&
           atomic_load_explicit(&s->epoch, memory_order_acquire) == epoch;
}

int mr_hit(mr_cache *c, double ref, double now) {
    uint32_t slot, generation;
    uint64_t fresh_until;
    mr_slot *s;

    if (!mr_ref_split(c, ref, &slot, &generation))
        return -1;
    s = &c->slots[slot];
    if (!mr_cache_believes(c, s, now))
        return -1;
    fresh_until = atomic_load_explicit(&s->fresh_until, memory_order_acquire);
    if (!mr_below(now, fresh_until))
        return -1;
    /* Last: while this is unchanged, so was all that was read before. */
    if (mr_slot_generation(s) != generation)
        return -1;
    mr_slot_use(c, slot, now);
    mr_cache_count(c, MR_COUNT_HITS);
    return (int)slot;
}
