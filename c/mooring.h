/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * mooring.h - the public interface of the mooring core but for what speaks with
 * Redis (mooring_redis.h). The two are the one source of the FFI declarations.
 *
 * The build strips the preprocessor lines and the MR_API markers from these
 * files and hands the rest to ffi.cdef as it stands, so everything between the
 * include guards must be plain C99 declarations that LuaJIT can parse.
 *
 * Conventions
 *   - Fallible functions return an mr_rc (0 or a negative code); results go
 *     through out-parameters. Nothing here logs, exits, aborts on input or
 *     reports through errno.
 *   - Times are doubles holding milliseconds of the host's monotonic clock
 *     (mr_now(), in nginx the equal but cheaper ngx_current_msec). Callers
 *     pass `now`, so that time can be simulated. MR_NEVER means "no limit".
 *   - Strings are bytes with a length, never NUL-terminated unless said so.
 *   - A handle (mr_cache *, mr_reader *, mr_conn *) belongs to one thread of
 *     one process at a time; the region behind a cache handle is shared by
 *     every process that inherited or opened it.
 */
#ifndef MOORING_H
#define MOORING_H

#include <stddef.h>
#include <stdint.h>

#define MOORING_VERSION "0.1.0"
/* Raised whenever a declaration below or in mooring_redis.h, or the layout of
 * the region, changes. */
#define MOORING_ABI 5

#define MR_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* Result codes. */
typedef enum mr_rc {
    MR_OK = 0,
    MR_NOT_FOUND = -1, /* no such key */
    MR_EXISTS = -2,    /* MR_PUT_ABSENT and the key is there */
    MR_FULL = -3,      /* MR_PUT_REFUSE and no room without evicting */
    MR_BUSY = -4,      /* no lock within 10 ms, or held for a repair */
    MR_CHANGED = -5,   /* the token or the reference is no longer valid */
    MR_TOO_LARGE = -6, /* key or value over the region's limits */
    MR_INVALID = -7,   /* an argument out of its range */
    MR_NOMEM = -8,     /* no memory; nothing was changed */
    MR_CORRUPT = -9,   /* a self-check failed */
    MR_AGAIN = -10,    /* no complete reply yet */
    MR_TIMEOUT = -11,  /* the deadline passed */
    MR_IO = -12,       /* connecting, sending or receiving failed */
    MR_PROTOCOL = -13  /* the peer does not speak RESP, or exceeds a limit */
} mr_rc;

/* The largest values the layout of the region can express. */
enum {
    MR_MAX_ENTRIES = 16777216, /* 2^24: a slot number takes 24 bits of a ref */
    MR_MAX_KEY = 65535,        /* bytes */
    MR_MAX_VALUE = 16777215,   /* bytes */
    MR_TAGS = 1024             /* tags of entries, and labels, are below */
};

/* Version of the loaded library ("0.1.0"), NUL-terminated, static. */
MR_API const char *mr_version(void);
/* MOORING_ABI the library was built with: a newer Lua side may meet an older
 * library that an earlier generation of the process has loaded. */
MR_API int mr_abi(void);
/* A short English text for an mr_rc, NUL-terminated, static. */
MR_API const char *mr_strerror(int rc);
/* Monotonic clock of this host in milliseconds. */
MR_API double mr_now(void);
/* Wall clock of this host in unix seconds, fractions to the microsecond. */
MR_API double mr_time(void);
/* 32 hexadecimal digits from the kernel's random source, made once per process
 * and inherited by its children, NUL-terminated, static; NULL when the kernel
 * gives none. What one generation of nginx workers shares with the next. */
MR_API const char *mr_secret(void);

/* ---------------------------------------------------------------- cache -- */

/* A bounded LRU of (key -> value) in a region of memory shared by processes. */
typedef struct mr_cache mr_cache;

/* Why an entry left. MR_GONE_QUIETLY is never handed back. */
enum mr_reason {
    MR_GONE_QUIETLY = 0, /* dropped for coherence: no reason to tell anybody */
    MR_EVICTED = 1,      /* "capacity": least recently used, room was needed */
    MR_EXPIRED = 2,      /* "expired" */
    MR_DELETED = 3,      /* "deleted": removed through this region */
    MR_VANISHED = 4,     /* "gone": found deleted elsewhere */
    MR_CLOSED = 5        /* "closed": cleared on close */
};

typedef struct mr_cache_options {
    const char *name;        /* NULL: a private region of this handle */
    const char *fingerprint; /* what the entries are copies of; "" for truth */
    uint32_t name_len;
    uint32_t fingerprint_len;
    uint32_t max_entries; /* 1..MR_MAX_ENTRIES */
    uint32_t max_value;   /* largest value kept, bytes; 1..MR_MAX_VALUE */
    double max_bytes;     /* for keys and values together, 0: 256 an entry */
    double slide;         /* ms: > 0: an entry expires this long after its
                             last use; 0: at its expires_at only */
    int carry_over;       /* non-zero: when a named region is replaced by one
                             of another size, its entries are copied over */
} mr_cache_options;

/* Opens the named region of this process, or makes it.
 *
 * A named region is registered in the process (and inherited by its children)
 * and is found again by a later open of that name, also after a reload that
 * made a new Lua VM. A region whose size, ABI or fingerprint differs from what
 * is asked for is replaced by a fresh one; processes that still hold the old
 * one keep it until they close it.
 *
 * opts   as above
 * out    the handle; freed by mr_cache_close
 * err    NUL-terminated text on failure
 * Returns MR_OK, MR_INVALID, MR_NOMEM, MR_BUSY (the entries of the replaced
 * region could not be read within a second) or MR_CORRUPT (a foreign header).
 */
MR_API int mr_cache_open(const mr_cache_options *opts, mr_cache **out,
                         char *err, uint32_t err_len);

/* Frees the handle. A private region is unmapped in this process, a named one
 * stays. NULL is ignored. Safe in a finalizer: shared state is not touched. */
MR_API void mr_cache_close(mr_cache *c);

/* Non-zero: entries that leave with a reason are kept for
 * mr_cache_next_evicted; zero (the default): they are dropped. */
MR_API void mr_cache_collect(mr_cache *c, int on);

/* A validity token (the "leases" of Nishtala et al., Scaling Memcache at
 * Facebook, NSDI 2013): taken before a remote command is queued, presented with
 * its result. Any write, delete or invalidation of a key of the same stripe in
 * between, or a bump of the epoch, makes it invalid. */
typedef struct mr_token {
    uint32_t epoch;
    uint32_t stripe;
} mr_token;

MR_API void mr_cache_token(mr_cache *c, const char *key, uint32_t key_len,
                           mr_token *out);
/* Non-zero while nothing has happened to the token's epoch and stripe. */
MR_API int mr_cache_token_valid(mr_cache *c, const char *key, uint32_t key_len,
                                const mr_token *token);
/* Invalidates all tokens of the key's stripe. Lock-free. */
MR_API void mr_cache_bump(mr_cache *c, const char *key, uint32_t key_len);

/* The epoch is a property of what the entries were filled from: entries of an
 * earlier epoch are not hits. Lock-free. */
MR_API uint32_t mr_cache_epoch(mr_cache *c);
MR_API uint32_t mr_cache_bump_epoch(mr_cache *c);
/* Hits require now < until. MR_NEVER (1e300) in a new region. Lock-free. */
MR_API void mr_cache_set_lease(mr_cache *c, double until);
MR_API double mr_cache_lease(mr_cache *c);

/* Flags of mr_cache_put. */
enum {
    MR_PUT_ABSENT = 1,  /* only when there is no live entry (MR_EXISTS) */
    MR_PUT_PRESENT = 2, /* only when there is one (MR_NOT_FOUND) */
    MR_PUT_REFUSE = 4,  /* MR_FULL rather than evict a live entry */
    MR_PUT_TOKEN = 8,   /* only while .token is valid (MR_CHANGED) */
    MR_PUT_BUMP = 16    /* the put is itself a change: other tokens of the
                           stripe die, also when the put is refused */
};

typedef struct mr_put {
    const char *key;
    const char *value;
    uint32_t key_len; /* 1..MR_MAX_KEY */
    uint32_t value_len;
    uint32_t flags;
    mr_token token;
    uint32_t tag; /* 0..MR_TAGS - 1, what mr_cache_tagged counts; 0: none */
    double now;
    double stamp;       /* the caller's: when fetched, or when last updated */
    double fresh_until; /* from then on mr_hit fails and mr_cache_find must
                           look; MR_NEVER: never */
    double expires_at;  /* from then on the entry is dead; MR_NEVER: never */
} mr_put;

/* Puts an entry, evicting the least recently used ones for room.
 *
 * The new record is written beside the old one and swapped in, so a process
 * that dies at any point leaves either. The entry carries the token's epoch
 * with MR_PUT_TOKEN and the current one without.
 * ref  out: reference of the new entry for mr_hit; may be NULL
 * Returns MR_OK, MR_EXISTS, MR_NOT_FOUND, MR_FULL, MR_BUSY, MR_CHANGED,
 * MR_TOO_LARGE, MR_INVALID or MR_NOMEM; the cache is unchanged by all but
 * MR_OK, except that expired entries may have left. */
MR_API int mr_cache_put(mr_cache *c, const mr_put *p, double *ref);

typedef struct mr_entry {
    const char *value; /* a copy, valid until the next call with the handle */
    uint32_t value_len;
    uint32_t believed; /* non-zero: lease and epoch vouch for it */
    uint32_t dead;     /* non-zero: doubted or flushed since it was filled, so
                          not even good enough while the remote is away */
    double ref;        /* for mr_hit: generation * 2^24 + slot, < 2^53 */
    double stamp;
    double fresh_until;
    double expires_at; /* with `slide` of the region already applied */
} mr_entry;

/* Flags of mr_cache_find. */
enum {
    MR_FIND_PEEK = 1 /* not a use: neither LRU order nor sliding expiry move */
};

/* Finds an entry, under the lock; mr_hit is the lock-free way.
 * An entry past its expiry leaves (MR_EXPIRED) and is not found. In a region
 * with `slide`, finding moves fresh_until to now + slide.
 * Returns MR_OK, MR_NOT_FOUND, MR_BUSY, MR_INVALID or MR_NOMEM. */
MR_API int mr_cache_find(mr_cache *c, const char *key, uint32_t key_len,
                         double now, uint32_t flags, mr_entry *out);

/* The hot path: is the entry behind `ref` still the one that was found?
 * No lock, no allocation, no hashing; stores the LRU tick.
 * Returns its slot (0..MR_MAX_ENTRIES) or -1: look again with mr_cache_find. */
MR_API int mr_hit(mr_cache *c, double ref, double now);

/* One caller wins the right to act on a stale mark: fresh_until moves from a
 * time <= now to `until`. Lock-free. Returns MR_OK or MR_CHANGED (somebody
 * else did, or the entry is another one by now). */
MR_API int mr_cache_claim(mr_cache *c, double ref, double now, double until);

/* Sets the mark and expiry of the entry behind `ref`.
 * Returns MR_OK, MR_CHANGED or MR_BUSY. */
MR_API int mr_cache_renew(mr_cache *c, double ref, double fresh_until,
                          double expires_at);

/* Bumps the key's stripe, then removes its entry for `reason` (mr_reason).
 * Returns MR_OK, MR_NOT_FOUND, MR_INVALID, or MR_BUSY or (while collecting)
 * MR_NOMEM: the entry is still there. */
MR_API int mr_cache_remove(mr_cache *c, const char *key, uint32_t key_len,
                           int reason);
/* As mr_cache_remove, but only the very entry behind `ref` (MR_CHANGED). */
MR_API int mr_cache_remove_ref(mr_cache *c, double ref, int reason);
/* Removal that cannot fail, for copies of a remote truth: where the lock is not
 * to be had the epoch is bumped instead, which disbelieves every entry. */
MR_API void mr_cache_invalidate(mr_cache *c, const char *key, uint32_t key_len,
                                int reason);

/* Keeps the entry of a key, but not as a hit: something has happened to its
 * original elsewhere. Bumps the stripe; where the lock is not to be had, the
 * epoch. Returns 1 when there was such an entry, else 0. */
MR_API int mr_cache_doubt(mr_cache *c, const char *key, uint32_t key_len);
/* Every original is gone: bumps the epoch, and entries of earlier epochs are
 * dead. Lock-free. */
MR_API void mr_cache_flush(mr_cache *c);

/* Which server the originals are on: an integer > 0, exact in a double, that
 * callers make of what a server says of itself; 0: nobody has said. To set
 * another one than before bumps the epoch and ends the lease: copies of one
 * server say nothing of another. Returns 1 when it was another one (not 0), or
 * 0. Lock-free. */
MR_API double mr_cache_server(mr_cache *c);
MR_API int mr_cache_set_server(mr_cache *c, double server);

/* 16 hexadecimal digits and a NUL, other ones for each region. */
MR_API void mr_cache_instance(mr_cache *c, char out[17]);

/* Which of the processes on a region listens for invalidations. Each contender
 * has a number of its own, `self` (an integer > 0, exact in a double). All of
 * these are lock-free and return 1 (so it is now) or 0.
 *
 * claim    there is no owner, or its last beat is `patience` ms old: self is
 * beat     self is the owner, and alive at `now`
 * leave    the owner says that it is about to go
 * succeed  the owner is leaving, and self is the first to offer itself
 * is_successor  no other owner has come between
 * ready    the successor listens
 * ready_successor  asked by the owner: the number of the one that listens, or 0
 * grant    the owner makes that one the owner, if it still is the successor
 * is_owner
 * resign   the owner, or the successor, is no more */
MR_API int mr_listener_claim(mr_cache *c, double self, double now,
                             double patience);
MR_API int mr_listener_beat(mr_cache *c, double self, double now);
MR_API int mr_listener_leave(mr_cache *c, double self);
MR_API int mr_listener_succeed(mr_cache *c, double self);
MR_API int mr_listener_is_successor(mr_cache *c, double self);
MR_API int mr_listener_ready(mr_cache *c, double self);
MR_API double mr_listener_ready_successor(mr_cache *c, double self);
MR_API int mr_listener_grant(mr_cache *c, double self, double successor,
                             double now);
MR_API int mr_listener_is_owner(mr_cache *c, double self);
MR_API void mr_listener_resign(mr_cache *c, double self);

/* Removes entries that have expired by `now` (MR_EXPIRED) and brings the LRU
 * keys of others up to date, looking at no more than max_steps slots: one that
 * was used since counts for two, one that is removed for four.
 * Returns how many were removed, or MR_BUSY / MR_NOMEM. */
MR_API int mr_cache_sweep(mr_cache *c, double now, uint32_t max_steps);

/* Removes entries whose last use, max(stamp, last find or hit), is before
 * `before` (MR_EXPIRED). Looks at max_steps slots from *cursor on and moves it;
 * *cursor is 0 again when the region has been walked through.
 * Returns how many were removed, or MR_BUSY / MR_NOMEM. */
MR_API int mr_cache_remove_unused(mr_cache *c, double before, uint32_t *cursor,
                                  uint32_t max_steps);

/* Removes up to max_steps entries for `reason`. Returns how many, or MR_BUSY /
 * MR_NOMEM; 0: the region is empty. */
MR_API int mr_cache_clear(mr_cache *c, int reason, uint32_t max_steps);

typedef struct mr_evicted {
    const char *key; /* valid until the next call that can evict */
    const char *value;
    uint32_t key_len;
    uint32_t value_len;
    int reason; /* mr_reason */
} mr_evicted;

/* Takes the next entry that left through this handle since collecting was
 * switched on. Returns 1 and fills out, or 0: none left. */
MR_API int mr_cache_next_evicted(mr_cache *c, mr_evicted *out);

/* Counters are totals over all processes since the region was made. */
typedef struct mr_stats {
    double entries;
    double max_entries;
    double bytes_used; /* of max_bytes, in whole cells */
    double max_bytes;
    double region_bytes; /* the whole mapping */
    double epoch;
    double lease; /* ms, see mr_cache_set_lease */
    double hits;  /* mr_hit and mr_cache_find */
    double misses;
    double puts;
    double removed; /* deleted, gone or dropped */
    double expired;
    double evicted;           /* for want of a slot */
    double evicted_for_space; /* for want of cells */
    double refused;           /* MR_FULL */
    double lock_timeouts;
    double repairs; /* a process died while it held the lock */
} mr_stats;

MR_API void mr_cache_stats(mr_cache *c, mr_stats *out);

/* How many entries there are that were put with that tag, expired ones that
 * have not left included; 0 for a tag there cannot be. Lock-free, and exact
 * whenever nobody is putting or removing. */
MR_API uint32_t mr_cache_tagged(mr_cache *c, uint32_t tag);

/* Walks the whole region under the lock and recomputes counts, chains, heap
 * order and positions, tags, free lists and lengths.
 * Returns MR_OK, MR_BUSY, MR_NOMEM, or MR_CORRUPT with a NUL-terminated text
 * in err. */
MR_API int mr_cache_check(mr_cache *c, char *err, uint32_t err_len);

/* ----------------------------------------------------------- load table -- */

/* Requests under way to each backend, over all processes of an instance. */
typedef struct mr_load mr_load;

/* Opens the load table of that name in this process, or makes it: before the
 * workers fork, or they will not share it. A table stays for as long as the
 * process lives, also over a reload, and its handle is the same each time: it
 * is never given back.
 *
 * name  1..255 bytes
 * Returns MR_OK, MR_INVALID or MR_NOMEM. */
MR_API int mr_load_open(const char *name, uint32_t name_len, mr_load **out);

/* The label of a URL, 1..MR_TAGS - 1, the same in all processes; one it did
 * not have is given to it for good. 0: all labels are taken. Lock-free. */
MR_API uint32_t mr_load_label(mr_load *l, const char *url, uint32_t url_len);
/* The label of a URL that has one, else 0. */
MR_API uint32_t mr_load_find(mr_load *l, const char *url, uint32_t url_len);

/* One request more under way (label 0: of no backend). The hot path: no lock,
 * but for the first call in a process. Returns the version. */
MR_API uint32_t mr_load_begin(mr_load *l, uint32_t label);
/* One less, of those this process began; none: nothing happens. */
MR_API void mr_load_finish(mr_load *l, uint32_t label);
/* The sum over all living processes: those that died are out of it at once,
 * with all that they had begun. */
MR_API uint32_t mr_load_inflight(mr_load *l, uint32_t label);

/* A number that says when to look again at what all processes share (which
 * backends there are): whoever changes that raises it. At first 1; wraps. */
MR_API uint32_t mr_load_version(mr_load *l);
MR_API uint32_t mr_load_bump_version(mr_load *l);

/* -------------------------------------------------------------- headers -- */

/* Which header of a request has that name?
 * headers  array of ngx_http_lua_ffi_table_elt_t, as
 *          ngx_http_lua_ffi_req_get_headers fills it
 * name     lower-case
 * Returns its index, MR_NOT_FOUND, or MR_EXISTS: there are several, or one with
 * a _ for a -, which is the same to nginx' variables. */
MR_API int mr_header_find(const void *headers, uint32_t count, const char *name,
                          uint32_t name_len);

/* -------------------------------------------------------------- records -- */

typedef struct mr_text {
    const char *bytes;
    uint32_t len;
} mr_text;

enum { MR_SESSION_MEMBERS = 8 }; /* of metadata, at most */

/* Bytes at the beginning of `id` that an id may hold, 0x21 to 0x7E: `len` when
 * all of it is fine. */
MR_API uint32_t mr_session_id_span(const char *id, uint32_t len);

/* What a session record says. */
typedef struct mr_session {
    double created_at; /* unix seconds */
    double updated_at;
    mr_text id;
    mr_text type;
    uint32_t members; /* of metadata, of which a later one of a key counts */
    mr_text key[MR_SESSION_MEMBERS];
    mr_text value[MR_SESSION_MEMBERS];
    char scratch[512]; /* private */
} mr_session;

/* Reads a session record in the usual form: no data, ASCII, and no escapes but
 * that of a slash (see session.c).
 *
 * id   that the record must have; NULL: any
 * out  its texts are valid as long as `text` and `out` are
 * Returns MR_OK, or MR_INVALID: another form, or no record at all. */
MR_API int mr_session_read(const char *text, uint32_t len, const char *id,
                           uint32_t id_len, mr_session *out);

#ifdef __cplusplus
}
#endif

#define MR_NEVER 1e300

#endif
