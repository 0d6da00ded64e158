/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * takeover.pml - two workers of one replica that hand the listener to each
 * other (coherence/worker.lua, coherence/election.lua, c/coherence.c), for
 * ever: the one that has left comes back as a new worker.
 *
 *     contender --claim: nobody, or one thought dead--> owner --> leaving
 *         |                                               ^          |
 *         '--succeed: the owner is leaving--> successor --'          v
 *                                                ready,         hand-over: a
 *                                                granted         beacon first
 *
 * A successor has a connection of its own from the start. Until it is granted
 * the listener it sends no beacons, and its confirmed connection bumps no
 * epoch: what was pushed before that is still unread at the old owner. Any
 * owner may be thought dead at any time (it is late with its beat) and go on
 * reading, and bringing leases, until it notices; any worker may be killed.
 *
 * The rest is as in coherence.pml, with fewer steps: an invalidation and a hit
 * are one each here, and nobody writes on this replica. */
#define LISTENERS 2
#include "tier.pml"
#include "listener.pml"
#include "clients.pml"

/* Tokens in the region. Each attempt of a worker has a new one: the bit
 * same_successor is "not replaced since the hand-over began". */
#define NOBODY 2
#define KILLED 3
byte owner = NOBODY, leaving = NOBODY, successor = NOBODY, ready = NOBODY;
bool same_successor;

bool handing_over[LISTENERS]; /* waits for its beacon */


/* -------------------------------------------------------------- election -- */

inline replace(who, by, variable) {
    if
    :: variable == who -> variable = by
    :: else
    fi
}

inline claim(l) {
    printf("listener %d: claims to be the owner\n", l);
    owner = l;
    leaving = NOBODY;
    successor = NOBODY;
    ready = NOBODY;
    same_successor = false
}

inline resign(l) {
    if
    :: successor == l ->
           successor = NOBODY;
           same_successor = false;
           replace(l, NOBODY, ready)
    :: else
    fi;
    replace(l, NOBODY, owner)
}

inline leave(l) {
    printf("listener %d: is told to leave\n", l);
    leaving = l
}

#define may_succeed() \
    (leaving != NOBODY && leaving == owner && successor == NOBODY)

inline succeed(l, to) {
    printf("listener %d: becomes the successor\n", l);
    successor = l;
    connect(l, true, to)
}

inline be_ready(l) {
    printf("listener %d: is ready\n", l);
    ready = l
}

#define has_successor(l) \
    (owner == l && ready != NOBODY && ready == successor)

#ifdef BUG_HAND_OVER_ASTRAY
#define may_begin(l) (conn[l] == LIVE && is_free(l, 0))
#else
#define may_begin(l) may_send(l, 0)
#endif

inline begin_hand_over(l) {
    printf("listener %d: begins to hand over\n", l);
    same_successor = true;
    handing_over[l] = true;
    send_beacon(l, 0)
}

#ifdef BUG_TAKEOVER_WITHOUT_BEACON
#define has_arrived(l) true
#else
#define has_arrived(l) (age[beacon(l, 0)] == 0)
#endif

#ifdef BUG_GRANT_TO_ANOTHER
#define may_grant(l) has_successor(l)
#else
#define may_grant(l) (has_successor(l) && same_successor)
#endif

inline grant(l) {
    if
    :: may_grant(l) ->
           printf("listener %d: hands over\n", l);
           owner = successor;
           leaving = NOBODY;
           successor = NOBODY;
           ready = NOBODY
    :: else -> /* waits for another successor */
           printf("listener %d: does not hand over\n", l)
    fi;
    handing_over[l] = false
}

inline granted(l) {
    printf("listener %d: is the owner\n", l);
    inherited[l] = false
}


/* ---------------------------------------------------------- one listener -- */

/* The end of serve(): a successor, and who is leaving, gives up; an owner will
 * connect again; who has handed over, or is not the owner any more, is gone. */
inline end(l) {
    if
    :: owner == l -> lost(l)
    :: else -> forget_connection(l)
    fi;
    if
    :: inherited[l] || leaving == l -> resign(l)
    :: else
    fi;
    inherited[l] = false;
    handing_over[l] = false
}

inline die(l) {
    printf("listener %d: is killed\n", l);
    forget_connection(l);
    inherited[l] = false;
    handing_over[l] = false;
    replace(l, KILLED, owner);
    replace(l, KILLED, leaving);
    replace(l, KILLED, successor);
    replace(l, KILLED, ready)
}

/* take_over(): the owner is dead, and has not read its last messages. */
inline take_from_dead(l) {
    claim(l);
    lease = 0;
#ifndef BUG_CLAIM_WITHOUT_EPOCH
    if
    :: conn[l] == LIVE -> bump_epoch()
    :: else /* confirmed() will */
    fi;
#endif
    inherited[l] = false
}

proctype listener(byte me) {
    do
    /* look() */
    :: d_step { conn[me] == NOTHING && owner != me -> claim(me) }
    :: d_step { conn[me] == NOTHING && owner == me -> connect(me, false, 0) }
    :: d_step { conn[me] == NOTHING && owner != me && may_succeed() ->
                succeed(me, 0) }
#if SERVERS > 1
    :: d_step { conn[me] == NOTHING && owner == me -> connect(me, false, 1) }
    :: d_step { conn[me] == NOTHING && owner != me && may_succeed() ->
                succeed(me, 1) }
    :: d_step { conn[me] == CONNECTED ->
                note_server(leads_to[me]); conn[me] = ASKED }
#endif
    /* reader */
    :: d_step { conn[me] == SUBSCRIBED -> confirmed(me) }
    :: d_step { reads(me, CHANGE) -> change_arrived(me);
                bump_stripe(); remove_entry() }
    :: d_step { reads(me, 0) -> beacon_arrived(me, 0) }
    /* keeper: an owner, one who leaves, a successor */
    :: d_step { owner == me && !inherited[me] && may_send(me, 0) ->
                send_beacon(me, 0) }
    :: d_step { owner == me && !inherited[me] && conn[me] == LIVE &&
                leaving != me -> leave(me) }
    :: d_step { leaving == me && has_successor(me) && !handing_over[me] &&
                may_begin(me) -> begin_hand_over(me) }
    :: d_step { handing_over[me] && has_arrived(me) -> grant(me) }
    :: d_step { conn[me] == LIVE && successor == me && ready != me ->
                be_ready(me) }
    :: d_step { inherited[me] && owner == me -> granted(me) }
    :: d_step { inherited[me] && owner != me -> take_from_dead(me) }
    /* ends */
    :: d_step { conn[me] != NOTHING -> end(me) }
    :: d_step { conn[me] != NOTHING -> die(me) }
    od
}

proctype hit() {
    do
    :: d_step {
           lease > 0 && entry ->
           printf("hit: serves the entry\n");
           assert(PROMISE)
       }
    od
}

init {
    atomic {
        run network(0);
        run network(1);
        run listener(0);
        run listener(1);
        run fetcher();
        run others(0);
#if SERVERS > 1
        run others(1);
        run elsewhere();
#endif
        run hit();
        run ticks()
    }
}
