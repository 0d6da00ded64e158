/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * resp.c - the RESP2 codec: commands to bytes and bytes to replies.
 *
 * hiredis does the parsing; what it builds are our own nodes, so that neither
 * its structs nor its limits (which differ between 0.14 and 1.x) show.
 *
 *     bytes -> mr_reader_feed -> redisReader -> create_*() -> mr_reply tree
 *                                    |              |
 *                     refuse_unfinished()       node_new(): limits, memory
 *
 *     bytes -> mr_reader_feed -> buffer of redisReader -> mr_reader_take
 *
 * The latter is the short way for simple replies that have come as a whole: it
 * takes them out of the buffer of hiredis while that is between two replies.
 * What it does not know, or what may be wrong, it leaves to hiredis.
 *
 *     mr_reply  one malloc a node, its string or its element table behind it:
 *     +------------------------------+----------------------+
 *     | type len str integer n elem. | bytes, NUL | pointers |
 *     +------------------------------+----------------------+
 *
 * A peer may be hostile or broken, so three things are bounded: the nesting,
 * the nodes of one reply (an array is charged with the size it claims before
 * anything is allocated) and the bytes that wait for the end of an item. The
 * latter two are held against max_bytes each: while the last bytes of a bulk
 * string are copied from the buffer into its node, both exist.
 *
 * A reader belongs to one thread. A reply belongs to whoever took it; nodes of
 * an unfinished reply belong to hiredis, which gives them back to node_free.
 */
#include "mooring_redis.h"

#include <hiredis/hiredis.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_DEPTH = 7,           /* arrays within arrays, as hiredis 0.14 */
    MAX_LINE = 64 * 1024,    /* a status, an error, an integer, a length */
    KEEP_BUFFER = 64 * 1024, /* an empty buffer larger than this is given up */
    NODE_OVERHEAD = 16,      /* what malloc needs for itself */
    ERROR_SIZE = 160
};

static const uint32_t DEFAULT_MAX_BYTES = 16 * 1024 * 1024;

struct mr_reader {
    redisReader *hiredis; /* NULL once the reader is dead */
    size_t max_bytes;
    size_t tree_bytes; /* nodes of the reply that is being built */
    size_t peak;       /* fullest state of the buffer since it was made */
    int rc;            /* MR_OK, or why the reader is dead */
    char error[ERROR_SIZE];
};

/* ------------------------------------------------------------- commands -- */

int mr_command_format(int argc, const char *const *argv, const size_t *argv_len,
                      char **out, uint32_t *out_len) {
    if (argc <= 0)
        return MR_INVALID;

    /* hiredis 0.14 adds the sizes up in an int. A length takes less than 32
     * bytes on the wire besides the argument itself. */
    size_t room = INT_MAX - 32;
    for (int i = 0; i < argc; i++) {
        if (!argv[i] || argv_len[i] > room || room - argv_len[i] < 32)
            return MR_INVALID;
        room -= argv_len[i] + 32;
    }

    long long len =
        redisFormatCommandArgv(out, argc, (const char **)argv, argv_len);
    if (len < 0)
        return MR_NOMEM;
    *out_len = (uint32_t)len;
    return MR_OK;
}

void mr_command_free(char *command) {
    if (command)
        redisFreeCommand(command);
}

/* ---------------------------------------------------------------- nodes -- */

/* Notes what is wrong and returns rc. The reader is closed down by
 * mr_reader_next, since this also runs in the middle of hiredis' parser. */
__attribute__((format(printf, 3, 4))) static int
refuse(mr_reader *r, int rc, const char *format, ...) {
    va_list args;

    va_start(args, format);
    vsnprintf(r->error, sizeof r->error, format, args);
    va_end(args);
    return r->rc = rc;
}

static int refuse_line(mr_reader *r) {
    return refuse(r, MR_PROTOCOL, "a line of more than %d bytes", MAX_LINE);
}

static int refuse_size(mr_reader *r) {
    return refuse(r, MR_PROTOCOL, "a reply takes more than %zu bytes",
                  r->max_bytes);
}

/* Makes the node for what hiredis is reading and hangs it into its parent.
 * extra  bytes wanted behind the node
 * Returns NULL, with the reason noted, where a limit is exceeded; hiredis then
 * frees the tree and fails. */
static mr_reply *node_new(const redisReadTask *task, int type, size_t extra) {
    mr_reader *r = task->privdata;
    size_t fixed = sizeof(mr_reply) + NODE_OVERHEAD;
    size_t left = r->max_bytes - r->tree_bytes;

    if (fixed > left || extra > left - fixed) {
        refuse_size(r);
        return NULL;
    }
    mr_reply *node = malloc(sizeof *node + extra);
    if (!node) {
        refuse(r, MR_NOMEM, "no memory for a reply");
        return NULL;
    }
    r->tree_bytes += fixed + extra;
    memset(node, 0, sizeof *node);
    node->type = type;
    if (task->parent) {
        mr_reply *parent = task->parent->obj;
        parent->element[task->idx] = node;
    }
    return node;
}

/* Frees a tree, also one that hiredis gave up half-way. Recursion is bounded by
 * MAX_DEPTH. */
static void node_free(void *object) {
    mr_reply *node = object;

    if (!node)
        return;
    for (uint32_t i = 0; i < node->n; i++)
        node_free(node->element[i]);
    free(node);
}

void mr_reply_free(mr_reply *reply) { node_free(reply); }

/* --------------------------------------------- what hiredis calls us for -- */

/* RESP3 is never asked for (HELLO), so its types are a fault of the peer.
 * hiredis 0.14 does not know them and fails by itself. */
static void *refuse_resp3(const redisReadTask *task) {
    refuse(task->privdata, MR_PROTOCOL,
           "a reply of RESP3, which was not asked "
           "for");
    return NULL;
}

static void *create_string(const redisReadTask *task, char *str, size_t len) {
    int type;

    switch (task->type) {
    case REDIS_REPLY_STRING:
        type = MR_REPLY_STRING;
        break;
    case REDIS_REPLY_STATUS:
        type = MR_REPLY_STATUS;
        break;
    case REDIS_REPLY_ERROR:
        type = MR_REPLY_ERROR;
        break;
    default:
        return refuse_resp3(task);
    }
    if (len >= UINT32_MAX) {
        refuse_size(task->privdata);
        return NULL;
    }
    /* Also when it has come at once: how bytes are cut must not matter. */
    if (type != MR_REPLY_STRING && len > MAX_LINE) {
        refuse_line(task->privdata);
        return NULL;
    }

    mr_reply *node = node_new(task, type, len + 1);
    if (node) {
        char *copy = (char *)(node + 1);
        memcpy(copy, str, len);
        copy[len] = '\0';
        node->str = copy;
        node->len = (uint32_t)len;
    }
    return node;
}

#if HIREDIS_MAJOR >= 1
typedef size_t array_size;
#else
typedef int array_size;
#endif

static void *create_array(const redisReadTask *task, array_size elements) {
    mr_reader *r = task->privdata;
    size_t n = (size_t)elements;
    int depth = 1;

    if (task->type != REDIS_REPLY_ARRAY)
        return refuse_resp3(task);
    for (const redisReadTask *up = task->parent; up; up = up->parent)
        depth++;
    if (depth > MAX_DEPTH) {
        refuse(r, MR_PROTOCOL, "arrays are nested more than %d deep",
               MAX_DEPTH);
        return NULL;
    }
    if (n > r->max_bytes / sizeof(mr_reply *)) {
        refuse_size(r);
        return NULL;
    }

    mr_reply *node = node_new(task, MR_REPLY_ARRAY, n * sizeof(mr_reply *));
    if (node) {
        node->element = (mr_reply **)(node + 1);
        node->n = (uint32_t)n;
        memset(node->element, 0, n * sizeof(mr_reply *));
    }
    return node;
}

static void *create_integer(const redisReadTask *task, long long value) {
    mr_reply *node = node_new(task, MR_REPLY_INTEGER, 0);

    if (node)
        node->integer = (double)value;
    return node;
}

static void *create_nil(const redisReadTask *task) {
    /* "$-1" and "*-1" come with the type of the string or array that is not
     * there, only RESP3's "_" with a type of its own. */
    if (task->type == REDIS_REPLY_NIL)
        return refuse_resp3(task);
    return node_new(task, MR_REPLY_NIL, 0);
}

#if HIREDIS_MAJOR >= 1
static void *create_double(const redisReadTask *task, double value, char *str,
                           size_t len) {
    (void)value, (void)str, (void)len;
    return refuse_resp3(task);
}

static void *create_bool(const redisReadTask *task, int value) {
    (void)value;
    return refuse_resp3(task);
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
    .freeObject = node_free,
};

/* --------------------------------------------------------------- reader -- */

static redisReader *parser_new(mr_reader *r) {
    redisReader *parser = redisReaderCreateWithFunctions(&functions);

    if (parser) {
        parser->privdata = r;
        /* Giving up a large buffer is our business (shrink): hiredis 0.14
         * asserts that it gets a new one. */
        parser->maxbuf = 0;
    }
    return parser;
}

static void parser_free(mr_reader *r) {
    if (r->hiredis)
        redisReaderFree(r->hiredis);
    r->hiredis = NULL;
}

mr_reader *mr_reader_new(uint32_t max_bytes) {
    mr_reader *r = calloc(1, sizeof *r);

    if (!r)
        return NULL;
    r->max_bytes = max_bytes ? max_bytes : DEFAULT_MAX_BYTES;
    r->hiredis = parser_new(r);
    if (!r->hiredis) {
        free(r);
        return NULL;
    }
    return r;
}

void mr_reader_free(mr_reader *r) {
    if (!r)
        return;
    parser_free(r);
    free(r);
}

const char *mr_reader_error(mr_reader *r) { return r->error; }

/* The reader is dead from here on; its memory goes at once. */
static int die(mr_reader *r) {
    if (r->rc == MR_OK) {
        int rc = r->hiredis->err == REDIS_ERR_OOM ? MR_NOMEM : MR_PROTOCOL;
        refuse(r, rc, "%s", r->hiredis->errstr);
    }
    parser_free(r);
    return r->rc;
}

int mr_reader_feed(mr_reader *r, const char *bytes, uint32_t len) {
    if (r->rc != MR_OK)
        return r->rc;
    if (redisReaderFeed(r->hiredis, bytes, len) != REDIS_OK)
        return die(r);
    if (r->hiredis->len > r->peak)
        r->peak = r->hiredis->len;
    return MR_OK;
}

/* What hiredis is reading now; valid while ridx >= 0. */
static const redisReadTask *current_task(const redisReader *parser) {
#if HIREDIS_MAJOR >= 1
    return parser->task[parser->ridx];
#else
    return &parser->rstack[parser->ridx];
#endif
}

/* Reads the length at the head of an unfinished bulk string.
 * Returns 1 when the line is complete, 0 when it goes on or is none. */
static int bulk_length(const char *s, size_t len, double *declared) {
    size_t i;

    *declared = 0;
    for (i = 0; i < len && i < MAX_LINE && s[i] >= '0' && s[i] <= '9'; i++)
        *declared = *declared * 10 + (s[i] - '0');
    return i < len && s[i] == '\r';
}

/* hiredis waits for the end of an item however long that takes: refuses one
 * that will not fit as soon as its length is known, and a line without end.
 * Returns MR_AGAIN or MR_PROTOCOL. */
static int refuse_unfinished(mr_reader *r) {
    const redisReader *parser = r->hiredis;
    size_t waiting = parser->len - parser->pos;
    int line_complete = 0;

    if (parser->ridx < 0 || waiting == 0)
        return MR_AGAIN;
    if (current_task(parser)->type == REDIS_REPLY_STRING) {
        double declared;
        line_complete =
            bulk_length(parser->buf + parser->pos, waiting, &declared);
        if (declared > (double)(r->max_bytes - r->tree_bytes))
            return refuse_size(r);
    }
    /* One byte more may be the CR. */
    if (!line_complete && waiting > MAX_LINE + 1)
        return refuse_line(r);
    return MR_AGAIN;
}

/* Exchanges the parser for a new one when a large reply has left it with a
 * large, now empty buffer. Without memory for that the old one stays. */
static void shrink(mr_reader *r) {
    if (r->peak <= KEEP_BUFFER || r->hiredis->len > r->hiredis->pos)
        return;
    redisReader *fresh = parser_new(r);
    if (fresh) {
        parser_free(r);
        r->hiredis = fresh;
        r->peak = 0;
    }
}

int mr_reader_next(mr_reader *r, mr_reply **out) {
    void *reply;

    *out = NULL;
    if (r->rc != MR_OK)
        return r->rc;
    if (redisReaderGetReply(r->hiredis, &reply) != REDIS_OK)
        return die(r);
    if (!reply)
        return refuse_unfinished(r) == MR_AGAIN ? MR_AGAIN : die(r);
    r->tree_bytes = 0;
    shrink(r);
    *out = reply;
    return MR_OK;
}

/* ------------------------------------------------------- the short way -- */

enum { MAX_TAKEN_DIGITS = 15 }; /* exact in a double */

/* Reads the line of an integer, as Redis writes it, and its CRLF.
 * Returns where the next line begins, or NULL: it goes on, or is another. */
static const char *take_integer(const char *at, const char *end, double *out) {
    int negative = at < end && *at == '-';
    const char *from = at += negative;
    long long value = 0;

    while (at < end && at - from < MAX_TAKEN_DIGITS && *at >= '0' && *at <= '9')
        value = value * 10 + (*at++ - '0');
    if (at == from || (*from == '0' && (negative || at - from > 1)) ||
        end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return NULL;
    *out = negative ? -(double)value : (double)value;
    return at + 2;
}

/* Reads a bulk string from behind its '$' on, or the nil reply. */
static const char *take_bulk(const mr_reader *r, const char *at,
                             const char *end, mr_reply *out) {
    size_t fixed = sizeof(mr_reply) + NODE_OVERHEAD + 1;
    double len;

    at = take_integer(at, end, &len);
    if (at == NULL || len < -1)
        return NULL;
    if (len < 0) {
        out->type = MR_REPLY_NIL;
        return at;
    }
    if (end - at < 2 || len > (double)(end - at - 2) ||
        fixed + len > (double)r->max_bytes)
        return NULL;
    out->type = MR_REPLY_STRING;
    out->str = at;
    out->len = (uint32_t)len;
    at += out->len;
    return at[0] == '\r' && at[1] == '\n' ? at + 2 : NULL;
}

/* Is hiredis between two replies? It begins one when it is asked for it, also
 * before the first byte. */
static int is_between(const redisReader *parser) {
    return parser->ridx < 0 ||
           (parser->ridx == 0 && current_task(parser)->type < 0);
}

int mr_reader_take(mr_reader *r, mr_reply *out) {
    redisReader *parser = r->hiredis;
    const char *at, *end;

    if (r->rc != MR_OK || !is_between(parser) || parser->pos == parser->len)
        return MR_AGAIN;
    memset(out, 0, sizeof *out);
    at = parser->buf + parser->pos;
    end = parser->buf + parser->len;
    if (*at == '$') {
        at = take_bulk(r, at + 1, end, out);
    } else if (*at == ':') {
        out->type = MR_REPLY_INTEGER;
        at = take_integer(at + 1, end, &out->integer);
    } else {
        return MR_AGAIN;
    }
    if (at == NULL)
        return MR_AGAIN;
    parser->pos = (size_t)(at - parser->buf);
    return MR_OK;
}
