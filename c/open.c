/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * open.c - opening a region by name, making it, or replacing it.
 *
 * All under the lock of the registry: two threads that open one name get one
 * region. */
#include "alloc.h"
#include "cache.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int fail(int rc, char *err, uint32_t err_len, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int fail(int rc, char *err, uint32_t err_len, const char *format, ...) {
    va_list args;

    va_start(args, format);
    if (err != NULL && err_len > 0)
        vsnprintf(err, err_len, format, args);
    va_end(args);
    return rc;
}

static int same_fingerprint(const mr_region *r, const mr_cache_options *o) {
    const mr_geometry *g = &r->geometry;
    const unsigned char *print = mr_region_at(r, g->names + g->name_len);

    return g->fingerprint_len == o->fingerprint_len &&
           (g->fingerprint_len == 0 ||
            memcmp(print, o->fingerprint, g->fingerprint_len) == 0);
}

static int made_by_another_version(const mr_region *r) {
    return r->magic == MR_MAGIC && r->abi != MOORING_ABI;
}

/* Is the region there what is asked for? */
static int same_region(const mr_region *r, const mr_cache_options *o,
                       const mr_geometry *g) {
    return !made_by_another_version(r) && same_fingerprint(r, o) &&
           memcmp(&r->geometry, g, sizeof *g) == 0;
}

static int may_carry(const mr_region *r, const mr_cache_options *o) {
    return o->carry_over && !made_by_another_version(r) &&
           same_fingerprint(r, o);
}

static int carry_from(mr_map *old, mr_cache *to) {
    mr_cache *from = mr_cache_attach(old);
    int rc;

    if (from == NULL)
        return MR_NOMEM;
    rc = mr_cache_carry(from, to);
    mr_cache_detach(from);
    return rc;
}

/* Makes a region and a handle on it; `old`, if any, loses its name to it. */
static int make(const mr_cache_options *o, const mr_geometry *g, mr_map *old,
                mr_cache **out) {
    mr_map *map;
    mr_cache *c;
    int rc = MR_OK;

    if (mr_registry_add(o, g, &map) != MR_OK)
        return MR_NOMEM;
    c = mr_cache_attach(map);
    if (c == NULL)
        rc = MR_NOMEM;
    else if (old != NULL && may_carry(old->region, o))
        rc = carry_from(old, c);
    if (rc != MR_OK) {
        if (c != NULL)
            mr_cache_detach(c);
        mr_registry_retire(map);
        return rc;
    }
    if (old != NULL)
        mr_registry_retire(old);
    *out = c;
    return MR_OK;
}

/* The ttl of a store may change in a reload; that is no reason to lose it. */
static int attach(const mr_cache_options *o, mr_map *map, mr_cache **out) {
    atomic_store(&map->region->slide, mr_bits_of(o->slide));
    *out = mr_cache_attach(map);
    return *out != NULL ? MR_OK : MR_NOMEM;
}

static int open_locked(const mr_cache_options *o, const mr_geometry *g,
                       mr_cache **out, const char **fault) {
    mr_map *map = NULL;

    if (o->name != NULL)
        map = mr_registry_find(o->name, o->name_len);
    if (map == NULL)
        return make(o, g, NULL, out);
    *fault = mr_region_fault(map->region, map->size);
    if (*fault != NULL && !made_by_another_version(map->region))
        return MR_CORRUPT;
    if (same_region(map->region, o, g))
        return attach(o, map, out);
    return make(o, g, map, out);
}

int mr_cache_open(const mr_cache_options *opts, mr_cache **out, char *err,
                  uint32_t err_len) {
    mr_geometry g;
    const char *why = NULL;
    int rc = mr_geometry_make(opts, &g, &why);

    *out = NULL;
    if (rc != MR_OK)
        return fail(rc, err, err_len, "%s", why);
    mr_registry_lock();
    rc = open_locked(opts, &g, out, &why);
    mr_registry_unlock();
    switch (rc) {
    case MR_OK:
        return MR_OK;
    case MR_CORRUPT:
        return fail(rc, err, err_len,
                    "the header of cache region \"%.*s\" is damaged (%s): "
                    "restart the process instead of reloading it",
                    (int)opts->name_len, opts->name, why);
    case MR_BUSY:
        return fail(rc, err, err_len,
                    "could not lock cache region \"%.*s\" to carry its "
                    "entries over: try again",
                    (int)opts->name_len, opts->name);
    default:
        return fail(rc, err, err_len,
                    "could not map a cache region of %llu bytes: out of memory",
                    (unsigned long long)g.size);
    }
}
