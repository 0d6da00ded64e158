/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * mooring_redis.h - the part of the public interface that speaks with Redis: the
 * codec of its protocol (RESP2) over hiredis, and a connection for processes
 * without an event loop. The conventions are those of mooring.h. */
#ifndef MOORING_REDIS_H
#define MOORING_REDIS_H

#include "mooring.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------- RESP codec -- */

/* Formats a command for the wire (hiredis redisFormatCommandArgv).
 * out  a buffer to be given back with mr_command_free, *out_len bytes
 * Returns MR_OK, MR_INVALID or MR_NOMEM. */
MR_API int mr_command_format(int argc, const char *const *argv,
                             const size_t *argv_len, char **out,
                             uint32_t *out_len);
MR_API void mr_command_free(char *command);

enum mr_reply_type {
    MR_REPLY_NIL = 0,
    MR_REPLY_STRING = 1,  /* bulk string */
    MR_REPLY_STATUS = 2,  /* simple string */
    MR_REPLY_ERROR = 3,   /* error reply: str holds its text */
    MR_REPLY_INTEGER = 4, /* integer */
    MR_REPLY_ARRAY = 5    /* n elements */
};

/* A decoded reply, a tree owned by its root. */
typedef struct mr_reply {
    int type; /* mr_reply_type */
    uint32_t len;
    const char *str;
    double integer; /* exact to 2^53 */
    uint32_t n;
    struct mr_reply **element;
} mr_reply;

MR_API void mr_reply_free(mr_reply *reply);

/* Incremental RESP2 decoder over hiredis' redisReader. */
typedef struct mr_reader mr_reader;

/* max_bytes  bound of the memory one reply may take, partial or complete
 *            (0: 16 MiB)
 * Returns NULL when there is no memory. */
MR_API mr_reader *mr_reader_new(uint32_t max_bytes);
MR_API void mr_reader_free(mr_reader *r);
/* Gives the reader bytes as they came, cut anywhere.
 * Returns MR_OK, MR_PROTOCOL (also once the reader has failed) or MR_NOMEM. */
MR_API int mr_reader_feed(mr_reader *r, const char *bytes, uint32_t len);
/* Takes the next complete reply; the caller frees it.
 * Returns MR_OK, MR_AGAIN, MR_PROTOCOL or MR_NOMEM. After the latter two the
 * reader is dead: the connection must be closed. */
MR_API int mr_reader_next(mr_reader *r, mr_reply **out);
/* As mr_reader_next for what most replies are (a bulk string, an integer or
 * the nil reply, which has come as a whole), without a copy: nothing is to be
 * freed, and str, which has no NUL, is valid until the next call with the
 * reader.
 * Returns MR_OK, or MR_AGAIN: the next reply is none of these, mr_reader_next
 * knows more. */
MR_API int mr_reader_take(mr_reader *r, mr_reply *out);
/* What was wrong, NUL-terminated; "" while nothing is. */
MR_API const char *mr_reader_error(mr_reader *r);

/* -------------------------------------------------- blocking connection -- */

/* A blocking connection for processes without an event loop. */
typedef struct mr_conn mr_conn;

/* Connects.
 * path     unix socket, NUL-terminated, or NULL for host and port
 * timeout  ms for the connect of one address
 * err      NUL-terminated text on failure
 * Returns MR_OK, MR_TIMEOUT, MR_IO or MR_NOMEM. */
MR_API int mr_conn_open(const char *host, int port, const char *path,
                        double timeout, mr_conn **out, char *err,
                        uint32_t err_len);
MR_API void mr_conn_close(mr_conn *c);
/* Sends all bytes before the deadline (mr_now() time). SIGPIPE is not raised.
 * Returns MR_OK, MR_TIMEOUT or MR_IO; after either the connection is dead. */
MR_API int mr_conn_send(mr_conn *c, const char *bytes, uint32_t len,
                        double deadline);
/* Receives the next reply before the deadline, which bounds the whole call
 * however slowly the bytes trickle in; a deadline in the past only takes what
 * has already arrived. The caller frees the reply.
 * Returns MR_OK, MR_TIMEOUT (the connection can be used on only by a caller
 * that still expects that reply), MR_IO (closed), MR_PROTOCOL or MR_NOMEM. */
MR_API int mr_conn_recv(mr_conn *c, double deadline, mr_reply **out);
/* What went wrong last, NUL-terminated; "" while nothing has. */
MR_API const char *mr_conn_error(mr_conn *c);

#ifdef __cplusplus
}
#endif

#endif
