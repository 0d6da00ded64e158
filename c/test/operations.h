/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * operations.h - everything that writes to a region, each on a small region
 * prepared so that it has as much to do as it can have.
 *
 * Before: key-0 .. key-5 in a region for six, key-0 the least recently used,
 * and key-n expiring at 1000 + n. Keys up to key-9 may come. */
#ifndef MR_TEST_OPERATIONS_H
#define MR_TEST_OPERATIONS_H

#include "support.h"

enum {
    WORLD_ENTRIES = 6,
    WORLD_KEYS = 10,
    WORLD_CELLS = 24,
    WORLD_NOW = 200,   /* ms: when the operation happens */
    WORLD_LATE = 1002, /* or then: key-0 to key-2 have expired */
    WORLD_LOOK =
        150, /* from when one looks at what is there: nothing expires */
    WORLD_VALUE = 400 /* bytes, at most */
};

typedef struct world {
    mr_cache *c;
    mr_cache_options opts;
    double refs[WORLD_KEYS]; /* of the entries before; -1: there is none */
    mr_token token;          /* of key-2 */
} world;

typedef struct operation {
    const char *name;
    void (*prepare)(world *w); /* or NULL */
    void (*run)(world *w);
    double slide; /* of the region */
    double clock; /* when it happens, if not at WORLD_NOW; what has expired by
                     then may be gone */
} operation;

extern const operation operations[];
extern const int operation_count;

/* A region as above, and what the operation wants beside. */
void world_make(world *w, const operation *op);
void world_end(world *w);
void world_key(int k, char out[8]);

#endif
