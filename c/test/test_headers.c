/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * The one header of a name, in a list as nginx-lua makes it. */
#include "support.h"

#include <ctype.h>
#include <string.h>

typedef struct pair {
    int name_len;
    const char *name;
    int value_len;
    const char *value;
} pair;

#define PAIR(name, value)                                                      \
    { (int)strlen(name), name, (int)strlen(value), value }

static int picked(const pair *list, uint32_t n, const char *name) {
    return mr_header_find(list, n, name, (uint32_t)strlen(name));
}

static void test_the_only_one_is_found_wherever_it_is(void **state) {
    const pair list[] = {PAIR("Host", "x"), PAIR("Mcp-Session-Id", "a"),
                         PAIR("Accept", "y")};

    (void)state;
    assert_int_equal(picked(list, 3, "host"), 0);
    assert_int_equal(picked(list, 3, "mcp-session-id"), 1);
    assert_int_equal(picked(list, 3, "accept"), 2);
}

static void test_names_in_capitals_are_the_same(void **state) {
    const pair list[] = {PAIR("mCP-sESSION-iD", "a"), PAIR("X.Y", "b")};

    (void)state;
    assert_int_equal(picked(list, 2, "mcp-session-id"), 0);
    assert_int_equal(picked(list, 2, "x-y"), MR_NOT_FOUND);
}

static void test_what_only_nginx_takes_for_it_is_told(void **state) {
    const pair list[] = {PAIR("Mcp-Session_Id", "a"), PAIR("Accept", "b")};

    (void)state;
    assert_int_equal(picked(list, 2, "mcp-session-id"), MR_EXISTS);
    assert_int_equal(picked(list, 2, "accept"), 1);
}

static void test_no_other_name_is_taken_for_it(void **state) {
    const pair list[] = {PAIR("Mcp-Session-I", "a"),
                         PAIR("Mcp-Session-Idx", "b"),
                         PAIR("Xcp-Session-Id", "c"),
                         PAIR("Mcp-Session-Ie", "d"), PAIR("", "e")};

    (void)state;
    assert_int_equal(picked(list, 5, "mcp-session-id"), MR_NOT_FOUND);
    assert_int_equal(picked(list, 0, "mcp-session-id"), MR_NOT_FOUND);
}

static void test_a_mark_in_the_place_of_a_letter_is_another_name(void **state) {
    const pair list[] = {PAIR("Mcp-Sess_on-Id", "a"),
                         PAIR("Mcp-Sess-on-Id", "b")};

    (void)state;
    assert_int_equal(picked(list, 2, "mcp-session-id"), MR_NOT_FOUND);
}

static void test_two_written_the_same_are_told_from_one(void **state) {
    const pair list[] = {PAIR("Mcp-Session-Id", "a"),
                         PAIR("mcp-session-id", "b")};

    (void)state;
    assert_int_equal(picked(list, 2, "mcp-session-id"), MR_EXISTS);
}

static void test_two_of_a_name_are_told_from_one(void **state) {
    const pair list[] = {PAIR("Mcp-Session-Id", "a"), PAIR("Accept", "y"),
                         PAIR("Mcp_Session_Id", "a")};

    (void)state;
    assert_int_equal(picked(list, 3, "mcp-session-id"), MR_EXISTS);
    assert_int_equal(picked(list, 2, "mcp-session-id"), 0);
}

/* What nginx takes for the wanted letter (it lets no control character into a
 * name). */
static int expected(unsigned char byte, char letter) {
    if (byte == '_' && letter == '-')
        return MR_EXISTS;
    return tolower(byte) == letter ? 0 : MR_NOT_FOUND;
}

static void test_every_letter_counts_whatever_the_length(void **state) {
    const char *all = "mcp-session-id-and-more-of-it";

    (void)state;
    for (int len = 1; len <= (int)strlen(all); len++) {
        char name[32];

        for (int i = 0; i < len; i++) {
            for (int byte = ' '; byte < 256; byte++) {
                const pair one[] = {{len, name, 0, ""}};

                memcpy(name, all, (size_t)len);
                name[i] = (char)byte;
                assert_int_equal(mr_header_find(one, 1, all, (uint32_t)len),
                                 expected((unsigned char)byte, all[i]));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_only_one_is_found_wherever_it_is),
        cmocka_unit_test(test_names_in_capitals_are_the_same),
        cmocka_unit_test(test_what_only_nginx_takes_for_it_is_told),
        cmocka_unit_test(test_no_other_name_is_taken_for_it),
        cmocka_unit_test(test_a_mark_in_the_place_of_a_letter_is_another_name),
        cmocka_unit_test(test_two_written_the_same_are_told_from_one),
        cmocka_unit_test(test_two_of_a_name_are_told_from_one),
        cmocka_unit_test(test_every_letter_counts_whatever_the_length),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
