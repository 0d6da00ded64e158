/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * registry.h - the regions this process has mapped.
 *
 * The list is a static of the library, so that it outlives the Lua VM that
 * asked for a region: after a reload the next VM finds the region by its name.
 * Children inherit list and mappings through fork. The library is linked with
 * -z nodelete, or a dlclose in between would lose the list.
 *
 * A map that is named and current stays for good. A private one, and one that
 * was replaced by another of its name, is unmapped in this process with the
 * last handle of this process; other processes count their own.
 *
 * Guarded by one mutex of the process, never held while waiting for the lock
 * of a region, except by an open that carries entries over. */
#ifndef MR_REGISTRY_H
#define MR_REGISTRY_H

#include "region.h"

typedef struct mr_map {
    mr_region *region;
    uint64_t size; /* of the mapping, whatever the header says */
    char name[MR_MAX_NAME];
    uint32_t name_len; /* 0: private */
    /* What this process counts into: `own` until it has claimed a line of the
     * region, so that a child never counts into its parent's. */
    _Atomic(mr_line *) line;
    mr_line own;
    /* Where it notes uses, see mr_slot_use; NULL: in the slots. */
    _Atomic(_Atomic uint64_t *) lane;
    uint32_t handles;
    int current; /* named, and what an open of that name finds */
    struct mr_map *next;
} mr_map;

void mr_registry_lock(void);
void mr_registry_unlock(void);

/* The following want the registry locked. */

/* The current map of that name, or NULL. */
mr_map *mr_registry_find(const char *name, uint32_t name_len);
/* Makes a region and lists it, current when opts have a name. The previous map
 * of the name stays current as well until mr_registry_retire.
 * Returns MR_OK or MR_NOMEM. */
int mr_registry_add(const mr_cache_options *opts, const mr_geometry *geometry,
                    mr_map **out);
/* Takes a map from under its name; unmaps it when nothing uses it. */
void mr_registry_retire(mr_map *map);
/* Gives a handle back. */
void mr_registry_release(mr_map *map);

/* Locks the registry itself. Moves the counting from map->own to a line of the
 * region. */
void mr_map_claim_line(mr_map *map);

static inline mr_line *mr_map_line(mr_map *map) {
    return atomic_load_explicit(&map->line, memory_order_relaxed);
}

#endif
