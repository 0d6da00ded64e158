/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * test_conn_times.c - the deadlines of the blocking connection. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "client.h"
#include "mooring_redis.h"
#include "server.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cmocka.h>

/* One byte every 20 ms, the whole reply would take 2 s. */
static void trickle(int fd) {
    for (int i = 0; i < 100; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        say(fd, i ? "x" : "+");
        if (poll(&p, 1, 20) != 0)
            return;
    }
    wait_for_close(fd);
}

static void bounds_the_whole_call(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, trickle);
    mr_conn *c = connect_to(&s);
    double began = mr_now();
    expect_failure(c, in_ms(200), MR_TIMEOUT, "timed out");
    assert_in_range((int)(mr_now() - began), 199, 1000);
    mr_conn_close(c);
    stop(&s);
}

/* A bulk string that comes one byte at a time, without a pause. */
static void drizzle(int fd) {
    say(fd, "$16000000\r\n");
    while (send(fd, "x", 1, MSG_NOSIGNAL) == 1)
        ;
}

static void bounds_the_time_for_what_has_arrived(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, drizzle);
    mr_conn *c = connect_to(&s);
    double began = mr_now();
    for (int i = 0; i < 10; i++)
        expect_failure(c, 0, MR_TIMEOUT, "timed out");
    assert_true(mr_now() - began < 2000);
    mr_conn_close(c);
    stop(&s);
}

static void answer_in_a_while(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};

    poll(&p, 1, 50);
    say(fd, "+late\r\n");
    wait_for_close(fd);
}

static void waits_for_ever_where_it_may(void **state) {
    struct server s;
    mr_reply *reply = NULL;

    (void)state;
    serve_tcp(&s, answer_in_a_while);
    mr_conn *c = connect_to(&s);
    assert_int_equal(mr_conn_recv(c, 1e300, &reply), MR_OK);
    assert_string_equal(reply->str, "late");
    mr_reply_free(reply);
    mr_conn_close(c);
    stop(&s);
}

static volatile sig_atomic_t alarms;

static void count_alarm(int signo) {
    (void)signo;
    alarms++;
}

/* A signal every 25 ms neither ends the wait nor makes it longer. */
static void goes_on_after_signals(void **state) {
    const struct itimerval often = {{0, 25000}, {0, 25000}}, never = {{0}, {0}};
    struct sigaction on = {.sa_handler = count_alarm}, was;
    struct server s;

    (void)state;
    serve_tcp(&s, wait_for_close);
    mr_conn *c = connect_to(&s);
    assert_int_equal(sigaction(SIGALRM, &on, &was), 0);
    double began = mr_now();
    setitimer(ITIMER_REAL, &often, NULL);
    expect_failure(c, in_ms(200), MR_TIMEOUT, "timed out");
    setitimer(ITIMER_REAL, &never, NULL);
    assert_in_range((int)(mr_now() - began), 199, 1000);
    assert_true(alarms > 0);
    sigaction(SIGALRM, &was, NULL);
    mr_conn_close(c);
    stop(&s);
}

static void answer_late(int fd) {
    say(fd, "+fir");
    hear_some(fd);
    say(fd, "st\r\n");
    wait_for_close(fd);
}

static void goes_on_after_a_timeout(void **state) {
    struct server s;

    (void)state;
    serve_tcp(&s, answer_late);
    mr_conn *c = connect_to(&s);
    expect_failure(c, 0, MR_TIMEOUT, "timed out");
    expect_failure(c, in_ms(20), MR_TIMEOUT, "timed out");
    assert_int_equal(mr_conn_send(c, "x", 1, in_ms(PATIENCE)), MR_OK);
    expect_status(c, "first");
    mr_conn_close(c);
    stop(&s);
}

/* Reads nothing until the client has gone. */
static void ignore(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    poll(&p, 1, PATIENCE);
}

static void bounds_the_time_to_send(void **state) {
    char *bytes = calloc(1, 64 * 1024 * 1024);
    struct server s;

    (void)state;
    serve_tcp(&s, ignore);
    mr_conn *c = connect_to(&s);
    double began = mr_now();
    assert_int_equal(mr_conn_send(c, bytes, 64 * 1024 * 1024, in_ms(200)),
                     MR_TIMEOUT);
    assert_in_range((int)(mr_now() - began), 199, 2000);
    /* What has been sent of it cannot be taken back. */
    began = mr_now();
    assert_int_equal(mr_conn_send(c, "x", 1, in_ms(PATIENCE)), MR_TIMEOUT);
    expect_failure(c, in_ms(PATIENCE), MR_TIMEOUT, "timed out");
    assert_true(mr_now() - began < PATIENCE / 2);
    mr_conn_close(c);
    stop(&s);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_the_whole_call),
        cmocka_unit_test(bounds_the_time_for_what_has_arrived),
        cmocka_unit_test(waits_for_ever_where_it_may),
        cmocka_unit_test(goes_on_after_signals),
        cmocka_unit_test(goes_on_after_a_timeout),
        cmocka_unit_test(bounds_the_time_to_send),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
