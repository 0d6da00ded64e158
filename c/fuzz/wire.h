/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * wire.h - bytes as they come from a server: what fuzz_resp feeds, and the
 * replies it got, written again. */
#ifndef MR_FUZZ_WIRE_H
#define MR_FUZZ_WIRE_H

#include "fuzz.h"
#include "mooring_redis.h"

enum {
    WIRE_MOST = 160 * 1024, /* bytes of one stream */
    WIRE_DEPTH = 7,         /* arrays within arrays a reader takes */
    WIRE_LINE = 64 * 1024   /* bytes of a line a reader takes */
};

typedef struct wire {
    char *bytes;
    size_t len;
    size_t room;
} wire;

void wire_add(wire *w, const void *bytes, size_t len);
void wire_text(wire *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void wire_free(wire *w);

/* Writes a reply the one way the protocol has for it. */
void wire_reply(wire *w, const mr_reply *reply);

/* Makes up what a server may send that means harm. */
void wire_hostile(wire *w, tape *t);

/* Length of the complete reply at `at` that is written the one way there is
 * and stays within the limits; 0: there is none.
 * *beyond  it would be one, were it not for the limits */
size_t wire_proper(const wire *w, size_t at, size_t max_bytes, int *beyond);

#endif
