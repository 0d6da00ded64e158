/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * coherence.pml - the promise of the local tier, for one listener that loses
 * its connection and comes back, ever again.
 *
 *     fetcher --GET----> +-------+ <--SET, DEL-- writer   of this replica
 *        |               | Redis | <--SET, DEL-- others   all other replicas
 *        | fill          +-------+ <--PEXPIRE--.            |
 *        v                   | pushes          |            | keep, remove
 *     +-------------+        v                 |            v
 *     | local tier  | <-- listener ------------'        local tier
 *     +-------------+
 *        ^ hit: the assertion
 *
 * After a store or delete is acknowledged on replica B, replica A serves the
 * old binding from its local tier for less than a coherence_lease; after one
 * that A has acknowledged itself, not at all. B can do nothing to A but write
 * to Redis, whatever state its own tier, tokens and listener are in. So B, and
 * any number more, are the process `others`, which writes whenever it likes,
 * and A is here in full. What is shown for A is shown for B.
 *
 * Redis is no process: it executes a command in the step of the sender that
 * says so, one at a time, and pushes to each connection in that order. (In fact
 * it merges the messages of one turn of its event loop, those of beacons first.
 * That is the run in which the beacons were executed first, and nobody is told
 * of a write before the turn is over.) Each d_step is one step; between two any
 * time may pass and anybody may come.
 *
 * The only bounds are LEASE (ticks), UNREAD (messages in a socket), BEACONS
 * (under way) and SERVERS. With two of these a connection may lead to either,
 * and what is read from one has to be right by its own writes. Left out:
 * FLUSHALL and huge messages, which bump the epoch; TTL, renewal and expiry,
 * which are changes like others; serve_stale; local_ttl, where nothing is
 * pushed; joined fetches; the lock, under which a put and a removal are one
 * step each.
 *
 *     spec/model/run              all of it
 *     spec/model/run trail NAME   how BUG_NAME breaks the promise */
#define LISTENERS 1
#include "tier.pml"
#include "listener.pml"
#include "clients.pml"

proctype listener() {
    do
    /* reader */
    :: d_step { conn[0] == SUBSCRIBED -> confirmed(0) }
    :: d_step { reads(0, CHANGE) -> change_arrived(0) };
       invalidate()
    :: d_step { reads(0, 0) -> beacon_arrived(0, 0) }
#if BEACONS > 1
    :: d_step { reads(0, 1) -> beacon_arrived(0, 1) }
#endif
    /* keeper */
    :: d_step { may_send(0, 0) -> send_beacon(0, 0) }
#if BEACONS > 1
    :: d_step { age[0] > 0 && may_send(0, 1) -> send_beacon(0, 1) }
#endif
#ifdef BUG_LEASE_FROM_PING
    /* The PONG comes behind all that was pushed; but it also comes when the
     * connection is cut off from where writes are executed. */
    :: d_step {
           conn[0] == LIVE && len(pushed[0]) == 0 && lease < LEASE ->
           printf("listener: PING, PONG\n");
           lease = LEASE
       }
#endif
    /* the life of the connection */
    :: d_step { conn[0] == NOTHING -> connect(0, false, 0) }
#if SERVERS > 1
    :: d_step { conn[0] == NOTHING -> connect(0, false, 1) }
    :: d_step { conn[0] == CONNECTED ->
                note_server(leads_to[0]); conn[0] = ASKED }
#endif
    :: d_step { conn[0] != NOTHING -> lost(0) }
    od
}

inline execute_own(at) {
    printf("write: Redis %d executes it\n", at);
    execute_write(at);
    entry_undone = (entry || unchanged) && entry_from == at;
    reply_undone = reply && reply_from == at;
    own = own_valid;
    own_from = (own_valid -> at : 0);
    unacknowledged = true
}

/* A store, or a delete, which keeps nothing (routing_storage.lua). That it also
 * invalidates before it asks Redis is for writers that die where nothing is
 * pushed. */
proctype writer() {
    do
    :: printf("write: begins\n");
#if !defined(SPARE_BUMP_BEFORE_WRITE) && !defined(BUG_NO_BUMP)
       invalidate();
#endif
       d_step {
           printf("write: takes a token, sends it\n");
           own_valid = true
       };
       if
       :: d_step { execute_own(0) }
#if SERVERS > 1
       :: d_step { execute_own(1) }
#endif
       fi;
       if
       :: d_step { /* PUT_TOKEN + PUT_BUMP */
              own && may_keep(own_from) ->
              printf("write: keeps what it has written\n");
              put(own_stale, own_from, false);
#ifndef BUG_NO_BUMP
              bump_stripe();
#endif
              skip
          }
       :: printf("write: keeps nothing\n");
#if !defined(BUG_NO_BUMP_AFTER_WRITE) && !defined(BUG_NO_BUMP)
          invalidate()
#endif
       fi;
       d_step {
           printf("write: is acknowledged\n");
           own_valid = false;
           forget_own();
           unacknowledged = false
       }
    od
}

/* mr_hit: the lease is read first, the epoch second, the generation last. */
#ifdef BUG_EPOCH_READ_BEFORE_LEASE
#define look_first (entry)
#define look_second (lease > 0 && unchanged)
#elif defined(BUG_LEASE_CHECK_OFF)
#define look_first (entry)
#define look_second (entry && unchanged)
#else
#define look_first (lease > 0 && entry)
#define look_second (entry && unchanged)
#endif

proctype hit() {
    do
    :: d_step {
           look_first ->
           printf("hit: looks\n");
           hitting = true;
           unchanged = true
       };
       d_step {
           if
           :: look_second ->
                  printf("hit: serves the entry\n");
                  assert(PROMISE)
           :: else ->
                  printf("hit: is a miss\n")
           fi;
           hitting = false;
           unchanged = false;
           if
           :: !entry -> forget_entry()
           :: else
           fi;
           skip
       }
    od
}

init {
    atomic {
        run network(0);
        run listener();
        run fetcher();
        run writer();
        run others(0);
#if SERVERS > 1
        run others(1);
        run elsewhere();
#endif
        run hit();
        run ticks()
    }
}
