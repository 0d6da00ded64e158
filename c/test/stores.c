/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * stores.c - see stores.h. Not itself compiled with -fsanitize=thread. The
 * names and types are those of the interface between compiler and sanitizer
 * (compiler-rt, tsan_interface.h and tsan_interface_atomic.h); gcc and clang
 * call different ones of them, and the linker says which are missing. */
#include "stores.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>

static uintptr_t begin, end;
static long die_at, count;

void stores_watch(const void *from, size_t bytes) {
    begin = (uintptr_t)from;
    end = begin + bytes;
}

void stores_die_at(long n) {
    die_at = n;
    count = 0;
}

long stores_count(void) { return count; }

static void store(const volatile void *at) {
    if ((uintptr_t)at < begin || (uintptr_t)at >= end)
        return;
    if (++count == die_at)
        raise(SIGKILL);
}

void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc) { (void)pc; }
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}
void __tsan_read_range(void *at, size_t n);
void __tsan_read_range(void *at, size_t n) {
    (void)at;
    (void)n;
}
void __tsan_write_range(void *at, size_t n);
void __tsan_write_range(void *at, size_t n) {
    if (n > 0)
        store(at);
}

#define PLAIN(name)                                                            \
    void __tsan_read##name(void *at);                                          \
    void __tsan_read##name(void *at) { (void)at; }                             \
    void __tsan_unaligned_read##name(void *at);                                \
    void __tsan_unaligned_read##name(void *at) { (void)at; }                   \
    void __tsan_write##name(void *at);                                         \
    void __tsan_write##name(void *at) { store(at); }                           \
    void __tsan_unaligned_write##name(void *at);                               \
    void __tsan_unaligned_write##name(void *at) { store(at); }                 \
    void __tsan_read_write##name(void *at);                                    \
    void __tsan_read_write##name(void *at) { store(at); }                      \
    void __tsan_unaligned_read_write##name(void *at);                          \
    void __tsan_unaligned_read_write##name(void *at) { store(at); }

PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

/* All orders are taken for the strictest: it is the sequence that is tested. */
#define EXCHANGING(type, bits, name)                                           \
    type __tsan_atomic##bits##_##name(volatile type *at, type v, int order);   \
    type __tsan_atomic##bits##_##name(volatile type *at, type v, int order) {  \
        (void)order;                                                           \
        store(at);                                                             \
        return __atomic_##name##_n(at, v, __ATOMIC_SEQ_CST);                   \
    }

/* clang-format off: fetch_add and __atomic_fetch_add have no _n. */
#define FETCHING(type, bits, name)                                             \
    type __tsan_atomic##bits##_##name(volatile type *at, type v, int order);   \
    type __tsan_atomic##bits##_##name(volatile type *at, type v, int order) {  \
        (void)order;                                                           \
        store(at);                                                             \
        return __atomic_##name(at, v, __ATOMIC_SEQ_CST);                       \
    }

#define COMPARING(type, bits, name)                                            \
    int __tsan_atomic##bits##_##name(volatile type *at, type *was, type v,     \
                                     int order, int otherwise);                \
    int __tsan_atomic##bits##_##name(volatile type *at, type *was, type v,     \
                                     int order, int otherwise) {               \
        (void)order;                                                           \
        (void)otherwise;                                                       \
        store(at);                                                             \
        return __atomic_compare_exchange_n(at, was, v, 0, __ATOMIC_SEQ_CST,    \
                                           __ATOMIC_SEQ_CST);                  \
    }

#define ATOMICS(type, bits)                                                    \
    type __tsan_atomic##bits##_load(const volatile type *at, int order);       \
    type __tsan_atomic##bits##_load(const volatile type *at, int order) {      \
        (void)order;                                                           \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                          \
    }                                                                          \
    void __tsan_atomic##bits##_store(volatile type *at, type v, int order);    \
    void __tsan_atomic##bits##_store(volatile type *at, type v, int order) {   \
        (void)order;                                                           \
        store(at);                                                             \
        __atomic_store_n(at, v, __ATOMIC_SEQ_CST);                             \
    }                                                                          \
    EXCHANGING(type, bits, exchange)                                           \
    FETCHING(type, bits, fetch_add)                                            \
    FETCHING(type, bits, fetch_sub)                                            \
    FETCHING(type, bits, fetch_and)                                            \
    FETCHING(type, bits, fetch_or)                                             \
    FETCHING(type, bits, fetch_xor)                                            \
    COMPARING(type, bits, compare_exchange_strong)                             \
    COMPARING(type, bits, compare_exchange_weak)                               \
    type __tsan_atomic##bits##_compare_exchange_val(                           \
        volatile type *at, type was, type v, int order, int otherwise);        \
    type __tsan_atomic##bits##_compare_exchange_val(                           \
        volatile type *at, type was, type v, int order, int otherwise) {       \
        __tsan_atomic##bits##_compare_exchange_strong(at, &was, v, order,      \
                                                      otherwise);              \
        return was;                                                            \
    }
/* clang-format on */

ATOMICS(uint8_t, 8)
ATOMICS(uint32_t, 32)
ATOMICS(uint64_t, 64)

void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order) {
    (void)order;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order) { (void)order; }

void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n) {
    store(to);
    return memcpy(to, from, n);
}
void *__tsan_memmove(void *to, const void *from, size_t n);
void *__tsan_memmove(void *to, const void *from, size_t n) {
    store(to);
    return memmove(to, from, n);
}
void *__tsan_memset(void *to, int byte, size_t n);
void *__tsan_memset(void *to, int byte, size_t n) {
    store(to);
    return memset(to, byte, n);
}
