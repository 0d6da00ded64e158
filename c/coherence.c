/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * coherence.c - what is known of the originals that entries are copies of, and
 * which process on the region is the one to know it.
 *
 *     entry.epoch == epoch          a hit, under the lease
 *     dead_before <= entry.epoch    may have missed a message; good enough
 *                                   while the remote cannot be reached
 *     entry.epoch < dead_before     flushed, or doubted: a message said that
 *                                   the original has changed: it may be gone
 *
 * A doubted entry is kept so that its owner can be told with the whole record
 * when the next look finds it gone.
 *
 * The election keeps five numbers in the header. A contender writes its beat
 * before it takes ownership, so a third one never sees a new owner with an old
 * beat; when it loses the race, the dead owner has only gained one patience. */
#include "cache.h"

#include <stdio.h>

int mr_cache_is_dead(const mr_cache *c, const mr_slot *s) {
    uint32_t epoch = atomic_load_explicit(&s->epoch, memory_order_relaxed);
    uint32_t from =
        atomic_load_explicit(&c->region->dead_before, memory_order_relaxed);

    return (int32_t)(epoch - from) < 0;
}

int mr_cache_doubt(mr_cache *c, const char *key, uint32_t key_len) {
    const unsigned char *bytes = (const unsigned char *)key;
    uint32_t link;

    if (key == NULL || key_len < 1)
        return 0;
    mr_cache_bump(c, key, key_len);
    if (mr_cache_lock(c) != MR_OK) {
        mr_cache_bump_epoch(c);
        return 0;
    }
    link = mr_index_find(c, bytes, key_len, mr_cache_hash(c, bytes, key_len));
    if (link != 0)
        atomic_store(&c->slots[link - 1].epoch,
                     atomic_load(&c->region->dead_before) - 1);
    mr_cache_unlock(c);
    return link != 0;
}

void mr_cache_flush(mr_cache *c) {
    _Atomic uint32_t *from = &c->region->dead_before;
    uint32_t epoch = mr_cache_bump_epoch(c);
    uint32_t was = atomic_load(from);

    MR_FAULT(EPOCH_BUMPED);
    while ((int32_t)(epoch - was) > 0 &&
           !atomic_compare_exchange_weak(from, &was, epoch))
        ;
}

void mr_cache_instance(mr_cache *c, char out[17]) {
    static const char text[] = "instance";
    uint64_t h = mr_hash(c->region->seed, text, sizeof text - 1);

    snprintf(out, 17, "%016llx", (unsigned long long)h);
}

double mr_cache_server(mr_cache *c) {
    return mr_double_of(atomic_load(&c->region->server));
}

/* Bumped on both sides of the change: a fill that saw the old server is over
 * by the second one, a hit that saw it is by the first. */
int mr_cache_set_server(mr_cache *c, double server) {
    double was = mr_cache_server(c);

    if (was == server)
        return 0;
    if (was != 0) {
        mr_cache_bump_epoch(c);
        mr_cache_set_lease(c, 0);
        MR_FAULT(LEASE_ENDED);
    }
    atomic_store(&c->region->server, mr_bits_of(server));
    MR_FAULT(SERVER_SET);
    if (was != 0)
        mr_cache_bump_epoch(c);
    return was != 0;
}

static int swap(_Atomic uint64_t *at, double from, double to) {
    uint64_t was = mr_bits_of(from);

    return atomic_compare_exchange_strong(at, &was, mr_bits_of(to));
}

static double number(const _Atomic uint64_t *at) {
    return mr_double_of(atomic_load(at));
}

int mr_listener_is_owner(mr_cache *c, double self) {
    return number(&c->region->listener_owner) == self;
}

int mr_listener_claim(mr_cache *c, double self, double now, double patience) {
    mr_region *r = c->region;
    double owner = number(&r->listener_owner);

    if (owner == self)
        return 1;
    if (owner != 0 && now - number(&r->listener_beat) < patience)
        return 0;
    atomic_store(&r->listener_beat, mr_bits_of(now));
    MR_FAULT(BEAT_SET);
    if (!swap(&r->listener_owner, owner, self))
        return 0;
    MR_FAULT(CLAIMED);
    atomic_store(&r->listener_leaving, 0);
    atomic_store(&r->listener_successor, 0);
    atomic_store(&r->listener_ready, 0);
    return 1;
}

int mr_listener_beat(mr_cache *c, double self, double now) {
    if (!mr_listener_is_owner(c, self))
        return 0;
    atomic_store(&c->region->listener_beat, mr_bits_of(now));
    return 1;
}

int mr_listener_leave(mr_cache *c, double self) {
    if (!mr_listener_is_owner(c, self))
        return 0;
    atomic_store(&c->region->listener_leaving, mr_bits_of(self));
    return 1;
}

int mr_listener_succeed(mr_cache *c, double self) {
    mr_region *r = c->region;
    double leaving = number(&r->listener_leaving);

    return leaving != 0 && leaving == number(&r->listener_owner) &&
           leaving != self && swap(&r->listener_successor, 0, self);
}

int mr_listener_is_successor(mr_cache *c, double self) {
    return number(&c->region->listener_successor) == self;
}

int mr_listener_ready(mr_cache *c, double self) {
    if (!mr_listener_is_successor(c, self))
        return 0;
    atomic_store(&c->region->listener_ready, mr_bits_of(self));
    return 1;
}

double mr_listener_ready_successor(mr_cache *c, double self) {
    double ready = number(&c->region->listener_ready);

    if (!mr_listener_is_owner(c, self) ||
        ready != number(&c->region->listener_successor))
        return 0;
    return ready;
}

int mr_listener_grant(mr_cache *c, double self, double successor, double now) {
    mr_region *r = c->region;

    /* Not to one that has come since: it may have begun to listen after what
     * the owner has read up to. */
    if (successor == 0 || mr_listener_ready_successor(c, self) != successor)
        return 0;
    atomic_store(&r->listener_beat, mr_bits_of(now));
    MR_FAULT(GRANT_BEAT);
    if (!swap(&r->listener_owner, self, successor))
        return 0;
    MR_FAULT(GRANTED);
    atomic_store(&r->listener_leaving, 0);
    atomic_store(&r->listener_ready, 0);
    swap(&r->listener_successor, successor, 0);
    return 1;
}

void mr_listener_resign(mr_cache *c, double self) {
    mr_region *r = c->region;

    if (swap(&r->listener_successor, self, 0))
        swap(&r->listener_ready, self, 0);
    MR_FAULT(SUCCESSOR_GONE);
    swap(&r->listener_owner, self, 0);
}
