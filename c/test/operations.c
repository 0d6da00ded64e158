/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * operations.c - see operations.h. What an operation returns is not looked at
 * here: the one that is killed returns nothing. */
#include "operations.h"

#include <stdio.h>
#include <string.h>

/* One, two and five cells with the key. */
static const char short_value[] = "s";
static const char long_value[] = "two: 0123456789 0123456789 012";
static const char longer_value[] =
    "five: 0123456789 0123456789 0123456789 0123456789 0123456789 "
    "0123456789 0123456789 0123456789 0123456789 0123456789 01234";

void world_key(int k, char out[8]) { snprintf(out, 8, "key-%d", k % 10); }

static int put_value(world *w, int k, const char *value, uint32_t flags) {
    char key[8];
    mr_put p;

    world_key(k, key);
    p = put_of(key, value, WORLD_NOW);
    p.expires_at = 3000 + k;
    p.fresh_until = 2000 + k;
    p.tag = 7;
    p.flags = flags;
    p.token = w->token;
    return mr_cache_put(w->c, &p, NULL);
}

/* Key and value of every second one take two cells, of the others one. */
static void put_first(world *w, int k) {
    char key[8];
    mr_put p;

    world_key(k, key);
    p = put_of(key, k % 2 != 0 ? long_value : short_value, 100 + k);
    p.expires_at = 1000 + k;
    p.fresh_until = 900 + k;
    p.tag = (uint32_t)k % 3;
    assert_int_equal(mr_cache_put(w->c, &p, &w->refs[k]), MR_OK);
}

static void remove_key(world *w, int k) {
    char key[8];

    world_key(k, key);
    mr_cache_remove(w->c, key, 5, MR_DELETED);
    w->refs[k] = -1;
}

void world_make(world *w, const operation *op) {
    static int made;
    static char name[32];

    memset(w, 0, sizeof *w);
    snprintf(name, sizeof name, "world %d", made++);
    w->opts = (mr_cache_options){.name = name,
                                 .name_len = (uint32_t)strlen(name),
                                 .fingerprint = "",
                                 .max_entries = WORLD_ENTRIES,
                                 .max_value = WORLD_VALUE,
                                 .max_bytes = 32.0 * WORLD_CELLS,
                                 .slide = op->slide};
    w->c = open_with(&w->opts);
    for (int k = 0; k < WORLD_KEYS; k++)
        w->refs[k] = -1;
    for (int k = 0; k < WORLD_ENTRIES; k++)
        put_first(w, k);
    mr_cache_token(w->c, "key-2", 5, &w->token);
    if (op->prepare != NULL)
        op->prepare(w);
}

/* A named region stays for good, unless it is replaced. */
void world_end(world *w) {
    mr_map *map = w->c->map;

    mr_registry_lock();
    mr_cache_detach(w->c);
    mr_registry_retire(map);
    mr_registry_unlock();
}

/* ----------------------------------------------------------------- puts --- */

static void make_room(world *w) { remove_key(w, 5); }
static void insert(world *w) { put_value(w, 6, longer_value, 0); }
static void overwrite(world *w) { put_value(w, 3, longer_value, 0); }
static void shorten(world *w) { put_value(w, 3, short_value, 0); }

static void overwrite_under_token(world *w) {
    put_value(w, 2, longer_value, MR_PUT_TOKEN | MR_PUT_BUMP);
}

static void touch_oldest(world *w) {
    mr_entry e;

    find(w->c, "key-0", WORLD_LOOK, &e);
}
static void evict(world *w) { put_value(w, 6, long_value, 0); }

/* Some 14 cells: several have to leave. */
static void put_huge(world *w, int k) {
    char value[WORLD_VALUE];

    memset(value, 'x', sizeof value);
    value[sizeof value - 8] = '\0';
    put_value(w, k, value, 0);
}
static void fill_cells(world *w) {
    put_value(w, 4, longer_value, 0);
    put_value(w, 5, longer_value, 0);
    mr_cache_token(w->c, "key-2", 5, &w->token);
    for (int k = 4; k < 6; k++) {
        mr_entry e;
        char key[8];

        world_key(k, key);
        mr_cache_find(w->c, key, 5, WORLD_LOOK, MR_FIND_PEEK, &e);
        w->refs[k] = e.ref;
    }
}
static void evict_for_space(world *w) { put_huge(w, 6); }
static void grow_and_evict(world *w) { put_huge(w, 0); }

/* Both with a clock that is past the expiry of what is in the way. */
static void put_late(world *w, int k) {
    char key[8];
    mr_put p;

    world_key(k, key);
    p = put_of(key, longer_value, WORLD_LATE);
    mr_cache_put(w->c, &p, NULL);
}
static void replace_expired(world *w) { put_late(w, 1); }
static void expire_for_room(world *w) { put_late(w, 6); }

/* The last generation of a slot: it is not used again. */
static void wear_out(world *w) {
    uint32_t slot;

    assert_true(mr_ref_live(w->c, w->refs[3], &slot));
    atomic_store(&w->c->slots[slot].generation, MR_LAST_GENERATION - 1);
    w->refs[3] = mr_slot_ref(w->c, slot);
}

/* ------------------------------------------------------------- removals --- */

static void remove_one(world *w) {
    mr_cache_remove(w->c, "key-3", 5, MR_DELETED);
}
static void collect(world *w) { mr_cache_collect(w->c, 1); }
static void remove_ref(world *w) {
    mr_cache_remove_ref(w->c, w->refs[3], MR_VANISHED);
}
static void invalidate(world *w) {
    mr_cache_invalidate(w->c, "key-3", 5, MR_GONE_QUIETLY);
}
static void find_expired(world *w) {
    mr_entry e;

    find(w->c, "key-1", WORLD_LATE, &e);
}
static void sweep(world *w) {
    uint32_t slot;

    if (mr_ref_live(w->c, w->refs[4], &slot))
        mr_hit(w->c, w->refs[4], WORLD_NOW);
    mr_cache_sweep(w->c, WORLD_LATE, 100);
}
static void remove_unused(world *w) {
    uint32_t cursor = 0;

    mr_cache_remove_unused(w->c, 103, &cursor, 100);
}
static void clear(world *w) { mr_cache_clear(w->c, MR_CLOSED, 100); }

/* ---------------------------------------------------------------- marks --- */

static void hit(world *w) { mr_hit(w->c, w->refs[3], WORLD_NOW); }
static void use(world *w) {
    mr_entry e;

    find(w->c, "key-3", WORLD_NOW, &e);
}
static void renew(world *w) { mr_cache_renew(w->c, w->refs[3], 50000, 60000); }
static void claim(world *w) { mr_cache_claim(w->c, w->refs[3], 950, 980); }
static void doubt(world *w) { mr_cache_doubt(w->c, "key-3", 5); }
static void flush(world *w) { mr_cache_flush(w->c); }
static void first_server(world *w) { mr_cache_set_server(w->c, 7); }
static void set_server(world *w) { mr_cache_set_server(w->c, 8); }
static void lease(world *w) {
    mr_cache_bump_epoch(w->c);
    mr_cache_set_lease(w->c, 5000);
}

/* ------------------------------------------------------------- the rest --- */

static void check(world *w) { mr_cache_check(w->c, NULL, 0); }

static void carry_over(world *w) {
    mr_cache_options o = w->opts;
    mr_cache *larger = NULL;

    o.max_entries = 2 * WORLD_ENTRIES;
    o.carry_over = 1;
    mr_cache_open(&o, &larger, NULL, 0);
}

/* Contenders are numbers; 1 listens, 2 comes after it. */
static void listen_now(world *w) { mr_listener_claim(w->c, 1, 100, 50); }
static void hand_over(world *w) {
    listen_now(w);
    mr_listener_leave(w->c, 1);
    mr_listener_succeed(w->c, 2);
    mr_listener_ready(w->c, 2);
}
static void claim_listening(world *w) {
    mr_listener_claim(w->c, 2, WORLD_NOW, 50);
}
static void announce(world *w) {
    mr_listener_beat(w->c, 1, WORLD_NOW);
    mr_listener_leave(w->c, 1);
    mr_listener_succeed(w->c, 2);
    mr_listener_ready(w->c, 2);
}
static void grant(world *w) { mr_listener_grant(w->c, 1, 2, WORLD_NOW); }
static void resign(world *w) {
    mr_listener_resign(w->c, 2);
    mr_listener_resign(w->c, 1);
}

const operation operations[] = {
    {"put new", make_room, insert, 0, 0},
    {"overwrite", NULL, overwrite, 0, 0},
    {"overwrite, shorter", NULL, shorten, 0, 0},
    {"overwrite, token", NULL, overwrite_under_token, 0, 0},
    {"put, evicting", touch_oldest, evict, 0, 0},
    {"put, evicting several", fill_cells, evict_for_space, 0, 0},
    {"overwrite, evicting", fill_cells, grow_and_evict, 0, 0},
    {"put over an expired one", NULL, replace_expired, 0, WORLD_LATE},
    {"put, expiring others", NULL, expire_for_room, 0, WORLD_LATE},
    {"overwrite, last generation", wear_out, overwrite, 0, 0},
    {"remove", NULL, remove_one, 0, 0},
    {"remove, with a hook", collect, remove_one, 0, 0},
    {"remove by reference", collect, remove_ref, 0, 0},
    {"remove, last generation", wear_out, remove_one, 0, 0},
    {"invalidate", NULL, invalidate, 0, 0},
    {"find, expired", NULL, find_expired, 0, WORLD_LATE},
    {"sweep", NULL, sweep, 0, WORLD_LATE},
    {"remove unused", NULL, remove_unused, 0, 0},
    {"clear", collect, clear, 0, 0},
    {"hit", NULL, hit, 0, 0},
    {"find", NULL, use, 0, 0},
    {"find, sliding", NULL, use, 500, 0},
    {"renew", NULL, renew, 0, 0},
    {"claim", NULL, claim, 0, 0},
    {"doubt", NULL, doubt, 0, 0},
    {"flush", NULL, flush, 0, 0},
    {"another server", first_server, set_server, 0, 0},
    {"epoch and lease", NULL, lease, 0, 0},
    {"check", NULL, check, 0, 0},
    {"carry over", NULL, carry_over, 0, 0},
    {"listener, claim", listen_now, claim_listening, 0, 0},
    {"listener, leave", listen_now, announce, 0, 0},
    {"listener, grant", hand_over, grant, 0, 0},
    {"listener, resign", hand_over, resign, 0, 0},
};
const int operation_count = sizeof operations / sizeof operations[0];
