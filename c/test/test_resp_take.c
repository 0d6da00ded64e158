/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_resp_take.c - replies taken out of the buffer, without a copy: the short
 * way beside that of test_resp.c.
 */
#include "resp_testing.h"

#include <stdio.h>

static void expect_not_taken(mr_reader *r) {
    mr_reply reply;

    assert_int_equal(mr_reader_take(r, &reply), MR_AGAIN);
}

static void takes_simple_replies(void **state) {
    mr_reader *r = mr_reader_new(0);
    mr_reply reply;

    (void)state;
    expect_not_taken(r);
    feed(r, "$5\r\nhel\0o\r\n:-42\r\n$-1\r\n$0\r\n\r\n:0\r\n", 32);
    assert_int_equal(mr_reader_take(r, &reply), MR_OK);
    assert_int_equal(reply.type, MR_REPLY_STRING);
    assert_int_equal(reply.len, 5);
    assert_memory_equal(reply.str, "hel\0o", 5);
    assert_int_equal(mr_reader_take(r, &reply), MR_OK);
    assert_int_equal(reply.type, MR_REPLY_INTEGER);
    assert_true(reply.integer == -42);
    assert_int_equal(mr_reader_take(r, &reply), MR_OK);
    assert_int_equal(reply.type, MR_REPLY_NIL);
    assert_int_equal(mr_reader_take(r, &reply), MR_OK);
    assert_int_equal(reply.type, MR_REPLY_STRING);
    assert_int_equal(reply.len, 0);
    assert_int_equal(mr_reader_take(r, &reply), MR_OK);
    assert_int_equal(reply.type, MR_REPLY_INTEGER);
    assert_true(reply.integer == 0);
    expect_not_taken(r);
    mr_reader_free(r);
}

/* Whichever way each reply is taken, none is lost or seen twice; also when it
 * is asked for before all of it has come. */
static void takes_replies_either_way(void **state) {
    static const char pair[] = "$3\r\nabc\r\n:7\r\n";

    (void)state;
    for (size_t cut = 0; cut < sizeof pair; cut++) {
        mr_reader *r = mr_reader_new(0);
        mr_reply taken, *reply;
        int n = 0;

        feed(r, "+OK\r\n", 5);
        expect_not_taken(r);
        assert_int_equal(mr_reader_next(r, &reply), MR_OK);
        mr_reply_free(reply);
        feed(r, pair, cut);
        while (mr_reader_take(r, &taken) == MR_OK)
            n++;
        for (; mr_reader_next(r, &reply) == MR_OK; n++)
            mr_reply_free(reply);
        feed(r, pair + cut, sizeof pair - 1 - cut);
        for (; mr_reader_next(r, &reply) == MR_OK; n++)
            mr_reply_free(reply);
        feed(r, pair, sizeof pair - 1);
        while (mr_reader_take(r, &taken) == MR_OK)
            n++;
        assert_int_equal(n, 4);
        assert_true(taken.integer == 7);
        mr_reader_free(r);
    }
}

static void leaves_the_rest_to_hiredis(void **state) {
    static const char *const rest[] = {
        "+OK\r\n",
        "-ERR no\r\n",
        "*1\r\n:1\r\n",
        "*-1\r\n",
        "$3\r\nab",
        "$3\r\nabc\r",
        "$3\r\nabc",
        "$3\r\nabcde",
        "$3\r\nabc\n\r",
        "$",
        "$\r\n",
        "$-2\r\n",
        "$03\r\nabc\r\n",
        "$+3\r\nabc\r\n",
        "$3\nabc\r\n",
        ":",
        ":-\r\n",
        ":1",
        ":1\r",
        ":1\n",
        ":1x\r\n",
        ":01\r\n",
        ":-0\r\n",
        ":+1\r\n",
        ":1234567890123456\r\n",
        "_\r\n",
        "x",
    };

    (void)state;
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) {
        mr_reader *r = mr_reader_new(0);

        feed_text(r, rest[i]);
        expect_not_taken(r);
        mr_reader_free(r);
    }
}

/* The limit is that of the other way, to the byte. */
static void takes_what_the_limit_allows(void **state) {
    enum { LIMIT = 1000 };
    char text[LIMIT + 20];
    size_t allowed = 0;

    (void)state;
    for (size_t len = LIMIT - 200; len < LIMIT; len++) {
        mr_reader *r = mr_reader_new(LIMIT);
        mr_reply taken, *reply;
        int n =
            snprintf(text, sizeof text, "$%zu\r\n%*s\r\n", len, (int)len, "");
        int rc;

        feed(r, text, (size_t)n);
        rc = mr_reader_take(r, &taken);
        if (rc == MR_AGAIN)
            assert_int_equal(mr_reader_next(r, &reply), MR_PROTOCOL);
        mr_reader_free(r);

        r = mr_reader_new(LIMIT);
        feed(r, text, (size_t)n);
        assert_int_equal(mr_reader_next(r, &reply),
                         rc == MR_OK ? MR_OK : MR_PROTOCOL);
        mr_reply_free(reply);
        mr_reader_free(r);
        allowed += rc == MR_OK;
    }
    assert_true(allowed > 100 && allowed < 199);
}

static void takes_nothing_from_a_dead_reader(void **state) {
    mr_reader *r = mr_reader_new(0);
    mr_reply *reply;

    (void)state;
    feed_text(r, "x\r\n:1\r\n");
    assert_int_equal(mr_reader_next(r, &reply), MR_PROTOCOL);
    expect_not_taken(r);
    mr_reader_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_simple_replies),
        cmocka_unit_test(takes_replies_either_way),
        cmocka_unit_test(leaves_the_rest_to_hiredis),
        cmocka_unit_test(takes_what_the_limit_allows),
        cmocka_unit_test(takes_nothing_from_a_dead_reader),
    };

    return cmocka_run_group_tests_name("resp_take", tests, NULL, NULL);
}
