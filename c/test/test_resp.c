/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_resp.c - the RESP codec: every type, cut anywhere; hostile lengths,
 * nesting and types; random trees against their own encoding (the seed is
 * printed, MR_SEED=n repeats a run); a heap that fails at the n-th request.
 */
#include "mooring.h"

#include <limits.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* ----------------------------------------------------- a heap that fails -- */

/* The program's malloc, and so that of hiredis as well, goes through here:
 * fail_after counts down to the first request that fails. The sanitizers have
 * a malloc of their own, under which these tests are skipped. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif
#if defined(__GLIBC__) && !defined(SANITIZED)
#define OWN_HEAP 1
#else
#define OWN_HEAP 0
#endif

static long fail_after = -1; /* -1: never */
static size_t largest;       /* request since reset */
static long live;            /* bytes allocated and not freed */

#if OWN_HEAP
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);

static int refused(size_t size) {
    if (size > largest)
        largest = size;
    if (fail_after == 0)
        return 1;
    if (fail_after > 0)
        fail_after--;
    return 0;
}

void *malloc(size_t size) {
    void *p = refused(size) ? NULL : __libc_malloc(size);
    live += p ? (long)malloc_usable_size(p) : 0;
    return p;
}

void *calloc(size_t n, size_t size) {
    void *p = refused(n * size) ? NULL : __libc_calloc(n, size);
    live += p ? (long)malloc_usable_size(p) : 0;
    return p;
}

void *realloc(void *old, size_t size) {
    long before = old ? (long)malloc_usable_size(old) : 0;
    void *p = refused(size) ? NULL : __libc_realloc(old, size);
    live += p ? (long)malloc_usable_size(p) - before : 0;
    return p;
}

void free(void *p) {
    live -= p ? (long)malloc_usable_size(p) : 0;
    __libc_free(p);
}
#endif

/* -------------------------------------------------------------- helpers -- */

static void feed(mr_reader *r, const char *bytes, size_t len) {
    assert_int_equal(mr_reader_feed(r, bytes, (uint32_t)len), MR_OK);
}

static void feed_text(mr_reader *r, const char *text) {
    feed(r, text, strlen(text));
}

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

static void expect_text(const mr_reply *reply, int type, const char *text) {
    assert_int_equal(reply->type, type);
    assert_int_equal(reply->len, strlen(text));
    assert_string_equal(reply->str, text);
}

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
    char *out;
    uint32_t n;

    (void)state;
    assert_int_equal(mr_command_format(0, argv, len, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(-1, argv, len, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, argv, huge, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, argv, wraps, &out, &n), MR_INVALID);
    assert_int_equal(mr_command_format(3, holes, len, &out, &n), MR_INVALID);
}

/* -------------------------------------------------------------- replies -- */

static const char all_types[] = "*7\r\n$5\r\nhel\0o\r\n+OK\r\n-ERR no\r\n"
                                ":-42\r\n$-1\r\n*-1\r\n*2\r\n$0\r\n\r\n*0\r\n";

static void expect_all_types(const mr_reply *reply) {
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
    largest = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_protocol_error(cases[i], strlen(cases[i]), 0, "");
    expect_protocol_error("*1000000000\r\n", 13, 0, "16777216 bytes");
    assert_true(largest < 1024 * 1024);
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
    static const char *const starts[] = {"+", "-", ":", "*", "$abc"};
    static char noise[1000];

    (void)state;
    memset(noise, 'x', sizeof noise);
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        mr_reader *r = mr_reader_new(0);
        mr_reply *reply;
        int rc = MR_AGAIN, fed = 0;
        feed_text(r, starts[i]);
        for (; rc == MR_AGAIN && fed < 100; fed++) {
            feed(r, noise, sizeof noise);
            rc = mr_reader_next(r, &reply);
        }
        assert_in_range(fed, 64, 70);
        expect_refused(r, MR_PROTOCOL, "line");
    }
}

/* ---------------------------------------------------------- random trees -- */

/* A growing text, and a small generator of its own (xorshift), so that a seed
 * means the same everywhere. */
struct wire {
    char *bytes;
    size_t len, room;
};

static uint64_t random_state;

static uint32_t random_below(uint32_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 16) % n);
}

static void append(struct wire *w, const void *bytes, size_t len) {
    if (w->len + len > w->room) {
        w->room = (w->len + len) * 2;
        w->bytes = realloc(w->bytes, w->room);
        assert_non_null(w->bytes);
    }
    memcpy(w->bytes + w->len, bytes, len);
    w->len += len;
}

static void append_head(struct wire *w, char type, long long n) {
    char text[32];

    append(w, text, (size_t)snprintf(text, sizeof text, "%c%lld\r\n", type, n));
}

static void write_string(struct wire *w) {
    uint32_t len = random_below(10) ? random_below(40) : random_below(50000);

    append_head(w, '$', len);
    for (uint32_t i = 0; i < len; i++) {
        char c = (char)random_below(256);
        append(w, &c, 1);
    }
    append(w, "\r\n", 2);
}

/* Writes a random reply. */
static void write_reply(struct wire *w, int depth) {
    uint32_t n;

    switch (random_below(depth < 7 ? 7 : 5)) {
    case 0:
        append(w, "$-1\r\n", 5);
        break;
    case 1:
        append_head(w, ':', (long long)random_below(UINT32_MAX) - INT_MAX);
        break;
    case 2:
        append(w, "+fine\r\n", 7);
        break;
    case 3:
        append(w, "-ERR bad\r\n", 10);
        break;
    case 4:
        write_string(w);
        break;
    default:
        append_head(w, '*', n = random_below(6));
        while (n-- > 0)
            write_reply(w, depth + 1);
    }
}

/* Encodes what was decoded; equal bytes mean an equal reply. */
static void encode(struct wire *w, const mr_reply *reply) {
    switch (reply->type) {
    case MR_REPLY_NIL:
        append(w, "$-1\r\n", 5);
        return;
    case MR_REPLY_INTEGER:
        append_head(w, ':', (long long)reply->integer);
        return;
    case MR_REPLY_ARRAY:
        append_head(w, '*', reply->n);
        for (uint32_t i = 0; i < reply->n; i++)
            encode(w, reply->element[i]);
        return;
    case MR_REPLY_STRING:
        append_head(w, '$', reply->len);
        break;
    default:
        append(w, reply->type == MR_REPLY_STATUS ? "+" : "-", 1);
    }
    append(w, reply->str, reply->len);
    append(w, "\r\n", 2);
}

static void seed(void) {
    const char *text = getenv("MR_SEED");

    random_state = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    print_message("MR_SEED=%llu\n", (unsigned long long)random_state);
    random_state = random_state * 2 + 1;
}

/* Feeds in pieces of random size. */
static void replay(mr_reader *r, const struct wire *in, struct wire *out) {
    mr_reply *reply;
    int rc;

    for (size_t at = 0, n; at < in->len; at += n) {
        n = 1 + random_below(random_below(2) ? 20 : 30000);
        n = n > in->len - at ? in->len - at : n;
        feed(r, in->bytes + at, n);
        while ((rc = mr_reader_next(r, &reply)) == MR_OK) {
            encode(out, reply);
            mr_reply_free(reply);
        }
        assert_int_equal(rc, MR_AGAIN);
    }
}

static void decodes_what_was_encoded(void **state) {
    mr_reader *r = mr_reader_new(0);

    (void)state;
    seed();
    for (int round = 0; round < 300; round++) {
        struct wire in = {0}, out = {0};
        for (uint32_t n = 1 + random_below(10); n > 0; n--)
            write_reply(&in, 0);
        replay(r, &in, &out);
        assert_int_equal(in.len, out.len);
        assert_memory_equal(in.bytes, out.bytes, in.len);
        free(in.bytes);
        free(out.bytes);
    }
    mr_reader_free(r);
}

/* Changes bytes at random, many of them to ones that mean something. */
static void damage(struct wire *w) {
    static const char special[] = "$*:+-\r\n0123456789_,#%~>=(";

    for (uint32_t n = 1 + random_below(4); n > 0; n--) {
        char *at = w->bytes + random_below((uint32_t)w->len);
        *at = random_below(4) ? special[random_below(sizeof special - 1)]
                              : (char)random_below(256);
    }
}

static void survives_damaged_replies(void **state) {
    int refused_rounds = 0;

    (void)state;
    seed();
    for (int round = 0; round < 3000; round++) {
        struct wire w = {0};
        mr_reader *r = mr_reader_new(100000);
        mr_reply *reply;
        int rc = MR_OK;
        write_reply(&w, 0);
        damage(&w);
        for (size_t at = 0; at < w.len && rc == MR_OK; at += 100) {
            size_t n = w.len - at < 100 ? w.len - at : 100;
            rc = mr_reader_feed(r, w.bytes + at, (uint32_t)n);
            while (rc == MR_OK && (rc = mr_reader_next(r, &reply)) == MR_OK)
                mr_reply_free(reply);
            rc = rc == MR_AGAIN ? MR_OK : rc;
        }
        assert_true(rc == MR_OK || rc == MR_PROTOCOL);
        assert_true((rc == MR_OK) == (*mr_reader_error(r) == '\0'));
        refused_rounds += rc != MR_OK;
        mr_reader_free(r);
        free(w.bytes);
    }
    assert_in_range(refused_rounds, 100, 2999);
}

/* --------------------------------------------------------------- memory -- */

/* Decodes with a heap that fails at request n.
 * Returns whether no request was refused. */
static int decodes_with_failing_heap(long n) {
    mr_reply *reply = NULL;
    int rc = MR_NOMEM;

    fail_after = n;
    mr_reader *r = mr_reader_new(0);
    if (r)
        rc = mr_reader_feed(r, all_types, sizeof all_types - 1);
    if (rc == MR_OK)
        rc = mr_reader_next(r, &reply);
    int complete = fail_after != 0;
    fail_after = -1;

    if (complete) {
        assert_int_equal(rc, MR_OK);
        expect_all_types(reply);
    } else if (rc != MR_OK) {
        assert_int_equal(rc, MR_NOMEM);
        assert_null(reply);
        if (r)
            assert_string_not_equal(mr_reader_error(r), "");
    }
    mr_reply_free(reply);
    mr_reader_free(r);
    return complete;
}

static void survives_a_failing_heap(void **state) {
    (void)state;
    if (!OWN_HEAP)
        skip();
    long n = 0;
    while (!decodes_with_failing_heap(n)) {
        assert_true(++n < 1000);
    }
    assert_true(n > 10);
}

static void formats_with_a_failing_heap(void **state) {
    const char *argv[] = {"GET", "k"};
    size_t len[] = {3, 1};
    char *out;
    uint32_t out_len;

    (void)state;
    if (!OWN_HEAP)
        skip();
    fail_after = 0;
    int rc = mr_command_format(2, argv, len, &out, &out_len);
    fail_after = -1;
    assert_int_equal(rc, MR_NOMEM);
}

/* Lets the reader decode a string of 4 MB, cut in pieces. */
static void decode_large(mr_reader *r) {
    static char chunk[16384];
    mr_reply *reply;

    memset(chunk, 'y', sizeof chunk);
    feed_text(r, "$4194304\r\n");
    for (int i = 0; i < 256; i++) {
        assert_int_equal(mr_reader_next(r, &reply), MR_AGAIN);
        feed(r, chunk, sizeof chunk);
    }
    feed_text(r, "\r\n");
    assert_int_equal(mr_reader_next(r, &reply), MR_OK);
    assert_int_equal(reply->len, 4194304);
    mr_reply_free(reply);
}

static void gives_up_the_buffer_of_a_large_reply(void **state) {
    mr_reply *reply;

    (void)state;
    if (!OWN_HEAP)
        skip();
    mr_reader *r = mr_reader_new(0);
    long before = live;
    decode_large(r);
    assert_in_range(live - before + 1024, 0, 32 * 1024);
    feed_text(r, "+OK\r\n");
    assert_int_equal(mr_reader_next(r, &reply), MR_OK);
    expect_text(reply, MR_REPLY_STATUS, "OK");
    mr_reply_free(reply);
    mr_reader_free(r);
}

static void frees_an_unfinished_reply(void **state) {
    long before = live;
    mr_reader *r = mr_reader_new(0);
    mr_reply *reply;

    (void)state;
    feed_text(r, "*3\r\n$3\r\nabc\r\n*2\r\n:1\r\n");
    assert_int_equal(mr_reader_next(r, &reply), MR_AGAIN);
    mr_reader_free(r);
    mr_reader_free(NULL);
    assert_int_equal(live, before);
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
        cmocka_unit_test(decodes_what_was_encoded),
        cmocka_unit_test(survives_damaged_replies),
        cmocka_unit_test(survives_a_failing_heap),
        cmocka_unit_test(formats_with_a_failing_heap),
        cmocka_unit_test(gives_up_the_buffer_of_a_large_reply),
        cmocka_unit_test(frees_an_unfinished_reply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
