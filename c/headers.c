/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * headers.c - finds a header in the list nginx-lua makes of those of a request.
 *
 * The router wants three headers of each request. nginx looks through all of
 * them for each variable $http_name, letter by letter, behind a hash of that
 * name; the list is made once, and here a length is compared first, then the
 * long names by eight letters at a time.
 *
 * No state, no memory of its own, no lock. */
#include "mooring.h"

#include <string.h>

/* ngx_http_lua_ffi_str_t and ngx_http_lua_ffi_table_elt_t of nginx-lua
 * (ngx_http_lua_util.h, resty/core/request.lua). */
typedef struct span {
    int len;
    const unsigned char *data;
} span;

typedef struct header {
    span name;
    span value;
} header;

/* Eight letters, in lower case. What is no letter is changed, too, but nothing
 * that may be in a header's name becomes a letter or a '-'. */
static uint64_t lowered(const void *letters) {
    uint64_t eight;

    memcpy(&eight, letters, sizeof eight);
    return eight | 0x2020202020202020;
}

/* Is it that name, as nearly every client writes it? */
static int same_letters(const unsigned char *name, const char *wanted,
                        uint32_t len) {
    uint32_t at = 0;

    if (len < sizeof(uint64_t))
        return 0;
    for (; at + sizeof(uint64_t) < len; at += sizeof(uint64_t)) {
        if (lowered(name + at) != lowered(wanted + at))
            return 0;
    }
    at = len - sizeof(uint64_t); /* some of them a second time */
    return lowered(name + at) == lowered(wanted + at);
}

/* As nginx compares names with variables (ngx_http_variable_unknown_header).
 * Returns 0: another name; 1: that name; 2: that name, with a _ for a -. */
static int compare(const span *name, const char *wanted) {
    int result = 1;

    if (same_letters(name->data, wanted, (uint32_t)name->len))
        return 1;
    for (int i = 0; i < name->len; i++) {
        unsigned char byte = name->data[i];

        if (byte >= 'A' && byte <= 'Z')
            byte |= 0x20;
        if (byte == '_' && wanted[i] == '-')
            result = 2;
        else if (byte != (unsigned char)wanted[i])
            return 0;
    }
    return result;
}

int mr_header_find(const void *headers, uint32_t count, const char *name,
                   uint32_t name_len) {
    const header *list = headers;
    int found = MR_NOT_FOUND;

    for (uint32_t i = 0; i < count; i++) {
        int same = list[i].name.len == (int)name_len
                       ? compare(&list[i].name, name)
                       : 0;

        if (same == 0)
            continue;
        if (same == 2 || found != MR_NOT_FOUND)
            return MR_EXISTS;
        found = (int)i;
    }
    return found;
}
