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

/* At Redis: all that exists is of the past from now on. */
inline execute_write() {
    supersede(entry || unchanged, entry_stale);
    supersede(reply, reply_stale);
    supersede(own, own_stale);
    push_change()
}

/* Replica B, and C, and so on. A write of this replica whose outcome is unknown
 * and that is executed later is no different. */
proctype others() {
    do
    :: d_step {
           printf("others: Redis executes a write\n");
           execute_write();
           skip
       }
    od
}

/* A miss, or the background fetch of a doubted entry. */
proctype fetcher() {
    do
    :: d_step {
           printf("fetch: takes a token, sends GET\n");
           fetch_valid = true
       };
       d_step {
           printf("fetch: Redis executes GET\n");
           reply = fetch_valid
       };
       d_step {
           if
           :: reply ->
                  printf("fetch: the reply arrives and is put\n");
                  put(reply_stale, reply_undone)
           :: else ->
                  printf("fetch: the reply arrives, its token is invalid\n")
           fi;
           fetch_valid = false;
           forget_reply()
       }
    od
}

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
