/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * stores.h - counts the stores to one stretch of memory, and dies at one.
 *
 * The core, compiled with -fsanitize=thread, calls __tsan_write8 and the like
 * before each store and instead of each atomic one. stores.c is what these
 * calls reach: not the sanitizer, but a counter. So every single store is a
 * place to die at, whatever points the source has. What is copied by one call
 * of memcpy or memset counts as one store. */
#ifndef MR_TEST_STORES_H
#define MR_TEST_STORES_H

#include <stddef.h>

/* The stretch; none is watched before the first call. */
void stores_watch(const void *from, size_t bytes);
/* SIGKILL instead of the n-th store from now on; 0: never. */
void stores_die_at(long n);
/* How many there were since stores_die_at. */
long stores_count(void);

#endif
