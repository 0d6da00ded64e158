/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * tier.pml - the region of one replica as one session sees it: entry, epoch,
 * stripe, tokens, lease (c/cache.c, c/put.c, c/remove.c, c/coherence.c).
 *
 * Two things keep the state space finite without bounding the run. There is no
 * limit to the writes, fetches, losses of connection, take-overs and ticks.
 *
 * No counters. Epoch, stripe and generation are only ever compared with an
 * earlier reading of themselves, so a reading is a bit: "not bumped since". The
 * bits of a token, and that of entry.epoch, are one each. (That the real
 * counters wrap after 2^32 bumps is not in the model.)
 *
 * No values and no clock, but ages. What a copy is worth is its *staleness*: 0
 * while it is what Redis has (a session, or that there is none: a negative
 * answer is a fill too), else 1 + the ticks since Redis executed the write that
 * replaced it, and at most TOO_OLD. In the same way `lease` is what is left of
 * coherent_until, and a beacon has the age of its queueing. */

#ifndef LEASE
#define LEASE 2 /* ticks of a coherence_lease */
#endif
#define TOO_OLD (LEASE + 1)

byte lease; /* hits are believed while this is not 0 */

/* The server that the last connection was found to lead to. With SERVERS == 2
 * connections of the replica may lead to either of two: each is written to, and
 * pushes, without the other. */
#ifndef SERVERS
#define SERVERS 1
#endif
bit server;

/* Is there an entry with entry.epoch == region.epoch? One of an earlier epoch,
 * or a doubted one, is no hit, and not followed. */
bool entry;

/* A hit is being looked up, and the generation of its slot is what it was. */
bool hitting, unchanged;

/* Have neither epoch nor stripe been bumped since the token was taken? */
bool fetch_valid, own_valid;

/* Copies that may still be put: the reply to the fetch, and what the writer of
 * this replica has written. */
bool reply, own;

/* Only the property looks at the rest: how stale copies are, by what the server
 * has that they were read from; whether this replica itself has written since
 * they were current; and whether it has still to tell its caller so. */
byte entry_stale, reply_stale, own_stale;
bit entry_from, reply_from, own_from; /* the server that it was read from */
bool entry_undone, reply_undone;
bool unacknowledged;


/* ---------------------------------------------------- copies come and go -- */

inline forget_entry() {
    if
    :: !unchanged -> entry_stale = 0; entry_from = 0; entry_undone = false
    :: else /* the hit has it in hand */
    fi;
    entry = false
}

inline forget_reply() {
    reply = false;
    reply_stale = 0;
    reply_from = 0;
    reply_undone = false
}

inline forget_own() {
    own = false;
    own_from = 0;
    own_stale = 0
}

inline put(stale, from, undone) {
    unchanged = false;
    entry_stale = stale;
    entry_from = from;
    entry_undone = undone;
    entry = true
}


/* --------------------------------------------------------------- changes -- */

inline invalidate_tokens() {
    fetch_valid = false;
    own_valid = false;
    forget_reply();
    forget_own()
}

inline bump_stripe() {
#ifndef BUG_NO_TOKEN
    invalidate_tokens();
#endif
    skip
}

inline bump_epoch() {
#if !defined(BUG_NO_TOKEN) && !defined(BUG_TOKEN_WITHOUT_EPOCH)
    invalidate_tokens();
#endif
    forget_entry()
}

inline remove_entry() {
    unchanged = false;
    forget_entry()
}

/* Two steps, because the stripe is bumped without the lock: a put may come
 * between, but finds its token invalid. */
inline invalidate() {
#ifdef BUG_REMOVE_BEFORE_BUMP
    d_step { remove_entry() };
    d_step { bump_stripe() }
#else
    d_step { bump_stripe() };
    d_step { remove_entry() }
#endif
}


/* mr_cache_set_server(); as a single step, what is between is nanoseconds. */
inline note_server(found) {
    if
    :: server != found -> server = found; bump_epoch(); lease = 0
    :: else
    fi
}


/* ------------------------------------------------------------------ ages -- */

inline supersede(exists, stale) {
    if
    :: exists && stale == 0 -> stale = 1
    :: else
    fi
}

inline grow_older(age) {
    if
    :: 0 < age && age < TOO_OLD -> age++
    :: else
    fi
}
