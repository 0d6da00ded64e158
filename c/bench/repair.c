/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * repair.c - what a worker that dies with the lock costs the others.
 *
 *     repair [ENTRIES [ROUNDS]]
 *
 * In each round a child takes the lock of a full region and dies with it. The
 * first one to come then repairs; two others, busy as workers are, go on: one
 * with hits by reference, one with finds. Prints, for each round, how long the
 * repair took and what the others were answered meanwhile. */
#include "bench.h"

#include "../cache.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct shared {
    _Atomic int go;
    _Atomic int over;
    double hits, missed_hits, longest_hit;
    double finds, busy, longest_find;
} shared;

static shared *others;

static int child(void (*fn)(bench *), bench *b) {
    int pid = fork();

    if (pid == 0) {
        fn(b);
        _exit(0);
    }
    if (pid < 0)
        bench_die("fork", pid);
    return pid;
}

static void lock_and_die(bench *b) {
    mr_cache_lock(b->cache);
    raise(SIGKILL);
}

static void hit_on(bench *b) {
    while (!atomic_load(&others->go))
        ;
    for (uint32_t i = 0; !atomic_load(&others->over); i = (i + 1) % b->size) {
        double from = mr_now(), took;

        others->missed_hits += mr_hit(b->cache, b->ref[i], b->now) < 0;
        took = mr_now() - from;
        others->hits++;
        if (took > others->longest_hit)
            others->longest_hit = took;
    }
}

static void find_on(bench *b) {
    while (!atomic_load(&others->go))
        ;
    for (uint32_t i = 0; !atomic_load(&others->over); i = (i + 1) % b->size) {
        double from = mr_now(), took;
        mr_entry e;
        int rc =
            mr_cache_find(b->cache, bench_key(b, i), BENCH_KEY, b->now, 0, &e);

        took = mr_now() - from;
        if (atomic_load(&others->over))
            return;
        others->finds++;
        others->busy += rc == MR_BUSY;
        if (took > others->longest_find)
            others->longest_find = took;
    }
}

static double cpu_ms(void) {
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

typedef struct cost {
    double wall, cpu; /* ms */
} cost;

/* As mr_cache_lock does it; the others begin when the lock is had. */
static cost repair(mr_cache *c) {
    int died;
    cost from;

    bench_expect("mr_region_lock", mr_region_lock(c->region, &died), MR_OK);
    bench_expect("death of the owner", died, 1);
    atomic_store(&others->go, 1);
    from = (cost){mr_now(), cpu_ms()};
    mr_cache_repair(c);
    mr_region_consistent(c->region);
    atomic_store(&others->over, 1);
    mr_region_unlock(c->region);
    return (cost){mr_now() - from.wall, cpu_ms() - from.cpu};
}

static cost repair_once(bench *b) {
    int status, dead = child(lock_and_die, b), hitting, finding;
    cost took;

    memset(others, 0, sizeof *others);
    waitpid(dead, &status, 0);
    hitting = child(hit_on, b);
    finding = child(find_on, b);
    usleep(20000);
    took = repair(b->cache);
    waitpid(hitting, &status, 0);
    waitpid(finding, &status, 0);
    bench_expect("mr_cache_check", mr_cache_check(b->cache, NULL, 0), MR_OK);
    return took;
}

static void print_round(cost took) {
    printf(
        "  %7.1f ms (%.1f of CPU)   %9.0f hits, %.0f missed, longest %.3f ms   "
        "%3.0f finds, %.0f busy, longest %.1f ms\n",
        took.wall, took.cpu, others->hits, others->missed_hits,
        others->longest_hit, others->finds, others->busy, others->longest_find);
}

int main(int argc, char **argv) {
    uint32_t size = argc > 1 ? (uint32_t)atol(argv[1]) : 1000000;
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    double worst = 0;
    bench b;

    others = mmap(NULL, sizeof *others, PROT_READ | PROT_WRITE,
                  /* cppcheck-suppress invalidFunctionArg ; -1: no file */
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (others == MAP_FAILED)
        bench_die("mmap", 0);
    bench_setup(&b, size, size);
    for (uint32_t i = 0; i < size; i++)
        bench_put(&b, i);
    printf("repair of %u entries; meanwhile, in two other processes:\n", size);
    for (int i = 0; i < rounds; i++) {
        cost took = repair_once(&b);

        print_round(took);
        worst = took.cpu > worst ? took.cpu : worst;
    }
    printf("  longest %.1f ms of CPU, %.0f ns an entry\n", worst,
           worst * 1e6 / size);
    return 0;
}
