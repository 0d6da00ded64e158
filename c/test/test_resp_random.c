/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_resp_random.c - the RESP codec against random trees: what is decoded
 * has to encode to the same bytes, and damaged bytes must do no harm. The seed
 * is printed; MR_SEED=n repeats a run.
 */
#include "resp_testing.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_what_was_encoded),
        cmocka_unit_test(survives_damaged_replies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
