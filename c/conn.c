/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * conn.c - the blocking connection of processes without an event loop.
 *
 *     mr_conn_open   dial.c
 *     mr_conn_send   poll + send  \  non-blocking descriptor, one deadline
 *     mr_conn_recv   poll + recv  /  for the whole call; recv feeds a reader
 *
 * hiredis' own connections are not used: they raise SIGPIPE, abort without
 * memory, and their timeout starts again with every byte a slow peer lets
 * through.
 *
 * A connection remembers the process that made it. A child that inherited it
 * through fork gets MR_IO instead of mixing its bytes with the parent's.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "dial.h"
#include "mooring_redis.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ERROR_SIZE = 192,
    CHUNK = 16 * 1024,
    DRAIN_MS = 10 /* most time to take in what has already arrived */
};

struct mr_conn {
    int fd;
    pid_t owner;
    int rc; /* MR_OK, or why nothing goes any more */
    mr_reader *reader;
    char error[ERROR_SIZE];
};

/* -------------------------------------------------------------- connect -- */

__attribute__((format(printf, 4, 5))) static int
report(char *err, uint32_t err_len, int rc, const char *format, ...) {
    va_list args;

    va_start(args, format);
    vsnprintf(err, err_len, format, args);
    va_end(args);
    return rc;
}

int mr_conn_open(const char *host, int port, const char *path, double timeout,
                 mr_conn **out, char *err, uint32_t err_len) {
    mr_conn *c = calloc(1, sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return report(err, err_len, MR_NOMEM, "no memory");
    c->fd = -1;
    c->owner = getpid();
    c->reader = mr_reader_new(0);
    rc = c->reader ? mr_dial(host, port, path, timeout, &c->fd, err, err_len)
                   : report(err, err_len, MR_NOMEM, "no memory");
    if (rc != MR_OK) {
        mr_conn_close(c);
        return rc;
    }
    *out = c;
    return MR_OK;
}

void mr_conn_close(mr_conn *c) {
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    mr_reader_free(c->reader);
    free(c);
}

const char *mr_conn_error(mr_conn *c) { return c->error; }

/* ------------------------------------------------------- send, receive -- */

/* Notes what went wrong. MR_TIMEOUT alone leaves the connection usable. */
static int fail(mr_conn *c, int rc, const char *text) {
    if (rc != MR_TIMEOUT)
        c->rc = rc;
    return report(c->error, sizeof c->error, rc, "%s", text);
}

/* Returns MR_OK when this process may use the connection. */
static int usable(mr_conn *c) {
    if (c->rc == MR_OK && c->owner != getpid())
        return fail(c, MR_IO, "the connection belongs to the parent process");
    return c->rc;
}

/* Waits for no longer than `left` ms until the socket is ready for `events`.
 * Returns MR_OK (also when it is not: the caller tries and sees) or MR_IO. */
static int wait_for(mr_conn *c, short events, double left) {
    struct pollfd p = {.fd = c->fd, .events = events};
    int ms = left < INT_MAX ? (int)left + 1 : INT_MAX;

    if (poll(&p, 1, ms) < 0 && errno != EINTR)
        return fail(c, MR_IO, strerror(errno));
    return MR_OK;
}

static int would_block(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

int mr_conn_send(mr_conn *c, const char *bytes, uint32_t len, double deadline) {
    int rc = usable(c);

    while (rc == MR_OK && len > 0) {
        ssize_t sent = send(c->fd, bytes, len, MSG_NOSIGNAL);
        if (sent >= 0) {
            bytes += sent;
            len -= (uint32_t)sent;
        } else if (!would_block()) {
            rc = fail(c, MR_IO, strerror(errno));
        } else {
            double left = deadline - mr_now();
            rc = left > 0 ? wait_for(c, POLLOUT, left)
                          : fail(c, MR_TIMEOUT, "timed out");
        }
    }
    /* Half a command may be on its way: nothing can follow it. */
    return c->rc = rc;
}

/* Takes what the socket has and feeds it.
 * Returns MR_OK, MR_AGAIN (nothing there), MR_IO, MR_PROTOCOL or MR_NOMEM. */
static int take_bytes(mr_conn *c) {
    char chunk[CHUNK];
    ssize_t got = recv(c->fd, chunk, sizeof chunk, 0);

    if (got == 0)
        return fail(c, MR_IO, "the server closed the connection");
    if (got < 0)
        return would_block() ? MR_AGAIN : fail(c, MR_IO, strerror(errno));
    int rc = mr_reader_feed(c->reader, chunk, (uint32_t)got);
    return rc == MR_OK ? MR_OK : fail(c, rc, mr_reader_error(c->reader));
}

/* Gets more bytes before the deadline. Past it, until `limit`, only those that
 * are there already. */
static int receive_more(mr_conn *c, double deadline, double limit) {
    double now = mr_now();
    int rc = MR_OK;

    if (now < deadline)
        rc = wait_for(c, POLLIN, deadline - now);
    else if (now >= limit)
        rc = fail(c, MR_TIMEOUT, "timed out");
    if (rc == MR_OK)
        rc = take_bytes(c);
    if (rc == MR_AGAIN)
        rc = now < deadline ? MR_OK : fail(c, MR_TIMEOUT, "timed out");
    return rc;
}

int mr_conn_recv(mr_conn *c, double deadline, mr_reply **out) {
    /* Against a peer whose next byte is always there already. */
    double drained = mr_now() + DRAIN_MS;
    double limit = deadline > drained ? deadline : drained;
    int rc = usable(c);

    *out = NULL;
    while (rc == MR_OK) {
        rc = mr_reader_next(c->reader, out);
        if (rc == MR_OK)
            return MR_OK;
        rc = rc == MR_AGAIN ? receive_more(c, deadline, limit)
                            : fail(c, rc, mr_reader_error(c->reader));
    }
    return rc;
}
