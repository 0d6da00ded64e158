/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * carry.c - copying the entries of a region that is being replaced.
 *
 * The old region stays as it is, other processes may still be using it. The
 * new one has another seed and other cells, so records are put anew, oldest
 * first, which leaves its LRU heap in order. What the entries were believed
 * for, epoch and lease, comes along. */
#include "alloc.h"
#include "cache.h"

#include <stdlib.h>
#include <time.h>

enum { PATIENCE = 100 /* tries of MR_LOCK_WAIT each */ };

typedef struct use {
    uint64_t tick;
    uint32_t slot;
} use;

static int newest_first(const void *a, const void *b) {
    uint64_t x = ((const use *)a)->tick, y = ((const use *)b)->tick;

    return x < y ? 1 : x > y ? -1 : 0;
}

static uint32_t list_uses(const mr_cache *from, use *uses) {
    uint32_t n = 0;

    for (uint32_t i = 0; i < from->region->slot_high; i++)
        if (mr_slot_live(&from->slots[i])) {
            uses[n].tick = mr_slot_tick(from, &from->slots[i]);
            uses[n++].slot = i;
        }
    qsort(uses, n, sizeof *uses, newest_first);
    return n;
}

/* Moves those that fit to the front. */
static uint32_t choose(const mr_cache *from, const mr_cache *to, use *uses,
                       uint32_t n) {
    const mr_geometry *g = &to->region->geometry;
    uint64_t cells = 0;
    uint32_t chosen = 0;

    for (uint32_t i = 0; i < n && chosen < g->max_entries; i++) {
        const mr_slot *s = &from->slots[uses[i].slot];

        if (s->value_len > g->max_value ||
            cells + mr_slot_cells(s) > g->usable_cells)
            continue;
        cells += mr_slot_cells(s);
        uses[chosen++] = uses[i];
    }
    return chosen;
}

static void copy_entry(const mr_cache *from, const use *u, mr_cache *to,
                       unsigned char *scratch) {
    const mr_slot *s = &from->slots[u->slot];
    mr_record rec = {
        .key = scratch,
        .key_len = mr_slot_key_len(s),
        .value_len = s->value_len,
        .epoch = atomic_load(&s->epoch),
        .tag = mr_slot_tag(s),
        .tick = u->tick,
        .stamp = s->stamp,
        .fresh_until = mr_slot_fresh_until(s),
        .expires_at = mr_slot_expires_at(s),
    };
    uint32_t slot;

    mr_slot_copy(from, s, 0, rec.key_len + rec.value_len, scratch);
    rec.value = scratch + rec.key_len;
    rec.hash = mr_cache_hash(to, rec.key, rec.key_len);
    slot = mr_slot_fill(to, &rec);
    mr_slot_commit(&to->slots[slot]);
    mr_slot_link(to, slot);
    MR_FAULT(CARRIED);
}

static int carry_locked(mr_cache *from, mr_cache *to) {
    uint32_t n = atomic_load(&from->region->entries), chosen;
    use *uses = mr_alloc(sizeof *uses * ((size_t)n + 1));
    unsigned char *scratch =
        mr_alloc((size_t)from->region->largest * MR_CELL_PAYLOAD + 1);
    int rc = uses != NULL && scratch != NULL ? MR_OK : MR_NOMEM;

    if (rc == MR_OK) {
        n = list_uses(from, uses);
        chosen = choose(from, to, uses, n);
        for (uint32_t i = chosen; i > 0; i--)
            copy_entry(from, &uses[i - 1], to, scratch);
        mr_line_add(mr_map_line(to->map), MR_COUNT_EVICTED, n - chosen);
    }
    mr_free(uses);
    mr_free(scratch);
    return rc;
}

int mr_cache_carry(mr_cache *from, mr_cache *to) {
    const struct timespec nap = {0, MR_LOCK_WAIT * 1000000L};
    int rc = MR_BUSY;

    for (int i = 0; rc == MR_BUSY && i < PATIENCE; i++) {
        /* A repair is not waited for by the lock itself. */
        if (atomic_load(&from->region->repairing))
            nanosleep(&nap, NULL);
        rc = mr_cache_lock_region(from);
    }
    if (rc != MR_OK)
        return rc;
    atomic_store(&to->region->epoch, atomic_load(&from->region->epoch));
    atomic_store(&to->region->dead_before,
                 atomic_load(&from->region->dead_before));
    rc = carry_locked(from, to);
    atomic_store(&to->region->lease, atomic_load(&from->region->lease));
    mr_cache_unlock(from);
    return rc;
}
