/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * stats.c - totals over the lines of all processes, without the lock. */
#include "cache.h"

static void sum_lines(mr_cache *c, double *total) {
    const mr_line *lines = mr_region_at(c->region, c->region->geometry.lines);
    /* Not yet in a line: what this process counted before it claimed one. */
    const mr_line *own = &c->map->own;

    for (int k = 0; k < MR_COUNTERS; k++) {
        total[k] = 0;
        if (mr_map_line(c->map) == own)
            total[k] = (double)atomic_load(&own->count[k]);
        for (int i = 0; i < MR_LINES; i++)
            total[k] += (double)atomic_load_explicit(&lines[i].count[k],
                                                     memory_order_relaxed);
    }
}

uint32_t mr_cache_tagged(mr_cache *c, uint32_t tag) {
    if (tag >= MR_TAGS)
        return 0;
    return atomic_load_explicit(&c->tags[tag], memory_order_relaxed);
}

void mr_cache_stats(mr_cache *c, mr_stats *out) {
    mr_region *r = c->region;
    double total[MR_COUNTERS];

    sum_lines(c, total);
    out->entries = (double)atomic_load(&r->entries);
    out->max_entries = (double)r->geometry.max_entries;
    out->bytes_used =
        (double)atomic_load(&r->cells_used) * (double)sizeof(mr_cell);
    out->max_bytes = (double)r->geometry.usable_cells * (double)sizeof(mr_cell);
    out->region_bytes = (double)r->geometry.size;
    out->epoch = (double)atomic_load(&r->epoch);
    out->lease = mr_cache_lease(c);
    out->hits = total[MR_COUNT_HITS];
    out->misses = total[MR_COUNT_MISSES];
    out->puts = total[MR_COUNT_PUTS];
    out->removed = total[MR_COUNT_REMOVED];
    out->expired = total[MR_COUNT_EXPIRED];
    out->evicted = total[MR_COUNT_EVICTED];
    out->evicted_for_space = total[MR_COUNT_EVICTED_FOR_SPACE];
    out->refused = total[MR_COUNT_REFUSED];
    out->lock_timeouts = total[MR_COUNT_LOCK_TIMEOUTS];
    out->repairs = (double)atomic_load(&r->repairs);
}
