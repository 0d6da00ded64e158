/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * hash.c - SipHash-1-3, section 2 of the paper named in hash.h. */
#include "hash.h"

/* The whole state stays in registers. */
#define INLINE static inline __attribute__((always_inline))

typedef struct sip {
    uint64_t v0, v1, v2, v3;
} sip;

/* Little-endian. Written out, since gcc 12 makes one load of the terms, where
 * the host allows it, but not of a loop over them. */
INLINE uint64_t load64(const unsigned char *p) {
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 |
           (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 |
           (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

INLINE uint64_t rotate(uint64_t x, int bits) {
    return x << bits | x >> (64 - bits);
}

INLINE void round_of(sip *s) {
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 = rotate(s->v2, 32);
}

INLINE void absorb(sip *s, uint64_t word) {
    s->v3 ^= word;
    round_of(s);
    s->v0 ^= word;
}

/* The bytes behind the last whole word, and the length above them. */
INLINE uint64_t last_word(const unsigned char *p, size_t len) {
    uint64_t word = (uint64_t)(len & 255) << 56;
    size_t left = len % 8;

    if (left > 0 && len >= 8) /* one load, of which some bytes are known */
        return word | load64(p + len - 8) >> (64 - 8 * left);
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)p[len - left + i] << (8 * i);
    return word;
}

uint64_t mr_hash(const unsigned char *seed, const void *bytes, size_t len) {
    const uint64_t k0 = load64(seed), k1 = load64(seed + 8);
    const unsigned char *p = bytes;
    sip s = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du,
             k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u};

    for (size_t at = 0; at + 8 <= len; at += 8)
        absorb(&s, load64(p + at));
    absorb(&s, last_word(p, len));
    s.v2 ^= 255;
    round_of(&s);
    round_of(&s);
    round_of(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
