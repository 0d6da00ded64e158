/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * region.c - laying out, mapping, validating and locking; see region.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "region.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    DEFAULT_BYTES = 256, /* an entry, when max_bytes is 0 */
    DEFAULT_KEY = 4096,  /* what the largest value gets for its key then */
    MAX_PRINT = 65535,   /* bytes */
    SPINS = 100,         /* tries before the first sleep */
    NAP = 20 * 1000      /* ns between later tries */
};

/* A link is a cell's number plus one, and its highest bit is the mark that
 * check and repair use. 64 GiB. */
#define MAX_CELLS 0x7ffffffeu

static uint64_t align64(uint64_t offset) { return (offset + 63) & ~63ULL; }

static const char *wrong_option(const mr_cache_options *o) {
    if (o->max_entries < 1 || o->max_entries > MR_MAX_ENTRIES)
        return "max_entries must be 1 to 16777216";
    if (o->max_value < 1 || o->max_value > MR_MAX_VALUE)
        return "max_value must be 1 to 16777215";
    if (!(o->max_bytes >= 0 && o->max_bytes <= 32.0 * MAX_CELLS))
        return "max_bytes must be 0 to 64 GiB";
    if (!(o->slide >= 0 && o->slide < MR_TIME_LIMIT))
        return "slide must be a number of milliseconds, or 0";
    if (o->name != NULL && (o->name_len < 1 || o->name_len > MR_MAX_NAME))
        return "name must have 1 to 255 bytes";
    if (o->fingerprint_len > MAX_PRINT ||
        (o->fingerprint == NULL && o->fingerprint_len > 0))
        return "fingerprint must have at most 65535 bytes";
    return NULL;
}

static uint64_t usable_cells(const mr_cache_options *o) {
    const uint64_t size = sizeof(mr_cell);
    uint64_t cells = ((uint64_t)o->max_bytes + size - 1) / size;
    uint64_t one = mr_cells_for((uint64_t)DEFAULT_KEY + o->max_value);

    if (cells > 0)
        return cells;
    cells = (uint64_t)o->max_entries * DEFAULT_BYTES / size;
    return cells > one ? cells : one;
}

static void place_parts(mr_geometry *g) {
    uint64_t at = align64(sizeof(mr_region));

    g->stripes = at;
    at = align64(at + sizeof(uint32_t) * MR_STRIPES);
    g->tags = at;
    at = align64(at + sizeof(uint32_t) * MR_TAGS);
    g->lines = at;
    at += sizeof(mr_line) * MR_LINES;
    g->slots = at;
    at += sizeof(mr_slot) * (uint64_t)g->slot_count;
    g->lru = at;
    at = align64(at + 12ULL * g->max_entries);
    g->expiry = at;
    at = align64(at + 12ULL * g->max_entries);
    g->buckets = at;
    at = align64(at + sizeof(uint32_t) * (uint64_t)g->bucket_count);
    g->cells = at;
    at += sizeof(mr_cell) * (uint64_t)g->cell_count;
    g->names = at;
    at = align64(at + g->name_len + g->fingerprint_len);
    g->lanes = 0;
    if (g->max_entries <= MR_LANES_MOST) {
        g->lanes = (at + 4095) & ~4095ULL;
        at = g->lanes + MR_LANES * mr_lane_size(g);
    }
    g->size = at;
}

int mr_geometry_make(const mr_cache_options *o, mr_geometry *g,
                     const char **why) {
    uint64_t usable, largest;

    *why = wrong_option(o);
    if (*why != NULL)
        return MR_INVALID;
    memset(g, 0, sizeof *g);
    /* All slots have to have a number that fits a ref. */
    g->max_entries = o->max_entries;
    if (g->max_entries == MR_MAX_ENTRIES)
        g->max_entries--;
    g->slot_count = g->max_entries + MR_SPARE_SLOTS;
    if (g->slot_count > MR_MAX_ENTRIES)
        g->slot_count = MR_MAX_ENTRIES;
    for (g->bucket_count = 1; g->bucket_count < g->max_entries;)
        g->bucket_count *= 2;
    usable = usable_cells(o);
    largest = mr_cells_for((uint64_t)MR_MAX_KEY + o->max_value);
    if (largest > usable)
        largest = usable;
    if (usable + largest > MAX_CELLS) {
        *why = "max_bytes must be at most 64 GiB";
        return MR_INVALID;
    }
    g->max_value = o->max_value;
    g->usable_cells = (uint32_t)usable;
    g->cell_count = (uint32_t)(usable + largest);
    g->name_len = o->name != NULL ? o->name_len : 0;
    g->fingerprint_len = o->fingerprint_len;
    place_parts(g);
    return MR_OK;
}

static int make_mutex(pthread_mutex_t *mutex) {
    pthread_mutexattr_t attr;
    int bad;

    if (pthread_mutexattr_init(&attr) != 0)
        return MR_NOMEM;
    bad = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||
          pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) ||
          pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return bad ? MR_NOMEM : MR_OK;
}

static int make_header(mr_region *r, const mr_geometry *g,
                       const mr_cache_options *o) {
    unsigned char *names = mr_region_at(r, g->names);

    r->magic = MR_MAGIC;
    r->abi = MOORING_ABI;
    r->header_size = sizeof *r;
    r->geometry = *g;
    atomic_init(&r->lease, mr_bits_of(MR_TIME_LIMIT));
    atomic_init(&r->slide, mr_bits_of(o->slide));
    if (g->name_len > 0)
        memcpy(names, o->name, g->name_len);
    if (g->fingerprint_len > 0)
        memcpy(names + g->name_len, o->fingerprint, g->fingerprint_len);
    if (getrandom(r->seed, sizeof r->seed, 0) != (ssize_t)sizeof r->seed)
        return MR_NOMEM;
    return make_mutex(&r->mutex);
}

int mr_region_make(const mr_geometry *g, const mr_cache_options *o,
                   mr_region **out) {
    mr_region *r = mmap(NULL, g->size, PROT_READ | PROT_WRITE,
                        /* cppcheck-suppress invalidFunctionArg ; -1: no file */
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (r == MAP_FAILED)
        return MR_NOMEM;
    /* Sessions do not belong into core dumps. */
    madvise(r, g->size, MADV_DONTDUMP);
    if (make_header(r, g, o) != MR_OK) {
        munmap(r, g->size);
        return MR_NOMEM;
    }
    *out = r;
    return MR_OK;
}

void mr_region_unmap(mr_region *r, uint64_t size) { munmap(r, size); }

const char *mr_region_fault(const mr_region *r, uint64_t size) {
    mr_geometry g = r->geometry;

    if (r->magic != MR_MAGIC)
        return "its magic number is wrong";
    if (r->abi != MOORING_ABI)
        return "another version of the library made it";
    if (r->header_size != sizeof *r)
        return "its header has another size";
    place_parts(&g);
    if (memcmp(&g, &r->geometry, sizeof g) != 0 || g.size != size)
        return "its sizes and offsets do not agree";
    return NULL;
}

static double elapsed_ms(const struct timespec *since) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(t.tv_sec - since->tv_sec) * 1e3 +
           (double)(t.tv_nsec - since->tv_nsec) / 1e6;
}

static void breathe(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sections under the lock take microseconds, so spinning for a few nearly
 * always does. A timed lock is not used: glibc waits for it on the wall clock,
 * and that one is set back and forth. */
static int lock_patiently(mr_region *r) {
    const struct timespec nap = {0, NAP};
    pthread_mutex_t *mutex = &r->mutex;
    struct timespec start;
    int rc = pthread_mutex_trylock(mutex);

    for (int i = 0; rc == EBUSY && !atomic_load(&r->repairing) && i < SPINS;
         i++) {
        breathe();
        rc = pthread_mutex_trylock(mutex);
    }
    if (rc != EBUSY)
        return rc;
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (rc == EBUSY && !atomic_load(&r->repairing) &&
           elapsed_ms(&start) < MR_LOCK_WAIT) {
        nanosleep(&nap, NULL);
        rc = pthread_mutex_trylock(mutex);
    }
    return rc;
}

int mr_region_lock(mr_region *r, int *owner_died) {
    int rc = lock_patiently(r);

    *owner_died = rc == EOWNERDEAD;
    return rc == 0 || rc == EOWNERDEAD ? MR_OK : MR_BUSY;
}

void mr_region_consistent(mr_region *r) { pthread_mutex_consistent(&r->mutex); }

void mr_region_unlock(mr_region *r) { pthread_mutex_unlock(&r->mutex); }

static int is_free(int32_t pid) {
    return pid == 0 || (kill(pid, 0) != 0 && errno == ESRCH);
}

static mr_line *own_line(mr_line *lines, int32_t self) {
    for (int i = 0; i < MR_LINES; i++)
        if (atomic_load(&lines[i].pid) == self)
            return &lines[i];
    return NULL;
}

mr_line *mr_region_line(mr_region *r) {
    mr_line *lines = mr_region_at(r, r->geometry.lines);
    int32_t self = (int32_t)getpid();
    int saved = errno;
    mr_line *line = own_line(lines, self);

    for (int i = 0; line == NULL && i < MR_LINES; i++) {
        int32_t pid = atomic_load(&lines[i].pid);

        if (is_free(pid) &&
            atomic_compare_exchange_strong(&lines[i].pid, &pid, self))
            line = &lines[i];
    }
    errno = saved;
    return line != NULL ? line : &lines[MR_LINES - 1];
}

_Atomic uint64_t *mr_region_lane(mr_region *r, const mr_line *line) {
    const mr_geometry *g = &r->geometry;
    const mr_line *lines = mr_region_at(r, g->lines);
    uint32_t lane = (uint32_t)(line - lines) % MR_LANES;

    if (g->lanes == 0)
        return NULL;
    atomic_fetch_or(&r->lanes_used, 1u << lane);
    return mr_region_at(r, g->lanes + lane * mr_lane_size(g));
}
