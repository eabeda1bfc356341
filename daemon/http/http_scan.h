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

static inline size_t
http_span_token(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && http_is_token_ch(p[i]))
        i++;
    return i;
}

/*
 * Index of the first byte that is below `low` or DEL, or n; eight bytes at a time.
 *
 * (w - L) & ~w has the top bit set in each byte below L; the borrow of such a byte can mark bytes
 * above it wrongly, never below, so the lowest mark is always true. The same holds for DEL, which
 * becomes zero under the xor. low <= 0x80.
 */
static inline size_t
http_span_not_below(const char *p, size_t n, uint8_t low)
{
    const uint64_t ones = 0x0101010101010101u;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        w = le64toh(w);
        uint64_t del = w ^ (ones * 0x7f);
        uint64_t hit = (((w - ones * low) & ~w) | ((del - ones) & ~del)) & (ones * 0x80);
        if (hit != 0)
            return i + (size_t)__builtin_ctzll(hit) / 8;
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
