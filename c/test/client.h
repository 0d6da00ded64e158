/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * client.h - what the tests of the connection do with one to a server.h. */
#ifndef MR_TEST_CLIENT_H
#define MR_TEST_CLIENT_H

#include "mooring_redis.h"
#include "server.h"

enum { PATIENCE = 5000 }; /* ms for what should happen at once */

static inline double in_ms(double ms) { return mr_now() + ms; }

static inline mr_conn *connect_to(struct server *s) {
    char err[128] = "";
    mr_conn *c = NULL;
    int rc = mr_conn_open("127.0.0.1", s->port, *s->path ? s->path : NULL,
                          PATIENCE, &c, err, sizeof err);

    if (rc != MR_OK)
        fail_msg("could not connect: %s", err);
    return c;
}

static inline void expect_status(mr_conn *c, const char *text) {
    mr_reply *reply = NULL;

    assert_int_equal(mr_conn_recv(c, in_ms(PATIENCE), &reply), MR_OK);
    assert_string_equal(reply->str, text);
    mr_reply_free(reply);
}

static inline void expect_failure(mr_conn *c, double deadline, int rc,
                                  const char *hint) {
    mr_reply *reply = (mr_reply *)&reply;

    assert_int_equal(mr_conn_recv(c, deadline, &reply), rc);
    assert_null(reply);
    if (!strstr(mr_conn_error(c), hint))
        fail_msg("\"%s\" does not mention \"%s\"", mr_conn_error(c), hint);
}

#endif
