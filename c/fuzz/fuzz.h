/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * fuzz.h - what the fuzz targets share: reading decisions from the input, and
 * stopping at the first thing that is wrong.
 *
 * A target is a function of its input alone: the same file takes the same way
 * through it, which is how `build/fuzz/fuzz_x FILE` repeats a failure. */
#ifndef MR_FUZZ_H
#define MR_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* What is left of the input. Past its end there are only zeros. */
typedef struct tape {
    const uint8_t *at;
    const uint8_t *end;
} tape;

static inline int tape_done(const tape *t) { return t->at == t->end; }

static inline uint32_t tape_byte(tape *t) {
    return tape_done(t) ? 0 : *t->at++;
}

static inline uint32_t tape_below(tape *t, uint32_t n) {
    uint32_t b = tape_byte(t);

    if (n > 256)
        b = b << 8 | tape_byte(t);
    return b % n;
}

/* MR_FUZZ_TRACE=1 in the environment: the steps are printed. */
static inline int tracing(void) {
    static int on = -1;

    if (on < 0)
        on = getenv("MR_FUZZ_TRACE") != NULL;
    return on;
}

#define TRACE(...)                                                             \
    do {                                                                       \
        if (tracing())                                                         \
            fprintf(stderr, __VA_ARGS__);                                      \
    } while (0)

/* abort() is what libFuzzer keeps the input for. */
#define INSIST(condition, ...)                                                 \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "fuzz: %s:%d: %s: ", __FILE__, __LINE__,           \
                    #condition);                                               \
            fprintf(stderr, __VA_ARGS__);                                      \
            fputc('\n', stderr);                                               \
            abort();                                                           \
        }                                                                      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#endif
