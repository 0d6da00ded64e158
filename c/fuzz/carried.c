/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * carried.c - the entries of a region, carried into another one of any size:
 * the newest first, as many as fit, each as it was. */
#include "alloc.h"
#include "steps.h"

#include <sanitizer/lsan_interface.h>
#include <string.h>

static mr_cache *open_other(tape *t) {
    mr_cache_options opts = {.fingerprint = "", .max_value = 1};
    mr_cache *other;
    long left = mr_alloc_left;
    char err[256];

    mr_alloc_left = -1;
    opts.max_entries = 1 + tape_byte(t) % 16;
    opts.max_bytes = 32.0 * (1 + tape_byte(t));
    opts.max_value += tape_byte(t) * 7;
    INSIST(mr_cache_open(&opts, &other, err, sizeof err) == MR_OK,
           "mr_cache_open: %s", err);
    mr_alloc_left = left;
    return other;
}

/* The newest entry that has not been looked at, or -1. */
static int newest(const model *m, const int *seen) {
    int best = -1;

    for (int i = 0; i < KEYS; i++)
        if (m->items[i].present && !seen[i] &&
            (best < 0 || m->items[i].tick > m->items[best].tick))
            best = i;
    return best;
}

static void choose(const model *m, const mr_geometry *g, int *chosen) {
    uint32_t count = 0, cells = 0;
    int seen[KEYS] = {0}, key;

    while ((key = newest(m, seen)) >= 0) {
        uint32_t len = m->items[key].value_len;
        uint32_t need = model_cells(m, key, len);

        seen[key] = 1;
        if (count == g->max_entries || len > g->max_value ||
            cells + need > g->usable_cells)
            continue;
        chosen[key] = 1;
        count++;
        cells += need;
    }
}

static uint32_t find_in(mr_cache *c, const fuzz_key *k) {
    return mr_index_find(c, (const unsigned char *)k->bytes, k->len,
                         mr_cache_hash(c, k->bytes, k->len));
}

static void compare_carried(const run *r, mr_cache *to, int key) {
    static unsigned char record[MR_MAX_KEY + MAX_VALUE];
    const fuzz_key *k = &r->model.set->keys[key];
    const item *e = &r->model.items[key];
    const mr_slot *s = &to->slots[find_in(to, k) - 1];
    char value[MAX_VALUE];

    value_fill(key, e->version, value, e->value_len);
    mr_slot_copy(to, s, 0, k->len + e->value_len, record);
    INSIST(s->value_len == e->value_len &&
               memcmp(record + k->len, value, e->value_len) == 0,
           "key %d: another value", key);
    INSIST(s->epoch == e->epoch && mr_slot_tag(s) == e->tag &&
               s->stamp == e->stamp && mr_slot_tick(to, s) == e->tick &&
               mr_slot_fresh_until(s) == e->fresh &&
               mr_slot_expires_at(s) == e->expires,
           "key %d: not as it was", key);
}

/* Two processes, one of them dead maybe, can give two entries one tick. */
static int any_tied(const model *m) {
    for (int i = 0; i < KEYS; i++)
        for (int k = 0; k < i; k++)
            if (m->items[i].present && m->items[k].present &&
                m->items[i].tick == m->items[k].tick)
                return 1;
    return 0;
}

static void compare_all(const run *r, mr_cache *to) {
    int chosen[KEYS] = {0}, tied = any_tied(&r->model);
    char err[256];
    int rc = mr_cache_check(to, err, sizeof err);

    INSIST(rc == MR_OK, "mr_cache_check: %d %s", rc, err);
    choose(&r->model, &to->region->geometry, chosen);
    for (int i = 0; i < KEYS; i++) {
        int there = find_in(to, &r->model.set->keys[i]) != 0;

        INSIST(there == chosen[i] || tied, "key %d: %d", i, there);
        INSIST(!there || r->model.items[i].present, "key %d was none", i);
        if (there)
            compare_carried(r, to, i);
    }
    INSIST(to->region->epoch == r->model.epoch &&
               to->region->dead_before == r->model.dead_before,
           "the epoch is another one");
}

typedef struct carrying {
    mr_cache *from, *to;
} carrying;

static int carry(void *arg) {
    carrying *w = arg;

    return mr_cache_carry(w->from, w->to);
}

/* Who dies takes the new region along, which nobody else has seen, and its
 * memory: no leak. */
void step_carry(run *r, tape *t, int by) {
    carrying w = {r->handles[by].cache, open_other(t)};
    int doomed = step_is_doomed(), rc;

    if (doomed)
        __lsan_disable();
    rc = step_call(r, by, carry, &w);
    if (doomed)
        __lsan_enable();
    TRACE("    carried: %d\n", rc);
    INSIST(rc == MR_OK || rc == DIED || (rc == MR_NOMEM && r->starved),
           "carry: %d", rc);
    if (rc == MR_OK) {
        INSIST(mr_cache_lease(w.to) == mr_cache_lease(w.from), "another lease");
        compare_all(r, w.to);
    }
    mr_cache_close(w.to);
}
