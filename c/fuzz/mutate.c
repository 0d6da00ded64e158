/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * mutate.c - new inputs of fuzz_cache from known ones, for libFuzzer.
 *
 *     header | step | step | step ...     HEADER_BYTES, then STEP_BYTES each
 *
 * What libFuzzer does to bytes by itself changes what every step behind means.
 * Here whole steps come, go and change places. Now and then there is a wholly
 * new run of few kinds of steps on few keys: what needs several things to
 * happen to one key is rare among all of them together ("swarm testing", Groce
 * et al., ISSTA 2012). */
#include "fuzz.h"
#include "keys.h"
#include "steps.h"

#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t len, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t len, size_t most,
                               unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_len,
                                 const uint8_t *other, size_t other_len,
                                 uint8_t *out, size_t most, unsigned seed);

enum { FEW_KINDS = 6, FEW_KEYS = 5, LONGEST_RANGE = 6 };

/* An input in whole steps. */
typedef struct script {
    uint8_t *bytes;
    size_t steps;
    size_t most; /* steps there is room for, at least one */
} script;

/* What new steps are made of. */
typedef struct swarm {
    uint32_t kinds, keys; /* 0: any */
    uint8_t kind[FEW_KINDS];
    uint8_t key[FEW_KEYS];
} swarm;

static uint32_t state;

static uint32_t below(uint32_t n) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return (state >> 4) % n;
}

static uint8_t *step_of(const script *s, size_t i) {
    return s->bytes + HEADER_BYTES + i * STEP_BYTES;
}

static size_t length(const script *s) {
    return HEADER_BYTES + s->steps * STEP_BYTES;
}

/* --------------------------------------------------------- what is new --- */

static void fill(uint8_t *out, size_t len) {
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)below(256);
}

static swarm new_swarm(void) {
    swarm w = {0};

    w.kinds = below(4) == 0 ? 0 : 1 + below(FEW_KINDS);
    w.keys = below(4) == 0 ? 0 : 1 + below(FEW_KEYS);
    fill(w.kind, sizeof w.kind);
    fill(w.key, sizeof w.key);
    return w;
}

/* Where a step takes a key, or a reference, it is its first or second argument
 * (behind the two bytes that a step which is to die has more). */
static void new_step(const swarm *w, uint8_t *out) {
    uint32_t at = 2;

    fill(out, STEP_BYTES);
    if (w->kinds > 0 && below(16) > 0)
        out[0] = w->kind[below(w->kinds)];
    if (out[0] >= FIRST_SPECIAL) {
        if (w->kinds > 0)
            out[3] = w->kind[below(w->kinds)];
        at = 4;
    }
    for (uint32_t i = 0; w->keys > 0 && i < 2; i++)
        if (below(4) > i)
            out[at + i] = (uint8_t)(w->key[below(w->keys)] % KEYS +
                                    KEYS * below(256 / KEYS));
}

static void new_script(script *s) {
    swarm w = new_swarm();

    fill(s->bytes, HEADER_BYTES);
    s->steps = 1 + below((uint32_t)s->most);
    for (size_t i = 0; i < s->steps; i++)
        new_step(&w, step_of(s, i));
}

/* ----------------------------------------------------------- mutations --- */

/* Makes room for n steps in front of step i: as many as fit. */
static size_t make_room(script *s, size_t i, size_t n) {
    if (n > s->most - s->steps)
        n = s->most - s->steps;
    memmove(step_of(s, i + n), step_of(s, i), (s->steps - i) * STEP_BYTES);
    s->steps += n;
    return n;
}

static void insert_new(script *s) {
    swarm w = new_swarm();
    size_t at = below((uint32_t)s->steps + 1);
    size_t n = make_room(s, at, 1 + below(LONGEST_RANGE));

    for (size_t i = 0; i < n; i++)
        new_step(&w, step_of(s, at + i));
}

static void insert_again(script *s) {
    uint8_t copy[LONGEST_RANGE * STEP_BYTES];
    size_t from, at, n = 1 + below(LONGEST_RANGE);

    if (s->steps == 0)
        return;
    from = below((uint32_t)s->steps);
    at = below((uint32_t)s->steps + 1);
    if (n > s->steps - from)
        n = s->steps - from;
    memcpy(copy, step_of(s, from), n * STEP_BYTES);
    n = make_room(s, at, n);
    memcpy(step_of(s, at), copy, n * STEP_BYTES);
}

static void drop_some(script *s) {
    size_t from, n = 1 + below(LONGEST_RANGE);

    if (s->steps == 0)
        return;
    from = below((uint32_t)s->steps);
    if (n > s->steps - from)
        n = s->steps - from;
    memmove(step_of(s, from), step_of(s, from + n),
            (s->steps - from - n) * STEP_BYTES);
    s->steps -= n;
}

static void exchange(script *s) {
    uint8_t copy[STEP_BYTES], *a, *b;

    if (s->steps == 0)
        return;
    a = step_of(s, below((uint32_t)s->steps));
    b = step_of(s, below((uint32_t)s->steps));
    memcpy(copy, a, STEP_BYTES);
    memcpy(a, b, STEP_BYTES);
    memcpy(b, copy, STEP_BYTES);
}

static void change_argument(script *s) {
    uint8_t *step;

    if (s->steps == 0)
        return;
    step = step_of(s, below((uint32_t)s->steps));
    step[below(STEP_BYTES)] = (uint8_t)below(256);
}

/* One step takes the arguments of another. */
static void copy_arguments(script *s) {
    const uint8_t *from;
    uint8_t *to;

    if (s->steps == 0)
        return;
    from = step_of(s, below((uint32_t)s->steps));
    to = step_of(s, below((uint32_t)s->steps));
    memmove(to + 2, from + 2, 1 + below(STEP_BYTES - 2));
}

static void change_header(script *s) {
    s->bytes[below(HEADER_BYTES)] = (uint8_t)below(256);
}

/* As libFuzzer would: it knows what bytes were compared with. */
static void change_bytes(script *s) {
    size_t len = length(s);

    LLVMFuzzerMutate(s->bytes, len, len);
}

static void mutate(script *s) {
    static void (*const mutations[])(script *) = {
        insert_new,      insert_new,      insert_again,   drop_some,
        drop_some,       exchange,        copy_arguments, change_argument,
        change_argument, change_argument, change_header,  change_bytes,
    };

    if (below(12) == 0)
        new_script(s);
    for (uint32_t n = 1 + below(4); n > 0; n--)
        mutations[below(sizeof mutations / sizeof mutations[0])](s);
}

/* ------------------------------------------------------- of libFuzzer --- */

/* The bytes up to `len` are there, the rest of the last step is zeros. */
static int whole_steps(script *s, uint8_t *bytes, size_t len, size_t most) {
    if (most < HEADER_BYTES + STEP_BYTES)
        return 0;
    memset(bytes + len, 0, most - len);
    s->bytes = bytes;
    s->most = (most - HEADER_BYTES) / STEP_BYTES;
    s->steps = len <= HEADER_BYTES
                   ? 0
                   : (len - HEADER_BYTES + STEP_BYTES - 1) / STEP_BYTES;
    if (s->steps > s->most)
        s->steps = s->most;
    return 1;
}

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t len, size_t most,
                               unsigned seed) {
    script s;

    state = seed * 2654435761u | 1;
    if (!whole_steps(&s, bytes, len, most))
        return LLVMFuzzerMutate(bytes, len, most);
    mutate(&s);
    return length(&s);
}

/* The beginning of one and the end of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_len,
                                 const uint8_t *other, size_t other_len,
                                 uint8_t *out, size_t most, unsigned seed) {
    size_t from = HEADER_BYTES, kept, n;
    script s;

    state = seed * 2654435761u | 1;
    if (one_len > most || !whole_steps(&s, out, 0, most))
        return 0;
    memcpy(out, one, one_len);
    whole_steps(&s, out, one_len, most);
    kept = below((uint32_t)s.steps + 1);
    s.steps = kept;
    if (other_len <= from)
        return length(&s);
    from += below((uint32_t)((other_len - from) / STEP_BYTES + 1)) * STEP_BYTES;
    n = other_len - from;
    if (n > most - length(&s))
        n = most - length(&s);
    memcpy(out + length(&s), other + from, n);
    return length(&s) + n;
}
