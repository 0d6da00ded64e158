/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * wire.c - see wire.h. */
#include "wire.h"

#include <stdarg.h>
#include <string.h>

void wire_add(wire *w, const void *bytes, size_t len) {
    if (w->len + len > w->room) {
        w->room = (w->len + len) * 2;
        w->bytes = realloc(w->bytes, w->room);
        INSIST(w->bytes != NULL, "no memory");
    }
    if (len > 0)
        memcpy(w->bytes + w->len, bytes, len);
    w->len += len;
}

void wire_text(wire *w, const char *format, ...) {
    char text[256];
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    wire_add(w, text, (size_t)len);
}

void wire_free(wire *w) {
    free(w->bytes);
    memset(w, 0, sizeof *w);
}

void wire_reply(wire *w, const mr_reply *reply) {
    switch (reply->type) {
    case MR_REPLY_NIL:
        wire_text(w, "$-1\r\n");
        return;
    case MR_REPLY_INTEGER:
        wire_text(w, ":%.0f\r\n", reply->integer);
        return;
    case MR_REPLY_ARRAY:
        wire_text(w, "*%u\r\n", reply->n);
        for (uint32_t i = 0; i < reply->n; i++)
            wire_reply(w, reply->element[i]);
        return;
    case MR_REPLY_STRING:
        wire_text(w, "$%u\r\n", reply->len);
        break;
    default:
        wire_text(w, "%s", reply->type == MR_REPLY_STATUS ? "+" : "-");
    }
    INSIST(reply->str[reply->len] == '\0', "no NUL behind a string");
    wire_add(w, reply->str, reply->len);
    wire_add(w, "\r\n", 2);
}

/* -------------------------------------------------------------- hostile --- */

static const char *odd_number(tape *t) {
    static const char *const numbers[] = {
        "0",
        "1",
        "2",
        "-1",
        "-2",
        "7",
        "100",
        "65536",
        "100000",
        "16777216",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "1000000000",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "99999999999999999999999999",
        "-0",
        "+1",
        "01",
        " 1",
        "1 ",
        "",
        "1e3",
        "0x10",
        "NaN",
        "\n",
    };

    return numbers[tape_byte(t) % (sizeof numbers / sizeof numbers[0])];
}

static void repeat(wire *w, const char *text, uint32_t times) {
    size_t len = strlen(text);

    for (; times > 0 && w->len + len < WIRE_MOST; times--)
        wire_add(w, text, len);
}

static void bulk(wire *w, tape *t) {
    uint32_t len = tape_byte(t);

    wire_text(w, "$%u\r\n", len);
    for (; len > 0; len--) {
        char c = (char)tape_byte(t);

        wire_add(w, &c, 1);
    }
    wire_text(w, "\r\n");
}

static void item(wire *w, tape *t) {
    static const char types[] = "+-:$*_,#(=~%>|!\r\n0";

    switch (tape_byte(t) % 13) {
    case 0:
        wire_text(w, "$%s\r\n", odd_number(t));
        return;
    case 1:
        wire_text(w, "*%s\r\n", odd_number(t));
        return;
    case 2:
        wire_text(w, ":%s\r\n", odd_number(t));
        return;
    case 3:
        wire_text(w, "*%u\r\n", tape_byte(t));
        return;
    case 4:
        repeat(w, "*1\r\n", tape_byte(t) % 12);
        return;
    case 5:
        wire_text(w, "%c%s", types[tape_byte(t) % 18], odd_number(t));
        return;
    case 6:
        wire_text(w, "+");
        repeat(w, "stowaway", tape_byte(t) * 40);
        return;
    case 7:
        wire_text(w, "$%u\r\n", tape_byte(t) * 1000);
        return;
    case 8:
        repeat(w, "ballast ", tape_byte(t) * 32);
        return;
    case 9:
        repeat(w, "*2\r\n$0\r\n\r\n:1\r\n", tape_byte(t) * 4);
        return;
    case 10:
        wire_text(w, "\r\n");
        return;
    default:
        bulk(w, t);
    }
}

void wire_hostile(wire *w, tape *t) {
    while (!tape_done(t) && w->len < WIRE_MOST)
        item(w, t);
}

/* --------------------------------------------------------------- proper --- */

/* A reader of proper replies and of nothing else. */
typedef struct scan {
    const wire *w;
    size_t at;
    size_t left; /* bytes that the reply may still take */
    int beyond;
} scan;

/* What a node takes, as resp.c counts it. */
static int charge(scan *s, size_t extra) {
    size_t need = sizeof(mr_reply) + 16 + extra;

    if (need > s->left) {
        s->beyond = 1;
        return 0;
    }
    s->left -= need;
    return 1;
}

/* A number without leading zeros, up to what a double holds, and its CRLF. */
static int number(scan *s, int negative_too, double *out) {
    const char *from = s->w->bytes + s->at, *end = s->w->bytes + s->w->len;
    const char *p = from;
    int minus = negative_too && p < end && *p == '-';
    const char *digits = p += minus;

    for (*out = 0; p < end && *p >= '0' && *p <= '9' && *out < 1e15; p++)
        *out = *out * 10 + (*p - '0');
    if (p == digits || (*digits == '0' && (p - digits > 1 || minus)) ||
        end - p < 2 || p[0] != '\r' || p[1] != '\n')
        return 0;
    if (minus)
        *out = -*out;
    s->at += (size_t)(p + 2 - from);
    return 1;
}

static int line(scan *s) {
    const char *from = s->w->bytes + s->at;
    const char *cr = memchr(from, '\r', s->w->len - s->at);

    if (cr == NULL || (size_t)(cr - s->w->bytes) + 2 > s->w->len ||
        cr[1] != '\n')
        return 0;
    if (cr - from > WIRE_LINE) {
        s->beyond = 1;
        return 0;
    }
    s->at += (size_t)(cr - from) + 2;
    return charge(s, (size_t)(cr - from) + 1);
}

static int string(scan *s) {
    double len;

    if (s->w->len - s->at >= 4 &&
        memcmp(s->w->bytes + s->at, "-1\r\n", 4) == 0) {
        s->at += 4;
        return charge(s, 0);
    }
    if (!number(s, 0, &len) || len + 2 > (double)(s->w->len - s->at))
        return 0;
    s->at += (size_t)len + 2;
    return memcmp(s->w->bytes + s->at - 2, "\r\n", 2) == 0 &&
           charge(s, (size_t)len + 1);
}

static int reply(scan *s, int depth);

static int array(scan *s, int depth) {
    double n;

    if (!number(s, 0, &n))
        return 0;
    if (depth > WIRE_DEPTH || n > (double)s->left) {
        s->beyond = 1;
        return 0;
    }
    if (!charge(s, (size_t)n * sizeof(mr_reply *)))
        return 0;
    for (; n > 0; n--)
        if (!reply(s, depth + 1))
            return 0;
    return 1;
}

static int reply(scan *s, int depth) {
    double integer;

    if (s->at >= s->w->len)
        return 0;
    switch (s->w->bytes[s->at++]) {
    case '+':
    case '-':
        return line(s);
    case ':':
        return number(s, 1, &integer) && charge(s, 0);
    case '$':
        return string(s);
    case '*':
        return array(s, depth);
    default:
        return 0;
    }
}

size_t wire_proper(const wire *w, size_t at, size_t max_bytes, int *beyond) {
    scan s = {w, at, max_bytes, 0};
    int proper = reply(&s, 1);

    *beyond = s.beyond;
    return proper ? s.at - at : 0;
}
