/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * SipHash-1-3 against known vectors, and keys that share a hash.
 */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

static void test_known_vectors(void **state) {
    /* Of inputs of 0, 1, ... bytes 00 01 02 .., as the reference implementation
     * gives them with cROUNDS 1 and dROUNDS 3, and as Rust's core library has
     * them (test_siphash_1_3). */
    static const unsigned char want[][8] = {
        {0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab},
        {0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9},
        {0x4d, 0xd4, 0xc7, 0x4d, 0x02, 0x9b, 0xcb, 0x82},
        {0xfb, 0xf7, 0xdd, 0xe7, 0xb8, 0x0a, 0xf8, 0x8b},
        {0x28, 0x83, 0xd3, 0x88, 0x60, 0x57, 0x75, 0xcf},
        {0x67, 0x3b, 0x53, 0x49, 0x2f, 0xd5, 0xf9, 0xde},
        {0xa7, 0x22, 0x9f, 0xc5, 0x50, 0x2b, 0x0d, 0xc5},
        {0x40, 0x11, 0xb1, 0x9b, 0x98, 0x7d, 0x92, 0xd3},
        {0x8e, 0x9a, 0x29, 0x8d, 0x11, 0x95, 0x90, 0x36},
        {0xe4, 0x3d, 0x06, 0x6c, 0xb3, 0x8e, 0xa4, 0x25},
        {0x7f, 0x09, 0xff, 0x92, 0xee, 0x85, 0xde, 0x79},
        {0x52, 0xc3, 0x4d, 0xf9, 0xc1, 0x18, 0xc1, 0x70},
        {0xa2, 0xd9, 0xb4, 0x57, 0xb1, 0x84, 0xa3, 0x78},
        {0xa7, 0xff, 0x29, 0x12, 0x0c, 0x76, 0x6f, 0x30},
        {0x34, 0x5d, 0xf9, 0xc0, 0x11, 0xa1, 0x5a, 0x60},
        {0x56, 0x99, 0x51, 0x2a, 0x6d, 0xd8, 0x20, 0xd3},
        {0x66, 0x8b, 0x90, 0x7d, 0x1a, 0xdd, 0x4f, 0xcc},
    };
    unsigned char seed[MR_HASH_SEED], input[32];

    (void)state;
    for (int i = 0; i < 32; i++)
        input[i] = (unsigned char)i;
    for (int i = 0; i < MR_HASH_SEED; i++)
        seed[i] = (unsigned char)i;
    for (size_t len = 0; len < sizeof want / sizeof want[0]; len++) {
        uint64_t got = mr_hash(seed, input, len), expected = 0;

        for (int i = 7; i >= 0; i--)
            expected = expected << 8 | want[len][i];
        assert_true(got == expected);
    }
}

static void test_seed_changes_the_hash(void **state) {
    unsigned char one[MR_HASH_SEED] = {1}, two[MR_HASH_SEED] = {2};

    (void)state;
    assert_true(mr_hash(one, "abc", 3) != mr_hash(two, "abc", 3));
}

typedef struct hashed {
    uint32_t hash;
    int number;
} hashed;

static int by_hash(const void *a, const void *b) {
    const hashed *x = a, *y = b;

    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* Two keys of 40,000 that share the 24 bits of their hash: some 50 are there
 * (the birthday paradox). They lead to the same bucket and stripe. */
static void two_of_one_hash(const mr_cache *c, char *a, char *b) {
    enum { KEYS = 40000 };
    static hashed list[KEYS];

    for (int i = 0; i < KEYS; i++) {
        sprintf(a, "%05d", i);
        list[i] = (hashed){mr_cache_hash(c, a, 5), i};
    }
    qsort(list, KEYS, sizeof *list, by_hash);
    for (int i = 1; i < KEYS; i++)
        if (list[i].hash == list[i - 1].hash) {
            sprintf(a, "%05d", list[i].number);
            sprintf(b, "%05d", list[i - 1].number);
            return;
        }
    fail_msg("no two keys with the same hash");
}

static void test_keys_with_the_same_hash_are_two(void **state) {
    mr_cache *c = open_private(4, 0, 0);
    char a[16], b[16];

    (void)state;
    two_of_one_hash(c, a, b);
    put(c, a, "of a", 1);
    assert_value(c, b, NULL, 1);
    put(c, b, "of b", 1);
    assert_value(c, a, "of a", 1);
    assert_value(c, b, "of b", 1);
    assert_sound(c);
    mr_cache_remove(c, a, 5, MR_DELETED);
    assert_value(c, a, NULL, 1);
    assert_value(c, b, "of b", 1);
    mr_cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_vectors),
        cmocka_unit_test(test_seed_changes_the_hash),
        cmocka_unit_test(test_keys_with_the_same_hash_are_two),
    };

    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
