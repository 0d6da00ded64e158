/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * resp_testing.h - what the tests of the RESP codec share. */
#ifndef MR_RESP_TESTING_H
#define MR_RESP_TESTING_H

#include "mooring_redis.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static inline void feed(mr_reader *r, const char *bytes, size_t len) {
    assert_int_equal(mr_reader_feed(r, bytes, (uint32_t)len), MR_OK);
}

static inline void feed_text(mr_reader *r, const char *text) {
    feed(r, text, strlen(text));
}

static inline void expect_text(const mr_reply *reply, int type,
                               const char *text) {
    assert_int_equal(reply->type, type);
    assert_int_equal(reply->len, strlen(text));
    assert_string_equal(reply->str, text);
}

/* One reply with everything in it. */
static const char all_types[] = "*7\r\n$5\r\nhel\0o\r\n+OK\r\n-ERR no\r\n"
                                ":-42\r\n$-1\r\n*-1\r\n*2\r\n$0\r\n\r\n*0\r\n";

static inline void expect_all_types(const mr_reply *reply) {
    assert_int_equal(reply->type, MR_REPLY_ARRAY);
    assert_int_equal(reply->n, 7);
    assert_int_equal(reply->element[0]->type, MR_REPLY_STRING);
    assert_int_equal(reply->element[0]->len, 5);
    assert_memory_equal(reply->element[0]->str, "hel\0o", 6);
    expect_text(reply->element[1], MR_REPLY_STATUS, "OK");
    expect_text(reply->element[2], MR_REPLY_ERROR, "ERR no");
    assert_int_equal(reply->element[3]->type, MR_REPLY_INTEGER);
    assert_true(reply->element[3]->integer == -42);
    assert_int_equal(reply->element[4]->type, MR_REPLY_NIL);
    assert_int_equal(reply->element[5]->type, MR_REPLY_NIL);
    assert_int_equal(reply->element[6]->n, 2);
    expect_text(reply->element[6]->element[0], MR_REPLY_STRING, "");
    assert_int_equal(reply->element[6]->element[1]->type, MR_REPLY_ARRAY);
    assert_int_equal(reply->element[6]->element[1]->n, 0);
}

#endif
