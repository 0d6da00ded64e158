/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * The load table: labels that all processes agree on, and counts of requests
 * under way that add up over processes, of which some are killed. And tags of
 * entries, which are counted wherever entries come and go. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A table of its own for each test: they stay for as long as the process. */
static mr_load *open_load(const char *name) {
    mr_load *l = NULL;

    assert_int_equal(mr_load_open(name, (uint32_t)strlen(name), &l), MR_OK);
    assert_non_null(l);
    return l;
}

static uint32_t label_of(mr_load *l, const char *url) {
    return mr_load_label(l, url, (uint32_t)strlen(url));
}

static uint32_t label_of_number(mr_load *l, int i) {
    char url[40];

    return mr_load_label(l, url,
                         (uint32_t)sprintf(url, "http://10.0.0.1:%d", i));
}

static void test_a_label_stays_that_of_its_url(void **state) {
    mr_load *l = open_load("labels");
    uint32_t a = label_of(l, "http://a:1"), b = label_of(l, "http://b:1");

    (void)state;
    assert_in_range(a, 1, MR_TAGS - 1);
    assert_in_range(b, 1, MR_TAGS - 1);
    assert_int_not_equal(a, b);
    assert_int_equal(label_of(l, "http://a:1"), a);
    assert_int_equal(mr_load_find(l, "http://b:1", 10), b);
    /* A look is no claim. */
    assert_int_equal(mr_load_find(l, "http://c:1", 10), 0);
    assert_int_equal(mr_load_find(l, "http://c:1", 10), 0);
}

static void test_a_name_leads_to_its_table(void **state) {
    mr_load *l = open_load("one"), *other = open_load("another");
    uint32_t label = label_of(l, "http://a:1");

    (void)state;
    mr_load_begin(l, label);
    mr_load_bump_version(l);
    assert_ptr_equal(open_load("one"), l);
    assert_int_equal(label_of(open_load("one"), "http://a:1"), label);
    assert_int_equal(mr_load_inflight(open_load("one"), label), 1);
    assert_int_equal(mr_load_version(l), 2);
    assert_int_equal(mr_load_version(other), 1);
    assert_int_equal(mr_load_inflight(other, label), 0);
}

static void test_a_name_has_to_be_one(void **state) {
    char name[300];
    mr_load *l;

    (void)state;
    memset(name, 'n', sizeof name);
    assert_int_equal(mr_load_open(name, 256, &l), MR_INVALID);
    assert_int_equal(mr_load_open(name, 0, &l), MR_INVALID);
    assert_int_equal(mr_load_open(NULL, 1, &l), MR_INVALID);
    assert_null(l);
    assert_int_equal(mr_load_open(name, 255, &l), MR_OK);
}

static void test_without_memory_there_is_no_table(void **state) {
    mr_load *l;

    (void)state;
    mr_alloc_left = 0;
    assert_int_equal(mr_load_open("no memory", 9, &l), MR_NOMEM);
    mr_alloc_left = -1;
    assert_int_equal(mr_load_open("no memory", 9, &l), MR_OK);
}

static void test_a_full_table_has_no_label_for_others(void **state) {
    mr_load *l = open_load("full");
    unsigned char seen[MR_TAGS] = {0};

    (void)state;
    for (int i = 1; i < MR_TAGS; i++) {
        uint32_t label = label_of_number(l, i);

        assert_in_range(label, 1, MR_TAGS - 1);
        assert_false(seen[label]++);
    }
    assert_int_equal(label_of_number(l, MR_TAGS), 0);
    assert_int_equal(mr_load_find(l, "http://x", 8), 0);
    assert_in_range(label_of_number(l, 7), 1, MR_TAGS - 1);
}

static void test_what_begins_and_finishes_is_counted(void **state) {
    mr_load *l = open_load("counts");
    uint32_t a = label_of(l, "http://a:1"), b = label_of(l, "http://b:1");

    (void)state;
    assert_int_equal(mr_load_inflight(l, a), 0);
    for (int i = 0; i < 5; i++)
        mr_load_begin(l, a);
    mr_load_begin(l, b);
    mr_load_finish(l, a);
    assert_int_equal(mr_load_inflight(l, a), 4);
    assert_int_equal(mr_load_inflight(l, b), 1);
}

static void test_no_count_falls_below_zero(void **state) {
    mr_load *l = open_load("clamped");
    uint32_t a = label_of(l, "http://a:1");

    (void)state;
    mr_load_finish(l, a); /* also before there is a row */
    mr_load_begin(l, a);
    mr_load_finish(l, a);
    mr_load_finish(l, a);
    assert_int_equal(mr_load_inflight(l, a), 0);
    mr_load_begin(l, a);
    assert_int_equal(mr_load_inflight(l, a), 1);
}

static void test_labels_there_cannot_be_count_nothing(void **state) {
    mr_load *l = open_load("odd labels");

    (void)state;
    assert_int_equal(mr_load_begin(l, 0), 1);
    assert_int_equal(mr_load_begin(l, MR_TAGS), 1);
    assert_int_equal(mr_load_begin(l, UINT32_MAX), 1);
    assert_int_equal(mr_load_inflight(l, 0), 0);
    assert_int_equal(mr_load_inflight(l, MR_TAGS), 0);
    mr_load_finish(l, UINT32_MAX);
}

static void test_begin_tells_the_version(void **state) {
    mr_load *l = open_load("version");

    (void)state;
    assert_int_equal(mr_load_begin(l, 1), 1);
    assert_int_equal(mr_load_bump_version(l), 2);
    assert_int_equal(mr_load_begin(l, 1), 2);
}

/* ------------------------------------------------------------ processes --- */

typedef struct job {
    mr_load *l;
    uint32_t label;
    int begins;
    int stays;    /* until it is killed */
    int ready[2]; /* a pipe: it has begun */
} job;

static int begin_some(void *arg) {
    job *j = arg;

    for (int i = 0; i < j->begins; i++)
        mr_load_begin(j->l, j->label);
    if (write(j->ready[1], "", 1) != 1)
        return 1;
    while (j->stays)
        pause();
    return 0;
}

/* Its pid, once it has begun. */
static int started(job *j) {
    char byte;
    int pid = run_child(begin_some, j);

    assert_int_equal(read(j->ready[0], &byte, 1), 1);
    return pid;
}

static job job_of(const char *name, int begins, int stays) {
    job j = {.l = open_load(name), .begins = begins, .stays = stays};

    j.label = label_of(j.l, "http://a:1");
    assert_int_equal(pipe(j.ready), 0);
    return j;
}

static void stop(int pid) {
    kill(pid, SIGKILL);
    assert_int_equal(wait_child(pid), -SIGKILL);
}

static void test_the_killed_leave_no_counts(void **state) {
    job j = job_of("killed", 3, 1);
    int first = started(&j), second;

    (void)state;
    mr_load_begin(j.l, j.label);
    second = started(&j);
    assert_int_equal(mr_load_inflight(j.l, j.label), 7);
    stop(first);
    assert_int_equal(mr_load_inflight(j.l, j.label), 4);
    stop(second);
    assert_int_equal(mr_load_inflight(j.l, j.label), 1);
}

/* A zombie has a pid, and is as dead as any. */
static void test_who_has_left_does_not_count(void **state) {
    job j = job_of("left", 3, 0);
    int pid = started(&j);
    double deadline = mr_now() + 10000;

    (void)state;
    while (mr_load_inflight(j.l, j.label) > 0 && mr_now() < deadline)
        usleep(100);
    assert_int_equal(mr_load_inflight(j.l, j.label), 0);
    assert_int_equal(wait_child(pid), 0);
}

static void test_a_child_does_not_write_its_parents_row(void **state) {
    job j = job_of("inherited", 1, 1);
    int pid;

    (void)state;
    mr_load_begin(j.l, j.label);
    mr_load_begin(j.l, j.label);
    pid = started(&j);
    assert_int_equal(mr_load_inflight(j.l, j.label), 3);
    mr_load_finish(j.l, j.label);
    assert_int_equal(mr_load_inflight(j.l, j.label), 2);
    stop(pid);
    assert_int_equal(mr_load_inflight(j.l, j.label), 1);
}

static int finish_of_the_parent(void *arg) {
    job *j = arg;

    mr_load_finish(j->l, j->label);
    mr_load_begin(j->l, j->label);
    mr_load_finish(j->l, j->label);
    mr_load_finish(j->l, j->label);
    return (int)mr_load_inflight(j->l, j->label);
}

static void test_a_child_cannot_finish_for_its_parent(void **state) {
    job j = job_of("not its own", 0, 0);

    (void)state;
    mr_load_begin(j.l, j.label);
    mr_load_begin(j.l, j.label);
    assert_int_equal(wait_child(run_child(finish_of_the_parent, &j)), 2);
    assert_int_equal(mr_load_inflight(j.l, j.label), 2);
}

static int label_all(void *arg) {
    mr_load *l = arg;
    int mine = getpid();

    /* Each in an order of its own, so that they meet everywhere. */
    for (int i = 0; i < MR_TAGS - 1; i++)
        label_of_number(l, (i * 7 + mine) % (MR_TAGS - 1));
    return 0;
}

static void test_all_processes_give_the_same_labels(void **state) {
    mr_load *l = open_load("races");
    unsigned char seen[MR_TAGS] = {0};
    int pids[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        pids[i] = run_child(label_all, l);
    for (int i = 0; i < 4; i++)
        assert_int_equal(wait_child(pids[i]), 0);
    /* No URL took two: each of them has one, and there were just enough. */
    for (int i = 0; i < MR_TAGS - 1; i++) {
        uint32_t label = label_of_number(l, i);

        assert_in_range(label, 1, MR_TAGS - 1);
        assert_false(seen[label]++);
    }
}

typedef struct crowd {
    mr_load *l;
    uint32_t label;
    _Atomic int stop;
} crowd;

static int begin_and_finish(void *arg) {
    crowd *c = arg;

    while (!atomic_load(&c->stop)) {
        mr_load_begin(c->l, c->label);
        mr_load_begin(c->l, c->label);
        mr_load_finish(c->l, c->label);
        if (mr_load_inflight(c->l, c->label) > 2 * 4)
            return 1;
        mr_load_finish(c->l, c->label);
    }
    return 0;
}

/* More processes in the life of a table than it has rows; each is killed with
 * something under way, others count and look all the while. */
static void test_rows_of_the_dead_are_used_again(void **state) {
    crowd *c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE,
                    /* cppcheck-suppress invalidFunctionArg ; -1: no file */
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    job j = job_of("crowd", 2, 1);
    int pids[3];

    (void)state;
    assert_true(c != MAP_FAILED);
    c->l = j.l;
    c->label = j.label;
    for (int i = 0; i < 3; i++)
        pids[i] = run_child(begin_and_finish, c);
    for (int i = 0; i < 700; i++)
        stop(started(&j));
    atomic_store(&c->stop, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(wait_child(pids[i]), 0);
    assert_int_equal(mr_load_inflight(j.l, j.label), 0);
    mr_load_begin(j.l, j.label);
    assert_int_equal(mr_load_inflight(j.l, j.label), 1);
    munmap(c, sizeof *c);
}

/* Each of the rows has a living owner. Who comes then counts for itself. */
static void test_there_may_be_more_processes_than_rows(void **state) {
    enum { ROWS = 512 };
    job j = job_of("many", 1, 1);
    static int pids[ROWS];

    (void)state;
    for (int i = 0; i < ROWS; i++)
        pids[i] = started(&j);
    assert_int_equal(mr_load_inflight(j.l, j.label), ROWS);
    mr_load_begin(j.l, j.label);
    mr_load_begin(j.l, j.label);
    assert_int_equal(mr_load_inflight(j.l, j.label), ROWS + 2);
    mr_load_finish(j.l, j.label);
    assert_int_equal(mr_load_inflight(j.l, j.label), ROWS + 1);
    for (int i = 0; i < ROWS; i++)
        stop(pids[i]);
    assert_int_equal(mr_load_inflight(j.l, j.label), 1);
}

/* ----------------------------------------------------------------- tags --- */

static int put_tagged(mr_cache *c, const char *key, uint32_t tag, double now,
                      double expires_at) {
    mr_put p = put_of(key, "a value", now);

    p.tag = tag;
    p.expires_at = expires_at;
    return mr_cache_put(c, &p, NULL);
}

static void test_entries_are_counted_by_tag(void **state) {
    mr_cache *c = open_private(3, 0, 0);

    (void)state;
    put_tagged(c, "a", 1, 1, MR_NEVER);
    put_tagged(c, "b", 1, 2, 50);
    put(c, "c", "of no tag", 3);
    assert_int_equal(mr_cache_tagged(c, 1), 2);
    assert_int_equal(mr_cache_tagged(c, 0), 1);
    put_tagged(c, "d", MR_TAGS - 1, 4, MR_NEVER); /* evicts a */
    assert_int_equal(mr_cache_tagged(c, 1), 1);
    assert_int_equal(mr_cache_tagged(c, MR_TAGS - 1), 1);
    put_tagged(c, "d", 2, 5, MR_NEVER); /* bound anew */
    assert_int_equal(mr_cache_tagged(c, MR_TAGS - 1), 0);
    assert_int_equal(mr_cache_tagged(c, 2), 1);
    mr_cache_sweep(c, 60, 10);
    assert_int_equal(mr_cache_tagged(c, 1), 0);
    mr_cache_remove(c, "d", 1, MR_DELETED);
    assert_int_equal(mr_cache_tagged(c, 2), 0);
    assert_int_equal(mr_cache_tagged(c, 0), 1);
    assert_sound(c);
    mr_cache_close(c);
}

static void test_a_tag_has_a_range(void **state) {
    mr_cache *c = open_private(3, 0, 0);

    (void)state;
    assert_int_equal(put_tagged(c, "a", MR_TAGS, 1, MR_NEVER), MR_INVALID);
    assert_int_equal(put_tagged(c, "a", UINT32_MAX, 1, MR_NEVER), MR_INVALID);
    assert_int_equal(mr_cache_tagged(c, MR_TAGS), 0);
    assert_int_equal(mr_cache_tagged(c, UINT32_MAX), 0);
    mr_cache_close(c);
}

static void test_tags_are_carried_over(void **state) {
    mr_cache_options o = {.name = "tags",
                          .name_len = 4,
                          .fingerprint = "",
                          .max_entries = 10,
                          .max_value = 100,
                          .carry_over = 1};
    mr_cache *small = open_with(&o), *large;

    (void)state;
    put_tagged(small, "a", 5, 1, MR_NEVER);
    put_tagged(small, "b", 5, 2, MR_NEVER);
    put_tagged(small, "c", 6, 3, MR_NEVER);
    o.max_entries = 20;
    large = open_with(&o);
    assert_int_equal(mr_cache_tagged(large, 5), 2);
    assert_int_equal(mr_cache_tagged(large, 6), 1);
    assert_sound(large);
    mr_cache_close(small);
    mr_cache_close(large);
}

static void test_check_counts_tags_again(void **state) {
    mr_cache *c = open_private(3, 0, 0);
    char err[256];

    (void)state;
    put_tagged(c, "a", 5, 1, MR_NEVER);
    atomic_store(&c->tags[5], 2);
    assert_int_equal(mr_cache_check(c, err, sizeof err), MR_CORRUPT);
    assert_string_equal(err, "tag 5: 1 entries, 2 counted");
    atomic_store(&c->tags[5], 1);
    c->slots[0].tag_high = 255;
    assert_int_equal(mr_cache_check(c, err, sizeof err), MR_CORRUPT);
    c->slots[0].tag_high = 0;
    assert_sound(c);
    mr_cache_close(c);
}

typedef struct death {
    mr_cache *c;
    int point;
} death;

static int put_and_die(void *arg) {
    death *d = arg;

    mr_fault_at = d->point;
    put_tagged(d->c, "a", 7, 2, MR_NEVER);
    return 0;
}

/* Wherever the process died, the entry is counted for the tag it has. */
static void test_tags_are_counted_again_after_a_death(void **state) {
    (void)state;
    for (int point = 1; point < MR_FAULT_LINKS_FORGOTTEN; point++) {
        death d = {.c = open_private(3, 0, 0), .point = point};
        uint32_t six, seven;

        put_tagged(d.c, "a", 6, 1, MR_NEVER);
        wait_child(run_child(put_and_die, &d));
        assert_sound(d.c);
        six = mr_cache_tagged(d.c, 6);
        seven = mr_cache_tagged(d.c, 7);
        assert_int_equal(six + seven, 1);
        mr_cache_close(d.c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_label_stays_that_of_its_url),
        cmocka_unit_test(test_a_name_leads_to_its_table),
        cmocka_unit_test(test_a_name_has_to_be_one),
        cmocka_unit_test(test_without_memory_there_is_no_table),
        cmocka_unit_test(test_a_full_table_has_no_label_for_others),
        cmocka_unit_test(test_what_begins_and_finishes_is_counted),
        cmocka_unit_test(test_no_count_falls_below_zero),
        cmocka_unit_test(test_labels_there_cannot_be_count_nothing),
        cmocka_unit_test(test_begin_tells_the_version),
        cmocka_unit_test(test_the_killed_leave_no_counts),
        cmocka_unit_test(test_who_has_left_does_not_count),
        cmocka_unit_test(test_a_child_does_not_write_its_parents_row),
        cmocka_unit_test(test_a_child_cannot_finish_for_its_parent),
        cmocka_unit_test(test_all_processes_give_the_same_labels),
        cmocka_unit_test(test_rows_of_the_dead_are_used_again),
        cmocka_unit_test(test_there_may_be_more_processes_than_rows),
        cmocka_unit_test(test_entries_are_counted_by_tag),
        cmocka_unit_test(test_a_tag_has_a_range),
        cmocka_unit_test(test_tags_are_carried_over),
        cmocka_unit_test(test_check_counts_tags_again),
        cmocka_unit_test(test_tags_are_counted_again_after_a_death),
    };

    return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
