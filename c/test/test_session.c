/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_session.c - session records in the usual form, and that nothing else is
 * taken for one. (spec/fuzz/record_target.lua compares with the decoder that
 * takes all of JSON.) Records are read from blocks of exactly their size, for
 * the sanitizers.
 */
#include "mooring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TIMES                                                                  \
    ",\"created_at\":\"2025-06-30T12:00:00.25Z\""                              \
    ",\"updated_at\":\"2025-06-30T12:00:01Z\""
#define RECORD "{\"id\":\"a-1\",\"type\":\"mcp\"" TIMES

/* A copy without a NUL, so that reading beyond it is noticed. */
static mr_session session;
static char *block;

static int read_bytes(const char *text, size_t len, const char *id) {
    free(block);
    block = malloc(len > 0 ? len : 1);
    assert_non_null(block);
    memcpy(block, text, len);
    memset(&session, 0x55, sizeof session);
    return mr_session_read(block, (uint32_t)len, id,
                           id != NULL ? (uint32_t)strlen(id) : 0, &session);
}

static int read_text(const char *text, const char *id) {
    return read_bytes(text, strlen(text), id);
}

static void expect(const mr_text *text, const char *want) {
    assert_int_equal(text->len, strlen(want));
    assert_memory_equal(text->bytes, want, text->len);
}

static void reads_a_record(void **state) {
    (void)state;
    assert_int_equal(read_text(RECORD
                               ",\"metadata\":{\"backend_url\":\"http://h:1/\","
                               "\"k\":\"\"}}",
                               "a-1"),
                     MR_OK);
    expect(&session.id, "a-1");
    expect(&session.type, "mcp");
    assert_true(session.created_at == 1751284800.25);
    assert_true(session.updated_at == 1751284801);
    assert_int_equal(session.members, 2);
    expect(&session.key[0], "backend_url");
    expect(&session.value[0], "http://h:1/");
    expect(&session.key[1], "k");
    expect(&session.value[1], "");
}

static void reads_a_record_without_metadata(void **state) {
    (void)state;
    assert_int_equal(read_text(RECORD "}", NULL), MR_OK);
    assert_int_equal(session.members, 0);
    assert_int_equal(read_text(RECORD ",\"metadata\":{}}", NULL), MR_OK);
    assert_int_equal(session.members, 0);
}

static void takes_escapes_of_slashes_out(void **state) {
    (void)state;
    assert_int_equal(read_text("{\"id\":\"a\\/b\\/\",\"type\":\"\\/\"" TIMES
                               ",\"metadata\":{\"\\/k\":\"http:\\/\\/h:1\","
                               "\"l\":\"a long one without any escape\"}}",
                               "a/b/"),
                     MR_OK);
    expect(&session.id, "a/b/");
    expect(&session.type, "/");
    expect(&session.key[0], "/k");
    expect(&session.value[0], "http://h:1");
    expect(&session.value[1], "a long one without any escape");
}

static void compares_the_id(void **state) {
    (void)state;
    assert_int_equal(read_text(RECORD "}", "a-2"), MR_INVALID);
    assert_int_equal(read_text(RECORD "}", "a-"), MR_INVALID);
    assert_int_equal(read_text(RECORD "}", "a-12"), MR_INVALID);
    assert_int_equal(
        read_text("{\"id\":\"a\\/b\",\"type\":\"\"" TIMES "}", "a\\/b"),
        MR_INVALID);
}

/* Wherever it ends too early, or has one byte more. */
static void refuses_what_is_incomplete(void **state) {
    static const char whole[] = RECORD ",\"metadata\":{\"k\":\"a\\/b\"}}";
    char longer[sizeof whole + 1];

    (void)state;
    for (size_t len = 0; len < sizeof whole - 1; len++)
        assert_int_equal(read_bytes(whole, len, NULL), MR_INVALID);
    assert_int_equal(read_bytes(whole, sizeof whole - 1, NULL), MR_OK);
    snprintf(longer, sizeof longer, "%s ", whole);
    assert_int_equal(read_text(longer, NULL), MR_INVALID);
}

/* Each byte of a string, at each place among eight: only some may be there. */
static void refuses_bytes_that_are_not_plain(void **state) {
    char text[sizeof RECORD + 64];

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        int plain = byte >= 0x20 && byte <= 0x7e && byte != '"' && byte != '\\';

        for (int at = 0; at < 17; at++) {
            char value[] = "abcdefghijklmnopq";
            int len;

            value[at] = (char)byte;
            len = snprintf(text, sizeof text, "%s",
                           RECORD ",\"metadata\":{\"k\":\"");
            memcpy(text + len, value, sizeof value - 1);
            memcpy(text + len + sizeof value - 1, "\"}}", 3);
            assert_int_equal(
                read_bytes(text, (size_t)len + sizeof value + 2, NULL),
                plain ? MR_OK : MR_INVALID);
        }
    }
}

static void refuses_other_forms(void **state) {
    static const char *const texts[] = {
        "",
        "{}",
        "[" RECORD "}]",
        " " RECORD "}",
        RECORD "}\n",
        RECORD ",\"data\":1}",
        RECORD ",\"metadata\":null}",
        RECORD ",\"metadata\":{\"k\":1}}",
        RECORD ",\"metadata\":{\"k\":\"v\",}}",
        RECORD ",\"metadata\":{,\"k\":\"v\"}}",
        RECORD ",\"metadata\":{\"k\" :\"v\"}}",
        RECORD ",\"metadata\":{\"k\":\"\\n\"}}",
        RECORD ",\"metadata\":{\"k\":\"\\u0041\"}}",
        RECORD ",\"metadata\":{\"k\":\"\\\"\"}}",
        RECORD ",\"metadata\":{\"k\":\"a\\/b\\\"\"}}",
        RECORD ",\"metadata\":{},\"id\":\"b\"}",
        "{\"type\":\"mcp\",\"id\":\"a-1\"" TIMES "}",
        "{\"id\":\"a-1\"" TIMES "}",
        "{\"id\":1,\"type\":\"mcp\"" TIMES "}",
        "{\"id\":\"a-1\",\"type\":null" TIMES "}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (read_text(texts[i], NULL) != MR_INVALID)
            fail_msg("taken for a record: %s", texts[i]);
}

static int read_created_at(const char *time) {
    char text[300];

    snprintf(text, sizeof text,
             "{\"id\":\"a\",\"type\":\"\",\"created_at\":\"%s\",\"updated_at\":"
             "\"2025-06-30T12:00:01Z\"}",
             time);
    return read_text(text, NULL);
}

static void reads_times(void **state) {
    static const struct {
        const char *text;
        double seconds;
    } times[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1969-12-31T23:59:59.5Z", -0.5},
        {"2000-02-29T23:59:60Z", 951868800},
        {"0001-01-01T00:00:00Z", -62135596800.0},
        {"9999-12-31T23:59:59Z", 253402300799.0},
        {"1970-01-01T00:00:00.000000001Z", 1 / 1e9},
        {"1970-01-01T00:00:00.123456789Z", 123456789 / 1e9},
    };

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        if (read_created_at(times[i].text) != MR_OK)
            fail_msg("no time: %s", times[i].text);
        assert_true(session.created_at == times[i].seconds);
    }
}

static void refuses_other_times(void **state) {
    static const char *const times[] = {
        "",
        "2025-06-30T12:00:00",
        "2025-06-30t12:00:00Z",
        "2025-06-30T12:00:00z",
        "2025-06-30T12:00:00+02:00",
        "2025-06-30 12:00:00Z",
        "2025-06-30T12:00:00.Z",
        "2025-06-30T12:00:00,5Z",
        "2025-06-30T12:00:00.5 Z",
        "2025-06-30T12:00:00.-5Z",
        "2025-06-30T12:00:00.1234567890Z",
        "2025-06-30T12:00:00ZZ",
        "2025-06-30T12:00:0Z0",
        "0000-01-01T00:00:00Z",
        "2025-00-30T12:00:00Z",
        "2025-13-30T12:00:00Z",
        "2025-06-00T12:00:00Z",
        "2025-06-31T12:00:00Z",
        "2025-02-29T12:00:00Z",
        "1900-02-29T12:00:00Z",
        "2025-06-30T24:00:00Z",
        "2025-06-30T12:60:00Z",
        "2025-06-30T12:00:61Z",
        "2025-06-30T12:00:-1Z",
        "+025-06-30T12:00:00Z",
        "2025-06-30T12:00:00Z\\",
    };

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        if (read_created_at(times[i]) != MR_INVALID)
            fail_msg("taken for a time: %s", times[i]);
}

/* Each byte of an id, at each place among eight. */
static void looks_at_ids(void **state) {
    (void)state;
    assert_int_equal(mr_session_id_span("", 0), 0);
    for (int byte = 0; byte < 256; byte++) {
        int fine = byte >= 0x21 && byte <= 0x7e;

        for (uint32_t at = 0; at < 17; at++) {
            char *id = malloc(17);

            assert_non_null(id);
            memcpy(id, "!bcdefghijklmnop~", 17);
            id[at] = (char)byte;
            assert_int_equal(mr_session_id_span(id, 17), fine ? 17 : at);
            free(id);
        }
    }
}

/* What does not fit the result is left to the other decoder. */
static void refuses_what_is_too_much(void **state) {
    char text[2000], slashes[600];
    int len = snprintf(text, sizeof text, "%s", RECORD ",\"metadata\":{");

    (void)state;
    for (int i = 0; i < MR_SESSION_MEMBERS; i++)
        len += snprintf(text + len, sizeof text - (size_t)len,
                        "%s\"k%d\":\"v\"", i > 0 ? "," : "", i);
    strcpy(text + len, "}}");
    assert_int_equal(read_text(text, NULL), MR_OK);
    assert_int_equal(session.members, MR_SESSION_MEMBERS);
    strcpy(text + len, ",\"one more\":\"v\"}}");
    assert_int_equal(read_text(text, NULL), MR_INVALID);

    for (size_t n = sizeof session.scratch - 1; n <= sizeof session.scratch + 1;
         n++) {
        memset(slashes, 'x', n);
        strcpy(slashes + n - 1, "\\/");
        snprintf(text, sizeof text, "%s%s%s", RECORD ",\"metadata\":{\"k\":\"",
                 slashes, "\"}}");
        assert_int_equal(read_text(text, NULL),
                         n <= sizeof session.scratch ? MR_OK : MR_INVALID);
    }
}

static int free_block(void **state) {
    (void)state;
    free(block);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_record),
        cmocka_unit_test(reads_a_record_without_metadata),
        cmocka_unit_test(takes_escapes_of_slashes_out),
        cmocka_unit_test(compares_the_id),
        cmocka_unit_test(refuses_what_is_incomplete),
        cmocka_unit_test(refuses_bytes_that_are_not_plain),
        cmocka_unit_test(refuses_other_forms),
        cmocka_unit_test(reads_times),
        cmocka_unit_test(refuses_other_times),
        cmocka_unit_test(looks_at_ids),
        cmocka_unit_test(refuses_what_is_too_much),
    };

    return cmocka_run_group_tests_name("session", tests, NULL, free_block);
}
