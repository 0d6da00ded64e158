/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * keys.h - the keys of fuzz_cache, chosen for trouble under a known hash seed:
 *
 *     0 1 2 3    share a stripe, so a change of one ends the tokens of all
 *     4 5, 6 7   have all 24 bits of the hash in common
 *     8 ... 15   of lengths around those of one, two and three cells
 *     16 ... 21  plain ones
 *     22 23      a long one, and one as long as a key may be */
#ifndef MR_FUZZ_KEYS_H
#define MR_FUZZ_KEYS_H

#include "mooring.h"

enum { KEYS = 24, KEY_SETS = 4 };

typedef struct fuzz_key {
    char *bytes;
    uint32_t len;
    uint32_t hash; /* as mr_cache_hash, under the seed of the set */
} fuzz_key;

typedef struct key_set {
    unsigned char seed[16];
    fuzz_key keys[KEYS];
} key_set;

/* Made once, and kept. n < KEY_SETS */
const key_set *key_set_get(uint32_t n);

#endif
