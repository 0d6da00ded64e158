/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * remove.c - removing one entry, and removing many in bounded steps.
 *
 * The stripe is bumped before the lock is waited for, see put.c. */
#include "cache.h"

enum { DROP_COST = 4 }; /* in slots that are only looked at; a used one: 2 */

static int drop_locked(mr_cache *c, uint32_t slot, int reason) {
    if (reason != MR_GONE_QUIETLY && mr_gone_reserve_slot(c, slot) != MR_OK)
        return MR_NOMEM;
    mr_drop(c, slot, reason,
            reason == MR_EXPIRED ? MR_COUNT_EXPIRED : MR_COUNT_REMOVED);
    return MR_OK;
}

/* Makes the key's tokens invalid. Returns its hash. */
static uint32_t bump(mr_cache *c, const char *key, uint32_t key_len) {
    uint32_t hash = mr_cache_hash(c, key, key_len);

    atomic_fetch_add(mr_cache_stripe(c, hash), 1);
    return hash;
}

static uint32_t find_link(const mr_cache *c, const char *key, uint32_t key_len,
                          uint32_t hash) {
    return mr_index_find(c, (const unsigned char *)key, key_len, hash);
}

int mr_cache_remove(mr_cache *c, const char *key, uint32_t key_len,
                    int reason) {
    uint32_t hash, link;
    int rc = MR_NOT_FOUND;

    if (key == NULL || key_len < 1)
        return MR_INVALID;
    hash = bump(c, key, key_len);
    MR_FAULT(STRIPE_BUMPED);
    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    link = find_link(c, key, key_len, hash);
    if (link != 0)
        rc = drop_locked(c, link - 1, reason);
    mr_cache_unlock(c);
    return rc;
}

int mr_cache_remove_ref(mr_cache *c, double ref, int reason) {
    uint32_t slot;
    int rc = MR_CHANGED;

    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    if (mr_ref_live(c, ref, &slot)) {
        /* Here the stripe is known from the slot only, and under the lock no
         * put can come between. */
        atomic_fetch_add(mr_cache_stripe(c, c->slots[slot].hash), 1);
        rc = drop_locked(c, slot, reason);
    }
    mr_cache_unlock(c);
    return rc;
}

void mr_cache_invalidate(mr_cache *c, const char *key, uint32_t key_len,
                         int reason) {
    uint32_t hash, link;

    if (key == NULL || key_len < 1)
        return;
    hash = bump(c, key, key_len);
    if (mr_cache_lock(c) != MR_OK) {
        mr_cache_bump_epoch(c);
        return;
    }
    link = find_link(c, key, key_len, hash);
    /* Without memory it leaves all the same, and unheard. */
    if (link != 0 && drop_locked(c, link - 1, reason) != MR_OK)
        drop_locked(c, link - 1, MR_GONE_QUIETLY);
    mr_cache_unlock(c);
}

static void freshen(mr_cache *c, uint32_t steps) {
    mr_region *r = c->region;
    uint32_t left = r->slot_high;

    for (; steps > 0 && left > 0; steps--, left--) {
        if (r->freshen >= r->slot_high)
            r->freshen = 0;
        if (mr_slot_live(&c->slots[r->freshen]) &&
            mr_lru_freshen(c, r->freshen) && steps > 1)
            steps--;
        r->freshen++;
    }
}

int mr_cache_sweep(mr_cache *c, double now, uint32_t max_steps) {
    int removed = 0, rc;

    if (!mr_time_valid(now))
        return MR_INVALID;
    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    while ((rc = mr_expire_one(c, now, &max_steps)) == 1) {
        removed++;
        max_steps -= max_steps < DROP_COST ? max_steps : DROP_COST - 1;
    }
    freshen(c, max_steps);
    mr_cache_unlock(c);
    return removed == 0 && rc == MR_NOMEM ? MR_NOMEM : removed;
}

/* In ms. The put is not a use here: its stamp says when the owner last had news
 * of the entry. */
static double last_use(const mr_cache *c, const mr_slot *s) {
    uint64_t tick = mr_slot_tick(c, s);
    double used = (double)tick / MR_TICKS_PER_MS;

    return (tick & 1) != 0 && used > s->stamp ? used : s->stamp;
}

int mr_cache_remove_unused(mr_cache *c, double before, uint32_t *cursor,
                           uint32_t max_steps) {
    mr_region *r = c->region;
    int removed = 0, rc = MR_OK;

    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    for (; max_steps > 0 && *cursor < r->slot_high; max_steps--) {
        if (mr_slot_live(&c->slots[*cursor]) &&
            last_use(c, &c->slots[*cursor]) < before) {
            rc = drop_locked(c, *cursor, MR_EXPIRED);
            if (rc != MR_OK)
                break;
            removed++;
        }
        ++*cursor;
    }
    if (*cursor >= r->slot_high)
        *cursor = 0;
    mr_cache_unlock(c);
    return removed == 0 && rc != MR_OK ? rc : removed;
}

int mr_cache_clear(mr_cache *c, int reason, uint32_t max_steps) {
    int removed = 0, rc = MR_OK;

    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    for (; max_steps > 0 && *c->lru.count > 0; max_steps--) {
        /* From the end, where a heap gives way without moving anything. */
        rc = drop_locked(c, c->lru.nodes[*c->lru.count - 1].slot, reason);
        if (rc != MR_OK)
            break;
        removed++;
    }
    mr_cache_unlock(c);
    return removed == 0 && rc != MR_OK ? rc : removed;
}
