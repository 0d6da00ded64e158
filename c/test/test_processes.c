/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * Several processes with one region: who sees what, whose counters are whose,
 * what a lock that is held does, and whether a value that was replaced, or a
 * fill that came late, is ever seen after that was acknowledged. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { KEYS = 50 };

/* What the processes of a test share beside the region. */
typedef struct shared {
    mr_cache *c;
    _Atomic int stop;
    uint32_t reads_per_write;
    _Atomic uint32_t truth[KEYS];        /* the remote store */
    _Atomic uint32_t acknowledged[KEYS]; /* what everybody has to know of */
    _Atomic uint64_t hits;
    _Atomic uint64_t fills;
    int ready[2]; /* a pipe: a child is at its place */
} shared;

static shared *share(mr_cache *c) {
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
                     /* cppcheck-suppress invalidFunctionArg ; -1: no file */
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(s != MAP_FAILED);
    s->c = c;
    assert_int_equal(pipe(s->ready), 0);
    return s;
}

static void unshare_all(shared *s) {
    close(s->ready[0]);
    close(s->ready[1]);
    mr_cache_close(s->c);
    munmap(s, sizeof *s);
}

static int put_in_child(void *arg) {
    shared *s = arg;

    return put(s->c, "k", "from the child", 2);
}

static void test_a_child_shares_the_region(void **state) {
    shared *s = share(open_private(10, 0, 0));
    double ref = put_ref(s->c, "k", "from the parent", 1);

    (void)state;
    assert_true(mr_hit(s->c, ref, 2) >= 0);
    assert_int_equal(wait_child(run_child(put_in_child, s)), MR_OK);
    assert_int_equal(mr_hit(s->c, ref, 3), -1);
    assert_value(s->c, "k", "from the child", 3);
    unshare_all(s);
}

static int open_by_name(void *arg) {
    mr_cache_options *o = arg;
    mr_cache *c = NULL;

    if (mr_cache_open(o, &c, NULL, 0) != MR_OK)
        return 1;
    put(c, "k", "from the child", 2);
    mr_cache_close(c);
    return 0;
}

static void test_a_child_opens_the_region_by_name(void **state) {
    mr_cache_options o = {.name = "inherited",
                          .name_len = 9,
                          .fingerprint = "",
                          .max_entries = 10,
                          .max_value = 100};
    mr_cache *c = open_with(&o);

    (void)state;
    assert_int_equal(wait_child(run_child(open_by_name, &o)), 0);
    assert_value(c, "k", "from the child", 3);
    mr_cache_close(c);
}

static double hit_often(mr_cache *c, int times) {
    mr_entry e;

    if (find(c, "k", 2, &e) != MR_OK)
        return -1;
    for (int i = 1; i < times; i++)
        mr_hit(c, e.ref, 2);
    return e.ref;
}

static int hit_in_child(void *arg) {
    shared *s = arg;

    return hit_often(s->c, 200000) < 0;
}

/* Lines are not shared: not one increment is lost, and what the parent counted
 * before the fork is not counted twice. */
static void test_counters_of_processes_add_up(void **state) {
    shared *s = share(open_private(10, 0, 0));
    double ref = put_ref(s->c, "k", "v", 1);
    int pids[4];

    (void)state;
    for (int i = 0; i < 1000; i++)
        mr_hit(s->c, ref, 2);
    for (int i = 0; i < 4; i++)
        pids[i] = run_child(hit_in_child, s);
    hit_often(s->c, 200000);
    for (int i = 0; i < 4; i++)
        assert_int_equal(wait_child(pids[i]), 0);
    assert_true(stats_of(s->c).hits == 1001000);
    assert_true(stats_of(s->c).puts == 1);
    unshare_all(s);
}

static int hit_once(void *arg) {
    shared *s = arg;

    return hit_often(s->c, 2) < 0;
}

/* More processes in the life of a region than it has lines. */
static void test_lines_of_the_dead_are_used_again(void **state) {
    shared *s = share(open_private(10, 0, 0));

    (void)state;
    put(s->c, "k", "v", 1);
    for (int i = 0; i < MR_LINES + 50; i++)
        assert_int_equal(wait_child(run_child(hit_once, s)), 0);
    assert_true(stats_of(s->c).hits == 2 * (MR_LINES + 50));
    unshare_all(s);
}

/* The last line is shared then: it may lose counts, and nothing else. */
static void test_there_may_be_more_processes_than_lines(void **state) {
    mr_cache *c = open_private(10, 0, 0);
    mr_line *lines = mr_region_at(c->region, c->region->geometry.lines);

    (void)state;
    for (int i = 0; i < MR_LINES; i++)
        atomic_store(&lines[i].pid, getppid());
    assert_ptr_equal(mr_region_line(c->region), &lines[MR_LINES - 1]);
    put(c, "k", "v", 1);
    assert_value(c, "k", "v", 2);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_process_has_one_line(void **state) {
    mr_cache *c = open_private(10, 0, 0);
    mr_line *line = mr_region_line(c->region);

    (void)state;
    assert_ptr_equal(mr_region_line(c->region), line);
    mr_cache_close(c);
}

static int hit_before_claiming(void *arg) {
    shared *s = arg;
    mr_entry e;

    /* Into its own line first, as it has not locked anything yet. */
    for (int i = 0; i < 100; i++)
        mr_hit(s->c, (double)((uint64_t)1 << MR_SLOT_BITS), 2);
    if (stats_of(s->c).hits != 150)
        return 1;
    return find(s->c, "k", 2, &e) == MR_OK ? 0 : 2;
}

static void test_hits_before_a_line_is_claimed_count(void **state) {
    shared *s = share(open_private(10, 0, 0));
    double ref = put_ref(s->c, "k", "v", 1);

    (void)state;
    assert_true(ref == (double)((uint64_t)1 << MR_SLOT_BITS));
    for (int i = 0; i < 50; i++)
        mr_hit(s->c, ref, 2);
    assert_int_equal(wait_child(run_child(hit_before_claiming, s)), 0);
    assert_true(stats_of(s->c).hits == 151);
    unshare_all(s);
}

static int hold_the_lock(void *arg) {
    shared *s = arg;

    mr_cache_lock(s->c);
    if (write(s->ready[1], "", 1) != 1)
        return 1;
    while (!atomic_load(&s->stop))
        usleep(100);
    mr_cache_unlock(s->c);
    return 0;
}

static void expect_busy(mr_cache *c, double ref) {
    char key[] = "k";
    uint32_t cursor = 0, epoch = mr_cache_epoch(c);
    mr_entry e;
    mr_token t;
    double start = mr_now();

    assert_int_equal(find(c, key, 2, &e), MR_BUSY);
    assert_true(mr_now() - start >= MR_LOCK_WAIT);
    assert_int_equal(put(c, key, "new", 2), MR_BUSY);
    assert_int_equal(mr_cache_remove(c, key, 1, MR_DELETED), MR_BUSY);
    assert_int_equal(mr_cache_remove_ref(c, ref, MR_DELETED), MR_BUSY);
    assert_int_equal(mr_cache_renew(c, ref, 5, 5), MR_BUSY);
    assert_int_equal(mr_cache_sweep(c, 2, 10), MR_BUSY);
    assert_int_equal(mr_cache_clear(c, MR_CLOSED, 10), MR_BUSY);
    assert_int_equal(mr_cache_remove_unused(c, 2, &cursor, 9), MR_BUSY);
    assert_int_equal(mr_cache_check(c, NULL, 0), MR_BUSY);
    assert_true(stats_of(c).lock_timeouts == 9);
    /* These need no lock. */
    assert_true(mr_hit(c, ref, 2) >= 0);
    mr_cache_token(c, key, 1, &t);
    assert_int_equal(mr_cache_claim(c, ref, 2, 5), MR_CHANGED);
    /* And this cannot fail: where it cannot remove it disbelieves. */
    mr_cache_invalidate(c, key, 1, MR_GONE_QUIETLY);
    assert_int_equal(mr_cache_epoch(c), epoch + 1);
    assert_false(mr_cache_token_valid(c, key, 1, &t));
    assert_int_equal(mr_hit(c, ref, 2), -1);
}

static void test_a_lock_that_is_held(void **state) {
    shared *s = share(open_private(10, 0, 0));
    double ref = put_ref(s->c, "k", "v", 1);
    int pid = run_child(hold_the_lock, s);
    char byte;

    (void)state;
    assert_int_equal(read(s->ready[0], &byte, 1), 1);
    expect_busy(s->c, ref);
    atomic_store(&s->stop, 1);
    assert_int_equal(wait_child(pid), 0);
    assert_value(s->c, "k", "v", 3);
    assert_sound(s->c);
    unshare_all(s);
}

static int hold_and_repair(void *arg) {
    shared *s = arg;

    mr_cache_lock(s->c);
    atomic_store(&s->c->region->repairing, 1);
    if (write(s->ready[1], "", 1) != 1)
        return 1;
    while (!atomic_load(&s->stop))
        usleep(100);
    raise(SIGKILL);
    return 0;
}

/* Who waited for a repair would answer nobody for as long as it takes. The
 * shortest of several tries, since this process may have to wait for a CPU. */
static void test_nobody_waits_for_a_repair(void **state) {
    shared *s = share(open_private(10, 0, 0));
    double ref = put_ref(s->c, "k", "v", 1), shortest = 1e9;
    int pid = run_child(hold_and_repair, s);
    char byte;
    mr_entry e;

    (void)state;
    assert_int_equal(read(s->ready[0], &byte, 1), 1);
    for (int i = 0; i < 50; i++) {
        double start = mr_now(), took;

        assert_int_equal(find(s->c, "k", 2, &e), MR_BUSY);
        took = mr_now() - start;
        shortest = took < shortest ? took : shortest;
        assert_true(mr_hit(s->c, ref, 2) >= 0);
    }
    assert_true(shortest < MR_LOCK_WAIT / 2.0);
    /* The repairer dies as well: the next one does it, and all is as before. */
    atomic_store(&s->stop, 1);
    assert_int_equal(wait_child(pid), -SIGKILL);
    assert_value(s->c, "k", "v", 3);
    assert_true(mr_hit(s->c, ref, 4) >= 0);
    assert_int_equal(atomic_load(&s->c->region->repairing), 0);
    assert_sound(s->c);
    unshare_all(s);
}

/* A value says what it is, over several cells, so that a torn one shows. */
static uint32_t value_of(uint32_t key, uint32_t version, char *out) {
    uint32_t words = 2 + (key + version) % 30, word[2] = {key, version};

    for (uint32_t i = 0; i < words; i++)
        memcpy(out + 4 * i, &word[i % 2], 4);
    return 4 * words;
}

static int version_of(uint32_t key, const mr_entry *e, uint32_t *version) {
    char want[200];

    if (e->value_len < 8)
        return 0;
    memcpy(version, e->value + 4, 4);
    return value_of(key, *version, want) == e->value_len &&
           memcmp(want, e->value, e->value_len) == 0;
}

static int put_version(mr_cache *c, uint32_t k, uint32_t version,
                       const mr_token *t) {
    char key[16], value[200];
    mr_put p = put_of("", "", 1);

    p.key = key;
    p.key_len = (uint32_t)sprintf(key, "key-%u", k);
    p.value = value;
    p.value_len = value_of(k, version, value);
    p.flags = t != NULL ? MR_PUT_TOKEN : 0;
    if (t != NULL)
        p.token = *t;
    return mr_cache_put(c, &p, NULL);
}

/* Everybody reads through the cache as a worker does: memo and mr_hit, find,
 * or a fill from the truth under a token. What was acknowledged before the
 * read began must not be missing from what it returns. */
static int read_through(shared *s, uint32_t k, double *memo_ref,
                        uint32_t *memo_version) {
    uint32_t least = atomic_load(&s->acknowledged[k]), version;
    char key[16];
    uint32_t key_len = (uint32_t)sprintf(key, "key-%u", k);
    mr_token t;
    mr_entry e;

    if (mr_hit(s->c, *memo_ref, 1) >= 0) {
        atomic_fetch_add(&s->hits, 1);
        return *memo_version >= least ? 0 : 11;
    }
    mr_cache_token(s->c, key, key_len, &t);
    if (mr_cache_find(s->c, key, key_len, 1, 0, &e) == MR_OK && e.believed) {
        if (!version_of(k, &e, &version))
            return 12;
        *memo_ref = e.ref;
        *memo_version = version;
        return version >= least ? 0 : 13;
    }
    version = atomic_load(&s->truth[k]);
    if (k == 0)
        usleep(20); /* a reply that takes its time */
    if (put_version(s->c, k, version, &t) == MR_OK)
        atomic_fetch_add(&s->fills, 1);
    return 0;
}

/* A write to the truth, and the invalidation every replica gets. */
static void write_through(shared *s, uint32_t k) {
    uint32_t version = atomic_fetch_add(&s->truth[k], 1) + 1;
    char key[16];
    uint32_t key_len = (uint32_t)sprintf(key, "key-%u", k), was;

    mr_cache_invalidate(s->c, key, key_len, MR_GONE_QUIETLY);
    was = atomic_load(&s->acknowledged[k]);
    while (was < version &&
           !atomic_compare_exchange_weak(&s->acknowledged[k], &was, version))
        ;
}

static int work(void *arg) {
    shared *s = arg;
    static double refs[KEYS];
    static uint32_t versions[KEYS];
    rng r = {(uint64_t)getpid()};
    int rc = 0;

    for (int k = 0; k < KEYS; k++)
        refs[k] = -1;
    while (rc == 0 && !atomic_load(&s->stop)) {
        uint32_t k = rng_below(&r, KEYS);

        if (rng_below(&r, s->reads_per_write) == 0)
            write_through(s, k);
        else
            rc = read_through(s, k, &refs[k], &versions[k]);
    }
    return rc;
}

/* Evicting all the while: fewer entries than keys, and too few cells. */
static void test_no_stale_reads_among_processes(void **state) {
    shared *s = share(open_private(KEYS - 10, 4 * 32.0 * (KEYS - 20), 0));
    int pids[4];

    (void)state;
    s->reads_per_write = 40;
    for (int i = 0; i < 4; i++)
        pids[i] = run_child(work, s);
    for (int i = 0; i < 30; i++) {
        usleep(30000);
        assert_sound(s->c);
    }
    atomic_store(&s->stop, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(wait_child(pids[i]), 0);
    assert_sound(s->c);
    assert_true(atomic_load(&s->hits) > 1000 && atomic_load(&s->fills) > 100);
    unshare_all(s);
}

/* The same, and one of them is killed every few milliseconds, wherever it is.
 */
static void test_no_stale_reads_among_the_dying(void **state) {
    shared *s = share(open_private(KEYS - 10, 0, 0));
    int pids[3];
    rng r = rng_seeded("dying");

    (void)state;
    s->reads_per_write = 2; /* nearly all of it under the lock */
    for (int i = 0; i < 3; i++)
        pids[i] = run_child(work, s);
    for (int i = 0; i < 200; i++) {
        int victim = (int)rng_below(&r, 3);

        usleep(1000 + rng_below(&r, 5000));
        kill(pids[victim], SIGKILL);
        assert_int_equal(wait_child(pids[victim]), -SIGKILL);
        assert_sound(s->c);
        pids[victim] = run_child(work, s);
    }
    atomic_store(&s->stop, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(wait_child(pids[i]), 0);
    assert_sound(s->c);
    printf("%.0f repairs\n", stats_of(s->c).repairs);
    unshare_all(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_child_shares_the_region),
        cmocka_unit_test(test_a_child_opens_the_region_by_name),
        cmocka_unit_test(test_counters_of_processes_add_up),
        cmocka_unit_test(test_lines_of_the_dead_are_used_again),
        cmocka_unit_test(test_there_may_be_more_processes_than_lines),
        cmocka_unit_test(test_a_process_has_one_line),
        cmocka_unit_test(test_hits_before_a_line_is_claimed_count),
        cmocka_unit_test(test_a_lock_that_is_held),
        cmocka_unit_test(test_nobody_waits_for_a_repair),
        cmocka_unit_test(test_no_stale_reads_among_processes),
        cmocka_unit_test(test_no_stale_reads_among_the_dying),
    };

    return cmocka_run_group_tests_name("processes", tests, NULL, NULL);
}
