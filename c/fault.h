/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * fault.h - points at which a test lets the process die.
 *
 * A point lies between two stores to the region whose order matters to whoever
 * comes after a process that died there. Built with MR_TESTING, the process
 * kills itself (SIGKILL) at the point that mr_fault_at names, after
 * mr_fault_skip passes. Otherwise a point is a barrier for the compiler alone:
 * the order of the stores that was tested is the order that is built. (A
 * release store by itself lets later plain stores move up before it.)
 *
 * test_kill_matrix.c kills at each of them in each operation that passes it,
 * and fails for one that none does. */
#ifndef MR_FAULT_H
#define MR_FAULT_H

/* Changes of entries, and the repair: the lock is held. */
#define MR_FAULTS_OF_ENTRIES(X)                                                \
    X(SLOT_TAKEN, "fill: slot taken")                                          \
    X(CELL_TAKEN, "fill: cell taken and written")                              \
    X(CELLS_WRITTEN, "fill: all cells written")                                \
    X(FIELDS_WRITTEN, "fill: fields written")                                  \
    X(JOURNALED, "swap: journal written")                                      \
    X(COMMITTED, "swap: new record live")                                      \
    X(OLD_RETIRED, "swap: old record dead")                                    \
    X(OLD_UNLINKED, "swap: old record unlinked")                               \
    X(OLD_RELEASED, "swap: old record given back")                             \
    X(NEW_LINKED, "swap: new record linked")                                   \
    X(JOURNAL_CLEARED, "swap: journal cleared")                                \
    X(INDEXED, "link: in the index")                                           \
    X(IN_LRU, "link: in the LRU heap")                                         \
    X(IN_HEAPS, "link: in both heaps")                                         \
    X(HALF_COUNTED, "count: entries, not yet cells")                           \
    X(UNTAGGED, "count: not yet the tag")                                      \
    X(UNINDEXED, "unlink: out of the index")                                   \
    X(OUT_OF_LRU, "unlink: out of the LRU heap")                               \
    X(OUT_OF_HEAPS, "unlink: out of both heaps")                               \
    X(HANDED_BACK, "drop: copied for the hook")                                \
    X(RETIRED, "drop: record dead")                                            \
    X(UNLINKED, "drop: unlinked")                                              \
    X(RELEASED, "drop: given back")                                            \
    X(CELLS_CHAINED, "release: cells before the free ones")                    \
    X(CELLS_FREE, "release: cells free")                                       \
    X(SLOT_EMPTY, "release: slot without cells")                               \
    X(LINKS_FORGOTTEN, "repair: counts and lists forgotten")                   \
    X(MARKS_CLEARED, "repair: marks cleared")                                  \
    X(SWAP_FINISHED, "repair: swap finished")                                  \
    X(SLOTS_WALKED, "repair: slots walked")                                    \
    X(HEAPS_ORDERED, "repair: heaps ordered")                                  \
    X(CELLS_WALKED, "repair: cells walked")                                    \
    X(REPAIRED, "repair: counted")

/* Everything else. */
#define MR_FAULTS_ELSEWHERE(X)                                                 \
    X(STRIPE_BUMPED, "remove: stripe bumped, no lock yet")                     \
    X(LOCKED, "lock: had, nothing done")                                       \
    X(LINE_TAKEN, "counters: line taken")                                      \
    X(LINE_FILLED, "counters: moved to the line")                              \
    X(USED, "find: use noted, mark not moved")                                 \
    X(RENEWED, "renew: expiry set, mark not")                                  \
    X(MARK_MOVED, "renew: mark set, heap not")                                 \
    X(MARKED, "check: all cells marked")                                       \
    X(CARRIED, "carry: one entry copied")                                      \
    X(EPOCH_BUMPED, "flush: epoch bumped")                                     \
    X(LEASE_ENDED, "server: lease ended")                                      \
    X(SERVER_SET, "server: set")                                               \
    X(BEAT_SET, "listener claim: beat set")                                    \
    X(CLAIMED, "listener claim: owner set")                                    \
    X(GRANT_BEAT, "listener grant: beat set")                                  \
    X(GRANTED, "listener grant: owner set")                                    \
    X(SUCCESSOR_GONE, "listener resign: no successor")

enum mr_fault {
    MR_FAULT_NOWHERE,
#define MR_FAULT_NAME(name, text) MR_FAULT_##name,
    MR_FAULTS_OF_ENTRIES(MR_FAULT_NAME) MR_FAULT_OTHERS,
    MR_FAULT_LAST_OF_ENTRIES = MR_FAULT_OTHERS - 1,
    MR_FAULTS_ELSEWHERE(MR_FAULT_NAME) MR_FAULT_END
#undef MR_FAULT_NAME
};

#ifdef MR_TESTING
extern int mr_fault_at; /* MR_FAULT_NOWHERE: none */
extern long mr_fault_skip;
extern long mr_fault_passes[MR_FAULT_END];
void mr_fault_point(int point);
#define MR_FAULT(name) mr_fault_point(MR_FAULT_##name)
#else
#include <stdatomic.h>
#define MR_FAULT(name) atomic_signal_fence(memory_order_seq_cst)
#endif

#endif
