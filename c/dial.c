/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * dial.c - see dial.h.
 *
 * hiredis connects, too, but 0.14 follows the pointers that its allocations
 * return without a look at them: without memory the process is gone. Here
 * nothing is allocated but by getaddrinfo. IPv4 comes before IPv6, as there. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "dial.h"
#include "mooring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A server host that vanishes is noticed within half a minute. */
enum { KEEP_IDLE = 15, KEEP_INTERVAL = 5, KEEP_COUNT = 3 };

/* Where errno of the last failure becomes the result. */
static int failure(char *err, uint32_t err_len, int number) {
    snprintf(err, err_len, "%s", strerror(number));
    return number == ETIMEDOUT ? MR_TIMEOUT
           : number == ENOMEM  ? MR_NOMEM
                               : MR_IO;
}

/* Waits until a connection that is being made is made. Returns 0 or an errno.
 */
static int await(int fd, double deadline) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof(int);
    int number = 0, ready;

    do {
        double left = deadline - mr_now();

        if (left <= 0)
            return ETIMEDOUT;
        ready = poll(&p, 1, left < INT_MAX ? (int)left + 1 : INT_MAX);
    } while (ready == 0 || (ready < 0 && errno == EINTR));
    if (ready < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &len) != 0)
        return errno;
    return number;
}

/* Returns 0 and a connected socket, or an errno. */
static int connect_to(const struct sockaddr *address, socklen_t len,
                      double timeout, int *fd) {
    int number = 0;

    *fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                 0);
    if (*fd < 0)
        return errno;
    if (connect(*fd, address, len) != 0)
        number = errno == EINPROGRESS ? await(*fd, mr_now() + timeout) : errno;
    if (number != 0) {
        close(*fd);
        *fd = -1;
    }
    return number;
}

static int dial_path(const char *path, double timeout, int *fd, char *err,
                     uint32_t err_len) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int number;

    if (strlen(path) >= sizeof address.sun_path) {
        snprintf(err, err_len, "the socket's path is too long");
        return MR_IO;
    }
    strcpy(address.sun_path, path);
    number = connect_to((const struct sockaddr *)&address, sizeof address,
                        timeout, fd);
    /* A listener whose backlog is full is not waited for. */
    return number == 0 ? MR_OK : failure(err, err_len, number);
}

/* Small commands are not held back, and a peer that is gone is noticed. What
 * the kernel refuses of these changes nothing else. */
static void set_options(int fd) {
    int on = 1, idle = KEEP_IDLE, interval = KEEP_INTERVAL, count = KEEP_COUNT;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

/* Tries the addresses of a host one by one. Returns 0 or the last errno. */
static int try_all(const struct addrinfo *list, double timeout, int *fd) {
    int number = EHOSTUNREACH;

    for (; list != NULL; list = list->ai_next) {
        number = connect_to(list->ai_addr, list->ai_addrlen, timeout, fd);
        if (number == 0) {
            set_options(*fd);
            return 0;
        }
    }
    return number;
}

static int look_up(const char *host, const char *port, struct addrinfo **out) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    int rc = getaddrinfo(host, port, &hints, out);

    if (rc != 0) {
        hints.ai_family = AF_INET6;
        rc = getaddrinfo(host, port, &hints, out);
    }
    return rc;
}

static int dial_host(const char *host, int port, double timeout, int *fd,
                     char *err, uint32_t err_len) {
    struct addrinfo *list;
    char service[12];
    int number;

    snprintf(service, sizeof service, "%d", port);
    number = look_up(host, service, &list);
    if (number != 0) {
        snprintf(err, err_len, "%s", gai_strerror(number));
        return number == EAI_MEMORY ? MR_NOMEM : MR_IO;
    }
    number = try_all(list, timeout, fd);
    freeaddrinfo(list);
    return number == 0 ? MR_OK : failure(err, err_len, number);
}

int mr_dial(const char *host, int port, const char *path, double timeout,
            int *fd, char *err, uint32_t err_len) {
    *fd = -1;
    return path != NULL ? dial_path(path, timeout, fd, err, err_len)
                        : dial_host(host, port, timeout, fd, err, err_len);
}
