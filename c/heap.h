/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * heap.h - an indexed 4-ary heap of (key, slot) in memory it does not own.
 *
 *     nodes    [0] the smallest key
 *              [1] [2] [3] [4]           children of 0
 *              [5] [6] [7] [8] ...       children of 1, of 2, ...
 *
 * The place of each slot in `nodes` is written into a number of the slot, so
 * that any slot can be re-keyed or taken out. The cache has two heaps over the
 * same slots: by LRU tick and by expiry. Both are lazy: a node holds the key
 * its slot was last *seen* with, and whoever looks at the root compares.
 *
 * A parent and its four children lie in two cache lines or less, and a heap of
 * 2^20 is ten levels high.
 *
 * Not thread-safe: callers hold the lock of the region. mr_heap_check is how
 * to inspect one. */
#ifndef MR_HEAP_H
#define MR_HEAP_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of a place, lowest first: no heap has more than 2^24 nodes. */
enum { MR_HEAP_PLACE = 3 };

/* 12 bytes: a 64-bit member would pad the node to 16. */
typedef struct mr_heap_node {
    uint32_t key_high;
    uint32_t key_low;
    uint32_t slot;
} mr_heap_node;

/* A process's view of a heap; nodes, count and places lie in the region. */
typedef struct mr_heap {
    mr_heap_node *nodes;
    uint32_t *count;
    unsigned char *places; /* the MR_HEAP_PLACE bytes of slot 0 */
    size_t stride;         /* bytes from there to the one of slot 1 */
} mr_heap;

static inline uint64_t mr_heap_key(const mr_heap_node *node) {
    return (uint64_t)node->key_high << 32 | node->key_low;
}

/* The smallest; there must be one. */
static inline const mr_heap_node *mr_heap_root(const mr_heap *h) {
    return &h->nodes[0];
}

/* The caller guarantees room for one more node. */
void mr_heap_push(mr_heap *h, uint32_t slot, uint64_t key);
/* As push, without keeping the order: mr_heap_order has to follow. */
void mr_heap_append(mr_heap *h, uint32_t slot, uint64_t key);
/* Makes a heap of whatever the nodes hold, in linear time. */
void mr_heap_order(mr_heap *h);
void mr_heap_remove(mr_heap *h, uint32_t slot);
void mr_heap_update(mr_heap *h, uint32_t slot, uint64_t key);
uint64_t mr_heap_key_of(const mr_heap *h, uint32_t slot);
/* The first node that is smaller than its parent, or whose slot is not below
 * `slots` or does not point back; -1: the heap is in order. */
int64_t mr_heap_check(const mr_heap *h, uint32_t slots);

#endif
