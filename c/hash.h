/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * hash.h - SipHash-1-3, a keyed hash.
 *
 * Clients choose session ids. With a hash they can compute they would choose
 * ids of one chain of the index; with a seed they do not know they cannot. One
 * round a word and three at the end, as in the tables of Rust and Python: who
 * asks sees no hash, and SipHash-2-4 takes half as much again. */
#ifndef MR_HASH_H
#define MR_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { MR_HASH_SEED = 16 /* bytes */ };

/* Aumasson and Bernstein, "SipHash: a fast short-input PRF" (INDOCRYPT 2012).
 * seed  MR_HASH_SEED bytes
 * Returns the 64 bits of the paper, as a number of the host. */
uint64_t mr_hash(const unsigned char *seed, const void *bytes, size_t len);

#endif
