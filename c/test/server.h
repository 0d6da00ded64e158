/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * server.h - servers for the tests of the connection: a thread that accepts one
 * connection and plays a script on it (a function). A script ends when the
 * client has gone; stop() waits for that. */
#ifndef MR_TEST_SERVER_H
#define MR_TEST_SERVER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* One listening socket, one connection, one script. */
struct server {
    void (*script)(int fd);
    int listener;
    int port;                /* of a TCP server, else 0 */
    char dir[64], path[128]; /* of a unix server */
    pthread_t thread;
};

static inline void *play(void *arg) {
    struct server *s = arg;
    int fd = accept(s->listener, NULL, NULL);

    if (fd >= 0) {
        s->script(fd);
        close(fd);
    }
    return NULL;
}

static inline void start(struct server *s) {
    assert_int_equal(listen(s->listener, 8), 0);
    if (s->script)
        assert_int_equal(pthread_create(&s->thread, NULL, play, s), 0);
}

static inline void serve_tcp(struct server *s, void (*script)(int)) {
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;

    *s = (struct server){.script = script};
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (void *)&in, len), 0);
    assert_int_equal(getsockname(s->listener, (void *)&in, &len), 0);
    s->port = ntohs(in.sin_port);
    start(s);
}

static inline void serve_unix(struct server *s, void (*script)(int)) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    *s = (struct server){.script = script};
    strcpy(s->dir, "/tmp/mooring.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->path, sizeof s->path, "%s/sock", s->dir);
    strcpy(un.sun_path, s->path);
    s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s->listener, (void *)&un, sizeof un), 0);
    start(s);
}

/* Ends the script's accept, if it is still in it, and waits for the script. */
static inline void stop(struct server *s) {
    shutdown(s->listener, SHUT_RDWR);
    if (s->script)
        pthread_join(s->thread, NULL);
    close(s->listener);
    if (*s->dir) {
        unlink(s->path);
        rmdir(s->dir);
    }
}

/* What scripts are made of. They give up when the client has gone. */
static inline void say_bytes(int fd, const char *bytes, size_t len) {
    while (len > 0) {
        ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        len -= (size_t)sent;
    }
}

static inline void say(int fd, const char *text) {
    say_bytes(fd, text, strlen(text));
}

static inline void wait_for_close(int fd) {
    char sink[4096];

    while (recv(fd, sink, sizeof sink, 0) > 0)
        ;
}

static inline void hear_some(int fd) {
    char sink[4096];

    (void)!recv(fd, sink, sizeof sink, 0);
}

#endif
