/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * step_many.c - the steps that may remove many entries. */
#include "steps.h"

typedef struct walk {
    mr_cache *cache;
    double now; /* or before */
    uint32_t cursor;
    uint32_t most;
    int reason;
} walk;

/* Mostly few, at times more than there can be. */
static uint32_t read_most(tape *t) {
    uint32_t b = tape_byte(t);

    return b < 128 ? b % 8 : 1000;
}

/* All that have left go for `reason`. Returns how many. */
static int all_left(run *r, int by, int reason) {
    int left[KEYS], n = 0;

    watch_left(r, left);
    for (int i = 0; i < KEYS; i++)
        if (left[i]) {
            watch_leave(r, by, i, reason);
            n++;
        }
    return n;
}

/* What a walk that removed n entries may return. */
static void check_returned(const run *r, int rc, int n) {
    INSIST(rc == DIED || rc == n || (rc == MR_NOMEM && n == 0 && r->starved),
           "returned %d, and %d have left", rc, n);
}

/* ---------------------------------------------------------------- sweep --- */

static int sweep(void *arg) {
    walk *w = arg;

    return mr_cache_sweep(w->cache, w->now, w->most);
}

void step_sweep(run *r, tape *t, int by) {
    const model *m = &r->model;
    walk w = {r->handles[by].cache, r->now, 0, read_most(t), 0};
    int rc = step_call(r, by, sweep, &w);
    int left[KEYS];

    watch_left(r, left);
    for (int i = 0; i < KEYS; i++)
        INSIST(!left[i] || model_expiry(m, &m->items[i]) <= r->now,
               "key %d was swept away and has not expired", i);
    check_returned(r, rc, all_left(r, by, MR_EXPIRED));
    INSIST(r->starved || rc == DIED || w.most < 1000 ||
               !model_any_due(m, r->now, -1),
           "the sweep left expired entries");
}

/* --------------------------------------------------------------- unused --- */

static int remove_unused(void *arg) {
    walk *w = arg;

    return mr_cache_remove_unused(w->cache, w->now, &w->cursor, w->most);
}

static int is_in_reach(const item *e, uint32_t from, uint32_t to) {
    uint32_t slot = (uint32_t)((uint64_t)e->ref & MR_SLOT_MASK);

    return slot >= from && (to == 0 || slot < to);
}

static void check_unused(run *r, const walk *w, uint32_t from, int complete) {
    int left[KEYS];

    watch_left(r, left);
    for (int i = 0; i < KEYS; i++) {
        const item *e = &r->model.items[i];
        int due = is_in_reach(e, from, w->cursor) && model_last_use(e) < w->now;

        INSIST(!left[i] || due, "key %d was in use", i);
        INSIST(!e->present || left[i] || !due || !complete,
               "key %d was not in use and is still there", i);
    }
}

void step_remove_unused(run *r, tape *t, int by) {
    uint32_t from = tape_byte(t) % 16;
    walk w = {r->handles[by].cache, step_time(r, t), from, read_most(t), 0};
    int rc = step_call(r, by, remove_unused, &w);

    INSIST(w.cursor == 0 || rc == DIED || r->starved ||
               w.cursor == from + w.most,
           "from %u, %u steps: %u", from, w.most, w.cursor);
    /* Who dies has not moved on from the entry it was removing. */
    w.cursor += rc == DIED;
    /* A cursor that does not move has looked at nothing. */
    if (w.most > 0 || w.cursor == 0)
        check_unused(r, &w, from, rc != DIED && !r->starved && w.most > 0);
    check_returned(r, rc, all_left(r, by, MR_EXPIRED));
}

/* ---------------------------------------------------------------- clear --- */

static int clear(void *arg) {
    walk *w = arg;

    return mr_cache_clear(w->cache, w->reason, w->most);
}

void step_clear(run *r, tape *t, int by) {
    uint32_t count = model_count(&r->model);
    walk w = {r->handles[by].cache, 0, 0, read_most(t),
              (int)(tape_byte(t) % (MR_CLOSED + 1))};
    int rc = step_call(r, by, clear, &w);
    int n = all_left(r, by, w.reason);

    check_returned(r, rc, n);
    INSIST(rc == DIED || r->starved ||
               (uint32_t)n == (count < w.most ? count : w.most),
           "%d of %u cleared, wanted %u", n, count, w.most);
}
