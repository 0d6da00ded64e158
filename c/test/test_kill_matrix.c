/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * A process is killed (SIGKILL, no handler, no clean-up) at every step of every
 * operation that writes to a region, and another process goes on with it.
 *
 *   matrix   each fault point of c/fault.h x each operation that passes it, at
 *            each passage; a point that no operation passes is a failure
 *   stores   before each single store to the region, see stores.h
 *   repairs  the same again for whoever repairs after such a death, at each
 *            point and before each store of the repair
 *
 * After each death: the region is sound, each entry is as it was before or as
 * the whole operation leaves it, whoever held a reference to an entry that was
 * not touched goes on hitting it, the region can be filled to its full extent
 * again, and somebody else can become the listener.
 *
 * MR_KILL_STRIDE=n takes every n-th store only. */
#include "operations.h"
#include "stores.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const char *const point_names[] = {"",
#define TEXT(name, text) text,
                                          MR_FAULTS_OF_ENTRIES(TEXT)
                                              MR_FAULTS_ELSEWHERE(TEXT)
#undef TEXT
};

/* -------------------------------------------------------------- deaths --- */

typedef struct death {
    int point; /* MR_FAULT_NOWHERE: by the number of the store */
    long n;    /* passages before it, or which store; 0 of them: no death */
} death;

static const death no_death = {MR_FAULT_NOWHERE, 0};

/* What a child that lived to the end has counted. */
typedef struct counts {
    long passes[MR_FAULT_END];
    long stores;
} counts;

static counts *shared_counts;
static struct { long kills, repairs; } total;

typedef struct trial {
    world w;
    const operation *op; /* NULL: take the lock, and so repair */
    death d;
} trial;

static void arm(const world *w, const death *d) {
    mr_region *r = w->c->region;

    mr_fault_at = d->point;
    mr_fault_skip = d->n;
    memset(mr_fault_passes, 0, sizeof mr_fault_passes);
    /* From the lease on: what comes before is written once. */
    stores_watch(&r->lease,
                 (size_t)(w->c->map->size - offsetof(mr_region, lease)));
    stores_die_at(d->point == MR_FAULT_NOWHERE ? d->n : 0);
}

static int run_armed(void *arg) {
    trial *t = arg;

    arm(&t->w, &t->d);
    if (t->op != NULL)
        t->op->run(&t->w);
    else if (mr_cache_lock(t->w.c) == MR_OK)
        mr_cache_unlock(t->w.c);
    memcpy(shared_counts->passes, mr_fault_passes, sizeof mr_fault_passes);
    shared_counts->stores = stores_count();
    return 0;
}

/* Runs it, or the repair, in a child. Returns whether that was killed. */
static int run_and_die(trial *t, const operation *op, death d) {
    int code;

    t->op = op;
    t->d = d;
    code = wait_child(run_child(run_armed, t));
    assert_true(code == 0 || code == -SIGKILL);
    total.kills += code != 0;
    return code != 0;
}

/* -------------------------------------------------------------- states --- */

typedef struct seen {
    int found;
    uint32_t len;
    char value[WORLD_VALUE];
    double stamp, fresh_until, expires_at;
    uint32_t believed, dead;
} seen;

typedef struct state {
    seen keys[WORLD_KEYS];
} state;

static void look(world *w, state *out) {
    memset(out, 0, sizeof *out);
    for (int k = 0; k < WORLD_KEYS; k++) {
        seen *s = &out->keys[k];
        mr_entry e;
        char key[8];

        world_key(k, key);
        if (mr_cache_find(w->c, key, 5, WORLD_LOOK, MR_FIND_PEEK, &e) != MR_OK)
            continue;
        s->found = 1;
        s->len = e.value_len;
        memcpy(s->value, e.value, e.value_len);
        s->stamp = e.stamp;
        s->fresh_until = e.fresh_until;
        s->expires_at = e.expires_at;
        s->believed = e.believed;
        s->dead = e.dead;
    }
}

/* One store says which record is live; the marks of a live one change one by
 * one. */
static int same_record(const seen *a, const seen *b) {
    return a->found == b->found && a->len == b->len && a->stamp == b->stamp &&
           memcmp(a->value, b->value, a->len) == 0;
}

static int is_either(double is, double before, double after) {
    return is == before || is == after;
}

static int is_between(const seen *is, const seen *before, const seen *after) {
    if (!same_record(is, before) && !same_record(is, after))
        return 0;
    return !is->found ||
           (is_either(is->fresh_until, before->fresh_until,
                      after->fresh_until) &&
            is_either(is->expires_at, before->expires_at, after->expires_at) &&
            is_either(is->believed, before->believed, after->believed) &&
            is_either(is->dead, before->dead, after->dead));
}

/* Is it the same before and after, and is it a hit then? */
static int is_untouched(const seen *before, const seen *after) {
    return before->found && before->believed && after->believed &&
           same_record(before, after);
}

/* What is expected of the operation that is being tried. */
static struct {
    const operation *op;
    state before, after;
    counts whole; /* of the operation when it is let be */
} now;

static const char *where(const trial *t) {
    static char text[200];

    snprintf(text, sizeof text, "%s, killed %s%s %ld", now.op->name,
             t->d.point != MR_FAULT_NOWHERE ? "at: " : "before store",
             point_names[t->d.point], t->d.n);
    return text;
}

static void check_states(trial *t) {
    state is;

    look(&t->w, &is);
    for (int k = 0; k < WORLD_KEYS; k++) {
        const seen *before = &now.before.keys[k];

        if (!is.keys[k].found && before->expires_at <= now.op->clock)
            continue;
        if (!is_between(&is.keys[k], before, &now.after.keys[k]))
            fail_msg("%s: key-%d is \"%.20s\" (%d)", where(t), k,
                     is.keys[k].value, is.keys[k].found);
    }
}

/* A reference that hits is to the very entry; one to an entry that the
 * operation does not touch goes on hitting. */
static void check_refs(trial *t) {
    for (int k = 0; k < WORLD_KEYS; k++) {
        int hits = mr_hit(t->w.c, t->w.refs[k], WORLD_LOOK) >= 0;
        const seen *before = &now.before.keys[k];
        mr_entry e;
        char key[8];

        world_key(k, key);
        if (hits && (mr_cache_find(t->w.c, key, 5, WORLD_LOOK, MR_FIND_PEEK,
                                   &e) != MR_OK ||
                     e.ref != t->w.refs[k] || e.value_len != before->len ||
                     memcmp(e.value, before->value, e.value_len) != 0))
            fail_msg("%s: a hit of key-%d is wrong", where(t), k);
        if (!hits && is_untouched(before, &now.after.keys[k]))
            fail_msg("%s: key-%d is no longer hit", where(t), k);
    }
}

/* Nothing has leaked: as many entries fit as ever, and as much of them. */
static void check_capacity(trial *t) {
    mr_cache *c = t->w.c;
    char value[WORLD_VALUE], key[8];
    uint32_t worn = 0;

    mr_cache_collect(c, 0);
    mr_cache_clear(c, MR_CLOSED, 1000);
    for (int i = 0; i < 3 * WORLD_KEYS; i++) {
        world_key(i, key);
        if (put(c, key, "v", 4000 + i) != MR_OK)
            fail_msg("%s: no put any more", where(t));
    }
    for (uint32_t i = 0; i < c->region->slot_high; i++)
        worn += mr_slot_generation(&c->slots[i]) >= MR_LAST_GENERATION;
    if (stats_of(c).entries != WORLD_ENTRIES || worn > 1)
        fail_msg("%s: %.0f entries fit", where(t), stats_of(c).entries);
    mr_cache_clear(c, MR_CLOSED, 1000);
    memset(value, 'y', sizeof value);
    value[sizeof value - 1] = '\0';
    if (put(c, "key-1", value, 5000) != MR_OK)
        fail_msg("%s: no room for a large one", where(t));
    assert_sound(c);
}

static void check_listener(trial *t) {
    mr_cache *c = t->w.c;

    /* Nobody beats any more, so one patience later anybody may. */
    if (!mr_listener_claim(c, 9, WORLD_NOW + 51, 50) ||
        !mr_listener_beat(c, 9, WORLD_NOW + 52) ||
        mr_listener_claim(c, 8, WORLD_NOW + 53, 50))
        fail_msg("%s: nobody can listen", where(t));
    if (!mr_listener_leave(c, 9) || !mr_listener_succeed(c, 8) ||
        !mr_listener_ready(c, 8) ||
        !mr_listener_grant(c, 9, mr_listener_ready_successor(c, 9),
                           WORLD_NOW + 54))
        fail_msg("%s: nobody can hand over", where(t));
}

static void check_world(trial *t) {
    char err[200] = "";

    if (mr_cache_check(t->w.c, err, sizeof err) != MR_OK)
        fail_msg("%s: %s", where(t), err);
    total.repairs += (long)stats_of(t->w.c).repairs;
    check_states(t);
    check_refs(t);
    check_listener(t);
    check_capacity(t);
}

/* ----------------------------------------------------------------- runs --- */

/* What the operation does when it is let be, and what is there then. */
static void run_whole(const operation *op) {
    trial t;

    memset(&now, 0, sizeof now);
    now.op = op;
    world_make(&t.w, op);
    look(&t.w, &now.before);
    assert_int_equal(run_and_die(&t, op, no_death), 0);
    now.whole = *shared_counts;
    look(&t.w, &now.after);
    assert_true(stats_of(t.w.c).repairs == 0);
    check_world(&t);
    world_end(&t.w);
}

static void expect_death(const operation *op, death d) {
    trial t;

    world_make(&t.w, op);
    assert_true(run_and_die(&t, op, d));
    check_world(&t);
    world_end(&t.w);
}

/* One dies in the operation, the next one in the repair. Returns whether it
 * did, and so whether there was one. */
static int expect_two_deaths(const operation *op, death first, death second) {
    trial t;
    int died;

    world_make(&t.w, op);
    assert_true(run_and_die(&t, op, first));
    died = run_and_die(&t, NULL, second);
    check_world(&t);
    world_end(&t.w);
    return died;
}

static long kills[MR_FAULT_END][64];
static long repair_kills[MR_FAULT_END];

static void print_matrix(void) {
    printf("\nkills at each point of c/fault.h (rows) in each operation:\n\n");
    for (int o = 0; o < operation_count; o++)
        printf("%*s%2d  %s\n", 2, "", o + 1, operations[o].name);
    printf("   R  the repair after a death at any of these points\n\n%-42s",
           "");
    for (int o = 0; o < operation_count; o++)
        printf("%3d", o + 1);
    printf("     R\n");
    for (int p = 1; p < MR_FAULT_END; p++) {
        printf("%-42s", point_names[p]);
        for (int o = 0; o < operation_count; o++)
            if (kills[p][o] > 0)
                printf("%3ld", kills[p][o]);
            else
                printf("  .");
        printf(repair_kills[p] > 0 ? "%6ld\n" : "     .\n", repair_kills[p]);
    }
}

static void check_all_reached(void) {
    for (int p = 1; p < MR_FAULT_END; p++) {
        long sum = repair_kills[p];

        for (int o = 0; o < operation_count; o++)
            sum += kills[p][o];
        if (sum == 0)
            fail_msg("nothing passes the point \"%s\"", point_names[p]);
    }
}

static void test_every_point_of_every_operation(void **state) {
    (void)state;
    assert_true(operation_count <= 64);
    for (int o = 0; o < operation_count; o++) {
        run_whole(&operations[o]);
        for (int p = 1; p < MR_FAULT_END; p++)
            for (long n = 0; n < now.whole.passes[p]; n++) {
                expect_death(&operations[o], (death){p, n});
                kills[p][o]++;
            }
    }
}

/* Only where the first one died with the lock there is something to repair. */
static void test_every_point_of_every_repair(void **state) {
    (void)state;
    for (int o = 0; o < operation_count; o++) {
        run_whole(&operations[o]);
        for (int p = 1; p < MR_FAULT_END; p++)
            for (int q = MR_FAULT_LINKS_FORGOTTEN; q <= MR_FAULT_REPAIRED; q++)
                if (now.whole.passes[p] > 0)
                    repair_kills[q] += expect_two_deaths(
                        &operations[o], (death){p, now.whole.passes[p] / 2},
                        (death){q, 0});
    }
    print_matrix();
    check_all_reached();
}

static long stride(void) {
    const char *given = getenv("MR_KILL_STRIDE");
    long n = given != NULL ? strtol(given, NULL, 10) : 1;

    return n > 0 ? n : 1;
}

static void test_every_store_of_every_operation(void **state) {
    long sum = 0;

    (void)state;
    printf("\nkills before each store to the region:\n\n");
    for (int o = 0; o < operation_count; o++) {
        long count = 0;

        run_whole(&operations[o]);
        for (long n = 1; n <= now.whole.stores; n += stride(), count++)
            expect_death(&operations[o], (death){MR_FAULT_NOWHERE, n});
        printf("  %-28s%5ld stores %5ld kills\n", operations[o].name,
               now.whole.stores, count);
        sum += count;
    }
    assert_true(sum > operation_count);
}

/* The repairs with most to do: both records of a swap live, a chain of cells
 * half given back, several entries gone. */
static void test_every_store_of_a_repair(void **state) {
    static const struct {
        const char *operation;
        int point;
    } deaths[] = {{"overwrite", MR_FAULT_COMMITTED},
                  {"overwrite, evicting", MR_FAULT_CELLS_CHAINED},
                  {"put, evicting several", MR_FAULT_UNINDEXED},
                  {"check", MR_FAULT_MARKED}};

    (void)state;
    printf("\nkills before each store of a repair, after a death in:\n\n");
    for (size_t i = 0; i < sizeof deaths / sizeof deaths[0]; i++) {
        const operation *op = operations;
        long n = 0;

        while (strcmp(op->name, deaths[i].operation) != 0)
            op++;
        run_whole(op);
        while (expect_two_deaths(op, (death){deaths[i].point, 0},
                                 (death){MR_FAULT_NOWHERE, 1 + n * stride()}))
            n++;
        assert_true(n > 10);
        printf("  %-28s%s: %ld kills\n", op->name, point_names[deaths[i].point],
               n);
    }
}

static int start(void **state) {
    (void)state;
    shared_counts = mmap(NULL, sizeof *shared_counts, PROT_READ | PROT_WRITE,
                         /* cppcheck-suppress invalidFunctionArg ; no file */
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return shared_counts == MAP_FAILED;
}

static int end(void **state) {
    (void)state;
    printf("\nkill matrix: %d points, %d operations, %ld kills, %ld repairs\n",
           MR_FAULT_END - 1, operation_count, total.kills, total.repairs);
    return munmap(shared_counts, sizeof *shared_counts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_point_of_every_operation),
        cmocka_unit_test(test_every_point_of_every_repair),
        cmocka_unit_test(test_every_store_of_every_operation),
        cmocka_unit_test(test_every_store_of_a_repair),
    };

    return cmocka_run_group_tests_name("kill matrix", tests, start, end);
}
