/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * heap.c - see heap.h. Nodes move into a hole that travels, so that each level
 * costs one copy and one place instead of a swap. */
#include "heap.h"

enum { ARITY = 4 };

static uint32_t place_of(const mr_heap *h, uint32_t slot) {
    const unsigned char *p = h->places + (size_t)slot * h->stride;

    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
}

static void set_place(mr_heap *h, uint32_t slot, uint32_t at) {
    unsigned char *p = h->places + (size_t)slot * h->stride;

    p[0] = (unsigned char)at;
    p[1] = (unsigned char)(at >> 8);
    p[2] = (unsigned char)(at >> 16);
}

static void put_node(mr_heap *h, uint32_t at, mr_heap_node node) {
    h->nodes[at] = node;
    set_place(h, node.slot, at);
}

static mr_heap_node make_node(uint32_t slot, uint64_t key) {
    mr_heap_node node = {(uint32_t)(key >> 32), (uint32_t)key, slot};

    return node;
}

static void sift_up(mr_heap *h, uint32_t hole, mr_heap_node node) {
    const uint64_t key = mr_heap_key(&node);

    while (hole > 0) {
        uint32_t parent = (hole - 1) / ARITY;

        if (mr_heap_key(&h->nodes[parent]) <= key)
            break;
        put_node(h, hole, h->nodes[parent]);
        hole = parent;
    }
    put_node(h, hole, node);
}

static uint32_t smallest_child(const mr_heap *h, uint32_t first, uint32_t end) {
    uint32_t best = first;
    uint64_t best_key = mr_heap_key(&h->nodes[first]);

    for (uint32_t i = first + 1; i < end; i++) {
        uint64_t key = mr_heap_key(&h->nodes[i]);

        if (key < best_key) {
            best = i;
            best_key = key;
        }
    }
    return best;
}

static void sift_down(mr_heap *h, uint32_t hole, mr_heap_node node) {
    const uint64_t key = mr_heap_key(&node);
    const uint32_t count = *h->count;

    for (;;) {
        uint64_t first = (uint64_t)hole * ARITY + 1;
        uint32_t child;

        if (first >= count)
            break;
        child = smallest_child(h, (uint32_t)first,
                               first + ARITY < count ? (uint32_t)first + ARITY
                                                     : count);
        if (key <= mr_heap_key(&h->nodes[child]))
            break;
        put_node(h, hole, h->nodes[child]);
        hole = child;
    }
    put_node(h, hole, node);
}

/* Puts a node where another one of any key was. */
static void settle(mr_heap *h, uint32_t at, mr_heap_node node) {
    if (at > 0 && mr_heap_key(&node) < mr_heap_key(&h->nodes[(at - 1) / ARITY]))
        sift_up(h, at, node);
    else
        sift_down(h, at, node);
}

void mr_heap_append(mr_heap *h, uint32_t slot, uint64_t key) {
    uint32_t at = (*h->count)++;

    put_node(h, at, make_node(slot, key));
}

void mr_heap_push(mr_heap *h, uint32_t slot, uint64_t key) {
    uint32_t at = (*h->count)++;

    sift_up(h, at, make_node(slot, key));
}

void mr_heap_order(mr_heap *h) {
    if (*h->count < 2)
        return;
    for (uint32_t i = (*h->count - 2) / ARITY + 1; i > 0; i--)
        sift_down(h, i - 1, h->nodes[i - 1]);
}

void mr_heap_remove(mr_heap *h, uint32_t slot) {
    uint32_t at = place_of(h, slot);
    uint32_t last = --*h->count;

    if (at != last)
        settle(h, at, h->nodes[last]);
}

void mr_heap_update(mr_heap *h, uint32_t slot, uint64_t key) {
    settle(h, place_of(h, slot), make_node(slot, key));
}

uint64_t mr_heap_key_of(const mr_heap *h, uint32_t slot) {
    return mr_heap_key(&h->nodes[place_of(h, slot)]);
}

int64_t mr_heap_check(const mr_heap *h, uint32_t slots) {
    for (uint32_t i = 0; i < *h->count; i++) {
        const mr_heap_node *node = &h->nodes[i];

        if (node->slot >= slots || place_of(h, node->slot) != i)
            return i;
        if (i > 0 &&
            mr_heap_key(node) < mr_heap_key(&h->nodes[(i - 1) / ARITY]))
            return i;
    }
    return -1;
}
