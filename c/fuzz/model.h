/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * model.h - what a cache should do, as an array of items and the sentences of
 * mooring.h in the simplest code that says them.
 *
 * The model does not choose who leaves: several entries may be equally old, and
 * heaps are lazy. It says who may. */
#ifndef MR_FUZZ_MODEL_H
#define MR_FUZZ_MODEL_H

#include "keys.h"

enum { HANDLES = 2 };

typedef struct item {
    int present;
    uint32_t version; /* its value is made from key and version */
    uint32_t value_len;
    uint32_t epoch;
    uint32_t tag;
    double ref;     /* kept when it has left */
    double old_ref; /* of the entry before */
    double stamp;
    double fresh;
    double expires;
    uint64_t put;    /* its tick */
    uint64_t tick;   /* of the last use, not before the put; or the put */
    uint64_t newest; /* the largest tick there has been */
    double due;      /* the latest expiry there has been since put or renewal */
} item;

typedef struct model {
    const key_set *set;
    item items[KEYS];
    uint32_t max_entries, max_value, slots, cells;
    double slide, lease;
    uint32_t epoch, dead_before;
    uint32_t changes[KEYS]; /* of the key's stripe */
    uint64_t ticks[HANDLES];
    uint32_t version;
    uint32_t spent; /* slots that can never be used again */
    /* Totals, as in mr_stats. */
    double hits, misses, puts, refused, left;
} model;

/* A time as the region keeps it. */
double model_time(double t);
double model_expiry(const model *m, const item *e);
int model_believes(const model *m, const item *e, double now);
int model_is_dead(const model *m, const item *e);
uint64_t model_next_tick(model *m, int handle, double now);
uint32_t model_cells(const model *m, int key, uint32_t value_len);
uint32_t model_count(const model *m);
uint32_t model_tagged(const model *m, uint32_t tag);

/* Does a record fit beside or in place of what is there, with entry `back`
 * still in its place (-1: none)? */
int model_fits(const model *m, int key, uint32_t value_len, int back);
/* May the entry be the least recently used one, seen from the survivors? */
int model_may_be_oldest(const model *m, int key, const int *leaves, int except);
/* Is there an entry that has been due for so long that it leaves first? */
int model_any_due(const model *m, double now, int except);

/* Key of the entry behind a reference, or -1. */
int model_behind(const model *m, double ref);
/* When an entry counts as used for mr_cache_remove_unused. */
double model_last_use(const item *e);

void model_use(model *m, int handle, int key, double now);
void model_set_fresh(model *m, item *e, double until);
void model_change(model *m, int key); /* of the key's stripe */
void model_leave(model *m, int key);
/* After a repair the heaps know the newest state. */
void model_repaired(model *m);

#endif
