/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * watch.h - a region beside its model: what has left since the last step, what
 * has to be handed back, and that everything else is as the model says, to the
 * last field. Sees the insides of the region; changes nothing but through the
 * interface. */
#ifndef MR_FUZZ_WATCH_H
#define MR_FUZZ_WATCH_H

#include "cache.h"
#include "fuzz.h"
#include "model.h"

enum {
    MAX_VALUE = 2048,
    TOKENS = 4,
    MAX_PENDING = 2048, /* more than any input can make leave */
    ANY_REASON = -1     /* MR_EVICTED or MR_EXPIRED, both are right */
};

/* An entry that has to be handed back. */
typedef struct departure {
    uint32_t step;
    int key;
    uint32_t version;
    uint32_t value_len;
    int reason;
    int maybe; /* there may have been no memory to hand it back */
} departure;

typedef struct handle {
    mr_cache *cache;
    int collecting;
    uint32_t waiting;
    departure pending[MAX_PENDING];
} handle;

/* A token that was taken, and what the model knew then. */
typedef struct taken {
    mr_token token;
    int key;
    uint32_t epoch;
    uint32_t changes;
} taken;

typedef struct run {
    model model;
    handle handles[HANDLES];
    mr_map *map;
    uint32_t used_handles;
    taken tokens[TOKENS];
    uint32_t step;
    double now;
    uint32_t generations[64]; /* newest of each slot */
    int starved;              /* an allocation may have failed in this step */
    int died;                 /* in this step: nobody hears of who left in it */
    int counts_lost;          /* a death may have left things uncounted */
} run;

/* The bytes of a value. */
void value_fill(int key, uint32_t version, char *out, uint32_t len);

/* Keys that the model has and the region has no more, or has another entry
 * for. */
void watch_left(run *r, int left[KEYS]);
/* Is there an entry of that key, and is it the model's? */
int watch_link(run *r, int key);
int watch_is_same(run *r, int key);
/* The entry of that key leaves the model, and is to be handed back by that
 * handle unless the reason is MR_GONE_QUIETLY. */
void watch_leave(run *r, int by, int key, int reason);
/* Takes up to `most` entries that were handed back. */
void watch_take(run *r, int by, uint32_t most);
/* A region that is all right, and equal to the model. */
void watch_compare(run *r);
void watch_counts(run *r);

#endif
