/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * bench_cache.c - what the operations of the cache cost at one size, in one
 * process of its own: bench_cache ENTRIES.
 *
 * Prints one JSON object a line. An operation is timed twice: in bulk for the
 * mean, and one by one for the maximum, which would otherwise put the clocks'
 * own time into the mean. The thread's CPU time stands beside the wall's: on a
 * busy machine the wall's maximum is somebody else's time slice. */
#include "bench.h"

#include <time.h>

enum {
    STEP = 2048,          /* slots a sweep looks at, as resty.mooring.cache */
    MOST_EVICTED = 400000 /* for the mean and the maximum together */
};

typedef void operation(bench *b, uint32_t i);

typedef struct timing {
    uint32_t n;
    double mean, mean_cpu; /* ns */
    uint32_t n_single;
    double max, max_cpu, sum, sum_cpu;
} timing;

static double nanoseconds(clockid_t clock) {
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double wall(void) { return nanoseconds(CLOCK_MONOTONIC); }

static double cpu(void) { return nanoseconds(CLOCK_THREAD_CPUTIME_ID); }

static void time_bulk(bench *b, timing *t, operation *op, uint32_t from,
                      uint32_t to) {
    double wall_from = wall(), cpu_from = cpu();

    for (uint32_t i = from; i < to; i++)
        op(b, i);
    t->n = to - from;
    t->mean = (wall() - wall_from) / t->n;
    t->mean_cpu = (cpu() - cpu_from) / t->n;
}

static void time_one(bench *b, timing *t, operation *op, uint32_t i) {
    double wall_from = wall(), cpu_from = cpu(), wall_taken, cpu_taken;

    op(b, i);
    cpu_taken = cpu() - cpu_from;
    wall_taken = wall() - wall_from;
    if (wall_taken > t->max)
        t->max = wall_taken;
    if (cpu_taken > t->max_cpu)
        t->max_cpu = cpu_taken;
    t->sum += wall_taken;
    t->sum_cpu += cpu_taken;
    t->n_single++;
}

static void time_singly(bench *b, timing *t, operation *op, uint32_t from,
                        uint32_t to) {
    for (uint32_t i = from; i < to; i++)
        time_one(b, t, op, i);
}

static void print_timing(const bench *b, const char *what, const timing *t) {
    printf("{\"what\":\"%s\",\"size\":%u,\"n\":%u,\"mean\":%.2f,"
           "\"mean_cpu\":%.2f,\"n_single\":%u,\"max\":%.0f,"
           "\"max_cpu\":%.0f}\n",
           what, b->size, t->n, t->mean, t->mean_cpu, t->n_single, t->max,
           t->max_cpu);
}

/* What there are too few of to be timed in bulk. */
static void print_single(const bench *b, const char *what, timing t) {
    t.n = t.n_single;
    t.mean = t.sum / t.n;
    t.mean_cpu = t.sum_cpu / t.n;
    print_timing(b, what, &t);
}

/* Operations from .. to - 1: the first half in bulk, the others one by one. */
static void measure(bench *b, const char *what, operation *op, uint32_t from,
                    uint32_t to) {
    uint32_t half = from + (to - from) / 2;
    timing t = {0};

    time_bulk(b, &t, op, from, half);
    time_singly(b, &t, op, half, to);
    print_timing(b, what, &t);
}

/* ----------------------------------------------------------- operations -- */

static void open_and_close(bench *b, uint32_t i) {
    (void)i;
    mr_cache_close(bench_open(b->size));
}

static void hit_turn(bench *b, uint32_t i) {
    bench_hit(b, b->turn[i % b->size]);
}

static void find_turn(bench *b, uint32_t i) {
    bench_find(b, b->turn[i % b->size]);
}

static void remove_turn(bench *b, uint32_t i) { bench_remove(b, b->turn[i]); }

static void sweep_step(bench *b, uint32_t i) {
    (void)i;
    bench_expect("mr_cache_sweep of nothing expired",
                 mr_cache_sweep(b->cache, bench_tick(b), STEP), 0);
}

static void expire_step(bench *b, uint32_t i) {
    int removed = mr_cache_sweep(b->cache, bench_tick(b), STEP);

    (void)i;
    if (removed < 0)
        bench_die("mr_cache_sweep", removed);
}

/* --------------------------------------------------------------- phases -- */

static void report_memory(const bench *b) {
    mr_stats s = bench_stats(b);
    double resident = -1;
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");

    /* The region is all the shared memory this process has. */
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "RssShmem: %lf kB", &resident) == 1)
            break;
    if (status != NULL)
        fclose(status);
    printf("{\"what\":\"memory\",\"size\":%u,\"entries\":%.0f,"
           "\"resident\":%.0f,\"region\":%.0f}\n",
           b->size, s.entries, resident * 1024, s.region_bytes);
}

/* Fills the region again with those that remove_turn took out of it. */
static void put_removed(bench *b) {
    for (uint32_t i = 0; i < b->size / 2; i++)
        bench_put(b, b->turn[i]);
}

/* Uses every entry, in random order: of the keys below `end` those that are
 * still there. */
static void touch_all(bench *b, uint32_t end) {
    mr_stats before = bench_stats(b), after;

    for (uint32_t from = 0; from < end; from += b->size)
        for (uint32_t i = 0; i < b->size; i++)
            if (from + b->turn[i] < end)
                mr_hit(b->cache, b->ref[from + b->turn[i]], bench_tick(b));
    after = bench_stats(b);
    if (after.hits - before.hits != b->size)
        bench_die("mr_hit of all", (long)(after.hits - before.hits));
}

/* The very first evictions when every entry was used since it was last seen:
 * the heap's order is worth nothing then. */
static void first_evictions(bench *b, uint32_t from, uint32_t n) {
    timing first = {0}, next = {0};

    touch_all(b, from);
    time_one(b, &first, bench_put, from);
    time_singly(b, &next, bench_put, from + 1, from + n);
    print_single(b, "evict_first_after_touch", first);
    print_single(b, "evict_after_touch", next);
}

static void sweep_all(bench *b, const char *what) {
    timing t = {0};

    time_singly(b, &t, sweep_step, 0, b->size / STEP + 1);
    print_single(b, what, t);
}

static void expire_all(bench *b) {
    timing t = {0};

    b->now = b->expires_at + 1;
    for (uint32_t i = 0; bench_stats(b).entries > 0; i++)
        time_one(b, &t, expire_step, i);
    print_single(b, "expire", t);
}

int main(int argc, char **argv) {
    long size = argc == 2 ? atol(argv[1]) : 0;
    uint32_t n, evicted, at;
    bench b;

    if (size < 16 || size > MR_MAX_ENTRIES - 1) {
        fprintf(stderr, "usage: bench_cache ENTRIES\n");
        return 2;
    }
    n = (uint32_t)size;
    evicted = n < MOST_EVICTED / 4 ? MOST_EVICTED / 4 : MOST_EVICTED;
    bench_setup(&b, n, n + evicted + 4096);
    measure(&b, "open", open_and_close, 0, 20);

    b.expires_at = b.now + 1e9;
    measure(&b, "insert", bench_put, 0, n);
    report_memory(&b);
    measure(&b, "hit", hit_turn, 0, n < 500000 ? 1000000 : 2 * n);
    measure(&b, "find", find_turn, 0, n < 200000 ? 400000 : 2 * n);
    measure(&b, "delete", remove_turn, 0, n / 2);
    put_removed(&b);
    at = n;
    measure(&b, "evict", bench_put, at, at + evicted);
    at += evicted;
    first_evictions(&b, at, 4096);
    touch_all(&b, at + 4096);
    sweep_all(&b, "sweep_after_touch");
    sweep_all(&b, "sweep");
    bench_check(&b);
    if (bench_stats(&b).entries != n)
        bench_die("the number of entries", (long)bench_stats(&b).entries);
    expire_all(&b);
    bench_check(&b);
    mr_cache_close(b.cache);
    return 0;
}
