/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_resp.c - any bytes from a server, cut anywhere.
 *
 *     input:  kind | limit | cuts | bytes, or what hostile ones are made of
 *
 *   - Whether the bytes come in one piece or in many does not matter, nor
 *     whether simple replies are taken the short way.
 *   - Proper replies are read as what they say; the first that exceeds a limit
 *     ends it.
 *   - The memory held never exceeds what the limit allows, however long the
 *     server goes on.
 *   - A failing allocation is reported, and nothing is leaked.
 *
 * Memory is counted by hooks of the address sanitizer; our own malloc is failed
 * by ld --wrap.
 *
 *     build/fuzz/fuzz_resp FILE    repeats a run */
#include "wire.h"

#include <sanitizer/allocator_interface.h>
#include <string.h>

/* --------------------------------------------------------------- memory --- */

static int counting;
static long held, most_held;
static long fail_after = -1; /* -1: never */

static void on_malloc(const volatile void *p, size_t size) {
    (void)p;
    if (counting && (held += (long)size) > most_held)
        most_held = held;
}

static void on_free(const volatile void *p) {
    if (counting && p != NULL)
        held -= (long)__sanitizer_get_allocated_size(p);
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size) {
    if (fail_after == 0)
        return NULL;
    if (fail_after > 0)
        fail_after--;
    return __real_malloc(size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    INSIST(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0,
           "no hooks");
    return 0;
}

/* ------------------------------------------------------------- decoding --- */

typedef struct decoding {
    size_t max_bytes;
    size_t largest_feed;
    mr_reader *reader;
    int rc;       /* after the last byte */
    wire replies; /* written again */
    int taken;
    int short_way; /* mr_reader_take is asked first */
} decoding;

/* The tree; the buffer with an unfinished item and the last feed in it, which
 * doubles when it grows, the old one being there until it is copied; the reader
 * itself. */
static long allowance(const decoding *d) {
    size_t item = d->max_bytes > WIRE_LINE ? d->max_bytes : WIRE_LINE;

    return (long)(d->max_bytes + 3 * (item + d->largest_feed + 1024) + 8192);
}

/* What can be had without a copy. */
static void take_simple_replies(decoding *d) {
    mr_reply reply;

    while (mr_reader_take(d->reader, &reply) == MR_OK) {
        counting = 0;
        if (reply.type == MR_REPLY_STRING) {
            wire_text(&d->replies, "$%u\r\n", reply.len);
            wire_add(&d->replies, reply.str, reply.len);
            wire_add(&d->replies, "\r\n", 2);
        } else {
            wire_reply(&d->replies, &reply);
        }
        counting = 1;
        d->taken++;
    }
}

static void take_replies(decoding *d) {
    mr_reply *reply;

    if (d->short_way)
        take_simple_replies(d);
    while ((d->rc = mr_reader_next(d->reader, &reply)) == MR_OK) {
        counting = 0;
        wire_reply(&d->replies, reply);
        counting = 1;
        mr_reply_free(reply);
        d->taken++;
        if (d->short_way)
            take_simple_replies(d);
    }
    INSIST(d->rc == MR_AGAIN || d->rc == MR_PROTOCOL ||
               (d->rc == MR_NOMEM && fail_after == 0),
           "mr_reader_next: %d", d->rc);
    INSIST((d->rc == MR_AGAIN) == (*mr_reader_error(d->reader) == '\0'),
           "%d and error \"%s\"", d->rc, mr_reader_error(d->reader));
}

static void feed(decoding *d, const char *bytes, size_t len) {
    if (len > d->largest_feed)
        d->largest_feed = len;
    d->rc = mr_reader_feed(d->reader, bytes, (uint32_t)len);
    if (d->rc == MR_OK)
        take_replies(d);
    INSIST(most_held <= allowance(d), "%ld bytes are held, %ld were allowed",
           most_held, allowance(d));
}

static void decoding_begin(decoding *d, size_t max_bytes) {
    memset(d, 0, sizeof *d);
    held = most_held = 0;
    counting = 1;
    d->max_bytes = max_bytes;
    d->reader = mr_reader_new((uint32_t)max_bytes);
    INSIST(d->reader != NULL || fail_after == 0, "no memory");
    d->rc = MR_AGAIN;
}

static void decoding_end(decoding *d) {
    mr_reader_free(d->reader);
    counting = 0;
    INSIST(held == 0, "%ld bytes are leaked", held);
}

/* A small generator (xorshift). Pieces of a long stream are longer, since the
 * parser looks through an unfinished line again with every piece. */
static size_t next_cut(uint32_t *state, size_t left) {
    uint32_t usual = left < 2000 ? 20 : 4000;
    size_t n;

    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    n = 1 + (*state >> 8) % (*state % 4 == 0 ? 20000 : usual);
    return n < left ? n : left;
}

/* cuts 0: in one piece */
static void decode(decoding *d, const wire *in, size_t max_bytes,
                   uint32_t cuts) {
    uint32_t state = cuts * 2654435761u + 1;

    decoding_begin(d, max_bytes);
    d->short_way = cuts % 2;
    for (size_t at = 0, n; at < in->len && d->rc == MR_AGAIN; at += n) {
        n = cuts == 0 ? in->len : next_cut(&state, in->len - at);
        feed(d, in->bytes + at, n);
    }
    decoding_end(d);
}

/* --------------------------------------------------------------- checks --- */

static void check_same(const decoding *whole, const decoding *cut) {
    INSIST(whole->rc == cut->rc, "%d in one piece, %d in many", whole->rc,
           cut->rc);
    INSIST(whole->replies.len == cut->replies.len &&
               (whole->replies.len == 0 ||
                memcmp(whole->replies.bytes, cut->replies.bytes,
                       whole->replies.len) == 0),
           "other replies in one piece than in many");
}

/* The proper replies at the beginning have been read as they are. */
static void check_proper(const wire *in, const decoding *d) {
    size_t at = 0, n;
    int beyond;

    while ((n = wire_proper(in, at, d->max_bytes, &beyond)) > 0) {
        INSIST(d->replies.len >= at + n &&
                   memcmp(d->replies.bytes + at, in->bytes + at, n) == 0,
               "the reply at byte %zu was not read as it is", at);
        at += n;
    }
    if (at == in->len || beyond)
        INSIST(d->replies.len == at, "more was read than was sent");
    if (at == in->len)
        INSIST(d->rc == MR_AGAIN, "rc %d after proper replies", d->rc);
    if (beyond)
        INSIST(d->rc == MR_PROTOCOL, "rc %d beyond the limits", d->rc);
}

static void check_stream(const wire *in, size_t max_bytes, uint32_t cuts) {
    decoding whole, cut;

    decode(&whole, in, max_bytes, 0);
    TRACE("%zu bytes, limit %zu: %d\n", in->len, max_bytes, whole.rc);
    check_proper(in, &whole);
    for (uint32_t way = 0; way < 2; way++) {
        decode(&cut, in, max_bytes, 1 + cuts + way);
        check_same(&whole, &cut);
        wire_free(&cut.replies);
    }
    wire_free(&whole.replies);
}

static void forget_replies(decoding *d) {
    counting = 0;
    wire_free(&d->replies);
    counting = 1;
}

/* The same again and again, in blocks of a few thousand bytes, to far beyond
 * what may be held. */
static void check_endless(const wire *in, size_t max_bytes) {
    size_t most = 3 * (max_bytes > WIRE_LINE ? max_bytes : WIRE_LINE) + 20000;
    wire block = {0};
    decoding d;

    while (in->len > 0 && block.len < 4096)
        wire_add(&block, in->bytes, in->len);
    decoding_begin(&d, max_bytes);
    d.short_way = in->len % 2;
    for (size_t sent = 0; sent < most && block.len > 0; sent += block.len) {
        /* Of replies that end nothing remains, so a few will do. */
        if (d.rc != MR_AGAIN || d.taken > 100)
            break;
        feed(&d, block.bytes, block.len);
        forget_replies(&d);
    }
    decoding_end(&d);
    wire_free(&block);
}

static void check_starved(const wire *in, size_t max_bytes, uint32_t n) {
    decoding d;

    fail_after = n;
    decoding_begin(&d, max_bytes);
    if (d.reader != NULL && in->len > 0) {
        counting = 0; /* what is written again is not to fail */
        d.rc = mr_reader_feed(d.reader, in->bytes, (uint32_t)in->len);
        for (mr_reply *reply;
             (d.rc = mr_reader_next(d.reader, &reply)) == MR_OK;)
            mr_reply_free(reply);
        INSIST(d.rc != MR_NOMEM || fail_after == 0, "no memory, and there was");
    }
    fail_after = -1;
    mr_reader_free(d.reader);
    counting = 0;
}

/* ------------------------------------------------------------- commands --- */

static void check_echo(const mr_reply *reply, int argc, const char **argv,
                       const size_t *len) {
    INSIST(reply->type == MR_REPLY_ARRAY && reply->n == (uint32_t)argc,
           "a command of %d arguments has %u", argc, reply->n);
    for (int i = 0; i < argc; i++)
        INSIST(reply->element[i]->type == MR_REPLY_STRING &&
                   reply->element[i]->len == len[i] &&
                   memcmp(reply->element[i]->str, argv[i], len[i]) == 0,
               "argument %d is another one", i);
}

/* What a command is written as, a server reads as that command. */
static void check_command(tape *t) {
    const char *argv[16];
    size_t len[16];
    int argc = 1 + (int)(tape_byte(t) % 16);
    mr_reader *r = mr_reader_new(0);
    mr_reply *reply;
    uint32_t out_len;
    char *out;

    for (int i = 0; i < argc; i++) {
        size_t left = (size_t)(t->end - t->at), want = tape_byte(t);

        left -= left > 0;
        argv[i] = (const char *)t->at;
        len[i] = want < left ? want : left;
        t->at += len[i];
    }
    INSIST(mr_command_format(argc, argv, len, &out, &out_len) == MR_OK,
           "mr_command_format");
    INSIST(mr_reader_feed(r, out, out_len) == MR_OK &&
               mr_reader_next(r, &reply) == MR_OK,
           "%s", mr_reader_error(r));
    check_echo(reply, argc, argv, len);
    mr_reply_free(reply);
    mr_command_free(out);
    mr_reader_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const size_t limits[] = {56,   64,   100,   200,   500,  1000,
                                    2000, 5000, 10000, 20000, 70000};
    tape t = {bytes, bytes + len};
    uint32_t kind = tape_byte(&t);
    size_t max_bytes = limits[tape_byte(&t) % 11];
    uint32_t cuts = tape_byte(&t);
    wire in = {0};

    if (kind % 8 == 7) {
        check_command(&t);
        return 0;
    }
    if (kind & 1)
        wire_hostile(&in, &t);
    else
        wire_add(&in, t.at, (size_t)(t.end - t.at));
    check_stream(&in, max_bytes, cuts);
    if (kind & 2)
        check_endless(&in, max_bytes);
    if (kind & 4)
        check_starved(&in, max_bytes, kind >> 3);
    wire_free(&in);
    return 0;
}
