/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * check.c - walking a whole region and counting again.
 *
 * Each test below ends at the first thing that is wrong, with a text for
 * whoever debugs it. Cells are marked with the record that owns them, so that
 * one in two chains, in a chain and free, or in none of them is found. */
#include "cache.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct report {
    char *err;
    uint32_t err_len;
} report;

static int corrupt(const report *to, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int corrupt(const report *to, const char *format, ...) {
    va_list args;

    va_start(args, format);
    if (to->err != NULL && to->err_len > 0)
        vsnprintf(to->err, to->err_len, format, args);
    va_end(args);
    return MR_CORRUPT;
}

static int check_header(mr_cache *c, const report *to) {
    const mr_region *r = c->region;
    const char *fault = mr_region_fault(r, c->map->size);

    if (fault != NULL)
        return corrupt(to, "header: %s", fault);
    if (atomic_load(&r->journal) != 0)
        return corrupt(to, "the journal is not empty");
    if (atomic_load(&r->repairing) != 0)
        return corrupt(to, "a repair that nobody is doing");
    if (r->slot_high > c->slot_count)
        return corrupt(to, "%u slots used of %u", r->slot_high, c->slot_count);
    if (r->cell_high > r->geometry.cell_count)
        return corrupt(to, "%u cells used of %u", r->cell_high,
                       r->geometry.cell_count);
    if (atomic_load(&r->entries) > r->geometry.max_entries)
        return corrupt(to, "%u entries", atomic_load(&r->entries));
    return MR_OK;
}

static int check_heap(const mr_cache *c, const mr_heap *h, const char *name,
                      const report *to) {
    int64_t at;

    if (*h->count != atomic_load(&c->region->entries))
        return corrupt(to, "%s heap: %u nodes for %u entries", name, *h->count,
                       atomic_load(&c->region->entries));
    at = mr_heap_check(h, c->slot_count);
    if (at >= 0)
        return corrupt(to, "%s heap: node %lld is out of place", name,
                       (long long)at);
    for (uint32_t i = 0; i < *h->count; i++)
        if (!mr_slot_live(&c->slots[h->nodes[i].slot]))
            return corrupt(to, "%s heap: node %u is of a free slot", name, i);
    return MR_OK;
}

/* UINT64_MAX is the place of a record that is being replaced, and only while
 * the lock is held. */
static int check_seen(const mr_cache *c, const report *to) {
    for (uint32_t i = 0; i < *c->lru.count; i++)
        if (mr_heap_key(&c->lru.nodes[i]) == UINT64_MAX)
            return corrupt(to, "LRU heap: node %u would never leave", i);
    return MR_OK;
}

/* Marks the cells of all live entries, counting both. */
static int check_records(mr_cache *c, const report *to) {
    const mr_region *r = c->region;
    uint32_t entries = 0;
    uint64_t cells = 0;

    for (uint32_t i = 0; i < r->slot_high; i++) {
        const mr_slot *s = &c->slots[i];

        if (!mr_slot_live(s))
            continue;
        if (mr_slot_key_len(s) < 1 || s->value_len > r->geometry.max_value)
            return corrupt(to, "slot %u: key of %u, value of %u bytes", i,
                           mr_slot_key_len(s), (unsigned)s->value_len);
        if (!mr_cells_mark(c, s))
            return corrupt(to, "slot %u: its cells are not its own", i);
        entries++;
        cells += mr_slot_cells(s);
    }
    if (entries != atomic_load(&r->entries))
        return corrupt(to, "%u entries, %u counted", entries,
                       atomic_load(&r->entries));
    if (cells != atomic_load(&r->cells_used) ||
        cells > r->geometry.usable_cells)
        return corrupt(to, "%llu cells, %u counted, %u allowed",
                       (unsigned long long)cells, atomic_load(&r->cells_used),
                       r->geometry.usable_cells);
    return MR_OK;
}

/* Each tag has as many live entries as are counted for it. */
static int check_tags(const mr_cache *c, const report *to) {
    uint32_t seen[MR_TAGS] = {0};

    for (uint32_t i = 0; i < c->region->slot_high; i++) {
        const mr_slot *s = &c->slots[i];

        if (!mr_slot_live(s))
            continue;
        if (mr_slot_tag(s) >= MR_TAGS)
            return corrupt(to, "slot %u: tag %u", i, mr_slot_tag(s));
        seen[mr_slot_tag(s)]++;
    }
    for (uint32_t tag = 0; tag < MR_TAGS; tag++)
        if (seen[tag] != atomic_load(&c->tags[tag]))
            return corrupt(to, "tag %u: %u entries, %u counted", tag, seen[tag],
                           atomic_load(&c->tags[tag]));
    return MR_OK;
}

/* All cells are either marked by now or on the free list, once. */
static int check_free_cells(mr_cache *c, const report *to) {
    const mr_region *r = c->region;
    uint64_t seen = atomic_load(&r->cells_used);
    uint32_t link = r->free_cell;

    while (link != 0) {
        mr_cell *cell;

        if (link > r->cell_high)
            return corrupt(to, "free cells: %u does not exist", link - 1);
        cell = &c->cells[link - 1];
        if (cell->next & MR_CELL_MARK)
            return corrupt(to, "free cells: %u is in use", link - 1);
        link = cell->next;
        cell->next |= MR_CELL_MARK;
        seen++;
    }
    if (seen != r->cell_high)
        return corrupt(to, "%llu cells accounted for of %u",
                       (unsigned long long)seen, r->cell_high);
    return MR_OK;
}

static int check_cells(mr_cache *c, const report *to) {
    int rc = check_records(c, to);

    if (rc == MR_OK)
        rc = check_free_cells(c, to);
    MR_FAULT(MARKED);
    mr_cells_unmark_all(c);
    return rc;
}

static int check_free_slots(const mr_cache *c, const report *to) {
    const mr_region *r = c->region;
    uint32_t want = 0, seen = 0;
    uint32_t link = r->free_slot;

    for (uint32_t i = 0; i < r->slot_high; i++)
        want += !mr_slot_live(&c->slots[i]) &&
                mr_slot_generation(&c->slots[i]) < MR_LAST_GENERATION;
    while (link != 0 && seen <= want) {
        if (link > r->slot_high || mr_slot_live(&c->slots[link - 1]))
            return corrupt(to, "free slots: %u is not one", link - 1);
        link = c->slots[link - 1].next;
        seen++;
    }
    if (seen != want)
        return corrupt(to, "%u free slots, %u listed", want, seen);
    return MR_OK;
}

/* The chain of a slot's key leads to that slot, and to no other of the key
 * before it. */
static int check_key(mr_cache *c, uint32_t slot, const report *to) {
    const mr_slot *s = &c->slots[slot];
    uint32_t len = mr_slot_key_len(s), hash, found;

    if (mr_buffer_grow(&c->value, len) != MR_OK)
        return MR_NOMEM;
    mr_slot_copy(c, s, 0, len, c->value.bytes);
    hash = mr_cache_hash(c, c->value.bytes, len);
    if (hash != s->hash)
        return corrupt(to, "slot %u: its hash is wrong", slot);
    found = mr_index_find(c, c->value.bytes, len, hash);
    if (found != slot + 1)
        return corrupt(to, "slot %u: its key leads to slot %d", slot,
                       (int)found - 1);
    return MR_OK;
}

static int check_index(mr_cache *c, const report *to) {
    const mr_region *r = c->region;
    uint32_t seen = 0;
    int rc = MR_OK;

    for (uint32_t b = 0; b < r->geometry.bucket_count; b++)
        for (uint32_t link = c->buckets[b]; link != 0;
             link = c->slots[link - 1].next)
            if (link > r->slot_high || !mr_slot_live(&c->slots[link - 1]) ||
                ++seen > atomic_load(&r->entries))
                return corrupt(to, "bucket %u: slot %u does not belong", b,
                               link - 1);
    if (seen != atomic_load(&r->entries))
        return corrupt(to, "%u entries in the index", seen);
    for (uint32_t i = 0; i < r->slot_high && rc == MR_OK; i++)
        if (mr_slot_live(&c->slots[i]))
            rc = check_key(c, i, to);
    return rc;
}

static int check_locked(mr_cache *c, const report *to) {
    int rc = check_header(c, to);

    if (rc == MR_OK)
        rc = check_cells(c, to);
    if (rc == MR_OK)
        rc = check_tags(c, to);
    if (rc == MR_OK)
        rc = check_free_slots(c, to);
    if (rc == MR_OK)
        rc = check_index(c, to);
    if (rc == MR_OK)
        rc = check_heap(c, &c->lru, "LRU", to);
    if (rc == MR_OK)
        rc = check_seen(c, to);
    if (rc == MR_OK)
        rc = check_heap(c, &c->expiry, "expiry", to);
    return rc;
}

int mr_cache_check(mr_cache *c, char *err, uint32_t err_len) {
    report to = {err, err_len};
    int rc;

    if (err != NULL && err_len > 0)
        err[0] = '\0';
    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    rc = check_locked(c, &to);
    mr_cache_unlock(c);
    return rc;
}
