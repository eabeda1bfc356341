#ifndef CHMUX_HTTP_HTTP_SCAN_H
#define CHMUX_HTTP_HTTP_SCAN_H
/*
 * http_scan: the character classes of RFC 9110 section 5.6 and spans over them, private to http/.
 * Every span returns the index of the first byte outside its class, or n. None reads past n.
 */
#include "base/str.h"

#include <endian.h>

enum {
    HTTP_CH_TOKEN = 1, /* tchar */
    HTTP_CH_TEXT = 2,  /* a field value: HTAB, SP, VCHAR, obs-text */
};
extern const uint8_t http_ch[256];

static inline bool
http_is_token_ch(char c)
{
    return (http_ch[(uint8_t)c] & HTTP_CH_TOKEN) != 0;
}

static inline bool
http_is_text_ch(char c)
{
    return (http_ch[(uint8_t)c] & HTTP_CH_TEXT) != 0;
}

static inline bool
http_is_ows(char c)
{
    return c == ' ' || c == '\t';
}

/* Byte by byte: right for what is short, such as a method. */
static inline size_t
http_span_token(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && http_is_token_ch(p[i]))
        i++;
    return i;
}

/* Sixteen bytes at a time, in the compiler's portable vectors. */
typedef uint8_t http_v16 __attribute__((vector_size(16)));
typedef uint64_t http_v16_halves __attribute__((vector_size(16)));

static inline http_v16
http_v16_load(const char *p)
{
    http_v16 v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Index of the first byte that is not 0 in a result of comparisons, or 16. */
static inline size_t
http_v16_first(http_v16 hit)
{
    http_v16_halves half = (http_v16_halves)hit;
    uint64_t low = half[0], high = half[1];
    if (LIKELY((low | high) == 0))
        return 16;
    size_t base = low != 0 ? 0 : 8;
    return base + (size_t)__builtin_ctzll(le64toh(low != 0 ? low : high)) / 8;
}

/* The same as http_span_token(), for field names: letters, digits and '-' in bulk. */
static inline size_t
http_span_name(const char *p, size_t n)
{
    size_t i = 0;
    while (n - i >= 16) {
        http_v16 v = http_v16_load(p + i);
        http_v16 letter = (http_v16)(((v | 0x20) - 'a') < 26);
        http_v16 other = (http_v16)((v - '0') < 10) | (http_v16)(v == '-');
        size_t first = http_v16_first(~(letter | other));
        i += first;
        if (first == 16)
            continue;
        if (!http_is_token_ch(p[i]))
            return i;
        i++; /* a rarer tchar, such as '_' */
    }
    return i + http_span_token(p + i, n - i);
}

/* Index of the first byte that is below `low` or DEL, or n. */
static inline size_t
http_span_not_below(const char *p, size_t n, uint8_t low)
{
    size_t i = 0;
    for (; n - i >= 16; i += 16) {
        http_v16 v = http_v16_load(p + i);
        size_t first = http_v16_first((http_v16)(v < low) | (http_v16)(v == 0x7f));
        if (first < 16)
            return i + first;
    }
    while (i < n && (uint8_t)p[i] >= low && p[i] != 0x7f)
        i++;
    return i;
}

/* A field value or a reason phrase: no control character but HTAB. */
static inline size_t
http_span_text(const char *p, size_t n)
{
    size_t i = http_span_not_below(p, n, 0x20);
    while (UNLIKELY(i < n && p[i] == '\t')) {
        i++;
        i += http_span_not_below(p + i, n - i, 0x20);
    }
    return i;
}

/* A request target: no control character, no space; bytes over 0x7f as the server takes them. */
static inline size_t
http_span_target(const char *p, size_t n)
{
    return http_span_not_below(p, n, 0x21);
}

/* a without regard to ASCII case equals lower, which is lower case letters and '-' only. */
bool http_eq_lower(struct str a, struct str lower);
#endif
