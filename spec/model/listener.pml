/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * listener.pml - listeners of one replica: connection, messages, beacons
 * (coherence.lua). Who listens, and when, is with those who include this.
 *
 *     NOTHING --connect--> ASKED --at Redis--> SUBSCRIBED --confirmed--> LIVE
 *        ^   (CONNECTED:  CLIENT TRACKING,       pushes from here on      |
 *        |    INFO)       SUBSCRIBE                                       |
 *        '-------- lost: noticed, or given up, at any later time ---------'
 *
 * A connection is *cut* without the listener being told: it broke, or its
 * server was demoted or cut off, and goes on answering but executes no write of
 * ours. No more is pushed then; what is unread may still be read; the rest is
 * lost when the listener notices. A socket that is full is cut too, as Redis
 * does with slow readers.
 *
 * A beacon is queued (its age begins to count), executed by Redis at any later
 * time, and pushed by its number; when the data connection leads to another
 * server, it is as if it was never executed. A number is used again only when
 * its message has arrived: that is what the ring of coherence.lua is for, which
 * is longer than the patience of is_silent(). Here it is BEACONS long, and
 * nothing but a beacon touches its key: no expiry, no eviction. */

#ifndef UNREAD
#define UNREAD 2 /* messages in a socket */
#endif
#ifndef BEACONS
#define BEACONS 1 /* of a listener, under way at once */
#endif
#define CHANGE BEACONS /* the message about the session; 0 ..: of a beacon */

mtype = { NOTHING, CONNECTED, ASKED, SUBSCRIBED, LIVE };

mtype conn[LISTENERS] = NOTHING;
bool pushes[LISTENERS];    /* Redis pushes to this connection */
chan pushed[LISTENERS] = [UNREAD] of { byte };
bit leads_to[LISTENERS];   /* the server it leads to */
bool inherited[LISTENERS]; /* another listener is alive and will hand over */

#define reads(l, message) (conn[l] == LIVE && pushed[l]?[message])
#define beacon(l, n) (BEACONS * (l) + (n))
byte age[LISTENERS * BEACONS];    /* since it was queued; 0: it has arrived */
bool queued[LISTENERS * BEACONS]; /* Redis has not executed it yet */


/* -------------------------------------------------------------- at Redis -- */

inline push(l, message) {
    if
    :: pushes[l] && len(pushed[l]) < UNREAD -> pushed[l]!message
    :: pushes[l] && len(pushed[l]) == UNREAD -> pushes[l] = false
    :: else
    fi
}

inline push_change_to(l, from) {
    if
    :: leads_to[l] == from -> push(l, CHANGE)
    :: else
    fi
}

#if LISTENERS == 1
#define push_change(from) push_change_to(0, from)
#else
#define push_change(from) push_change_to(0, from); push_change_to(1, from)
#endif

inline execute_beacon(l, n) {
    queued[beacon(l, n)] = false;
    push(l, n)
}

/* The ways of commands and messages of a listener. */
proctype network(byte l) {
    do
    :: d_step {
           conn[l] == ASKED ->
           printf("listener %d: Redis executes SUBSCRIBE\n", l);
           conn[l] = SUBSCRIBED;
           pushes[l] = true
       }
    :: d_step {
           queued[beacon(l, 0)] ->
           printf("listener %d: Redis executes beacon 0\n", l);
           execute_beacon(l, 0);
           skip
       }
#if BEACONS > 1
    :: d_step {
           queued[beacon(l, 1)] ->
           printf("listener %d: Redis executes beacon 1\n", l);
           execute_beacon(l, 1);
           skip
       }
#endif
    :: d_step {
           pushes[l] ->
           printf("listener %d: its connection is cut, it does not know\n", l);
           pushes[l] = false
       }
    od
}


/* -------------------------------------------------------- the connection -- */

/* connected() */
inline connect(l, by_inheritance, to) {
    printf("listener %d: connects to Redis %d\n", l, to);
    inherited[l] = by_inheritance;
    leads_to[l] = to;
#ifdef BUG_EPOCH_BEFORE_SUBSCRIBE
    bump_epoch();
#endif
#if SERVERS > 1
    conn[l] = CONNECTED /* and has asked for the run_id */
#else
    conn[l] = ASKED
#endif
}

/* confirmed(): what was filled before is not covered by this connection. */
inline confirmed(l) {
    printf("listener %d: its subscription is confirmed\n", l);
#if !defined(BUG_EPOCH_BEFORE_SUBSCRIBE) && !defined(BUG_NO_EPOCH)
    if
    :: !inherited[l] -> bump_epoch()
    :: else
    fi;
#endif
    conn[l] = LIVE
}

inline forget_beacon(l, n) {
    age[beacon(l, n)] = 0;
    queued[beacon(l, n)] = false
}

inline forget_connection(l) {
    printf("listener %d: gives its connection up\n", l);
    do
    :: len(pushed[l]) > 0 -> pushed[l]?_
    :: else -> break
    od;
    forget_beacon(l, 0);
#if BEACONS > 1
    forget_beacon(l, 1);
#endif
    pushes[l] = false;
    leads_to[l] = 0;
    conn[l] = NOTHING
}

/* lost(); retired() is forget_connection() alone */
inline lost(l) {
#ifndef SPARE_LEASE_OF_LOST
    if
    :: conn[l] == LIVE && !inherited[l] -> lease = 0
    :: else
    fi;
#endif
    forget_connection(l)
}


/* -------------------------------------------------- beacons and messages -- */

/* is_astray(): who is ends his connection before he reads another beacon */
#define is_astray(l) (leads_to[l] != server)

#ifdef BUG_BEACON_KEY_REUSED
#define is_free(l, n) (!queued[beacon(l, n)])
#else
#define is_free(l, n) (age[beacon(l, n)] == 0)
#endif

#ifdef BUG_BEACON_OF_ASTRAY
#define may_send(l, n) (conn[l] == LIVE && is_free(l, n))
#else
#define may_send(l, n) (conn[l] == LIVE && is_free(l, n) && !is_astray(l))
#endif

inline send_beacon(l, n) {
    printf("listener %d: sends beacon %d\n", l, n);
    age[beacon(l, n)] = 1;
    queued[beacon(l, n)] = true
}

#ifdef BUG_LEASE_FROM_ARRIVAL
#define proven(l, n) LEASE
#else
#define proven(l, n) (TOO_OLD - age[beacon(l, n)])
#endif

inline change_arrived(l) {
    printf("listener %d: reads that the session has changed\n", l);
    pushed[l]?CHANGE
}

/* beacon_arrived(): so has every message about what Redis executed before. */
inline beacon_arrived(l, n) {
    pushed[l]?n;
    if
    :: age[beacon(l, n)] > 0 && !inherited[l] && proven(l, n) > lease ->
           lease = proven(l, n)
    :: else
    fi;
    printf("listener %d: reads beacon %d, lease is %d\n", l, n, lease);
    age[beacon(l, n)] = 0
}

inline grow_beacons_older(l) {
    grow_older(age[beacon(l, 0)]);
#if BEACONS > 1
    grow_older(age[beacon(l, 1)]);
#endif
    skip
}
