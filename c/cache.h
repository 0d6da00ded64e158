/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * cache.h - what the files of the cache share. They build on each other:
 *
 *     slot.c     a record in its slot and cells; free lists
 *     index.c    key -> slot; linking an entry into index, heaps and counts
 *     gone.c     entries that leave: handed back, dropped, expired, evicted
 *     cache.c    handles, tokens, epoch, lease, and the hit
 *     find.c     finding and re-marking entries
 *     put.c      putting: check, make room, write beside, swap
 *     remove.c   removing one, or many in steps
 *     repair.c   rebuilding everything from the live slots
 *     check.c    walking everything
 *     stats.c    totals
 *     coherence.c  doubts, the dead, and who listens for invalidations
 *     open.c     opening and replacing a region
 *     carry.c    copying the entries of a replaced one
 *
 * load.c stands beside it: a table of its own, for counts of requests.
 *
 * Functions ending in _locked want the lock of the region. A link is a number
 * plus one, 0 being none, see region.h. */
#ifndef MR_CACHE_H
#define MR_CACHE_H

#include "fault.h"
#include "heap.h"
#include "mooring.h"
#include "region.h"
#include "registry.h"

/* Bytes of this process that grow and are kept. */
typedef struct mr_buffer {
    unsigned char *bytes;
    size_t capacity;
} mr_buffer;

struct mr_cache {
    /* What mr_hit reads. */
    mr_region *region;
    mr_slot *slots;
    mr_map *map;
    uint64_t tick; /* of the last use or put, even */
    uint32_t slot_count;
    int collecting;
    mr_cell *cells;
    uint32_t *buckets;
    _Atomic uint32_t *stripes;
    _Atomic uint32_t *tags;
    mr_heap lru;
    mr_heap expiry;
    mr_buffer value; /* the copy the last mr_cache_find handed out */
    mr_buffer gone;  /* records that left: [taken, filled) are to be taken */
    size_t gone_taken;
    size_t gone_filled;
};

/* A record on its way into a slot. */
typedef struct mr_record {
    const unsigned char *key;
    const unsigned char *value;
    uint32_t key_len;
    uint32_t value_len;
    uint32_t hash;
    uint32_t epoch;
    uint32_t tag;
    uint64_t tick;
    double stamp;
    double fresh_until;
    double expires_at;
} mr_record;

/* ------------------------------------------------------------- slot.c --- */

static inline uint32_t mr_slot_generation(const mr_slot *s) {
    return atomic_load_explicit(&s->generation, memory_order_acquire);
}

static inline int mr_slot_live(const mr_slot *s) {
    return (int)(mr_slot_generation(s) & 1);
}

static inline uint32_t mr_slot_key_len(const mr_slot *s) {
    return (uint32_t)s->key_len_high << 8 | s->key_len_low;
}

static inline uint32_t mr_slot_tag(const mr_slot *s) {
    return (uint32_t)s->tag_high << 8 | s->tag_low;
}

static inline uint32_t mr_slot_cells(const mr_slot *s) {
    return mr_cells_for((uint64_t)mr_slot_key_len(s) + s->value_len);
}

static inline double mr_slot_fresh_until(const mr_slot *s) {
    return mr_double_of(
        atomic_load_explicit(&s->fresh_until, memory_order_acquire));
}

static inline double mr_slot_expires_at(const mr_slot *s) {
    return mr_double_of(
        atomic_load_explicit(&s->expires_at, memory_order_relaxed));
}

/* The tick of the last use, or of the put. */
uint64_t mr_slot_tick(const mr_cache *c, const mr_slot *s);

/* Moves the mark, but not beyond the expiry: a hit is never a dead entry. */
void mr_slot_set_fresh(mr_slot *s, double until);
/* When the entry dies, with the slide of the region. */
double mr_slot_expiry(const mr_cache *c, const mr_slot *s);
double mr_slot_ref(const mr_cache *c, uint32_t slot);
int mr_slot_has_key(const mr_cache *c, const mr_slot *s,
                    const unsigned char *key, uint32_t key_len);
/* Copies len bytes of the record (key, then value) from byte `from` on; also
 * while its cells are marked. */
void mr_slot_copy(const mr_cache *c, const mr_slot *s, uint32_t from,
                  uint32_t len, unsigned char *out);
int mr_slot_available(const mr_cache *c);
/* Writes a record into a free slot, which stays invisible. There must be one,
 * and the cells. */
uint32_t mr_slot_fill(mr_cache *c, const mr_record *rec);
/* Makes a filled slot live, a live one free. One store each. */
void mr_slot_commit(mr_slot *s);
void mr_slot_retire(mr_slot *s);
/* Puts a retired slot and its cells on the free lists. */
void mr_slot_release(mr_cache *c, uint32_t slot);

/* ------------------------------------------------------------ index.c --- */

/* 24 bits of the seeded hash; bucket and stripe are taken from them. */
uint32_t mr_cache_hash(const mr_cache *c, const void *key, uint32_t key_len);
_Atomic uint32_t *mr_cache_stripe(const mr_cache *c, uint32_t hash);
/* Link of the live slot of that key, or 0. */
uint32_t mr_index_find(const mr_cache *c, const unsigned char *key,
                       uint32_t key_len, uint32_t hash);
void mr_index_add(mr_cache *c, uint32_t slot);
/* Into and out of index, heaps and counts. */
void mr_slot_link(mr_cache *c, uint32_t slot);
void mr_slot_unlink(mr_cache *c, uint32_t slot);

/* ------------------------------------------------------------- gone.c --- */

/* Room to hand one entry, or that many bytes of them, back. A no-op when
 * nothing is collected. Returns MR_OK or MR_NOMEM. */
int mr_gone_reserve_slot(mr_cache *c, uint32_t slot);
int mr_gone_reserve(mr_cache *c, uint64_t bytes);
uint64_t mr_gone_size(uint32_t records, uint64_t bytes);
/* The entry of a live slot leaves for `reason`; is lost to the caller when no
 * room was reserved. */
void mr_drop(mr_cache *c, uint32_t slot, int reason, enum mr_counter count);
/* Drops one expired entry, looking at *looks nodes at most and counting them
 * down. Returns 1 (dropped), 0 (none is left, or looks) or MR_NOMEM. */
int mr_expire_one(mr_cache *c, double now, uint32_t *looks);
/* The slot that was used longest ago; the region must not be empty. */
uint32_t mr_lru_oldest(mr_cache *c);
/* Brings one slot's LRU key up to date. Returns 1 when it was not. */
int mr_lru_freshen(mr_cache *c, uint32_t slot);

/* ------------------------------------------------------------ cache.c --- */

/* A handle on a map the registry counts it for. NULL: no memory. */
mr_cache *mr_cache_attach(mr_map *map);
void mr_cache_detach(mr_cache *c);
/* Locks the region, and repairs it when the last owner died. The first also
 * claims a line for this process, for which it locks the registry.
 * Returns MR_OK or MR_BUSY. */
int mr_cache_lock(mr_cache *c);
int mr_cache_lock_region(mr_cache *c);
void mr_cache_unlock(mr_cache *c);
/* Are lease and epoch behind the entry? */
int mr_cache_believes(const mr_cache *c, const mr_slot *s, double now);
/* Is it known, or to be feared, that the entry is dead? */
int mr_cache_is_dead(const mr_cache *c, const mr_slot *s);
/* Takes a ref apart. Returns 0 when it cannot be one of this region. */
int mr_ref_split(const mr_cache *c, double ref, uint32_t *slot,
                 uint32_t *generation);
/* The same, and the entry is there. */
int mr_ref_live(const mr_cache *c, double ref, uint32_t *slot);

static inline void mr_cache_count(mr_cache *c, enum mr_counter which) {
    mr_line_add(mr_map_line(c->map), which, 1);
}

/* An unused tick of this handle; `now` is valid, see mr_time_valid. */
static inline uint64_t mr_next_tick(mr_cache *c, double now) {
    uint64_t t = (uint64_t)(int64_t)(now * MR_TICKS_PER_MS) & ~1ULL;

    if (t > c->tick)
        c->tick = t;
    return c->tick += 2;
}

/* Notes a use. In the slot two processes that hit the same entries would write
 * the line that both of them read, which then travels between their cores with
 * each hit: 20 ns instead of 3, with 1,000 entries. So each process has a lane
 * of its own, and who wants to know looks at all of them (mr_slot_tick). */
static inline void mr_slot_use(mr_cache *c, uint32_t slot, double now) {
    _Atomic uint64_t *lane =
        atomic_load_explicit(&c->map->lane, memory_order_relaxed);

    atomic_store_explicit(lane != NULL ? &lane[slot] : &c->slots[slot].tick,
                          mr_next_tick(c, now) | 1, memory_order_relaxed);
}

static inline int mr_time_valid(double now) {
    return now >= 0 && now < MR_TIME_LIMIT;
}

/* A time as it is kept: 0 .. MR_TIME_LIMIT, NaN as 0. */
static inline double mr_time_kept(double t) {
    if (!(t > 0))
        return 0;
    return t < MR_TIME_LIMIT ? t : MR_TIME_LIMIT;
}

static inline double mr_time_shown(double kept) {
    return kept < MR_TIME_LIMIT ? kept : MR_NEVER;
}

/* ------------------------------------------------------------- find.c --- */

/* Makes a buffer at least that large. Returns MR_OK or MR_NOMEM. */
int mr_buffer_grow(mr_buffer *b, size_t need);

/* ------------------------------------------------------------ carry.c --- */

/* Copies the entries of another region into an empty one nobody else knows,
 * with their times and their LRU order, the newest first where not all fit.
 * Returns MR_OK, MR_BUSY or MR_NOMEM. */
int mr_cache_carry(mr_cache *from, mr_cache *to);

/* ----------------------------------------------------------- repair.c --- */

void mr_cache_repair(mr_cache *c);

/* Highest bit of a cell's link: somebody's, while everything is walked. */
#define MR_CELL_MARK 0x80000000u
/* Marks the cells of a slot's record. Returns 0, with none of them marked, when
 * the chain is not exactly the record's own cells. */
int mr_cells_mark(mr_cache *c, const mr_slot *s);
void mr_cells_unmark_all(mr_cache *c);

#endif
