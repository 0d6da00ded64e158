/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * steps.h - the steps of fuzz_cache: each reads its arguments from the input,
 * calls the cache, and compares what it says with what the model says.
 *
 * A step may be told to run short of memory, or to die at a fault point. Who
 * dies leaves the lock held; the run then goes on as the next owner of the lock
 * would, with a new handle. */
#ifndef MR_FUZZ_STEPS_H
#define MR_FUZZ_STEPS_H

#include "watch.h"

/* An input: the header, then steps of that many bytes each, so that one may
 * come or go without another meaning of those behind it. The first byte of a
 * step says which; from FIRST_SPECIAL on it fails. */
enum { HEADER_BYTES = 8, STEP_BYTES = 16, FIRST_SPECIAL = 240 };

/* What a call came to when its process died in it. */
enum { DIED = 1000000 }; /* no count of entries either */

/* Runs fn(arg), which calls the cache through handle `by`, and repairs the
 * region when it dies. Returns what fn returned, or DIED. */
int step_call(run *r, int by, int (*fn)(void *), void *arg);
/* The next step_call dies at that fault point, after so many passes. */
void step_doom(int point, int skip);
int step_is_doomed(void);

/* Arguments. */
double step_time(run *r, tape *t); /* anything near now, or odd */
double step_ref(run *r, tape *t);  /* of an entry that is or was, or odd */
int step_key(run *r, tape *t);
int token_is_valid(const run *r, const taken *token);

void step_put(run *r, tape *t, int by);
void step_find(run *r, tape *t, int by);
void step_hit(run *r, tape *t, int by);
void step_claim(run *r, tape *t, int by);
void step_renew(run *r, tape *t, int by);
void step_remove(run *r, tape *t, int by);
void step_remove_ref(run *r, tape *t, int by);
void step_invalidate(run *r, tape *t, int by);
void step_doubt(run *r, tape *t, int by);
void step_sweep(run *r, tape *t, int by);
void step_remove_unused(run *r, tape *t, int by);
void step_clear(run *r, tape *t, int by);
void step_carry(run *r, tape *t, int by);

#endif
