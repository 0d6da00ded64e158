/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * fault.h - points at which a test lets the process die.
 *
 * A point is a place in a change of the region at which the next owner of the
 * lock must be able to take over. Built with MR_TESTING, the process kills
 * itself (SIGKILL) at the point numbered mr_fault_at, after mr_fault_skip
 * passes; otherwise a point is nothing. */
#ifndef MR_FAULT_H
#define MR_FAULT_H

#ifdef MR_TESTING
enum {
    MR_FAULT_POINTS = 21,   /* 1 .. 21 */
    MR_FAULT_IN_REPAIR = 18 /* from here on */
};
extern int mr_fault_at; /* 0: none */
extern long mr_fault_skip;
void mr_fault_point(int point);
#define MR_FAULT(point) mr_fault_point(point)
#else
#define MR_FAULT(point) ((void)0)
#endif

#endif
