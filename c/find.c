/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * find.c - finding an entry, and moving the marks of one that was found. */
#include "alloc.h"
#include "cache.h"

#include <math.h>

int mr_buffer_grow(mr_buffer *b, size_t need) {
    unsigned char *grown;

    if (need <= b->capacity)
        return MR_OK;
    grown = mr_realloc(b->bytes, need);
    if (grown == NULL)
        return MR_NOMEM;
    b->bytes = grown;
    b->capacity = need;
    return MR_OK;
}

/* With a sliding expiry mr_hit has to fail no later than that, so that the
 * owner looks; each look moves the mark on. */
static void use(mr_cache *c, uint32_t slot, double now) {
    double slide = mr_double_of(atomic_load(&c->region->slide));

    mr_slot_use(c, slot, now);
    MR_FAULT(USED);
    if (slide > 0)
        mr_slot_set_fresh(&c->slots[slot], now + slide);
}

static void describe(const mr_cache *c, uint32_t slot, double now,
                     mr_entry *out) {
    const mr_slot *s = &c->slots[slot];

    out->value = (const char *)c->value.bytes;
    out->value_len = s->value_len;
    out->believed = mr_cache_believes(c, s, now) ? 1 : 0;
    out->dead = mr_cache_is_dead(c, s) ? 1 : 0;
    out->ref = mr_slot_ref(c, slot);
    out->stamp = s->stamp;
    out->fresh_until = mr_time_shown(mr_slot_fresh_until(s));
    out->expires_at = mr_time_shown(mr_slot_expiry(c, s));
}

static int find_locked(mr_cache *c, const unsigned char *key, uint32_t key_len,
                       double now, uint32_t flags, mr_entry *out) {
    uint32_t link =
        mr_index_find(c, key, key_len, mr_cache_hash(c, key, key_len));
    mr_slot *s;

    if (link == 0)
        return MR_NOT_FOUND;
    s = &c->slots[link - 1];
    if (mr_slot_expiry(c, s) <= now) {
        if (mr_gone_reserve_slot(c, link - 1) != MR_OK)
            return MR_NOMEM;
        mr_drop(c, link - 1, MR_EXPIRED, MR_COUNT_EXPIRED);
        return MR_NOT_FOUND;
    }
    /* One byte more: never a NULL, and no read past the end for who prints. */
    if (mr_buffer_grow(&c->value, (size_t)s->value_len + 1) != MR_OK)
        return MR_NOMEM;
    mr_slot_copy(c, s, key_len, s->value_len, c->value.bytes);
    c->value.bytes[s->value_len] = '\0';
    if (!(flags & MR_FIND_PEEK))
        use(c, link - 1, now);
    describe(c, link - 1, now, out);
    return MR_OK;
}

int mr_cache_find(mr_cache *c, const char *key, uint32_t key_len, double now,
                  uint32_t flags, mr_entry *out) {
    int rc;

    if (key == NULL || key_len < 1 || !mr_time_valid(now) ||
        (flags & ~(uint32_t)MR_FIND_PEEK) != 0)
        return MR_INVALID;
    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    rc = find_locked(c, (const unsigned char *)key, key_len, now, flags, out);
    mr_cache_unlock(c);
    if (flags & MR_FIND_PEEK)
        return rc;
    if (rc == MR_OK)
        mr_cache_count(c, MR_COUNT_HITS);
    if (rc == MR_NOT_FOUND)
        mr_cache_count(c, MR_COUNT_MISSES);
    return rc;
}

int mr_cache_claim(mr_cache *c, double ref, double now, double until) {
    uint32_t slot;
    uint64_t was, mark, back;
    mr_slot *s;

    if (isnan(until))
        return MR_INVALID;
    if (!mr_ref_live(c, ref, &slot))
        return MR_CHANGED;
    s = &c->slots[slot];
    was = atomic_load_explicit(&s->fresh_until, memory_order_acquire);
    if (!(mr_double_of(was) <= now))
        return MR_CHANGED;
    until = mr_time_kept(until);
    if (until > mr_slot_expires_at(s))
        until = mr_slot_expires_at(s);
    back = mark = mr_bits_of(until);
    if (!atomic_compare_exchange_strong(&s->fresh_until, &was, mark))
        return MR_CHANGED;
    if (mr_ref_live(c, ref, &slot))
        return MR_OK;
    /* Another entry has moved into the slot with the very same mark. */
    atomic_compare_exchange_strong(&s->fresh_until, &back, was);
    return MR_CHANGED;
}

int mr_cache_renew(mr_cache *c, double ref, double fresh_until,
                   double expires_at) {
    uint32_t slot;
    int rc = MR_CHANGED;

    if (isnan(fresh_until) || isnan(expires_at))
        return MR_INVALID;
    if (mr_cache_lock(c) != MR_OK)
        return MR_BUSY;
    if (mr_ref_live(c, ref, &slot)) {
        mr_slot *s = &c->slots[slot];

        atomic_store_explicit(&s->expires_at,
                              mr_bits_of(mr_time_kept(expires_at)),
                              memory_order_relaxed);
        MR_FAULT(RENEWED);
        mr_slot_set_fresh(s, mr_time_kept(fresh_until));
        MR_FAULT(MARK_MOVED);
        mr_heap_update(&c->expiry, slot, mr_bits_of(mr_slot_expiry(c, s)));
        rc = MR_OK;
    }
    mr_cache_unlock(c);
    return rc;
}
