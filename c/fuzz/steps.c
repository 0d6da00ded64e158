/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * steps.c - calls that may die, arguments, and the steps on one entry; put is
 * in step_put.c, those on many entries are in step_many.c. */
#include "steps.h"
#include "alloc.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

/* ---------------------------------------------------------------- dying --- */

static jmp_buf death;
static int doomed_at, doomed_after, calling;

/* The fault points of the core, see c/fault.h, come here (ld --wrap). */
void __wrap_mr_fault_point(int point);

void __wrap_mr_fault_point(int point) {
    if (!calling || point != doomed_at || doomed_after-- > 0)
        return;
    doomed_at = 0;
    longjmp(death, 1);
}

void step_doom(int point, int skip) {
    doomed_at = point;
    doomed_after = skip;
}

int step_is_doomed(void) { return doomed_at != 0; }

static int survive(int (*fn)(void *), void *arg) {
    int rc;

    if (setjmp(death) != 0) {
        calling = 0;
        return DIED;
    }
    calling = 1;
    rc = fn(arg);
    calling = 0;
    doomed_at = 0;
    return rc;
}

static int repair(void *cache) {
    mr_cache_repair(cache);
    return MR_OK;
}

/* The dead one's buffers and what was in them are gone with its process. */
static void new_handle(run *r, int by) {
    handle *h = &r->handles[by];
    mr_cache *dead = h->cache;

    mr_registry_lock();
    h->cache = mr_cache_attach(r->map);
    mr_cache_detach(dead);
    mr_registry_unlock();
    INSIST(h->cache != NULL, "no memory");
    mr_cache_collect(h->cache, h->collecting);
    h->waiting = 0;
    r->model.ticks[by] = 0;
    r->died = r->counts_lost = 1;
}

/* Repairing may be what it dies of as well: the next owner starts over. */
static void take_over(run *r, int by, int at) {
    mr_alloc_left = -1;
    TRACE("    dies at point %d\n", at);
    new_handle(r, by);
    if (at >= MR_FAULT_LINKS_FORGOTTEN)
        step_doom(at, 0);
    while (survive(repair, r->handles[by].cache) == DIED)
        new_handle(r, by);
    mr_cache_unlock(r->handles[by].cache);
    model_repaired(&r->model);
}

int step_call(run *r, int by, int (*fn)(void *), void *arg) {
    int at = doomed_at;
    int rc = survive(fn, arg);

    mr_alloc_left = -1;
    if (rc == DIED)
        take_over(r, by, at);
    return rc;
}

/* ------------------------------------------------------------ arguments --- */

double step_time(run *r, tape *t) {
    const double odd[] = {0,         -1,       NAN,           INFINITY,
                          -INFINITY, MR_NEVER, MR_TIME_LIMIT, MR_TIME_LIMIT - 1,
                          0.25,      1e-300};
    uint32_t b = tape_byte(t), x = b / 8;

    switch (b % 8) {
    case 0:
    case 1:
    case 2:
        return MR_NEVER;
    case 3:
        return r->now + x / 4.0;
    case 4:
        return r->now + x * 20;
    case 5:
        return r->now - x / 4.0;
    case 6:
        return r->now;
    default:
        return odd[x % (sizeof odd / sizeof odd[0])];
    }
}

double step_ref(run *r, tape *t) {
    const double odd[] = {-1,  NAN, INFINITY,           MR_NEVER,
                          0.5, 0,   9007199254740991.0, 4503599627370496.0};
    uint32_t b = tape_byte(t);
    const item *e = &r->model.items[b % KEYS];

    switch (b / KEYS) {
    case 0:
        return e->old_ref;
    case 1:
        return odd[b % 8];
    case 2:
        return e->ref + 33554432; /* two generations on */
    case 3:
        return e->ref + 0.25;
    default:
        return e->ref;
    }
}

int step_key(run *r, tape *t) {
    int key = (int)(tape_byte(t) % KEYS);

    TRACE("    key %d (%u bytes)\n", key, r->model.set->keys[key].len);
    return key;
}

int token_is_valid(const run *r, const taken *token) {
    return token->epoch == r->model.epoch &&
           token->changes == r->model.changes[token->key];
}

/* ---------------------------------------------------------------- looks --- */

typedef struct finding {
    mr_cache *cache;
    const fuzz_key *key;
    double now;
    uint32_t flags;
    mr_entry out;
} finding;

static int find(void *arg) {
    finding *f = arg;

    return mr_cache_find(f->cache, f->key->bytes, f->key->len, f->now, f->flags,
                         &f->out);
}

static double shown(double kept) {
    return kept < MR_TIME_LIMIT ? kept : MR_NEVER;
}

static void compare_found(run *r, int key, const mr_entry *out) {
    const model *m = &r->model;
    const item *e = &m->items[key];
    char value[MAX_VALUE];

    value_fill(key, e->version, value, e->value_len);
    INSIST(out->value_len == e->value_len &&
               memcmp(out->value, value, e->value_len) == 0 &&
               out->value[out->value_len] == '\0',
           "key %d: another value", key);
    INSIST((out->believed != 0) == model_believes(m, e, r->now),
           "key %d: believed %u", key, out->believed);
    INSIST((out->dead != 0) == model_is_dead(m, e), "key %d: dead %u", key,
           out->dead);
    INSIST(out->ref == e->ref && out->stamp == e->stamp &&
               out->fresh_until == shown(e->fresh) &&
               out->expires_at == shown(model_expiry(m, e)),
           "key %d: ref %.0f, stamp %g, fresh %g, expires %g", key, out->ref,
           out->stamp, out->fresh_until, out->expires_at);
}

static void found(run *r, int by, int key, const finding *f) {
    model *m = &r->model;

    if (!(f->flags & MR_FIND_PEEK)) {
        model_use(m, by, key, r->now);
        if (m->slide > 0)
            model_set_fresh(m, &m->items[key], r->now + m->slide);
        m->hits++;
    }
    compare_found(r, key, &f->out);
}

void step_find(run *r, tape *t, int by) {
    model *m = &r->model;
    int key = step_key(r, t), gone;
    const item *e = &m->items[key];
    finding f = {r->handles[by].cache,
                 &m->set->keys[key],
                 r->now,
                 tape_byte(t) % 2,
                 {0}};
    int want = !e->present                    ? MR_NOT_FOUND
               : model_expiry(m, e) <= r->now ? MR_NOT_FOUND
                                              : MR_OK;
    int rc = step_call(r, by, find, &f);

    INSIST(rc == want || rc == DIED || (rc == MR_NOMEM && r->starved),
           "find: %d, not %d", rc, want);
    gone = e->present && want == MR_NOT_FOUND && rc != MR_NOMEM &&
           !(rc == DIED && watch_is_same(r, key));
    if (gone)
        watch_leave(r, by, key, MR_EXPIRED);
    if (rc == MR_NOT_FOUND && !(f.flags & MR_FIND_PEEK))
        m->misses++;
    if (rc == MR_OK)
        found(r, by, key, &f);
}

void step_hit(run *r, tape *t, int by) {
    model *m = &r->model;
    double ref = step_ref(r, t);
    int key = model_behind(m, ref);
    const item *e = &m->items[key >= 0 ? key : 0];
    int want = key >= 0 && model_believes(m, e, r->now) && r->now < e->fresh;
    int slot = mr_hit(r->handles[by].cache, ref, r->now);

    TRACE("    hit %.0f: %d\n", ref, slot);
    INSIST((slot >= 0) == want, "hit of key %d: %d", key, slot);
    if (!want)
        return;
    INSIST(slot == (int)((uint64_t)e->ref & MR_SLOT_MASK), "slot %d", slot);
    model_use(m, by, key, r->now);
    m->hits++;
}

/* ---------------------------------------------------------------- marks --- */

void step_claim(run *r, tape *t, int by) {
    model *m = &r->model;
    double ref = step_ref(r, t), until = step_time(r, t);
    int key = model_behind(m, ref);
    int want = MR_CHANGED;
    int rc = mr_cache_claim(r->handles[by].cache, ref, r->now, until);

    TRACE("    claim key %d until %g: %d\n", key, until, rc);
    if (isnan(until))
        want = MR_INVALID;
    else if (key >= 0 && m->items[key].fresh <= r->now)
        want = MR_OK;
    INSIST(rc == want, "claim: %d, not %d", rc, want);
    if (rc == MR_OK)
        model_set_fresh(m, &m->items[key], model_time(until));
}

void step_renew(run *r, tape *t, int by) {
    model *m = &r->model;
    double ref = step_ref(r, t), fresh = step_time(r, t);
    double expires = step_time(r, t);
    int key = model_behind(m, ref);
    int want = isnan(fresh) || isnan(expires) ? MR_INVALID
               : key >= 0                     ? MR_OK
                                              : MR_CHANGED;
    int rc = mr_cache_renew(r->handles[by].cache, ref, fresh, expires);

    TRACE("    renew key %d, %g, %g: %d\n", key, fresh, expires, rc);
    INSIST(rc == want, "renew: %d, not %d", rc, want);
    if (rc == MR_OK) {
        item *e = &m->items[key];

        e->expires = model_time(expires);
        model_set_fresh(m, e, model_time(fresh));
        e->due = model_expiry(m, e);
    }
}

/* ---------------------------------------------------------------- goers --- */

typedef struct removing {
    mr_cache *cache;
    const fuzz_key *key;
    double ref;
    int reason;
} removing;

static int do_remove(void *arg) {
    removing *w = arg;

    return mr_cache_remove(w->cache, w->key->bytes, w->key->len, w->reason);
}

static int do_remove_ref(void *arg) {
    removing *w = arg;

    return mr_cache_remove_ref(w->cache, w->ref, w->reason);
}

static int do_invalidate(void *arg) {
    removing *w = arg;

    mr_cache_invalidate(w->cache, w->key->bytes, w->key->len, w->reason);
    return MR_OK;
}

static int read_reason(tape *t) {
    return (int)(tape_byte(t) % (MR_CLOSED + 1));
}

/* The entry of `key` was to leave, if there is one (key >= 0). */
static void removed(run *r, int by, int key, int rc, int reason, int absent) {
    int there = key >= 0 && r->model.items[key].present;

    INSIST(rc == (there ? MR_OK : absent) || rc == DIED ||
               (rc == MR_NOMEM && r->starved && reason != MR_GONE_QUIETLY),
           "remove: %d", rc);
    if (there && rc != MR_NOMEM && !(rc == DIED && watch_is_same(r, key)))
        watch_leave(r, by, key, reason);
}

void step_remove(run *r, tape *t, int by) {
    int key = step_key(r, t);
    removing w = {r->handles[by].cache, &r->model.set->keys[key], 0,
                  read_reason(t)};
    int rc = step_call(r, by, do_remove, &w);

    model_change(&r->model, key);
    removed(r, by, key, rc, w.reason, MR_NOT_FOUND);
}

void step_remove_ref(run *r, tape *t, int by) {
    double ref = step_ref(r, t);
    int key = model_behind(&r->model, ref);
    removing w = {r->handles[by].cache, NULL, ref, read_reason(t)};
    int rc = step_call(r, by, do_remove_ref, &w);

    if (key >= 0)
        model_change(&r->model, key);
    removed(r, by, key, rc, w.reason, MR_CHANGED);
}

void step_invalidate(run *r, tape *t, int by) {
    int key = step_key(r, t);
    removing w = {r->handles[by].cache, &r->model.set->keys[key], 0,
                  read_reason(t)};
    int rc = step_call(r, by, do_invalidate, &w);

    model_change(&r->model, key);
    removed(r, by, key, rc, w.reason, MR_OK);
}

void step_doubt(run *r, tape *t, int by) {
    model *m = &r->model;
    int key = step_key(r, t);
    const fuzz_key *k = &m->set->keys[key];
    int rc = mr_cache_doubt(r->handles[by].cache, k->bytes, k->len);

    INSIST(rc == m->items[key].present, "doubt: %d", rc);
    model_change(m, key);
    if (rc)
        m->items[key].epoch = m->dead_before - 1;
}
