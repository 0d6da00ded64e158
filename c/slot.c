/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * slot.c - a record in its slot and cells.
 *
 *     slot 7: generation 12, key_len 36, value_len 30, first --+
 *                                                              v
 *     cell 90: k k k ... k (28) --> cell 4: k (8) v (20) --> cell 5: v (10) |
 *
 * Key and value follow each other through a chain of cells of 28 bytes, so
 * memory never fragments: any free cell will do.
 *
 * A hit reads a slot without a lock, other fields first and the generation
 * last. For that a slot is retired before its fields change (the fence in
 * write_fields) and committed after: a reader that saw a new field also sees
 * that the generation has moved on. */
#include "cache.h"

#include <string.h>

void mr_slot_set_fresh(mr_slot *s, double until) {
    double expires = mr_slot_expires_at(s);
    double kept = until < expires ? until : expires;

    atomic_store_explicit(&s->fresh_until, mr_bits_of(kept),
                          memory_order_release);
}

static uint32_t lanes_in_use(const mr_cache *c) {
    return atomic_load_explicit(&c->region->lanes_used, memory_order_relaxed);
}

/* The place of a slot in the lowest of some lanes. */
static _Atomic uint64_t *in_lane(const mr_cache *c, uint32_t lanes,
                                 uint32_t slot) {
    const mr_geometry *g = &c->region->geometry;
    uint32_t lane = (uint32_t)__builtin_ctz(lanes);
    _Atomic uint64_t *first =
        mr_region_at(c->region, g->lanes + lane * mr_lane_size(g));

    return &first[slot];
}

uint64_t mr_slot_tick(const mr_cache *c, const mr_slot *s) {
    uint64_t tick = atomic_load_explicit(&s->tick, memory_order_relaxed);
    uint32_t used = lanes_in_use(c), slot = (uint32_t)(s - c->slots);

    for (; used != 0; used &= used - 1) {
        uint64_t t =
            atomic_load_explicit(in_lane(c, used, slot), memory_order_relaxed);

        if (t != 0)
            tick = (t > tick ? t : tick) | 1;
    }
    return tick;
}

double mr_slot_expiry(const mr_cache *c, const mr_slot *s) {
    double slide = mr_double_of(
        atomic_load_explicit(&c->region->slide, memory_order_relaxed));
    double expires = mr_slot_expires_at(s);
    double last, fresh;

    if (!(slide > 0))
        return expires;
    /* Whole milliseconds, as the ticks below count the uses of one. */
    last = (double)(mr_slot_tick(c, s) / (uint64_t)MR_TICKS_PER_MS) + slide;
    /* Nothing dies while it can still be hit. */
    fresh = mr_slot_fresh_until(s);
    if (last < fresh)
        last = fresh;
    return last < expires ? last : expires;
}

double mr_slot_ref(const mr_cache *c, uint32_t slot) {
    uint64_t generation = mr_slot_generation(&c->slots[slot]);

    return (double)(generation << MR_SLOT_BITS | slot);
}

int mr_slot_has_key(const mr_cache *c, const mr_slot *s,
                    const unsigned char *key, uint32_t key_len) {
    uint32_t link = s->first;

    if (mr_slot_key_len(s) != key_len)
        return 0;
    while (key_len > 0) {
        const mr_cell *cell = &c->cells[link - 1];
        uint32_t n = key_len < MR_CELL_PAYLOAD ? key_len : MR_CELL_PAYLOAD;

        if (memcmp(cell->bytes, key, n) != 0)
            return 0;
        key += n;
        key_len -= n;
        link = cell->next;
    }
    return 1;
}

void mr_slot_copy(const mr_cache *c, const mr_slot *s, uint32_t from,
                  uint32_t len, unsigned char *out) {
    uint32_t link = s->first;

    for (; from >= MR_CELL_PAYLOAD && len > 0; from -= MR_CELL_PAYLOAD)
        link = c->cells[link - 1].next & ~MR_CELL_MARK;
    while (len > 0) {
        const mr_cell *cell = &c->cells[link - 1];
        uint32_t n = MR_CELL_PAYLOAD - from;

        if (n > len)
            n = len;
        memcpy(out, cell->bytes + from, n);
        out += n;
        len -= n;
        from = 0;
        link = cell->next & ~MR_CELL_MARK;
    }
}

int mr_slot_available(const mr_cache *c) {
    return c->region->free_slot != 0 || c->region->slot_high < c->slot_count;
}

static uint32_t take_slot(mr_cache *c) {
    mr_region *r = c->region;
    uint32_t link = r->free_slot;

    if (link == 0)
        return r->slot_high++;
    r->free_slot = c->slots[link - 1].next;
    return link - 1;
}

static uint32_t take_cell(mr_cache *c) {
    mr_region *r = c->region;
    uint32_t link = r->free_cell;

    if (link == 0)
        return ++r->cell_high;
    r->free_cell = c->cells[link - 1].next;
    return link;
}

/* Copies up to n bytes of key + value from *at on. */
static void copy_part(const mr_record *rec, uint32_t *at, uint32_t n,
                      unsigned char *out) {
    uint32_t of_key = 0;

    if (*at < rec->key_len) {
        of_key = rec->key_len - *at;
        if (of_key > n)
            of_key = n;
        memcpy(out, rec->key + *at, of_key);
    }
    if (of_key < n)
        memcpy(out + of_key, rec->value + (*at + of_key - rec->key_len),
               n - of_key);
    *at += n;
}

static uint32_t write_cells(mr_cache *c, const mr_record *rec) {
    uint32_t total = rec->key_len + rec->value_len;
    uint32_t first = 0, at = 0;
    uint32_t *link = &first;

    while (at < total) {
        uint32_t n = total - at;
        mr_cell *cell;

        if (n > MR_CELL_PAYLOAD)
            n = MR_CELL_PAYLOAD;
        *link = take_cell(c);
        cell = &c->cells[*link - 1];
        copy_part(rec, &at, n, cell->bytes);
        link = &cell->next;
        MR_FAULT(CELL_TAKEN);
    }
    *link = 0;
    return first;
}

/* The uses of the entry that was here before are none of this one. */
static void clear_lanes(mr_cache *c, uint32_t slot) {
    uint32_t used = lanes_in_use(c);

    for (; used != 0; used &= used - 1)
        atomic_store_explicit(in_lane(c, used, slot), 0, memory_order_relaxed);
}

static void write_fields(mr_slot *s, const mr_record *rec) {
    atomic_thread_fence(memory_order_release);
    s->hash = rec->hash & 0xffffff;
    s->value_len = rec->value_len & 0xffffff;
    s->key_len_high = rec->key_len >> 8 & 0xff;
    s->key_len_low = rec->key_len & 0xff;
    s->tag_high = rec->tag >> 8 & 0xff;
    s->tag_low = rec->tag & 0xff;
    s->stamp = rec->stamp;
    atomic_store_explicit(&s->epoch, rec->epoch, memory_order_release);
    atomic_store_explicit(&s->tick, rec->tick, memory_order_relaxed);
    atomic_store_explicit(&s->expires_at, mr_bits_of(rec->expires_at),
                          memory_order_relaxed);
    mr_slot_set_fresh(s, rec->fresh_until);
}

uint32_t mr_slot_fill(mr_cache *c, const mr_record *rec) {
    uint32_t slot = take_slot(c);
    mr_slot *s = &c->slots[slot];
    uint32_t cells;

    MR_FAULT(SLOT_TAKEN);
    s->first = write_cells(c, rec);
    MR_FAULT(CELLS_WRITTEN);
    clear_lanes(c, slot);
    write_fields(s, rec);
    MR_FAULT(FIELDS_WRITTEN);
    cells = mr_slot_cells(s);
    if (cells > c->region->largest)
        c->region->largest = cells;
    return slot;
}

static void step_generation(mr_slot *s) {
    uint32_t generation = mr_slot_generation(s);

    atomic_store_explicit(&s->generation, generation + 1, memory_order_release);
}

void mr_slot_commit(mr_slot *s) { step_generation(s); }

void mr_slot_retire(mr_slot *s) { step_generation(s); }

static void release_cells(mr_cache *c, const mr_slot *s) {
    uint32_t last = s->first;

    for (uint32_t n = mr_slot_cells(s); n > 1; n--)
        last = c->cells[last - 1].next;
    c->cells[last - 1].next = c->region->free_cell;
    MR_FAULT(CELLS_CHAINED);
    c->region->free_cell = s->first;
}

void mr_slot_release(mr_cache *c, uint32_t slot) {
    mr_slot *s = &c->slots[slot];

    release_cells(c, s);
    MR_FAULT(CELLS_FREE);
    s->first = 0;
    MR_FAULT(SLOT_EMPTY);
    if (mr_slot_generation(s) >= MR_LAST_GENERATION)
        return;
    s->next = c->region->free_slot;
    c->region->free_slot = slot + 1;
}
