/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * keys.c - see keys.h. Colliding keys are found by sorting the hashes of a few
 * thousand candidates: among 2^14 keys some 2^27 / 2^24 = 8 pairs collide. */
#include "keys.h"
#include "fuzz.h"
#include "hash.h"

#include <string.h>

enum { CANDIDATES = 1 << 14, STRIPE_KEYS = 4, PAIRS = 2, CANDIDATE_LEN = 36 };

typedef struct candidate {
    uint32_t hash;
    uint32_t number;
} candidate;

static fuzz_key make_key(const key_set *set, const char *bytes, uint32_t len) {
    fuzz_key key = {malloc(len), len, 0};

    INSIST(key.bytes != NULL, "no memory");
    memcpy(key.bytes, bytes, len);
    key.hash = (uint32_t)mr_hash(set->seed, bytes, len) & 0xffffff;
    return key;
}

/* As long as a usual session id. */
static fuzz_key make_candidate(const key_set *set, uint32_t number) {
    char text[CANDIDATE_LEN + 1];

    snprintf(text, sizeof text, "%08x-4c58-9a44-0d5d-6b1c9a01d3aaf", number);
    return make_key(set, text, CANDIDATE_LEN);
}

static int by_hash(const void *a, const void *b) {
    uint32_t x = ((const candidate *)a)->hash, y = ((const candidate *)b)->hash;

    return x < y ? -1 : x > y;
}

static uint32_t stripe(const candidate *c) { return c->hash >> 12; }

static void choose_colliding(key_set *set, const candidate *all) {
    uint32_t at = 0, pairs = 0;

    while (stripe(&all[at]) != stripe(&all[at + STRIPE_KEYS - 1]))
        at++;
    for (uint32_t i = 0; i < STRIPE_KEYS; i++)
        set->keys[i] = make_candidate(set, all[at + i].number);
    for (uint32_t i = 0; i + 1 < CANDIDATES && pairs < PAIRS; i++)
        if (all[i].hash == all[i + 1].hash) {
            fuzz_key *pair = &set->keys[STRIPE_KEYS + 2 * pairs++];

            pair[0] = make_candidate(set, all[i].number);
            pair[1] = make_candidate(set, all[i + 1].number);
        }
    INSIST(pairs == PAIRS, "too few candidates");
}

static void make_colliding(key_set *set) {
    candidate *all = calloc(CANDIDATES, sizeof *all);

    INSIST(all != NULL, "no memory");
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        fuzz_key key = make_candidate(set, i);

        all[i] = (candidate){key.hash, i};
        free(key.bytes);
    }
    qsort(all, CANDIDATES, sizeof *all, by_hash);
    choose_colliding(set, all);
    free(all);
}

static void make_others(key_set *set) {
    static const uint32_t lengths[] = {1,   2,   27,   28,        29, 55,
                                       56,  57,  30,   31,        36, 36,
                                       100, 200, 5000, MR_MAX_KEY};
    char *bytes = malloc(MR_MAX_KEY);

    INSIST(bytes != NULL, "no memory");
    for (uint32_t i = 0; i < KEYS - 8; i++) {
        memset(bytes, (int)(1 + i), lengths[i]);
        set->keys[8 + i] = make_key(set, bytes, lengths[i]);
    }
    free(bytes);
}

const key_set *key_set_get(uint32_t n) {
    static key_set sets[KEY_SETS];
    key_set *set = &sets[n];

    if (set->keys[0].bytes == NULL) {
        memset(set->seed, (int)(0xa0 + n), sizeof set->seed);
        make_colliding(set);
        make_others(set);
    }
    return set;
}
