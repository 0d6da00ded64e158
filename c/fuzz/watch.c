/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * watch.c - see watch.h. */
#include "watch.h"

#include <string.h>

void value_fill(int key, uint32_t version, char *out, uint32_t len) {
    for (uint32_t i = 0; i < len; i++)
        out[i] = (char)((uint32_t)key * 31 + version * 17 + i);
}

/* ------------------------------------------------------------ who is in --- */

int watch_link(run *r, int key) {
    const fuzz_key *k = &r->model.set->keys[key];

    return (int)mr_index_find(r->handles[0].cache,
                              (const unsigned char *)k->bytes, k->len, k->hash);
}

int watch_is_same(run *r, int key) {
    const mr_cache *c = r->handles[0].cache;
    int link = watch_link(r, key);

    return link != 0 &&
           mr_slot_ref(c, (uint32_t)link - 1) == r->model.items[key].ref;
}

void watch_left(run *r, int left[KEYS]) {
    for (int i = 0; i < KEYS; i++)
        left[i] = r->model.items[i].present && !watch_is_same(r, i);
}

/* ------------------------------------------------------ what comes back --- */

void watch_leave(run *r, int by, int key, int reason) {
    handle *h = &r->handles[by];
    const item *e = &r->model.items[key];

    TRACE("    key %d leaves for %d\n", key, reason);
    if (h->collecting && !r->died && reason != MR_GONE_QUIETLY) {
        INSIST(h->waiting < MAX_PENDING, "too many leave");
        h->pending[h->waiting++] = (departure){
            r->step, key, e->version, e->value_len, reason, r->starved};
    }
    r->model.left++;
    model_leave(&r->model, key);
}

static int is_that(run *r, const departure *d, const mr_evicted *got) {
    const fuzz_key *k = &r->model.set->keys[d->key];
    char value[MAX_VALUE];

    if (got->key_len != k->len || memcmp(got->key, k->bytes, k->len) != 0 ||
        got->value_len != d->value_len)
        return 0;
    value_fill(d->key, d->version, value, d->value_len);
    return memcmp(got->value, value, d->value_len) == 0 &&
           (got->reason == d->reason ||
            (d->reason == ANY_REASON &&
             (got->reason == MR_EVICTED || got->reason == MR_EXPIRED)));
}

/* Which departure this is. Those of one step come in any order, but before
 * those of the next. */
static uint32_t find_departure(run *r, const handle *h, const mr_evicted *got) {
    uint32_t turn = UINT32_MAX;

    for (uint32_t i = 0; i < h->waiting && turn == UINT32_MAX; i++)
        if (!h->pending[i].maybe)
            turn = h->pending[i].step;
    for (uint32_t i = 0; i < h->waiting && h->pending[i].step <= turn; i++)
        if (is_that(r, &h->pending[i], got))
            return i;
    INSIST(0,
           "a key of %u bytes, value of %u, for reason %d: has not left, "
           "out of turn, or twice",
           got->key_len, got->value_len, got->reason);
    return 0;
}

/* Without a value two entries of a key look alike. When one of them may have
 * been lost, nobody can say which one has come. */
static void blur(run *r, handle *h, uint32_t found, const mr_evicted *got) {
    for (uint32_t i = found + 1; i < h->waiting; i++)
        if (is_that(r, &h->pending[i], got)) {
            h->pending[i].maybe = 1;
            return;
        }
}

static void settle(run *r, handle *h, const mr_evicted *got) {
    uint32_t found = find_departure(r, h, got), kept = 0;
    uint32_t step = h->pending[found].step;

    if (h->pending[found].maybe)
        blur(r, h, found, got);

    for (uint32_t i = 0; i < h->waiting; i++) {
        const departure *d = &h->pending[i];

        /* What was lost for want of memory will not come later. */
        if (i != found && !(d->maybe && d->step < step))
            h->pending[kept++] = *d;
    }
    h->waiting = kept;
}

void watch_take(run *r, int by, uint32_t most) {
    handle *h = &r->handles[by];
    mr_evicted got;

    for (; most > 0; most--) {
        if (mr_cache_next_evicted(h->cache, &got) == 0) {
            for (uint32_t i = 0; i < h->waiting; i++)
                INSIST(h->pending[i].maybe,
                       "key %d left in step %u and was not handed back",
                       h->pending[i].key, h->pending[i].step);
            h->waiting = 0;
            return;
        }
        settle(r, h, &got);
    }
}

/* -------------------------------------------------------------- compare --- */

static void compare_bytes(run *r, int key, const mr_slot *s) {
    static unsigned char record[MR_MAX_KEY + MAX_VALUE];
    const fuzz_key *k = &r->model.set->keys[key];
    const item *e = &r->model.items[key];
    char value[MAX_VALUE];

    INSIST(s->value_len == e->value_len, "key %d: %u bytes, not %u", key,
           (unsigned)s->value_len, e->value_len);
    mr_slot_copy(r->handles[0].cache, s, 0, k->len + e->value_len, record);
    value_fill(key, e->version, value, e->value_len);
    INSIST(memcmp(record, k->bytes, k->len) == 0, "key %d: its bytes", key);
    INSIST(memcmp(record + k->len, value, e->value_len) == 0,
           "key %d: the bytes of its value", key);
}

static void compare_entry(run *r, int key) {
    const mr_slot *s = &r->handles[0].cache->slots[watch_link(r, key) - 1];
    const item *e = &r->model.items[key];

    INSIST(watch_is_same(r, key), "key %d is not there, or another", key);
    compare_bytes(r, key, s);
    INSIST(s->epoch == e->epoch, "key %d: epoch %u, not %u", key, s->epoch,
           e->epoch);
    INSIST(mr_slot_tag(s) == e->tag, "key %d: tag %u, not %u", key,
           mr_slot_tag(s), e->tag);
    INSIST(s->stamp == e->stamp, "key %d: stamp %g, not %g", key, s->stamp,
           e->stamp);
    INSIST(mr_slot_tick(r->handles[0].cache, s) == e->tick,
           "key %d: tick %llu, not %llu", key,
           (unsigned long long)mr_slot_tick(r->handles[0].cache, s),
           (unsigned long long)e->tick);
    INSIST(mr_slot_fresh_until(s) == e->fresh, "key %d: fresh %g, not %g", key,
           mr_slot_fresh_until(s), e->fresh);
    INSIST(mr_slot_expires_at(s) == e->expires, "key %d: expires %g, not %g",
           key, mr_slot_expires_at(s), e->expires);
}

/* The region's own check counts all tags by its slots. */
static void compare_tags(run *r) {
    mr_cache *c = r->handles[0].cache;

    for (int i = 0; i < KEYS; i++) {
        uint32_t tag = r->model.items[i].tag;

        INSIST(mr_cache_tagged(c, tag) == model_tagged(&r->model, tag),
               "tag %u: %u entries, not %u", tag, mr_cache_tagged(c, tag),
               model_tagged(&r->model, tag));
    }
    INSIST(mr_cache_tagged(c, MR_TAGS) == 0, "a tag that cannot be");
}

static void compare_belief(run *r) {
    mr_cache *c = r->handles[0].cache;
    double lease = mr_cache_lease(c);

    INSIST(mr_cache_epoch(c) == r->model.epoch, "epoch %u, not %u",
           mr_cache_epoch(c), r->model.epoch);
    INSIST(lease == r->model.lease ||
               (lease == MR_NEVER && r->model.lease == MR_TIME_LIMIT),
           "lease %g, not %g", lease, r->model.lease);
}

void watch_compare(run *r) {
    mr_cache *c = r->handles[0].cache;
    uint32_t entries = atomic_load(&c->region->entries);
    char err[256];
    int rc = mr_cache_check(c, err, sizeof err);

    INSIST(rc == MR_OK, "mr_cache_check: %d %s", rc, err);
    INSIST(entries == model_count(&r->model), "%u entries, not %u", entries,
           model_count(&r->model));
    for (int i = 0; i < KEYS; i++)
        if (r->model.items[i].present)
            compare_entry(r, i);
    compare_tags(r);
    compare_belief(r);
}

static void adopt_counts(run *r, const mr_stats *s) {
    model *m = &r->model;

    m->hits = s->hits;
    m->misses = s->misses;
    m->puts = s->puts;
    m->refused = s->refused;
    m->left = s->expired + s->evicted + s->evicted_for_space + s->removed;
    r->counts_lost = 0;
}

void watch_counts(run *r) {
    const model *m = &r->model;
    mr_stats s;

    mr_cache_stats(r->handles[0].cache, &s);
    if (r->counts_lost)
        adopt_counts(r, &s);
    INSIST(s.entries == model_count(m), "%g entries", s.entries);
    INSIST(s.hits == m->hits, "%g hits, not %g", s.hits, m->hits);
    INSIST(s.misses == m->misses, "%g misses, not %g", s.misses, m->misses);
    INSIST(s.puts == m->puts, "%g puts, not %g", s.puts, m->puts);
    INSIST(s.refused == m->refused, "%g refused, not %g", s.refused,
           m->refused);
    INSIST(s.expired + s.evicted + s.evicted_for_space + s.removed == m->left,
           "%g expired, %g and %g evicted, %g removed: not %g", s.expired,
           s.evicted, s.evicted_for_space, s.removed, m->left);
}
