/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * step_put.c - putting, and who may leave for it. */
#include "steps.h"

#include <math.h>
#include <string.h>

typedef struct putting {
    mr_cache *cache;
    mr_put p;
    double ref;
    int key;
    const taken *token;
    int want;    /* before room is made: MR_OK, or why it ends there */
    int expired; /* the old entry was to leave first */
    item entry;  /* the new one */
    item before[KEYS]; /* what the heaps knew, if a death has them repaired */
    char value[MAX_VALUE];
} putting;

static int do_put(void *arg) {
    putting *w = arg;

    return mr_cache_put(w->cache, &w->p, &w->ref);
}

/* --------------------------------------------------------- what is put --- */

/* Most are small; a few are as large as the region takes, or larger. */
static uint32_t read_value_len(const model *m, tape *t) {
    uint32_t b = tape_byte(t);

    if (b < 200)
        return b;
    if (b < 240)
        return (b - 200) * 52;
    return m->max_value + b - 250;
}

static uint32_t read_flags(tape *t) {
    uint32_t b = tape_byte(t);

    /* Every flag alone and together, and now and then one that is none. */
    return b < 250 ? b % 32 : b;
}

/* Few, the last there is, and now and then one there cannot be. */
static uint32_t read_tag(tape *t) {
    uint32_t b = tape_byte(t);

    return b < 250 ? b % 4 : MR_TAGS - 4 + b % 5;
}

static void read_put(run *r, tape *t, int by, putting *w) {
    model *m = &r->model;
    const fuzz_key *k;

    memset(w, 0, sizeof *w);
    w->cache = r->handles[by].cache;
    w->key = step_key(r, t);
    w->p.flags = read_flags(t);
    w->token = &r->tokens[tape_byte(t) % TOKENS];
    if (w->p.flags & MR_PUT_TOKEN)
        w->key = w->token->key;
    k = &m->set->keys[w->key];
    w->p.token = w->token->token;
    w->p.key = k->bytes;
    w->p.key_len = k->len;
    w->p.value = w->value;
    w->p.value_len = read_value_len(m, t);
    w->p.tag = read_tag(t);
    w->p.now = r->now;
    w->p.stamp = r->now;
    w->p.fresh_until = w->p.expires_at = MR_NEVER;
    if (tape_byte(t) % 2) {
        w->p.fresh_until = step_time(r, t);
        w->p.expires_at = step_time(r, t);
        w->p.stamp = step_time(r, t);
    }
    if (w->p.value_len <= MAX_VALUE)
        value_fill(w->key, ++m->version, w->value, w->p.value_len);
}

/* -------------------------------------------------------- what it will be --- */

static int are_valid(const mr_put *p) {
    return p->tag < MR_TAGS && p->flags < 32 && (p->flags & 3) != 3 &&
           !isnan(p->stamp) && !isnan(p->fresh_until) && !isnan(p->expires_at);
}

/* What comes before room is made. */
static int expect(const run *r, const putting *w) {
    const model *m = &r->model;
    const item *e = &m->items[w->key];
    int there = e->present && !(model_expiry(m, e) <= r->now);

    if (!are_valid(&w->p))
        return MR_INVALID;
    if (w->p.value_len > m->max_value ||
        model_cells(m, w->key, w->p.value_len) > m->cells)
        return MR_TOO_LARGE;
    if ((w->p.flags & MR_PUT_TOKEN) && !token_is_valid(r, w->token))
        return MR_CHANGED;
    if ((w->p.flags & MR_PUT_ABSENT) && there)
        return MR_EXISTS;
    if ((w->p.flags & MR_PUT_PRESENT) && !there)
        return MR_NOT_FOUND;
    return MR_OK;
}

static item new_item(run *r, const putting *w, int by) {
    model *m = &r->model;
    const mr_put *p = &w->p;
    double limit = MR_TIME_LIMIT;
    item e = m->items[w->key];

    e.present = 1;
    e.version = m->version;
    e.value_len = p->value_len;
    e.tag = p->tag;
    e.epoch = m->epoch;
    e.put = e.tick = e.newest = model_next_tick(m, by, r->now);
    e.stamp = p->stamp < -limit ? -limit : p->stamp < limit ? p->stamp : limit;
    e.expires = model_time(p->expires_at);
    e.fresh = model_time(p->fresh_until);
    if (m->slide > 0 && e.fresh > r->now + m->slide)
        e.fresh = r->now + m->slide;
    e.due = 0;
    model_set_fresh(m, &e, e.fresh);
    return e;
}

/* ---------------------------------------------------------- who has left --- */

/* Why an entry may leave for another one to be put. */
static int reason_to_leave(const run *r, int key) {
    const item *e = &r->model.items[key];

    if (e->due <= r->now)
        return MR_EXPIRED;
    return model_expiry(&r->model, e) <= r->now ? ANY_REASON : MR_EVICTED;
}

static void check_evicted(const run *r, const putting *w, int key,
                          const int *left) {
    const model *m = &r->model;

    INSIST(!(w->p.flags & MR_PUT_REFUSE),
           "key %d evicted by a put that refuses", key);
    INSIST(model_may_be_oldest(m, key, left, w->key),
           "key %d evicted, and it is not the oldest", key);
}

/* Somebody was the last to leave: before that there was no room. */
static void check_needed(const run *r, const putting *w, const model *before,
                         const int *left) {
    int any = 0, needed = 0;

    for (int i = 0; i < KEYS; i++)
        if (left[i]) {
            model m = r->model;

            any = 1;
            m.items[i] = before->items[i];
            m.items[i].present = 0;
            needed |= !model_fits(&m, w->key, w->p.value_len, i);
        }
    INSIST(!any || needed, "more have left for key %d than there was need",
           w->key);
}

/* The heaps are as the items of that time say. */
static void heaps_of(model *m, const item *then) {
    for (int i = 0; i < KEYS; i++) {
        m->items[i].newest = then[i].newest;
        m->items[i].due = then[i].due;
    }
}

/* Entries other than the old one that have left, each for a good reason. */
static void others_left(run *r, const putting *w, int by, int rc) {
    model before = r->model;
    int left[KEYS], evicted = 0;

    watch_left(r, left);
    left[w->key] = 0;
    if (rc == DIED)
        heaps_of(&r->model, w->before);
    for (int i = 0; i < KEYS; i++)
        if (left[i] && reason_to_leave(r, i) == MR_EVICTED)
            check_evicted(r, w, i, left), evicted = 1;
    for (int i = 0; i < KEYS; i++)
        if (left[i])
            watch_leave(r, by, i, reason_to_leave(r, i));
    INSIST(!evicted || !model_any_due(&r->model, r->now, w->key),
           "evicted for key %d, with expired ones left", w->key);
    if (rc == DIED)
        heaps_of(&r->model, before.items);
    else
        check_needed(r, w, &before, left);
}

/* ------------------------------------------------------------ what it is --- */

static void check_generation(run *r, double ref) {
    uint32_t slot = (uint32_t)((uint64_t)ref & MR_SLOT_MASK);
    uint32_t generation = (uint32_t)((uint64_t)ref >> MR_SLOT_BITS);

    INSIST(slot < r->model.slots, "slot %u", slot);
    INSIST(generation > r->generations[slot], "an old ref would hit slot %u",
           slot);
    r->generations[slot] = generation;
}

static void install(run *r, putting *w) {
    item *e = &r->model.items[w->key];

    check_generation(r, w->ref);
    w->entry.old_ref = e->ref;
    w->entry.ref = w->ref;
    if (e->present)
        model_leave(&r->model, w->key);
    *e = w->entry;
}

static void check_room(const run *r, const putting *w, int rc) {
    const model *m = &r->model;
    int fits = model_fits(m, w->key, w->p.value_len, -1);

    INSIST(rc == (fits ? MR_OK : MR_FULL), "put: %d, and it %s", rc,
           fits ? "fits" : "does not fit");
    if (rc != MR_FULL)
        return;
    INSIST(!model_any_due(m, r->now, w->key), "full of expired entries");
    INSIST((w->p.flags & MR_PUT_REFUSE) ||
               model_count(m) == (uint32_t)m->items[w->key].present,
           "full with entries to evict");
}

/* The dead left the old record or the new one, and no third. */
static void adopt_survivor(run *r, putting *w) {
    int link = watch_link(r, w->key);
    item *e = &r->model.items[w->key];

    if (link == 0 || watch_is_same(r, w->key)) {
        INSIST(link != 0 || !e->present, "key %d: neither record is left",
               w->key);
        return;
    }
    w->ref = mr_slot_ref(r->handles[0].cache, (uint32_t)link - 1);
    w->entry.newest = w->entry.tick;
    w->entry.due = model_expiry(&r->model, &w->entry);
    install(r, w);
}

static void check_end(run *r, putting *w, int by, int rc) {
    model *m = &r->model;

    if (w->expired && m->items[w->key].present && !watch_is_same(r, w->key))
        watch_leave(r, by, w->key, MR_EXPIRED);
    others_left(r, w, by, rc);
    if (rc == DIED) {
        adopt_survivor(r, w);
    } else if (rc == MR_NOMEM) {
        INSIST(r->starved, "out of memory");
    } else if (w->want != MR_OK) {
        INSIST(rc == w->want, "put: %d, not %d", rc, w->want);
    } else {
        check_room(r, w, rc);
    }
    if (rc == MR_OK) {
        install(r, w);
        m->puts++;
    }
    m->refused += rc == MR_FULL;
}

/* Does the put get as far as to look whether the old entry has expired? */
static int looks_at_old(const putting *w) {
    return w->want != MR_INVALID && w->want != MR_TOO_LARGE &&
           w->want != MR_CHANGED;
}

void step_put(run *r, tape *t, int by) {
    model *m = &r->model;
    uint64_t tick = m->ticks[by];
    putting w;
    int rc;

    read_put(r, t, by, &w);
    w.want = expect(r, &w);
    w.expired = looks_at_old(&w) && m->items[w.key].present &&
                model_expiry(m, &m->items[w.key]) <= r->now;
    if (w.want == MR_OK)
        w.entry = new_item(r, &w, by);
    memcpy(w.before, m->items, sizeof w.before);
    rc = step_call(r, by, do_put, &w);
    TRACE("    put key %d, %u bytes, flags %u: %d\n", w.key, w.p.value_len,
          w.p.flags, rc);
    if (rc != MR_OK && rc != DIED)
        m->ticks[by] = tick;
    check_end(r, &w, by, rc);
    if ((w.p.flags & MR_PUT_BUMP) && rc != MR_INVALID)
        model_change(m, w.key);
}
