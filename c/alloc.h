/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * alloc.h - the one door to the process's heap for the cache.
 *
 * Everything the cache allocates outside the region goes through these three,
 * so that a test can make the n-th allocation fail. */
#ifndef MR_ALLOC_H
#define MR_ALLOC_H

#include <stddef.h>

/* As malloc and realloc; the memory is not cleared. */
void *mr_alloc(size_t size);
void *mr_realloc(void *old, size_t size);
void mr_free(void *memory);

#ifdef MR_TESTING
/* How many allocations still succeed; negative: all. */
extern long mr_alloc_left;
#endif

#endif
