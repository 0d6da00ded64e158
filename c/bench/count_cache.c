/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * count_cache.c - for counting the instructions of an operation of the cache
 * with callgrind: count_cache OPERATION CALLS, with
 *
 *     valgrind --tool=callgrind --toggle-collect=measured
 *
 * Only what `measured` does is counted. The operation "none" is the loop
 * around the others. Unlike times, these numbers do not depend on who else
 * uses the machine. */
#include "bench.h"

enum { SIZE = 10000 };

typedef void operation(bench *b, uint32_t i);

static void none(bench *b, uint32_t i) {
    (void)i;
    bench_tick(b);
}

static void put_evicting(bench *b, uint32_t i) { bench_put(b, SIZE + i); }

static const struct {
    const char *name;
    operation *run;
} operations[] = {
    {"none", none},           {"mr_hit", bench_hit},
    {"find", bench_find},     {"put_evicting", put_evicting},
    {"remove", bench_remove},
};

__attribute__((noinline)) void measured(bench *b, operation *run, uint32_t n);

void measured(bench *b, operation *run, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        run(b, i);
}

int main(int argc, char **argv) {
    uint32_t calls = argc == 3 ? (uint32_t)atol(argv[2]) : 0;
    bench b;

    if (calls < 1 || calls > SIZE) {
        fprintf(stderr, "usage: count_cache OPERATION CALLS\n");
        return 2;
    }
    bench_setup(&b, SIZE, 2 * SIZE);
    for (uint32_t i = 0; i < SIZE; i++)
        bench_put(&b, i);
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(argv[1], operations[i].name) == 0) {
            measured(&b, operations[i].run, calls);
            bench_check(&b);
            return 0;
        }
    fprintf(stderr, "no such operation: %s\n", argv[1]);
    return 2;
}
