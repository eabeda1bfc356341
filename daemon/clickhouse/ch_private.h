#ifndef CHMUX_CLICKHOUSE_CH_PRIVATE_H
#define CHMUX_CLICKHOUSE_CH_PRIVATE_H
/*
 * ch_private: what the files of clickhouse/ share. Nobody else includes it.
 */
#include "clickhouse/ch.h"

static inline int
ch_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -1: none. */
static inline int
ch_base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

/* The next decoded byte of *s, 0 to 255, or -1 at its end. A bad escape stands for itself. */
static inline int
ch_url_next(struct str *s)
{
    if (s->len == 0)
        return -1;
    char c = *s->p;
    size_t used = 1;
    if (UNLIKELY(c == '+')) {
        c = ' ';
    } else if (UNLIKELY(c == '%') && s->len >= 3) {
        int high = ch_hex_digit(s->p[1]);
        int low = ch_hex_digit(s->p[2]);
        if (high >= 0 && low >= 0) {
            c = (char)(high * 16 + low);
            used = 3;
        }
    }
    s->p += used;
    s->len -= used;
    return (unsigned char)c;
}

/* FNV-1a with a finaliser: tells users and sessions apart, protects nothing. */
#define CH_HASH_INIT 0xcbf29ce484222325u
static inline uint64_t
ch_hash_add(uint64_t hash, int c)
{
    return (hash ^ (uint64_t)c) * 0x100000001b3u;
}
static inline uint64_t
ch_hash_end(uint64_t hash)
{
    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdu;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53u;
    return hash ^ hash >> 33;
}

/* Class of the decoded url text, a newline, and body. Without url, or with a body of STR_NULL,
 * there is no newline. */
enum ch_class ch_classify_both(struct str url, struct str body, bool text_is_whole);
#endif
