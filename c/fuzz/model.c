/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * model.c - see model.h. */
#include "model.h"
#include "region.h"

double model_time(double t) {
    if (!(t > 0))
        return 0;
    return t < MR_TIME_LIMIT ? t : MR_TIME_LIMIT;
}

double model_expiry(const model *m, const item *e) {
    double end;

    if (!(m->slide > 0))
        return e->expires;
    end = (double)(e->tick >> 20) + m->slide;
    if (end < e->fresh)
        end = e->fresh;
    return end < e->expires ? end : e->expires;
}

int model_believes(const model *m, const item *e, double now) {
    return now >= 0 && now < m->lease && e->epoch == m->epoch;
}

int model_is_dead(const model *m, const item *e) {
    return (int32_t)(e->epoch - m->dead_before) < 0;
}

uint64_t model_next_tick(model *m, int handle, double now) {
    uint64_t t = (uint64_t)(now * MR_TICKS_PER_MS) & ~1ULL;

    if (m->ticks[handle] < t)
        m->ticks[handle] = t;
    return m->ticks[handle] += 2;
}

uint32_t model_cells(const model *m, int key, uint32_t value_len) {
    return (m->set->keys[key].len + value_len + MR_CELL_PAYLOAD - 1) /
           MR_CELL_PAYLOAD;
}

uint32_t model_count(const model *m) {
    uint32_t n = 0;

    for (int i = 0; i < KEYS; i++)
        n += m->items[i].present != 0;
    return n;
}

uint32_t model_tagged(const model *m, uint32_t tag) {
    uint32_t n = 0;

    for (int i = 0; i < KEYS; i++)
        n += m->items[i].present && m->items[i].tag == tag;
    return n;
}

static uint32_t cells_of(const model *m, int key) {
    return model_cells(m, key, m->items[key].value_len);
}

static int is_last_of_its_slot(const item *e) {
    return (uint64_t)e->ref >> MR_SLOT_BITS >= MR_LAST_GENERATION - 1;
}

int model_fits(const model *m, int key, uint32_t value_len, int back) {
    uint32_t others = model_count(m), in_use = others + m->spent, cells = 0;

    for (int i = 0; i < KEYS; i++)
        if (m->items[i].present && i != key)
            cells += cells_of(m, i);
    if (m->items[key].present)
        others--;
    if (back >= 0) {
        others++;
        cells += cells_of(m, back);
        in_use += !is_last_of_its_slot(&m->items[back]);
    }
    return others < m->max_entries && in_use < m->slots &&
           cells + model_cells(m, key, value_len) <= m->cells;
}

int model_may_be_oldest(const model *m, int key, const int *leaves,
                        int except) {
    for (int i = 0; i < KEYS; i++)
        if (m->items[i].present && !leaves[i] && i != except &&
            m->items[i].newest < m->items[key].tick)
            return 0;
    return 1;
}

int model_any_due(const model *m, double now, int except) {
    for (int i = 0; i < KEYS; i++)
        if (m->items[i].present && i != except && m->items[i].due <= now)
            return 1;
    return 0;
}

int model_behind(const model *m, double ref) {
    if (!(ref >= 0 && ref < 9007199254740992.0))
        return -1;
    for (int i = 0; i < KEYS; i++)
        if (m->items[i].present && m->items[i].ref == (double)(uint64_t)ref)
            return i;
    return -1;
}

double model_last_use(const item *e) {
    double used = (double)e->tick / MR_TICKS_PER_MS;

    return (e->tick & 1) && used > e->stamp ? used : e->stamp;
}

static void note_due(const model *m, item *e) {
    double expiry = model_expiry(m, e);

    if (e->due < expiry)
        e->due = expiry;
}

void model_use(model *m, int handle, int key, double now) {
    item *e = &m->items[key];

    e->tick = model_next_tick(m, handle, now);
    e->tick = (e->tick < e->put ? e->put : e->tick) | 1;
    if (e->newest < e->tick)
        e->newest = e->tick;
    note_due(m, e);
}

void model_set_fresh(model *m, item *e, double until) {
    e->fresh = until < e->expires ? until : e->expires;
    note_due(m, e);
}

void model_change(model *m, int key) {
    uint32_t stripe = m->set->keys[key].hash >> 12;

    for (int i = 0; i < KEYS; i++)
        if (m->set->keys[i].hash >> 12 == stripe)
            m->changes[i]++;
}

void model_leave(model *m, int key) {
    m->items[key].present = 0;
    m->spent += is_last_of_its_slot(&m->items[key]);
}

void model_repaired(model *m) {
    for (int i = 0; i < KEYS; i++) {
        m->items[i].newest = m->items[i].tick;
        m->items[i].due = model_expiry(m, &m->items[i]);
    }
}
