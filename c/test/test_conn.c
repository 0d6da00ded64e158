/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_conn.c - the blocking connection, against servers of its own (server.h).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client.h"
#include "mooring_redis.h"
#include "server.h"
#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ------------------------------------------------------------- exchange -- */

static void answer_once(int fd) {
    hear_some(fd);
    say(fd, "+PONG\r\n+again\r\n");
    wait_for_close(fd);
}

static void exchange(struct server *s) {
    mr_conn *c = connect_to(s);

    assert_string_equal(mr_conn_error(c), "");
    assert_int_equal(mr_conn_send(c, "PING\r\n", 6, in_ms(PATIENCE)), MR_OK);
    expect_status(c, "PONG");
    expect_status(c, "again");
    assert_string_equal(mr_conn_error(c), "");
    mr_conn_close(c);
    stop(s);
}

static void talks_over_tcp(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, answer_once);
    exchange(&s);
}

static void talks_over_a_unix_socket(void **state) {
    struct server s;

    (void)state;
    serve_unix(&s, answer_once);
    exchange(&s);
}

/* Answers 8 MB with 8 MB of "$8388608...". */
enum { LARGE = 8 * 1024 * 1024 };

static void echo_large(int fd) {
    char *bytes = malloc(LARGE);
    size_t len = 0;
    ssize_t got;

    while (len < LARGE && (got = recv(fd, bytes + len, LARGE - len, 0)) > 0)
        len += (size_t)got;
    say(fd, "$8388608\r\n");
    say_bytes(fd, bytes, len);
    say(fd, "\r\n");
    free(bytes);
    wait_for_close(fd);
}

static void carries_large_values(void **state) {
    char *bytes = malloc(LARGE);
    struct server s;
    mr_reply *reply;

    (void)state;
    for (int i = 0; i < LARGE; i++)
        bytes[i] = (char)(i * 7 + i / 256);
    serve_tcp(&s, echo_large);
    mr_conn *c = connect_to(&s);
    assert_int_equal(mr_conn_send(c, bytes, LARGE, in_ms(PATIENCE)), MR_OK);
    assert_int_equal(mr_conn_recv(c, in_ms(PATIENCE), &reply), MR_OK);
    assert_int_equal(reply->len, LARGE);
    assert_memory_equal(reply->str, bytes, LARGE);
    mr_reply_free(reply);
    mr_conn_close(c);
    stop(&s);
    free(bytes);
}

/* --------------------------------------------------------------- connect -- */

static void expect_no_connection(int port, const char *path, double timeout,
                                 int rc, const char *hint) {
    char err[128] = "";
    mr_conn *c = (mr_conn *)&c;

    assert_int_equal(
        mr_conn_open("127.0.0.1", port, path, timeout, &c, err, sizeof err),
        rc);
    assert_null(c);
    if (!strstr(err, hint))
        fail_msg("\"%s\" does not mention \"%s\"", err, hint);
}

static void reports_a_refused_connection(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, NULL);
    stop(&s);
    expect_no_connection(s.port, NULL, PATIENCE, MR_IO, "refused");
    expect_no_connection(0, "/tmp/mooring.none/sock", PATIENCE, MR_IO,
                         "No such file");
}

static void reports_a_path_that_is_too_long(void **state) {
    char path[300];

    (void)state;
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    expect_no_connection(0, path, PATIENCE, MR_IO, "too long");
}

/* Opens connections until the backlog of a listener that never accepts is
 * full, so that the kernel lets the next one hang. Returns how many. */
static int fill_backlog(struct server *s, int *fds, int max) {
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)s->port)};

    for (int n = 0; n < max; n++) {
        fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fds[n], (void *)&in, sizeof in);
        struct pollfd p = {.fd = fds[n], .events = POLLOUT};
        if (poll(&p, 1, 200) == 0)
            return n + 1;
    }
    fail_msg("the backlog takes more than %d connections", max);
    return max;
}

static void bounds_the_time_to_connect(void **state) {
    int fds[64];
    struct server s;

    (void)state;
    serve_tcp(&s, NULL);
    int n = fill_backlog(&s, fds, 64);
    double began = mr_now();
    expect_no_connection(s.port, NULL, 200, MR_TIMEOUT, "timed out");
    assert_in_range((int)(mr_now() - began), 190, 1000);
    while (n > 0)
        close(fds[--n]);
    stop(&s);
}

/* None of 0, more than fits, or endless is too little to connect. */
static void any_time_to_connect_is_some(void **state) {
    const double times[] = {0.5, 1e12, 1e300};

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        struct server s;
        char err[128] = "";
        mr_conn *c = NULL;

        serve_unix(&s, wait_for_close);
        assert_int_equal(
            mr_conn_open(NULL, 0, s.path, times[i], &c, err, sizeof err),
            MR_OK);
        mr_conn_close(c);
        stop(&s);
    }
}

/* The descriptor of this process that is connected to that port. */
static int connected_to(int port) {
    for (int fd = 0; fd < 1024; fd++) {
        struct sockaddr_in peer;
        socklen_t len = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
            peer.sin_family == AF_INET && ntohs(peer.sin_port) == port)
            return fd;
    }
    fail_msg("no descriptor is connected to port %d", port);
    return -1;
}

static void sets_the_socket_up(void **state) {
    struct server s;
    int on = 0;
    socklen_t len = sizeof on;

    (void)state;
    serve_tcp(&s, wait_for_close);
    mr_conn *c = connect_to(&s);
    int fd = connected_to(s.port);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    assert_true(on);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len), 0);
    assert_true(on);
    mr_conn_close(c);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    stop(&s);
}

/* -------------------------------------------------------------- failures -- */

static void answer_and_go(int fd) { say(fd, "+one\r\n+two\r\n+thr"); }

static void delivers_what_came_before_the_end(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, answer_and_go);
    mr_conn *c = connect_to(&s);
    expect_status(c, "one");
    expect_status(c, "two");
    expect_failure(c, in_ms(PATIENCE), MR_IO, "closed the connection");
    expect_failure(c, 0, MR_IO, "closed the connection");
    assert_int_equal(mr_conn_send(c, "x", 1, in_ms(PATIENCE)), MR_IO);
    mr_conn_close(c);
    stop(&s);
}

/* What comes from a server that has crashed, or a firewall. */
static void reset(int fd) {
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    hear_some(fd);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

static void reports_a_reset(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, reset);
    mr_conn *c = connect_to(&s);
    assert_int_equal(mr_conn_send(c, "x", 1, in_ms(PATIENCE)), MR_OK);
    expect_failure(c, in_ms(PATIENCE), MR_IO, "reset");
    mr_conn_close(c);
    stop(&s);
}

static void leave_at_once(int fd) { (void)fd; }

/* SIGPIPE would end the test program. */
static void raises_no_sigpipe(void **state) {
    struct server s;
    int rc = MR_OK;

    (void)state;
    signal(SIGPIPE, SIG_DFL);
    serve_unix(&s, leave_at_once);
    mr_conn *c = connect_to(&s);
    stop(&s);
    double deadline = in_ms(PATIENCE);
    while (rc == MR_OK && mr_now() < deadline)
        rc = mr_conn_send(c, "PING\r\n", 6, deadline);
    assert_int_equal(rc, MR_IO);
    assert_string_not_equal(mr_conn_error(c), "");
    mr_conn_close(c);
}

static void talk_http(int fd) {
    say(fd, "+OK\r\nHTTP/1.1 400 Bad Request\r\n\r\n");
    wait_for_close(fd);
}

static void reports_a_peer_without_resp(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, talk_http);
    mr_conn *c = connect_to(&s);
    expect_status(c, "OK");
    expect_failure(c, in_ms(PATIENCE), MR_PROTOCOL, "reply type byte");
    expect_failure(c, in_ms(PATIENCE), MR_PROTOCOL, "reply type byte");
    assert_int_equal(mr_conn_send(c, "x", 1, in_ms(PATIENCE)), MR_PROTOCOL);
    mr_conn_close(c);
    stop(&s);
}

static void claim_much(int fd) {
    say(fd, "*1000000000\r\n");
    wait_for_close(fd);
}

static void reports_an_impossible_claim(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, claim_much);
    mr_conn *c = connect_to(&s);
    expect_failure(c, in_ms(PATIENCE), MR_PROTOCOL, "16777216 bytes");
    mr_conn_close(c);
    stop(&s);
}

static int use_as_a_child(void *arg) {
    mr_conn *c = arg;
    mr_reply *reply;
    int ok = mr_conn_recv(c, 0, &reply) == MR_IO &&
             mr_conn_send(c, "x", 1, in_ms(PATIENCE)) == MR_IO;

    mr_conn_close(c);
    return ok ? 0 : 1;
}

static void is_not_shared_through_fork(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, answer_once);
    mr_conn *c = connect_to(&s);
    assert_int_equal(wait_child(run_child(use_as_a_child, c)), 0);
    assert_int_equal(mr_conn_send(c, "PING\r\n", 6, in_ms(PATIENCE)), MR_OK);
    expect_status(c, "PONG");
    mr_conn_close(c);
    mr_conn_close(NULL);
    stop(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(talks_over_tcp),
        cmocka_unit_test(talks_over_a_unix_socket),
        cmocka_unit_test(carries_large_values),
        cmocka_unit_test(reports_a_refused_connection),
        cmocka_unit_test(reports_a_path_that_is_too_long),
        cmocka_unit_test(bounds_the_time_to_connect),
        cmocka_unit_test(any_time_to_connect_is_some),
        cmocka_unit_test(sets_the_socket_up),
        cmocka_unit_test(delivers_what_came_before_the_end),
        cmocka_unit_test(reports_a_reset),
        cmocka_unit_test(raises_no_sigpipe),
        cmocka_unit_test(reports_a_peer_without_resp),
        cmocka_unit_test(reports_an_impossible_claim),
        cmocka_unit_test(is_not_shared_through_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
