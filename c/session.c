/* SPDX-FileCopyrightText: The mooring authors
 * SPDX-License-Identifier: Apache-2.0
 *
 * session.c - the usual form of a session record, read in one pass.
 *
 *     {"id":S,"type":S,"created_at":T,"updated_at":T,"metadata":{S:S,...}}
 *                                                    '-- or without it --'
 *     S  a string of 0x20 to 0x7E, without escapes but for "\/"
 *     T  "YYYY-MM-DDThh:mm:ssZ", or with 1 to 9 digits of a fraction
 *
 * That is how we write a session without data, and ToolHive (which escapes no
 * slash). What deviates by a byte is not judged here: the caller has another
 * decoder for it, which takes all of JSON. So this one may be strict, and has
 * to be: it must never accept what the other refuses, nor read it otherwise.
 *
 * Nothing is allocated. Strings are handed out where they stand in the record,
 * or from the scratch of the result where an escape had to be taken out.
 */
#include "mooring.h"

#include <string.h>

/* ...:ssZ and ...:ss.123456789Z */
enum { TIME_SHORTEST = 20, TIME_LONGEST = 30 };

/* Where in the record we are, and how much of the scratch is used. */
typedef struct cursor {
    const char *at;
    const char *end;
    char *scratch;
    char *scratch_end;
} cursor;

/* Inline, so that lengths are known and memcmp is none. */
static inline __attribute__((always_inline)) int
skip(cursor *c, const char *text, size_t len) {
    if ((size_t)(c->end - c->at) < len || memcmp(c->at, text, len) != 0)
        return 0;
    c->at += len;
    return 1;
}

#define SKIP(c, literal) skip(c, literal, sizeof(literal) - 1)

/* What a string may hold as it is. */
static int is_plain(char byte) {
    return byte >= 0x20 && byte <= 0x7e && byte != '"' && byte != '\\';
}

/* Eight bytes at once. All high bits are set before something is taken off, so
 * that no byte borrows from the next: one keeps its high bit when what is below
 * it is not less than what is taken off. */
#define ONES 0x0101010101010101u
#define HIGH (0x80 * ONES)

/* The first byte is the lowest. */
static inline uint64_t word_at(const char *at) {
    uint64_t word;

    memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Sets the high bits of bytes that are not from `least` to 0x7E. */
static inline uint64_t invisible(uint64_t word, uint64_t least) {
    return (word | ~((word | HIGH) - least * ONES) |
            ~(((word ^ 0x7f * ONES) | HIGH) - ONES)) &
           HIGH;
}

/* Sets the high bits of bytes that are `byte`, maybe of invisible ones too. */
static inline uint64_t holds(uint64_t word, uint64_t byte) {
    return ~(((word ^ byte * ONES) | HIGH) - ONES) & HIGH;
}

/* Sets the high bits of bytes that are not plain. */
static inline uint64_t odd_bytes(const char *at) {
    uint64_t word = word_at(at);

    return invisible(word, 0x20) | holds(word, '"') | holds(word, '\\');
}

static const char *plain_end(const char *at, const char *end) {
    for (; end - at >= 8; at += 8) {
        uint64_t odd = odd_bytes(at);

        if (odd != 0)
            return at + __builtin_ctzll(odd) / 8;
    }
    while (at < end && is_plain(*at))
        at++;
    return at;
}

uint32_t mr_session_id_span(const char *id, uint32_t len) {
    const char *at = id, *end = id + len;

    while (end - at >= 8 && invisible(word_at(at), 0x21) == 0)
        at += 8;
    while (at<end && * at> 0x20 && *at < 0x7f)
        at++;
    return (uint32_t)(at - id);
}

/* Puts what stands before `to` into the scratch. */
static int keep(cursor *c, const char *to) {
    size_t len = (size_t)(to - c->at);

    if ((size_t)(c->scratch_end - c->scratch) < len)
        return 0;
    memcpy(c->scratch, c->at, len);
    c->scratch += len;
    c->at = to;
    return 1;
}

/* A string with escapes, of which the first is at `escape`. */
static int read_escaped(cursor *c, const char *escape, mr_text *out) {
    out->bytes = c->scratch;
    if (!keep(c, escape))
        return 0;
    while (c->at < c->end && *c->at == '\\') {
        /* The slash is the first of the plain bytes behind the backslash. */
        const char *to = plain_end(++c->at, c->end);

        if (to == c->at || *c->at != '/' || !keep(c, to))
            return 0;
    }
    out->len = (uint32_t)(c->scratch - out->bytes);
    return SKIP(c, "\"");
}

static int read_string(cursor *c, mr_text *out) {
    const char *to;

    if (!SKIP(c, "\""))
        return 0;
    to = plain_end(c->at, c->end);
    if (to < c->end && *to == '\\')
        return read_escaped(c, to, out);
    out->bytes = c->at;
    out->len = (uint32_t)(to - c->at);
    c->at = to;
    return SKIP(c, "\"");
}

/* ---------------------------------------------------------------- times -- */

/* The number that n digits write, or -1. */
static inline int digits(const char *at, int n) {
    unsigned wrong = 0, value = 0;

    for (int i = 0; i < n; i++) {
        unsigned digit = (unsigned char)at[i] - (unsigned)'0';

        wrong |= digit > 9;
        value = value * 10 + digit;
    }
    return wrong ? -1 : (int)value;
}

static int days_in(int year, int month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar: years are counted
 * from March, so that the leap day is the last of its year. Years are > 0. */
static int days_from_civil(int year, int month, int day) {
    if (month <= 2) {
        year -= 1;
        month += 12;
    }
    return 365 * year + year / 4 - year / 100 + year / 400 +
           (153 * (month - 3) + 2) / 5 + day - 1 - 719468;
}

static int has_marks(const char *s) {
    return s[4] == '-' && s[7] == '-' && s[10] == 'T' && s[13] == ':' &&
           s[16] == ':';
}

/* ".5" to seconds, as one division of two exact numbers rounds it; below 0
 * when it is no fraction. */
static double fraction(const char *s, uint32_t len) {
    static const double scale[] = {1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};

    if (len == 0)
        return 0;
    if (len < 2 || s[0] != '.')
        return -1;
    return digits(s + 1, (int)len - 1) / scale[len - 2];
}

/* Bytes of the time that begins at s, up to its "Z"; 0: it is too long. */
static uint32_t time_length(const char *s, const char *end) {
    uint32_t len = TIME_SHORTEST;

    while (len <= TIME_LONGEST && s + len < end && s[len - 1] != 'Z')
        len++;
    return len <= TIME_LONGEST && s + len < end ? len : 0;
}

/* Unix seconds of a time, as resty.mooring.rfc3339 adds them up. */
static int read_time(cursor *c, double *out) {
    const char *s = c->at + 1;
    int year, month, day, hour, minute, second;
    uint32_t len;
    double part;

    if (c->end - c->at < TIME_SHORTEST + 2 || *c->at != '"' || !has_marks(s) ||
        (len = time_length(s, c->end)) == 0)
        return 0;
    year = digits(s, 4), month = digits(s + 5, 2), day = digits(s + 8, 2);
    hour = digits(s + 11, 2), minute = digits(s + 14, 2);
    second = digits(s + 17, 2);
    part = fraction(s + 19, len - TIME_SHORTEST);
    if (year < 1 || month < 1 || month > 12 || day < 1 ||
        day > days_in(year, month) || hour < 0 || hour > 23 || minute < 0 ||
        minute > 59 || second < 0 || second > 60 || part < 0)
        return 0;
    *out = days_from_civil(year, month, day) * 86400.0 + hour * 3600 +
           minute * 60 + second + part;
    c->at = s + len;
    return SKIP(c, "\"");
}

/* -------------------------------------------------------------- members -- */

static int read_metadata(cursor *c, mr_session *out) {
    if (SKIP(c, "}"))
        return 1;
    do {
        if (out->members == MR_SESSION_MEMBERS ||
            !read_string(c, &out->key[out->members]) || !SKIP(c, ":") ||
            !read_string(c, &out->value[out->members]))
            return 0;
        out->members++;
    } while (SKIP(c, ","));
    return SKIP(c, "}");
}

static int is_id(const mr_text *text, const char *id, uint32_t id_len) {
    return id == NULL ||
           (text->len == id_len && memcmp(text->bytes, id, id_len) == 0);
}

static int read_times(cursor *c, mr_session *out) {
    const char *first, *behind;

    if (!SKIP(c, ",\"created_at\":"))
        return 0;
    first = c->at;
    if (!read_time(c, &out->created_at))
        return 0;
    behind = c->at;
    if (!SKIP(c, ",\"updated_at\":"))
        return 0;
    /* Most sessions are as they were made: the second time is the first. */
    if (skip(c, first, (size_t)(behind - first))) {
        out->updated_at = out->created_at;
        return 1;
    }
    return read_time(c, &out->updated_at);
}

int mr_session_read(const char *text, uint32_t len, const char *id,
                    uint32_t id_len, mr_session *out) {
    cursor c = {text, text + len, out->scratch,
                out->scratch + sizeof out->scratch};

    out->members = 0;
    if (!SKIP(&c, "{\"id\":") || !read_string(&c, &out->id) ||
        !is_id(&out->id, id, id_len) || !SKIP(&c, ",\"type\":") ||
        !read_string(&c, &out->type) || !read_times(&c, out))
        return MR_INVALID;
    if (SKIP(&c, ",\"metadata\":{") && !read_metadata(&c, out))
        return MR_INVALID;
    return SKIP(&c, "}") && c.at == c.end ? MR_OK : MR_INVALID;
}
