/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * region.h - one block of memory shared by processes: its layout, its lock and
 * its counters.
 *
 *     +-------------+ 0
 *     | header      | geometry | lease, epoch | mutex | counts, lists, journal
 *     +-------------+ geometry.stripes
 *     | stripes     | 4096 x u32, one up whenever a key of the stripe changes
 *     +-------------+ geometry.tags
 *     | tags        | MR_TAGS x u32, how many live entries have each tag
 *     +-------------+ geometry.lines
 *     | lines       | 256 x 128 bytes of counters, each written by one process
 *     +-------------+ geometry.slots
 *     | slots       | 64 bytes an entry: all of it but its bytes
 *     +-------------+ geometry.lru, geometry.expiry
 *     | two heaps   | 12 bytes a node, see heap.h
 *     +-------------+ geometry.buckets
 *     | buckets     | u32 heads of chains of slots, a power of two of them
 *     +-------------+ geometry.cells
 *     | cells       | 32 bytes: 4 of link, 28 of key or value
 *     +-------------+ geometry.names
 *     | name, print |
 *     +-------------+ geometry.lanes, in regions of up to MR_LANES_MOST entries
 *     | lanes       | MR_LANES x a u64 for each slot: see mr_slot_use
 *     +-------------+ geometry.size
 *
 * Only offsets and numbers are stored, never pointers: processes may have the
 * block at different addresses. A link is the number of a slot or cell plus
 * one, so that 0 is "none" and a fresh block of zeros is an empty region; its
 * pages are touched as they come into use.
 *
 * The memory goes when the last process that maps it unmaps it or dies. The
 * fields are read and written under the lock unless they are atomic. */
#ifndef MR_REGION_H
#define MR_REGION_H

#include "hash.h"
#include "heap.h"
#include "mooring.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* "\nmooring" on a little-endian host. */
#define MR_MAGIC 0x676e69726f6f6d0aULL

enum {
    MR_STRIPES = 4096,
    MR_LINES = 256,
    MR_LANES = 8,
    MR_LANES_MOST = 65536, /* entries: beyond, hits seldom meet in a line */
    MR_CELL_PAYLOAD = 28,
    MR_SPARE_SLOTS = 8, /* one to write beside an old record, seven to replace
                           slots whose generations are used up */
    MR_MAX_NAME = 255,  /* bytes */
    MR_SLOT_BITS = 24,
    MR_LOCK_WAIT = 10 /* ms */
};

#define MR_SLOT_MASK ((1u << MR_SLOT_BITS) - 1)
/* Generations take 29 bits of a ref, so that it is exact in a double. A slot
 * starts at 0, is one up when its entry is committed (odd: live) and when it
 * is retired (even: free), and is never used again at the last even number:
 * a wrap would let an old ref hit a new entry. */
#define MR_LAST_GENERATION ((1u << 29) - 2)

/* Times from here on are "never". 2^43 ms are 278 years, and a tick of 2^-20 ms
 * still fits 63 bits. */
#define MR_TIME_LIMIT 8796093022208.0
#define MR_TICKS_PER_MS 1048576.0

/* One cache line, and all mr_hit touches of an entry. The doubles are kept as
 * their bits, since C has no lock-free atomic double. */
typedef struct mr_slot {
    _Atomic uint32_t generation; /* odd: live */
    _Atomic uint32_t epoch;
    _Atomic uint64_t fresh_until;
    _Atomic uint64_t expires_at;
    _Atomic uint64_t tick; /* in 2^-20 ms; bit 0: by a use, not by the put.
                              Uses may be in a lane instead: mr_slot_tick */
    double stamp;
    uint32_t next;  /* link: of the chain of its bucket, or the free list */
    uint32_t first; /* link: first cell */
    uint32_t hash : 24;
    uint32_t key_len_high : 8;
    uint32_t value_len : 24;
    uint32_t key_len_low : 8;
    unsigned char lru_place[MR_HEAP_PLACE];
    unsigned char tag_high;
    unsigned char expiry_place[MR_HEAP_PLACE];
    unsigned char tag_low;
} mr_slot;

_Static_assert(sizeof(mr_slot) == 64, "a slot is a cache line");

typedef struct mr_cell {
    uint32_t next; /* link */
    unsigned char bytes[MR_CELL_PAYLOAD];
} mr_cell;

_Static_assert(sizeof(mr_cell) == 32, "two cells are a cache line");

enum mr_counter {
    MR_COUNT_HITS,
    MR_COUNT_MISSES,
    MR_COUNT_PUTS,
    MR_COUNT_REMOVED,
    MR_COUNT_EXPIRED,
    MR_COUNT_EVICTED,
    MR_COUNT_EVICTED_FOR_SPACE,
    MR_COUNT_REFUSED,
    MR_COUNT_LOCK_TIMEOUTS,
    MR_COUNTERS
};

/* Counters of one process. Nobody else writes them, so they need no locked
 * instruction and their line does not travel between cores. When a process is
 * gone another one goes on counting where it stopped. */
typedef struct mr_line {
    _Atomic int32_t pid; /* 0: never used */
    uint32_t unused;
    _Atomic uint64_t count[MR_COUNTERS];
    unsigned char pad[120 - 8 * MR_COUNTERS];
} mr_line;

_Static_assert(sizeof(mr_line) == 128, "no line is shared by two processes");

/* What a region was asked to be, and where its parts are. Equal requests give
 * equal bytes: that is how a region is recognised and how it is validated. */
typedef struct mr_geometry {
    uint32_t max_entries; /* that fit, at most MR_MAX_ENTRIES - 1 */
    uint32_t max_value;
    uint32_t slot_count;
    uint32_t bucket_count;
    uint32_t usable_cells; /* max_bytes in cells */
    uint32_t cell_count;   /* and those to write a record beside an old one */
    uint32_t name_len;
    uint32_t fingerprint_len;
    uint64_t stripes;
    uint64_t tags;
    uint64_t lines;
    uint64_t slots;
    uint64_t lru;
    uint64_t expiry;
    uint64_t buckets;
    uint64_t cells;
    uint64_t names;
    uint64_t lanes; /* 0: none */
    uint64_t size;
} mr_geometry;

typedef struct mr_region {
    /* Written once. */
    uint64_t magic;
    uint32_t abi;
    uint32_t header_size;
    mr_geometry geometry;
    unsigned char seed[MR_HASH_SEED];
    /* Read by every hit, written seldom. */
    _Alignas(64) _Atomic uint64_t lease; /* bits of a double */
    _Atomic uint32_t epoch;
    _Atomic uint32_t dead_before; /* entries of earlier epochs are known dead */
    _Atomic uint64_t slide;       /* bits of a double */
    _Atomic uint64_t server;      /* bits of a double */
    _Atomic uint32_t lanes_used;  /* a bit for each that may not be all zeros */
    /* Who listens for invalidations, see coherence.c. Bits of doubles. */
    _Alignas(64) _Atomic uint64_t listener_owner;
    _Atomic uint64_t listener_beat;
    _Atomic uint64_t listener_leaving;
    _Atomic uint64_t listener_successor;
    _Atomic uint64_t listener_ready;
    _Alignas(64) pthread_mutex_t mutex;
    _Atomic uint64_t repairs;
    _Atomic uint32_t repairing; /* who has the lock will have it for long */
    /* Written under the lock, some of it read without. */
    _Alignas(64) _Atomic uint64_t journal; /* new link << 32 | old link */
    _Atomic uint32_t entries;
    _Atomic uint32_t cells_used;
    uint32_t lru_count;
    uint32_t expiry_count;
    uint32_t free_slot; /* link */
    uint32_t free_cell; /* link */
    uint32_t slot_high; /* slots from here on have never been used */
    uint32_t cell_high;
    uint32_t largest; /* cells of the largest record there has been */
    uint32_t freshen; /* where the sweep goes on */
} mr_region;

/* Lays a region out. Returns MR_OK, or MR_INVALID and a text in *why. */
int mr_geometry_make(const mr_cache_options *opts, mr_geometry *out,
                     const char **why);

/* Maps an empty region of that geometry. Returns MR_OK, or MR_NOMEM when the
 * kernel gives no memory, no mutex or no seed. */
int mr_region_make(const mr_geometry *geometry, const mr_cache_options *opts,
                   mr_region **out);
void mr_region_unmap(mr_region *r, uint64_t size);

/* What is wrong with the header of a mapping of `size` bytes: NULL, or a static
 * text. */
const char *mr_region_fault(const mr_region *r, uint64_t size);

/* Waits for the lock, MR_LOCK_WAIT at most, and not at all while it is held for
 * a repair, which takes half a microsecond for each entry there is: a worker
 * that waits serves nobody. *owner_died: the last owner did
 * not live to unlock; the caller has it, has to repair what the mutex guards
 * and to call mr_region_consistent, or the next one will be told the same.
 * Returns MR_OK or MR_BUSY. */
int mr_region_lock(mr_region *r, int *owner_died);
void mr_region_consistent(mr_region *r);
void mr_region_unlock(mr_region *r);

/* A line for this process. With all lines in use by living processes the last
 * one is shared, and may then lose counts. */
mr_line *mr_region_line(mr_region *r);

/* The lane of the process that has that line, from now on in use; NULL: the
 * region has none. With more processes than lanes some share one. */
_Atomic uint64_t *mr_region_lane(mr_region *r, const mr_line *line);

/* Bytes from one lane to the next: pages of their own, for a lane that nobody
 * uses takes no memory. */
static inline uint64_t mr_lane_size(const mr_geometry *g) {
    return (8ULL * g->slot_count + 4095) & ~4095ULL;
}

static inline void mr_line_add(mr_line *line, enum mr_counter which,
                               uint64_t n) {
    _Atomic uint64_t *count = &line->count[which];
    uint64_t was = atomic_load_explicit(count, memory_order_relaxed);

    atomic_store_explicit(count, was + n, memory_order_relaxed);
}

static inline void *mr_region_at(const mr_region *r, uint64_t offset) {
    return (unsigned char *)(uintptr_t)r + offset;
}

static inline uint64_t mr_bits_of(double d) {
    union {
        double d;
        uint64_t u;
    } both = {.d = d};

    return both.u;
}

static inline double mr_double_of(uint64_t u) {
    union {
        uint64_t u;
        double d;
    } both = {.u = u};

    return both.d;
}

/* Is d less than the double of these bits, which is not negative? Such doubles
 * are in the order of their bits, and what is negative or no number at all has
 * the bits of more than any of them: one comparison, and d is valid as well. */
static inline int mr_below(double d, uint64_t bits) {
    return mr_bits_of(d) < bits;
}

static inline uint32_t mr_cells_for(uint64_t bytes) {
    return (uint32_t)((bytes + MR_CELL_PAYLOAD - 1) / MR_CELL_PAYLOAD);
}

#endif
