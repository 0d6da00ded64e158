/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * dial.h - connecting to a server, by TCP or by a unix socket. */
#ifndef MR_DIAL_H
#define MR_DIAL_H

#include <stdint.h>

/* Connects within `timeout` ms for each address the host has; to look a name up
 * may take longer.
 *
 * path  of a unix socket, or NULL: host and port
 * fd    out: a non-blocking socket, closed on exec
 * err   NUL-terminated text on failure
 * Returns MR_OK, MR_IO, MR_TIMEOUT or MR_NOMEM. */
int mr_dial(const char *host, int port, const char *path, double timeout,
            int *fd, char *err, uint32_t err_len);

#endif
