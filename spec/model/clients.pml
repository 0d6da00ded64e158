/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * clients.pml - what comes and goes in both models: fetches of this replica
 * (routing/fetch.lua), writes of all the others, time.
 *
 * Each process may do its next step at any time: commands, replies and workers
 * are late as they like. */

/* Redis had what a hit serves less than a lease ago, and who writes here is
 * never answered with what was before. */
#define PROMISE (entry_stale < TOO_OLD && (!entry_undone || unacknowledged))

/* At Redis: what has been read there is of the past from now on. */
inline execute_write(at) {
    supersede((entry || unchanged) && entry_from == at, entry_stale);
    supersede(reply && reply_from == at, reply_stale);
    supersede(own && own_from == at, own_stale);
    push_change(at)
}

/* Replica B, and C, and so on. A write of this replica whose outcome is unknown
 * and that is executed later is no different. */
proctype others(bit at) {
    do
    :: d_step {
           printf("others: Redis %d executes a write\n", at);
           execute_write(at);
           skip
       }
    od
}

#ifdef BUG_KEEP_FROM_ANYWHERE
#define may_keep(from) true
#else
#define may_keep(from) (from == server)
#endif

/* A miss, or the background fetch of a doubted entry. `at` is the server that
 * the data connection leads to, which may_keep() knows. */
inline execute_get(at) {
    printf("fetch: Redis %d executes GET\n", at);
    reply = fetch_valid;
    reply_from = (fetch_valid -> at : 0)
}

proctype fetcher() {
    do
    :: d_step {
           printf("fetch: takes a token, sends GET\n");
           fetch_valid = true
       };
       if
       :: d_step { execute_get(0) }
#if SERVERS > 1
       :: d_step { execute_get(1) }
#endif
       fi;
       d_step {
           if
           :: reply && may_keep(reply_from) ->
                  printf("fetch: the reply arrives and is put\n");
                  put(reply_stale, reply_from, reply_undone)
           :: else ->
                  printf("fetch: the reply arrives and is not kept\n")
           fi;
           fetch_valid = false;
           forget_reply()
       }
    od
}

#if SERVERS > 1
/* The data connections of other workers, which lead wherever they do. */
proctype elsewhere() {
    bit found;
    do
    :: d_step {
           printf("elsewhere: a connection leads to Redis %d\n", 1 - server);
           found = 1 - server;
           note_server(found);
           found = 0
       }
    od
}
#endif

/* A hit takes no time: that is the event-loop turn of the promise. */
proctype ticks() {
    do
    :: d_step {
           !hitting ->
           printf("time: a tick\n");
           if
           :: lease > 0 -> lease--
           :: else
           fi;
           grow_older(entry_stale);
           grow_older(reply_stale);
           grow_older(own_stale);
           grow_beacons_older(0);
#if LISTENERS > 1
           grow_beacons_older(1);
#endif
           skip
       }
    od
}
