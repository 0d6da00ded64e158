/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * registry.c - see registry.h. */
#include "registry.h"

#include "alloc.h"
#include "fault.h"

#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static mr_map *maps;

void mr_registry_lock(void) { pthread_mutex_lock(&mutex); }

void mr_registry_unlock(void) { pthread_mutex_unlock(&mutex); }

/* The child counts for itself from the first hit on; what the parent had not
 * yet moved to its line is the parent's to move. */
static void start_anew_in_child(void) {
    for (mr_map *m = maps; m != NULL; m = m->next) {
        memset(&m->own, 0, sizeof m->own);
        atomic_store_explicit(&m->line, &m->own, memory_order_relaxed);
        atomic_store_explicit(&m->lane, NULL, memory_order_relaxed);
    }
    mr_registry_unlock();
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(mr_registry_lock, mr_registry_unlock, start_anew_in_child);
}

mr_map *mr_registry_find(const char *name, uint32_t name_len) {
    for (mr_map *m = maps; m != NULL; m = m->next) {
        if (m->current && m->name_len == name_len &&
            memcmp(m->name, name, name_len) == 0)
            return m;
    }
    return NULL;
}

int mr_registry_add(const mr_cache_options *opts, const mr_geometry *geometry,
                    mr_map **out) {
    mr_map *map = mr_alloc(sizeof *map);

    if (map == NULL)
        return MR_NOMEM;
    memset(map, 0, sizeof *map);
    if (mr_region_make(geometry, opts, &map->region) != MR_OK) {
        mr_free(map);
        return MR_NOMEM;
    }
    atomic_init(&map->line, &map->own);
    map->size = geometry->size;
    map->name_len = geometry->name_len;
    if (map->name_len > 0)
        memcpy(map->name, opts->name, map->name_len);
    map->current = map->name_len > 0;
    map->next = maps;
    maps = map;
    *out = map;
    return MR_OK;
}

static void drop(mr_map *map) {
    mr_map **link = &maps;

    while (*link != map)
        link = &(*link)->next;
    *link = map->next;
    mr_region_unmap(map->region, map->size);
    mr_free(map);
}

void mr_registry_retire(mr_map *map) {
    map->current = 0;
    if (map->handles == 0)
        drop(map);
}

void mr_registry_release(mr_map *map) {
    if (--map->handles == 0 && !map->current)
        drop(map);
}

void mr_map_claim_line(mr_map *map) {
    mr_registry_lock();
    if (mr_map_line(map) == &map->own) {
        mr_line *line = mr_region_line(map->region);

        MR_FAULT(LINE_TAKEN);
        for (int i = 0; i < MR_COUNTERS; i++)
            mr_line_add(line, i, atomic_load(&map->own.count[i]));
        MR_FAULT(LINE_FILLED);
        atomic_store_explicit(&map->lane, mr_region_lane(map->region, line),
                              memory_order_relaxed);
        atomic_store_explicit(&map->line, line, memory_order_relaxed);
    }
    mr_registry_unlock();
}
