/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * repair.c - after a process died while it held the lock.
 *
 * The live slots and their cells are the truth, everything else is built anew
 * from them: index, heaps, counts, free lists. Nothing is allocated, and a
 * process that dies in here leaves the mutex inconsistent, so that the next
 * owner starts over. Linear in the slots and cells that were ever used; others
 * get MR_BUSY meanwhile. */
#include "cache.h"

#include <string.h>

static void unmark(mr_cache *c, const mr_slot *s, uint32_t n) {
    uint32_t link = s->first;

    for (; n > 0; n--) {
        c->cells[link - 1].next &= ~MR_CELL_MARK;
        link = c->cells[link - 1].next;
    }
}

int mr_cells_mark(mr_cache *c, const mr_slot *s) {
    uint32_t want = mr_slot_cells(s), marked = 0;
    uint32_t link = s->first;

    while (link != 0 && link <= c->region->cell_high && marked < want &&
           !(c->cells[link - 1].next & MR_CELL_MARK)) {
        uint32_t next = c->cells[link - 1].next;

        c->cells[link - 1].next = next | MR_CELL_MARK;
        link = next;
        marked++;
    }
    if (marked == want && link == 0)
        return 1;
    unmark(c, s, marked);
    return 0;
}

void mr_cells_unmark_all(mr_cache *c) {
    for (uint32_t i = 0; i < c->region->cell_high; i++)
        c->cells[i].next &= ~MR_CELL_MARK;
}

/* Of an interrupted swap the new record stays, when it got as far. */
static void finish_swap(mr_cache *c) {
    uint64_t journal = atomic_load(&c->region->journal);
    uint32_t new = (uint32_t)(journal >> 32), old = (uint32_t)journal;

    if (new == 0 || new > c->slot_count || old == 0 || old > c->slot_count)
        return;
    if (mr_slot_live(&c->slots[new - 1]) && mr_slot_live(&c->slots[old - 1]))
        mr_slot_retire(&c->slots[old - 1]);
}

static void forget_links(mr_cache *c) {
    mr_region *r = c->region;

    if (r->slot_high > c->slot_count)
        r->slot_high = c->slot_count;
    if (r->cell_high > r->geometry.cell_count)
        r->cell_high = r->geometry.cell_count;
    memset(c->buckets, 0, sizeof(uint32_t) * r->geometry.bucket_count);
    r->lru_count = 0;
    r->expiry_count = 0;
    r->free_slot = 0;
    r->free_cell = 0;
    r->largest = 0;
    atomic_store(&r->entries, 0);
    atomic_store(&r->cells_used, 0);
    for (uint32_t tag = 0; tag < MR_TAGS; tag++)
        atomic_store_explicit(&c->tags[tag], 0, memory_order_relaxed);
}

/* The cells may be those of another record. On the stack, as nothing can be
 * allocated here. */
static int is_of_its_key(const mr_cache *c, const mr_slot *s) {
    unsigned char key[MR_MAX_KEY];
    uint32_t len = mr_slot_key_len(s);

    mr_slot_copy(c, s, 0, len, key);
    return mr_cache_hash(c, key, len) == s->hash;
}

static int is_sound(mr_cache *c, const mr_slot *s) {
    mr_region *r = c->region;
    uint32_t cells = mr_slot_cells(s);

    if (mr_slot_key_len(s) < 1 || s->value_len > r->geometry.max_value ||
        mr_slot_tag(s) >= MR_TAGS ||
        atomic_load(&r->entries) >= r->geometry.max_entries ||
        (uint64_t)atomic_load(&r->cells_used) + cells >
            r->geometry.usable_cells)
        return 0;
    if (!mr_cells_mark(c, s))
        return 0;
    if (is_of_its_key(c, s))
        return 1;
    unmark(c, s, cells);
    return 0;
}

static void keep(mr_cache *c, uint32_t slot) {
    mr_region *r = c->region;
    const mr_slot *s = &c->slots[slot];
    uint32_t cells = mr_slot_cells(s);

    mr_index_add(c, slot);
    mr_heap_append(&c->lru, slot, mr_slot_tick(c, s));
    mr_heap_append(&c->expiry, slot, mr_bits_of(mr_slot_expiry(c, s)));
    atomic_fetch_add(&r->entries, 1);
    atomic_fetch_add(&r->cells_used, cells);
    atomic_fetch_add(&c->tags[mr_slot_tag(s)], 1);
    if (cells > r->largest)
        r->largest = cells;
}

static void walk_slots(mr_cache *c) {
    mr_region *r = c->region;

    for (uint32_t i = r->slot_high; i > 0; i--) {
        mr_slot *s = &c->slots[i - 1];

        if (mr_slot_live(s) && is_sound(c, s)) {
            keep(c, i - 1);
            continue;
        }
        if (mr_slot_live(s))
            mr_slot_retire(s);
        s->first = 0;
        if (mr_slot_generation(s) < MR_LAST_GENERATION) {
            s->next = r->free_slot;
            r->free_slot = i;
        }
    }
}

static void walk_cells(mr_cache *c) {
    mr_region *r = c->region;

    for (uint32_t i = r->cell_high; i > 0; i--) {
        mr_cell *cell = &c->cells[i - 1];

        if (cell->next & MR_CELL_MARK) {
            cell->next &= ~MR_CELL_MARK;
            continue;
        }
        cell->next = r->free_cell;
        r->free_cell = i;
    }
}

void mr_cache_repair(mr_cache *c) {
    /* Stays set when this process dies, until the next one is through; but who
     * finds the owner of the lock dead has it, and does not look. */
    atomic_store(&c->region->repairing, 1);
    forget_links(c);
    MR_FAULT(LINKS_FORGOTTEN);
    mr_cells_unmark_all(c);
    MR_FAULT(MARKS_CLEARED);
    finish_swap(c);
    MR_FAULT(SWAP_FINISHED);
    walk_slots(c);
    MR_FAULT(SLOTS_WALKED);
    mr_heap_order(&c->lru);
    mr_heap_order(&c->expiry);
    MR_FAULT(HEAPS_ORDERED);
    walk_cells(c);
    MR_FAULT(CELLS_WALKED);
    atomic_store(&c->region->journal, 0);
    atomic_fetch_add(&c->region->repairs, 1);
    MR_FAULT(REPAIRED);
    atomic_store(&c->region->repairing, 0);
}
