/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * put.c - putting an entry.
 *
 *     write the record into a free slot and cells     invisible so far
 *     journal = new, old                              one store
 *     new slot: generation odd                        both live
 *     old slot: generation even                       only the new one
 *     old out of, new into index, heaps, counts
 *     journal = 0
 *
 * Whoever repairs after a death takes the live slots for the truth, and while
 * the journal names two of them the old one gives way. So there is no point at
 * which neither record would be left.
 *
 * The token is compared under the lock. A remover bumps the stripe before it
 * waits for the lock: either the put sees the bump, or the remover finds the
 * entry; and when it does not get the lock it bumps the epoch, and the entry
 * carries the token's. */
#include "cache.h"

#include <math.h>

enum {
    ALL_FLAGS = MR_PUT_ABSENT | MR_PUT_PRESENT | MR_PUT_REFUSE | MR_PUT_TOKEN |
                MR_PUT_BUMP,
    EXPIRY_LOOKS = 256 /* for room, in one put */
};

/* A put on its way. */
typedef struct putting {
    const mr_put *p;
    uint32_t hash;
    uint32_t epoch;
    uint32_t cells;
    uint32_t old; /* link */
    int bumped;
} putting;

static int arguments_ok(const mr_put *p) {
    if (p->key == NULL || p->key_len < 1)
        return 0;
    if (p->value == NULL && p->value_len > 0)
        return 0;
    if ((p->flags & ~(uint32_t)ALL_FLAGS) != 0 ||
        ((p->flags & MR_PUT_ABSENT) && (p->flags & MR_PUT_PRESENT)))
        return 0;
    return p->tag < MR_TAGS && mr_time_valid(p->now) && !isnan(p->stamp) &&
           !isnan(p->fresh_until) && !isnan(p->expires_at);
}

static void bump_once(mr_cache *c, putting *w) {
    if ((w->p->flags & MR_PUT_BUMP) && !w->bumped)
        atomic_fetch_add(mr_cache_stripe(c, w->hash), 1);
    w->bumped = 1;
}

/* Verifying and bumping are one step: of two writers with the same token one
 * wins. */
static int stripe_unchanged(mr_cache *c, putting *w) {
    _Atomic uint32_t *stripe = mr_cache_stripe(c, w->hash);
    uint32_t seen = w->p->token.stripe;

    if (!(w->p->flags & MR_PUT_BUMP))
        return atomic_load(stripe) == seen;
    if (!atomic_compare_exchange_strong(stripe, &seen, seen + 1))
        return 0;
    w->bumped = 1;
    return 1;
}

static int check_token(mr_cache *c, putting *w) {
    w->epoch = atomic_load(&c->region->epoch);
    if ((w->p->flags & MR_PUT_TOKEN) &&
        (w->p->token.epoch != w->epoch || !stripe_unchanged(c, w)))
        return MR_CHANGED;
    bump_once(c, w);
    return MR_OK;
}

/* Finds what is there, and checks the flags that depend on it. */
static int check_old(mr_cache *c, putting *w) {
    const mr_put *p = w->p;

    w->old =
        mr_index_find(c, (const unsigned char *)p->key, p->key_len, w->hash);
    if (w->old != 0 && mr_slot_expiry(c, &c->slots[w->old - 1]) <= p->now) {
        if (mr_gone_reserve_slot(c, w->old - 1) != MR_OK)
            return MR_NOMEM;
        mr_drop(c, w->old - 1, MR_EXPIRED, MR_COUNT_EXPIRED);
        w->old = 0;
    }
    if (w->old != 0 && (p->flags & MR_PUT_ABSENT))
        return MR_EXISTS;
    if (w->old == 0 && (p->flags & MR_PUT_PRESENT))
        return MR_NOT_FOUND;
    return MR_OK;
}

/* What the region will hold more than now, when the old record is gone. */
static int slot_fits(const mr_cache *c, const putting *w) {
    uint32_t others = atomic_load(&c->region->entries) - (w->old != 0);

    return others < c->region->geometry.max_entries && mr_slot_available(c);
}

static int cells_fit(const mr_cache *c, const putting *w) {
    uint64_t used = atomic_load(&c->region->cells_used);

    if (w->old != 0)
        used -= mr_slot_cells(&c->slots[w->old - 1]);
    return used + w->cells <= c->region->geometry.usable_cells;
}

static int fits(const mr_cache *c, const putting *w) {
    return slot_fits(c, w) && cells_fit(c, w);
}

/* For all that usually leave for one record: each entry frees a cell at least,
 * and the last one may be as large as any. */
static int reserve_for_room(mr_cache *c, const putting *w) {
    uint64_t cells = (uint64_t)w->cells + c->region->largest;

    return mr_gone_reserve(c,
                           mr_gone_size(w->cells + 2, cells * MR_CELL_PAYLOAD));
}

static int evict_one(mr_cache *c, const putting *w) {
    int for_slot = !slot_fits(c, w);
    uint32_t slot;

    if (atomic_load(&c->region->entries) == (w->old != 0 ? 1u : 0u))
        return MR_FULL;
    slot = mr_lru_oldest(c);
    /* More leave than usual where generations are used up: a slot that is never
     * used again is no room. */
    if (mr_gone_reserve_slot(c, slot) != MR_OK)
        return MR_NOMEM;
    mr_drop(c, slot, MR_EVICTED,
            for_slot ? MR_COUNT_EVICTED : MR_COUNT_EVICTED_FOR_SPACE);
    return MR_OK;
}

static int make_room(mr_cache *c, putting *w) {
    uint32_t looks = EXPIRY_LOOKS;
    int rc = MR_OK;

    if (fits(c, w))
        return MR_OK;
    if (reserve_for_room(c, w) != MR_OK)
        return MR_NOMEM;
    while (!fits(c, w) && mr_expire_one(c, w->p->now, &looks) == 1)
        ;
    if (!fits(c, w) && (w->p->flags & MR_PUT_REFUSE))
        return MR_FULL;
    /* The old record has to be there until the new one is. */
    if (!fits(c, w) && w->old != 0)
        mr_heap_update(&c->lru, w->old - 1, UINT64_MAX);
    while (rc == MR_OK && !fits(c, w))
        rc = evict_one(c, w);
    if (rc != MR_OK && w->old != 0)
        mr_heap_update(&c->lru, w->old - 1,
                       mr_slot_tick(c, &c->slots[w->old - 1]));
    return rc;
}

static double clamp_stamp(double stamp) {
    if (stamp < -MR_TIME_LIMIT)
        return -MR_TIME_LIMIT;
    return stamp < MR_TIME_LIMIT ? stamp : MR_TIME_LIMIT;
}

static mr_record make_record(mr_cache *c, const putting *w) {
    const mr_put *p = w->p;
    double slide = mr_double_of(atomic_load(&c->region->slide));
    mr_record rec = {
        .key = (const unsigned char *)p->key,
        .value = (const unsigned char *)p->value,
        .key_len = p->key_len,
        .value_len = p->value_len,
        .hash = w->hash,
        .epoch = w->epoch,
        .tag = p->tag,
        .tick = mr_next_tick(c, p->now),
        .stamp = clamp_stamp(p->stamp),
        .fresh_until = mr_time_kept(p->fresh_until),
        .expires_at = mr_time_kept(p->expires_at),
    };

    if (slide > 0 && rec.fresh_until > p->now + slide)
        rec.fresh_until = p->now + slide;
    return rec;
}

/* Swaps the filled slot in for the old one, see the top of the file. */
static void swap_in(mr_cache *c, uint32_t slot, uint32_t old) {
    _Atomic uint64_t *journal = &c->region->journal;

    atomic_store(journal, (uint64_t)(slot + 1) << 32 | old);
    MR_FAULT(JOURNALED);
    mr_slot_commit(&c->slots[slot]);
    MR_FAULT(COMMITTED);
    if (old != 0) {
        mr_slot_retire(&c->slots[old - 1]);
        MR_FAULT(OLD_RETIRED);
        mr_slot_unlink(c, old - 1);
        MR_FAULT(OLD_UNLINKED);
        mr_slot_release(c, old - 1);
    }
    MR_FAULT(OLD_RELEASED);
    mr_slot_link(c, slot);
    MR_FAULT(NEW_LINKED);
    atomic_store(journal, 0);
    MR_FAULT(JOURNAL_CLEARED);
}

static int put_locked(mr_cache *c, putting *w, double *ref) {
    mr_record rec;
    uint32_t slot;
    int rc = check_token(c, w);

    if (rc == MR_OK)
        rc = check_old(c, w);
    if (rc == MR_OK)
        rc = make_room(c, w);
    if (rc != MR_OK)
        return rc;
    rec = make_record(c, w);
    slot = mr_slot_fill(c, &rec);
    swap_in(c, slot, w->old);
    if (ref != NULL)
        *ref = mr_slot_ref(c, slot);
    return MR_OK;
}

static int too_large(const mr_cache *c, const putting *w) {
    const mr_geometry *g = &c->region->geometry;

    return w->p->key_len > MR_MAX_KEY || w->p->value_len > g->max_value ||
           w->cells > g->usable_cells;
}

int mr_cache_put(mr_cache *c, const mr_put *p, double *ref) {
    putting w = {.p = p};
    int rc;

    if (!arguments_ok(p))
        return MR_INVALID;
    w.hash = mr_cache_hash(c, p->key, p->key_len);
    w.cells = mr_cells_for((uint64_t)p->key_len + p->value_len);
    rc = too_large(c, &w) ? MR_TOO_LARGE : mr_cache_lock(c);
    if (rc == MR_OK) {
        rc = put_locked(c, &w, ref);
        mr_cache_unlock(c);
    }
    bump_once(c, &w);
    if (rc == MR_OK)
        mr_cache_count(c, MR_COUNT_PUTS);
    if (rc == MR_FULL)
        mr_cache_count(c, MR_COUNT_REFUSED);
    return rc;
}
