#ifndef CHMUX_BASE_STR_H
#define CHMUX_BASE_STR_H
/*
 * str: a borrowed span of bytes, not terminated. Wire text is always a struct str.
 * Ownership: none; whoever holds the bytes says how long they live.
 */
#include "base/base.h"

struct str {
    const char *p;
    size_t len;
};

#define STR(lit)   ((struct str){"" lit, sizeof(lit) - 1})
#define STR_NULL   ((struct str){NULL, 0})
#define STR_FMT    "%.*s" /* with STR_ARG() */
#define STR_ARG(s) ((int)((s).len > INT_MAX ? INT_MAX : (s).len)), (s).p

static inline struct str
str_of(const char *z)
{
    return (struct str){z, strlen(z)};
}

static inline struct str
str_n(const char *p, size_t len)
{
    return (struct str){p, len};
}

static inline bool
str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

static inline char
ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool str_eq_nocase(struct str a, struct str b); /* ASCII only */
bool str_starts_nocase(struct str s, struct str prefix);
struct str str_trim(struct str s); /* spaces and tabs off both ends */
/* First occurrence of c, or -1. */
ssize_t str_find(struct str s, char c);
/* Decimal digits only, at least one, value <= max; false otherwise and *out untouched. */
MUST_USE bool str_to_u64(struct str s, uint64_t max, uint64_t *out);
/* The next comma-separated element of *list, trimmed; false at the end. Empty ones are skipped. */
bool str_next_token(struct str *list, struct str *token);
/* Length of the well-formed UTF-8 sequence at the front of s, which is not empty (RFC 3629:
 * shortest form, no surrogates); 0: there is none. */
size_t str_utf8_len(struct str s);
#endif
