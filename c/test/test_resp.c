/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_resp.c - the RESP codec: every type, cut anywhere; hostile lengths,
 * nesting and types.
 */
#include "resp_testing.h"

#include <limits.h>
#include <stdio.h>

/* ------------------------------------------------------------- commands -- */

static void formats_a_command(void **state) {
    const char *argv[] = {"SET", "k\0y", ""};
    size_t len[] = {3, 3, 0};
    static const char wire[] = "*3\r\n$3\r\nSET\r\n$3\r\nk\0y\r\n$0\r\n\r\n";
    char *out;
    uint32_t out_len;

    (void)state;
    assert_int_equal(mr_command_format(3, argv, len, &out, &out_len), MR_OK);
    assert_int_equal(out_len, sizeof wire - 1);
    assert_memory_equal(out, wire, out_len);
    mr_command_free(out);
    mr_command_free(NULL);
}

static void refuses_impossible_commands(void **state) {
    const char *argv[] = {"SET", "key", "value"};
    const char *holes[] = {"SET", NULL, "value"};
    size_t len[] = {3, 3, 5};
    size_t huge[] = {3, INT_MAX / 2, INT_MAX / 2};
    size_t wraps[] = {3, SIZE_MAX, 5};
    size_t full[] = {3, INT_MAX - 70, 5};
    char *out;
    uint32_t n;

    (void)state;
    assert_int_equal(mr_command_format(0, argv, len, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(-1, argv, len, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, argv, huge, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, argv, wraps, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, argv, full, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, holes, len, &out, &n), MR_INVALID);
}

/* -------------------------------------------------------------- replies -- */

/* Decodes one complete reply. */
static mr_reply *decode(const char *bytes, size_t len) {
    mr_reader *r = mr_reader_new(0);
    mr_reply *reply, *second;

    assert_non_null(r);
    feed(r, bytes, len);
    assert_int_equal(mr_reader_next(r, &reply), MR_OK);
    assert_non_null(reply);
    assert_int_equal(mr_reader_next(r, &second), MR_AGAIN);
    assert_null(second);
    assert_string_equal(mr_reader_error(r), "");
    mr_reader_free(r);
    return reply;
}

/* Expects that the reader refuses what it has been fed, says something with
 * `hint` in it, and stays dead. */
static void expect_refused(mr_reader *r, int rc, const char *hint) {
    mr_reply *reply = (mr_reply *)&reply;

    assert_int_equal(mr_reader_next(r, &reply), rc);
    assert_null(reply);
    if (!strstr(mr_reader_error(r), hint))
        fail_msg("\"%s\" does not mention \"%s\"", mr_reader_error(r), hint);
    assert_int_equal(mr_reader_next(r, &reply), rc);
    assert_null(reply);
    assert_int_equal(mr_reader_feed(r, "+OK\r\n", 5), rc);
    mr_reader_free(r);
}

static void expect_protocol_error(const char *bytes, size_t len,
                                  uint32_t max_bytes, const char *hint) {
    mr_reader *r = mr_reader_new(max_bytes);

    feed(r, bytes, len);
    expect_refused(r, MR_PROTOCOL, hint);
}

static void decodes_every_type(void **state) {
    mr_reply *reply = decode(all_types, sizeof all_types - 1);

    (void)state;
    expect_all_types(reply);
    mr_reply_free(reply);
    mr_reply_free(NULL);
}

static void decodes_replies_cut_anywhere(void **state) {
    const size_t len = sizeof all_types - 1;

    (void)state;
    for (size_t cut = 1; cut < len; cut++) {
        mr_reader *r = mr_reader_new(0);
        mr_reply *reply;
        feed(r, all_types, cut);
        assert_int_equal(mr_reader_next(r, &reply), MR_AGAIN);
        feed(r, all_types + cut, len - cut);
        assert_int_equal(mr_reader_next(r, &reply), MR_OK);
        expect_all_types(reply);
        mr_reply_free(reply);
        mr_reader_free(r);
    }
}

static void decodes_replies_byte_by_byte(void **state) {
    mr_reader *r = mr_reader_new(0);
    mr_reply *reply = NULL;

    (void)state;
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < sizeof all_types - 1; i++) {
            assert_null(reply);
            feed(r, all_types + i, 1);
            int rc = mr_reader_next(r, &reply);
            assert_int_equal(rc, reply ? MR_OK : MR_AGAIN);
        }
        assert_non_null(reply);
        expect_all_types(reply);
        mr_reply_free(reply);
        reply = NULL;
    }
    mr_reader_free(r);
}

static void decodes_a_pipeline_in_order(void **state) {
    mr_reader *r = mr_reader_new(1024);
    mr_reply *reply;
    char text[32];

    (void)state;
    /* Together far more than max_bytes, which bounds each of them. */
    for (int i = 0; i < 10000; i++)
        feed(r, text, (size_t)snprintf(text, sizeof text, ":%d\r\n", i));
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(mr_reader_next(r, &reply), MR_OK);
        assert_true(reply->integer == i);
        mr_reply_free(reply);
    }
    assert_int_equal(mr_reader_next(r, &reply), MR_AGAIN);
    mr_reader_free(r);
}

static void decodes_integers_to_their_limits(void **state) {
    static const struct {
        const char *wire;
        double value;
    } cases[] = {
        {":0\r\n", 0},
        {":9007199254740992\r\n", 9007199254740992.0},
        {":-9007199254740992\r\n", -9007199254740992.0},
        {":9223372036854775807\r\n", 9223372036854775808.0},
        {":-9223372036854775808\r\n", -9223372036854775808.0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mr_reply *reply = decode(cases[i].wire, strlen(cases[i].wire));
        assert_int_equal(reply->type, MR_REPLY_INTEGER);
        assert_true(reply->integer == cases[i].value);
        mr_reply_free(reply);
    }
}

/* ------------------------------------------------------------- bad peers -- */

static void refuses_what_is_no_resp(void **state) {
    static const char *const cases[] = {
        "HTTP/1.1 400 Bad Request\r\n",
        "\r\n",
        ":12a\r\n",
        ":9223372036854775808\r\n",
        "$abc\r\n",
        "$-2\r\n",
        "$9999999999999999999999\r\n",
        "*-2\r\n",
        "*x\r\n",
        "*99999999999999999999\r\n",
        "*2\r\n:1\r\n?\r\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_protocol_error(cases[i], strlen(cases[i]), 0, "");
    expect_protocol_error("HTTP/1.1", 8, 0, "\"H\" as reply type byte");
}

static void refuses_resp3(void **state) {
    static const char *const cases[] = {
        "%1\r\n+a\r\n+b\r\n",
        "~1\r\n+a\r\n",
        ",1.5\r\n",
        "#t\r\n",
        "_\r\n",
        "=5\r\ntxt:a\r\n",
        ">1\r\n+a\r\n",
        "(123\r\n",
        "|1\r\n+a\r\n+b\r\n",
        "*1\r\n_\r\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_protocol_error(cases[i], strlen(cases[i]), 0, "");
}

static mr_reader *feed_nested(int depth) {
    mr_reader *r = mr_reader_new(0);

    for (int i = 0; i < depth; i++)
        feed_text(r, "*1\r\n");
    return r;
}

static void bounds_the_nesting(void **state) {
    mr_reader *r = feed_nested(7);
    mr_reply *reply;

    (void)state;
    feed_text(r, ":1\r\n");
    assert_int_equal(mr_reader_next(r, &reply), MR_OK);
    mr_reply_free(reply);
    mr_reader_free(r);
    expect_refused(feed_nested(8), MR_PROTOCOL, "nested");
    expect_refused(feed_nested(100000), MR_PROTOCOL, "nested");
}

static void bounds_arrays_by_what_they_claim(void **state) {
    static const char *const cases[] = {"*1000000000\r\n", "*2147483647\r\n",
                                        "*4294967297\r\n", "*2100000\r\n",
                                        "*1\r\n*1000000000\r\n"};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_protocol_error(cases[i], strlen(cases[i]), 0, "");
    expect_protocol_error("*1000000000\r\n", 13, 0, "16777216 bytes");
}

static void bounds_bulks_by_what_they_claim(void **state) {
    (void)state;
    expect_protocol_error("$1025\r\n", 7, 1024, "1024 bytes");
    expect_protocol_error("$1025", 5, 1024, "1024 bytes");
    expect_protocol_error("$4294967296\r\n", 13, UINT32_MAX, "bytes");
    expect_protocol_error("$9223372036854775807\r\n", 22, 0, "bytes");
    expect_protocol_error("*2\r\n$900\r\n", 10, 900, "900 bytes");
}

static void bounds_the_sum_of_a_reply(void **state) {
    mr_reader *r = mr_reader_new(1000);
    mr_reply *reply;
    int rc;

    (void)state;
    feed_text(r, "*100\r\n");
    for (int i = 0; (rc = mr_reader_next(r, &reply)) == MR_AGAIN; i++) {
        assert_true(i < 100);
        feed_text(r, ":1\r\n");
    }
    expect_refused(r, MR_PROTOCOL, "1000 bytes");
}

static void counts_each_reply_by_itself(void **state) {
    mr_reader *r = mr_reader_new(1000);
    mr_reply *reply;
    char payload[500];

    (void)state;
    memset(payload, 'x', sizeof payload);
    for (int i = 0; i < 100; i++) {
        feed_text(r, "$500\r\n");
        assert_int_equal(mr_reader_next(r, &reply), MR_AGAIN);
        feed(r, payload, sizeof payload);
        feed_text(r, "\r\n");
        assert_int_equal(mr_reader_next(r, &reply), MR_OK);
        assert_int_equal(reply->len, sizeof payload);
        mr_reply_free(reply);
    }
    mr_reader_free(r);
}

static void bounds_lines_without_end(void **state) {
    static const char *const starts[] = {"+", "-", ":", "*", "$abc", "$"};
    static char noise[1000];

    (void)state;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        mr_reader *r = mr_reader_new(0);
        mr_reply *reply;
        int rc = MR_AGAIN, fed = 0;
        /* The length of nothing, with zeros in front. */
        memset(noise, strcmp(starts[i], "$") ? 'x' : '0', sizeof noise);
        feed_text(r, starts[i]);
        for (; rc == MR_AGAIN && fed < 100; fed++) {
            feed(r, noise, sizeof noise);
            rc = mr_reader_next(r, &reply);
        }
        assert_in_range(fed, 64, 70);
        expect_refused(r, MR_PROTOCOL, "line");
    }
}

/* Decodes a status of `len` bytes, fed up to byte `cut` and from there on.
 * Returns what came of it. */
static int decode_line(size_t len, size_t cut) {
    static char line[100000];
    mr_reader *r = mr_reader_new(0);
    mr_reply *reply;

    memset(line, 'x', sizeof line);
    line[0] = '+';
    memcpy(line + 1 + len, "\r\n", 2);
    feed(r, line, cut);
    int rc = mr_reader_next(r, &reply);
    if (rc == MR_AGAIN) {
        feed(r, line + cut, 1 + len + 2 - cut);
        rc = mr_reader_next(r, &reply);
    }
    mr_reply_free(reply);
    mr_reader_free(r);
    return rc;
}

/* Cut before and after its first byte, its last one, CR and LF. */
static void bounds_a_line_however_it_is_cut(void **state) {
    static const size_t longest = 65536;

    (void)state;
    for (size_t over = 0; over < 3; over++) {
        size_t cuts[] = {1,
                         2,
                         100,
                         longest,
                         longest + 1 + over,
                         longest + 2 + over,
                         longest + 3 + over};
        for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
            assert_int_equal(decode_line(longest + over, cuts[i]),
                             over ? MR_PROTOCOL : MR_OK);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_a_command),
        cmocka_unit_test(refuses_impossible_commands),
        cmocka_unit_test(decodes_every_type),
        cmocka_unit_test(decodes_replies_cut_anywhere),
        cmocka_unit_test(decodes_replies_byte_by_byte),
        cmocka_unit_test(decodes_a_pipeline_in_order),
        cmocka_unit_test(decodes_integers_to_their_limits),
        cmocka_unit_test(refuses_what_is_no_resp),
        cmocka_unit_test(refuses_resp3),
        cmocka_unit_test(bounds_the_nesting),
        cmocka_unit_test(bounds_arrays_by_what_they_claim),
        cmocka_unit_test(bounds_bulks_by_what_they_claim),
        cmocka_unit_test(bounds_the_sum_of_a_reply),
        cmocka_unit_test(counts_each_reply_by_itself),
        cmocka_unit_test(bounds_lines_without_end),
        cmocka_unit_test(bounds_a_line_however_it_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
