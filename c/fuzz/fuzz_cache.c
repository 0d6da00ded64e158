/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_cache.c - any sequence of operations on a small region, against a naive
 * model of it.
 *
 *     input:  8 bytes of configuration | 16 bytes of a step | of a step ...
 *
 * Regions are so small that nearly every put evicts; one or two handles work on
 * them, allocations fail and processes die at the fault points of the core.
 * After every step mr_cache_check walks the region, and every field of every
 * entry is compared with the model. Each entry that left is handed back to the
 * handle that removed it once, with its bytes and a reason that is true.
 *
 *     build/fuzz/fuzz_cache FILE                    repeats a run
 *     MR_FUZZ_TRACE=1 build/fuzz/fuzz_cache FILE    and shows its steps */
#include "alloc.h"
#include "steps.h"

#include <math.h>
#include <string.h>

/* ------------------------------------------------------- small steps --- */

static void take_token(run *r, int by, taken *token, int key) {
    const fuzz_key *k = &r->model.set->keys[key];

    token->key = key;
    mr_cache_token(r->handles[by].cache, k->bytes, k->len, &token->token);
    token->epoch = r->model.epoch;
    token->changes = r->model.changes[key];
}

static void step_take_token(run *r, tape *t, int by) {
    taken *token = &r->tokens[tape_byte(t) % TOKENS];

    take_token(r, by, token, step_key(r, t));
}

static void compare_tokens(run *r) {
    for (int i = 0; i < TOKENS; i++) {
        const taken *token = &r->tokens[i];
        const fuzz_key *k = &r->model.set->keys[token->key];
        int valid = mr_cache_token_valid(r->handles[0].cache, k->bytes, k->len,
                                         &token->token);

        INSIST((valid != 0) == token_is_valid(r, token),
               "token of key %d is valid: %d", token->key, valid);
    }
}

static void step_bump(run *r, tape *t, int by) {
    int key = step_key(r, t);
    const fuzz_key *k = &r->model.set->keys[key];

    mr_cache_bump(r->handles[by].cache, k->bytes, k->len);
    model_change(&r->model, key);
}

static void step_bump_epoch(run *r, tape *t, int by) {
    (void)t;
    INSIST(mr_cache_bump_epoch(r->handles[by].cache) == ++r->model.epoch,
           "the new epoch");
}

static void step_flush(run *r, tape *t, int by) {
    (void)t;
    mr_cache_flush(r->handles[by].cache);
    r->model.dead_before = ++r->model.epoch;
}

static void step_lease(run *r, tape *t, int by) {
    double until = step_time(r, t);

    mr_cache_set_lease(r->handles[by].cache, until);
    r->model.lease = model_time(until);
}

static void step_take_evicted(run *r, tape *t, int by) {
    uint32_t most = tape_byte(t);

    watch_take(r, by, most < 128 ? most % 4 : MAX_PENDING);
}

static void step_collect(run *r, tape *t, int by) {
    handle *h = &r->handles[by];

    h->collecting = tape_byte(t) % 4 != 0;
    mr_cache_collect(h->cache, h->collecting);
    if (!h->collecting)
        h->waiting = 0;
}

static void step_wait(run *r, tape *t, int by) {
    static const double spans[] = {0.25, 1, 10, 100, 3600e3, -0.25, -2};
    uint32_t b = tape_byte(t);

    (void)by;
    r->now += spans[b % 7] * (1 + b / 7 % 8);
    if (!(r->now > 0))
        r->now = 0;
    TRACE("    now %g\n", r->now);
}

static int repair_region(void *arg) {
    mr_cache *c = arg;

    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    mr_cache_repair(c);
    mr_cache_unlock(c);
    return MR_OK;
}

static void step_repair(run *r, tape *t, int by) {
    int rc = step_call(r, by, repair_region, r->handles[by].cache);

    (void)t;
    INSIST(rc == MR_OK || rc == DIED, "repair: %d", rc);
    model_repaired(&r->model);
}

static void step_count(run *r, tape *t, int by) {
    (void)t, (void)by;
    watch_counts(r);
}

/* -------------------------------------------------------------- a run --- */

typedef void step(run *r, tape *t, int by);

static const struct {
    step *fn;
    const char *name;
} steps[] = {
    {step_put, "put"},
    {step_put, "put"},
    {step_put, "put"},
    {step_put, "put"},
    {step_find, "find"},
    {step_find, "find"},
    {step_hit, "hit"},
    {step_hit, "hit"},
    {step_claim, "claim"},
    {step_renew, "renew"},
    {step_remove, "remove"},
    {step_remove_ref, "remove_ref"},
    {step_invalidate, "invalidate"},
    {step_doubt, "doubt"},
    {step_sweep, "sweep"},
    {step_remove_unused, "remove_unused"},
    {step_clear, "clear"},
    {step_take_token, "token"},
    {step_bump, "bump"},
    {step_bump_epoch, "bump_epoch"},
    {step_flush, "flush"},
    {step_lease, "lease"},
    {step_take_evicted, "take"},
    {step_take_evicted, "take"},
    {step_collect, "collect"},
    {step_wait, "wait"},
    {step_wait, "wait"},
    {step_repair, "repair"},
    {step_count, "count"},
    {step_carry, "carry"},
};

enum { STEPS = sizeof steps / sizeof steps[0] };

_Static_assert((int)FIRST_SPECIAL == 8 * (int)STEPS, "see steps.h");

/* One byte says which step: below FIRST_SPECIAL as it is; from there on it is
 * one that runs short of memory or dies, said by the next. */
static void one_step(run *r, tape *t) {
    uint32_t b = tape_byte(t);
    int by = (int)(tape_byte(t) % r->used_handles);
    uint32_t which = b % STEPS;

    r->step++;
    r->starved = r->died = 0;
    if (b >= FIRST_SPECIAL) {
        uint32_t how = tape_byte(t);

        which = tape_byte(t) % STEPS;
        if (how < 128) {
            step_doom(1 + (int)(how % MR_FAULT_LAST_OF_ENTRIES),
                      (int)(how / 64));
        } else {
            r->starved = 1;
            mr_alloc_left = how % 2;
        }
    }
    TRACE("%u: %s by %d%s\n", r->step, steps[which].name, by,
          r->starved ? " (starved)" : "");
    steps[which].fn(r, t, by);
    step_doom(0, 0);
    mr_alloc_left = -1;
    watch_compare(r);
    compare_tokens(r);
}

/* The next STEP_BYTES, whether the step wants fewer or more. */
static tape next_step(tape *t) {
    size_t left = (size_t)(t->end - t->at);
    tape step = {t->at, t->at + (left < STEP_BYTES ? left : STEP_BYTES)};

    t->at = step.end;
    return step;
}

static void use_seed(run *r, uint32_t n) {
    r->model.set = key_set_get(n);
    memcpy(r->map->region->seed, r->model.set->seed, 16);
}

/* Generations that will soon be used up. */
static void wear_out(run *r, uint32_t uses) {
    mr_cache *c = r->handles[0].cache;

    for (uint32_t i = 0; uses > 0 && i < c->slot_count; i++) {
        r->generations[i] = MR_LAST_GENERATION - 2 * uses;
        atomic_store(&c->slots[i].generation, r->generations[i]);
    }
}

static void adopt_geometry(run *r, const mr_cache_options *opts) {
    const mr_geometry *g = &r->map->region->geometry;
    model *m = &r->model;

    INSIST(g->max_entries == opts->max_entries, "%u", g->max_entries);
    INSIST(g->slot_count <= 64, "%u slots", g->slot_count);
    m->max_entries = opts->max_entries;
    m->max_value = opts->max_value;
    m->cells = (uint32_t)(opts->max_bytes / sizeof(mr_cell));
    m->slots = g->slot_count;
    m->slide = opts->slide;
    m->lease = MR_TIME_LIMIT;
}

static void open_region(run *r, tape *t) {
    static const uint32_t cells[] = {1,  2,  3,  4,  5,   6,   8,
                                     10, 13, 20, 40, 100, 300, 3000};
    static const double slides[] = {0, 0, 0, 0, 0.5, 1, 10, 1000};
    mr_cache_options opts = {.fingerprint = "", .max_value = 1};
    char err[256];

    opts.max_entries = 1 + tape_byte(t) % 12;
    opts.max_bytes = 32.0 * cells[tape_byte(t) % 14];
    opts.slide = slides[tape_byte(t) % 8];
    opts.max_value += tape_byte(t) * 7;
    INSIST(mr_cache_open(&opts, &r->handles[0].cache, err, sizeof err) == MR_OK,
           "mr_cache_open: %s", err);
    r->map = r->handles[0].cache->map;
    adopt_geometry(r, &opts);
}

static void open_run(run *r, tape *t) {
    uint32_t b, start;

    open_region(r, t);
    b = tape_byte(t);
    use_seed(r, b % KEY_SETS);
    r->used_handles = 1 + (b & 4) / 4;
    if (r->used_handles == 2) {
        mr_registry_lock();
        r->handles[1].cache = mr_cache_attach(r->map);
        mr_registry_unlock();
    }
    b = tape_byte(t);
    for (uint32_t i = 0; i < r->used_handles; i++) {
        r->handles[i].collecting = (b >> i & 1) == 0;
        mr_cache_collect(r->handles[i].cache, r->handles[i].collecting);
    }
    wear_out(r, tape_byte(t) % 8);
    /* Close to where the epoch wraps, too. */
    b = tape_byte(t);
    start = b % 4 == 0 ? 0u - b : 0;
    atomic_store(&r->map->region->epoch, start);
    atomic_store(&r->map->region->dead_before, start);
    r->model.epoch = r->model.dead_before = start;
    r->now = 1000;
}

static void close_run(run *r) {
    for (uint32_t i = 0; i < r->used_handles; i++)
        watch_take(r, (int)i, MAX_PENDING);
    watch_counts(r);
    for (uint32_t i = 0; i < r->used_handles; i++)
        mr_cache_close(r->handles[i].cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static run r;
    tape t = {bytes, bytes + len};

    memset(&r, 0, sizeof r);
    open_run(&r, &t);
    for (int i = 0; i < TOKENS; i++)
        take_token(&r, 0, &r.tokens[i], i);
    while (!tape_done(&t)) {
        tape step = next_step(&t);

        one_step(&r, &step);
    }
    close_run(&r);
    return 0;
}
