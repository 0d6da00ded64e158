/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * load.c - how many requests are under way to each backend, counted by all
 * processes of an instance and by several generations of them.
 *
 *     +-----------+ 0
 *     | header    | seed | version | how many rows have ever been used
 *     +-----------+
 *     | names     | MR_TAGS x u64: seeded hash of a URL; its index is the label
 *     +-----------+
 *     | owners    | ROWS x { robust mutex, in use }
 *     +-----------+
 *     | rows      | ROWS x MR_TAGS x u32, each written by one process
 *     +-----------+
 *
 * Mapped shared and anonymous, in a process that forks, and listed in a static
 * of the library: the Lua VM that comes after a reload finds a table by its
 * name, as it finds regions (registry.h). Pages that nobody touches cost
 * nothing.
 *
 * A label is found by open addressing and claimed with one compare-and-swap,
 * so that it is the same in all processes; it is never given back. Of a URL
 * only 64 bits of SipHash under a seed of the table are kept: two URLs that
 * share a label would take a seed that nobody knows.
 *
 * Who may die, and when: anybody, at any time. The owner of a row holds the
 * robust mutex beside it for as long as it lives, and the kernel says when it
 * has died, whatever became of its pid since. Whoever meets the row of a dead
 * process next takes it out of use with its counts; a row is either counted in
 * whole or not at all. A child that is forked has no row until it counts.
 *
 * Counting takes no lock and no locked instruction: a row has one writer. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "alloc.h"
#include "hash.h"
#include "mooring.h"
#include "registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

enum { ROWS = 512, LINE = 64 };

typedef struct owner {
    _Alignas(LINE) pthread_mutex_t alive; /* held by the process of the row */
    _Atomic uint32_t used;                /* its counts count */
} owner;

typedef struct row {
    _Atomic uint32_t inflight[MR_TAGS];
} row;

_Static_assert(sizeof(row) % LINE == 0, "no line has two writers");

typedef struct table {
    unsigned char seed[MR_HASH_SEED];
    _Alignas(LINE) _Atomic uint32_t version;
    _Alignas(
        LINE) _Atomic uint32_t high; /* rows from here on were never used */
    _Alignas(LINE) _Atomic uint64_t name[MR_TAGS]; /* 0: no URL has the label */
    owner owners[ROWS];
    _Alignas(LINE) row rows[ROWS];
} table;

/* This process's view of a table. */
struct mr_load {
    table *shared;
    row *row; /* NULL: nothing has been counted in this process */
    owner *owner;
    row own; /* where all rows are taken: counts for this process only */
    char name[MR_MAX_NAME];
    uint32_t name_len;
    struct mr_load *next;
};

/* Guarded by the lock of the registry. */
static mr_load *loads;

/* The rows of the parent are not the child's to write. */
static void start_anew_in_child(void) {
    for (mr_load *l = loads; l != NULL; l = l->next) {
        l->row = NULL;
        l->owner = NULL;
        memset(&l->own, 0, sizeof l->own);
    }
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(NULL, NULL, start_anew_in_child);
}

/* ------------------------------------------------------------- opening --- */

static int make_mutexes(table *t) {
    pthread_mutexattr_t attr;
    int bad;

    if (pthread_mutexattr_init(&attr) != 0)
        return MR_NOMEM;
    bad = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||
          pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (int i = 0; i < ROWS && !bad; i++)
        bad = pthread_mutex_init(&t->owners[i].alive, &attr);
    pthread_mutexattr_destroy(&attr);
    return bad ? MR_NOMEM : MR_OK;
}

static table *make_table(void) {
    table *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE,
                    /* cppcheck-suppress invalidFunctionArg ; -1: no file */
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (t == MAP_FAILED)
        return NULL;
    if (getrandom(t->seed, sizeof t->seed, 0) != (ssize_t)sizeof t->seed ||
        make_mutexes(t) != MR_OK) {
        munmap(t, sizeof *t);
        return NULL;
    }
    atomic_init(&t->version, 1);
    return t;
}

static mr_load *make(const char *name, uint32_t name_len) {
    mr_load *l = mr_alloc(sizeof *l);

    if (l == NULL)
        return NULL;
    memset(l, 0, sizeof *l);
    l->shared = make_table();
    if (l->shared == NULL) {
        mr_free(l);
        return NULL;
    }
    memcpy(l->name, name, name_len);
    l->name_len = name_len;
    l->next = loads;
    loads = l;
    return l;
}

static mr_load *find(const char *name, uint32_t name_len) {
    mr_load *l = loads;

    while (l != NULL &&
           (l->name_len != name_len || memcmp(l->name, name, name_len) != 0))
        l = l->next;
    return l;
}

int mr_load_open(const char *name, uint32_t name_len, mr_load **out) {
    *out = NULL;
    if (name == NULL || name_len < 1 || name_len > MR_MAX_NAME)
        return MR_INVALID;
    mr_registry_lock();
    *out = find(name, name_len);
    if (*out == NULL)
        *out = make(name, name_len);
    mr_registry_unlock();
    return *out != NULL ? MR_OK : MR_NOMEM;
}

/* -------------------------------------------------------------- labels --- */

static uint64_t hash_of(const mr_load *l, const char *url, uint32_t len) {
    uint64_t hash = mr_hash(l->shared->seed, url, len);

    return hash != 0 ? hash : 1;
}

/* The label of a hash, or the free one where it would be: *free. 0: neither. */
static uint32_t look_up(const mr_load *l, uint64_t hash, uint32_t *free_one) {
    uint32_t label = (uint32_t)hash & (MR_TAGS - 1);

    *free_one = 0;
    for (uint32_t i = 0; i < MR_TAGS; i++) {
        uint64_t there;

        label = (label + 1) & (MR_TAGS - 1);
        if (label == 0)
            continue;
        there = atomic_load(&l->shared->name[label]);
        if (there == hash)
            return label;
        if (there == 0) {
            *free_one = label;
            return 0;
        }
    }
    return 0;
}

uint32_t mr_load_find(mr_load *l, const char *url, uint32_t url_len) {
    uint32_t free_one;

    return look_up(l, hash_of(l, url, url_len), &free_one);
}

uint32_t mr_load_label(mr_load *l, const char *url, uint32_t url_len) {
    uint64_t hash = hash_of(l, url, url_len);
    uint32_t label, free_one;

    do {
        uint64_t nobody = 0;

        label = look_up(l, hash, &free_one);
        if (free_one != 0 && atomic_compare_exchange_strong(
                                 &l->shared->name[free_one], &nobody, hash))
            return free_one;
    } while (label == 0 && free_one != 0); /* lost to another: look again */
    return label;
}

/* ---------------------------------------------------------------- rows --- */

/* The caller holds the mutex of the row, as nobody else does. */
static void take_out_of_use(table *t, uint32_t i) {
    atomic_store(&t->owners[i].used, 0);
    for (int label = 0; label < MR_TAGS; label++)
        if (atomic_load_explicit(&t->rows[i].inflight[label],
                                 memory_order_relaxed) != 0)
            atomic_store_explicit(&t->rows[i].inflight[label], 0,
                                  memory_order_relaxed);
}

/* Returns 1, with its mutex, when no living process has the row. */
static int seize(table *t, uint32_t i) {
    int rc = pthread_mutex_trylock(&t->owners[i].alive);

    if (rc == EOWNERDEAD) {
        take_out_of_use(t, i);
        pthread_mutex_consistent(&t->owners[i].alive);
    }
    return rc == 0 || rc == EOWNERDEAD;
}

static void raise_high(table *t, uint32_t to) {
    uint32_t was = atomic_load(&t->high);

    while (was < to && !atomic_compare_exchange_weak(&t->high, &was, to))
        ;
}

/* The mutex is kept until the process dies. Its thread must live as long, and
 * that of an event loop does. */
__attribute__((noinline)) static void claim_row(mr_load *l) {
    table *t = l->shared;

    for (uint32_t i = 0; i < ROWS; i++) {
        if (!seize(t, i))
            continue;
        l->row = &t->rows[i];
        l->owner = &t->owners[i];
        raise_high(t, i + 1);
        atomic_store(&t->owners[i].used, 1);
        return;
    }
    l->row = &l->own;
}

/* Is the row that of a living process? Else it is of no use from now on. */
static int counts(mr_load *l, uint32_t i) {
    table *t = l->shared;

    if (!atomic_load(&t->owners[i].used))
        return 0;
    if (&t->owners[i] == l->owner || !seize(t, i))
        return 1;
    /* Between two looks it may have been given up and taken out of use. */
    pthread_mutex_unlock(&t->owners[i].alive);
    return 0;
}

/* ------------------------------------------------------------ counting --- */

uint32_t mr_load_begin(mr_load *l, uint32_t label) {
    if (l->row == NULL)
        claim_row(l);
    if (label < MR_TAGS) {
        _Atomic uint32_t *n = &l->row->inflight[label];
        uint32_t was = atomic_load_explicit(n, memory_order_relaxed);

        atomic_store_explicit(n, was + 1, memory_order_relaxed);
    }
    return atomic_load_explicit(&l->shared->version, memory_order_acquire);
}

void mr_load_finish(mr_load *l, uint32_t label) {
    if (l->row != NULL && label < MR_TAGS) {
        _Atomic uint32_t *n = &l->row->inflight[label];
        uint32_t was = atomic_load_explicit(n, memory_order_relaxed);

        if (was > 0)
            atomic_store_explicit(n, was - 1, memory_order_relaxed);
    }
}

uint32_t mr_load_inflight(mr_load *l, uint32_t label) {
    table *t = l->shared;
    uint32_t high = atomic_load(&t->high), sum;

    if (label < 1 || label >= MR_TAGS)
        return 0;
    sum = atomic_load_explicit(&l->own.inflight[label], memory_order_relaxed);
    for (uint32_t i = 0; i < high; i++) {
        const _Atomic uint32_t *n = &t->rows[i].inflight[label];

        /* Read again: the dead had another count than who took its row. */
        if (atomic_load_explicit(n, memory_order_relaxed) > 0 && counts(l, i))
            sum += atomic_load_explicit(n, memory_order_relaxed);
    }
    return sum;
}

uint32_t mr_load_version(mr_load *l) {
    return atomic_load_explicit(&l->shared->version, memory_order_acquire);
}

uint32_t mr_load_bump_version(mr_load *l) {
    return atomic_fetch_add(&l->shared->version, 1) + 1;
}
