/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * SipHash-2-4 against the vectors of its authors, and keys that share a hash.
 */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

static void test_vectors_of_the_authors(void **state) {
    /* vectors_sip64 of the reference implementation, inputs of 0, 1, ... bytes
     * 00 01 02 ..; the one of 15 bytes is appendix A of the paper. */
    static const unsigned char want[][8] = {
        {0x31, 0x0e, 0x0e, 0xdd, 0x47, 0xdb, 0x6f, 0x72},
        {0xfd, 0x67, 0xdc, 0x93, 0xc5, 0x39, 0xf8, 0x74},
        {0x5a, 0x4f, 0xa9, 0xd9, 0x09, 0x80, 0x6c, 0x0d},
        {0x2d, 0x7e, 0xfb, 0xd7, 0x96, 0x66, 0x67, 0x85},
        {0xb7, 0x87, 0x71, 0x27, 0xe0, 0x94, 0x27, 0xcf},
        {0x8d, 0xa6, 0x99, 0xcd, 0x64, 0x55, 0x76, 0x18},
        {0xce, 0xe3, 0xfe, 0x58, 0x6e, 0x46, 0xc9, 0xcb},
        {0x37, 0xd1, 0x01, 0x8b, 0xf5, 0x00, 0x02, 0xab},
        {0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93},
        {0xb0, 0xe4, 0xa9, 0x0b, 0xdf, 0x82, 0x00, 0x9e},
        {0xf3, 0xb9, 0xdd, 0x94, 0xc5, 0xbb, 0x5d, 0x7a},
        {0xa7, 0xad, 0x6b, 0x22, 0x46, 0x2f, 0xb3, 0xf4},
        {0xfb, 0xe5, 0x0e, 0x86, 0xbc, 0x8f, 0x1e, 0x75},
        {0x90, 0x3d, 0x84, 0xc0, 0x27, 0x56, 0xea, 0x14},
        {0xee, 0xf2, 0x7a, 0x8e, 0x90, 0xca, 0x23, 0xf7},
        {0xe5, 0x45, 0xbe, 0x49, 0x61, 0xca, 0x29, 0xa1},
        {0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f},
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
        cmocka_unit_test(test_vectors_of_the_authors),
        cmocka_unit_test(test_seed_changes_the_hash),
        cmocka_unit_test(test_keys_with_the_same_hash_are_two),
    };

    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
