#ifndef CHMUX_TESTS_FUZZ_HTTP_H
#define CHMUX_TESTS_FUZZ_HTTP_H
/*
 * fuzz_http: what the three http targets share. Every piece of input is parsed from a block of its
 * exact size, so that ASan sees the first byte read past it.
 */
#include "fuzz.h"

#include "base/check.h"
#include "base/str.h"

static inline struct str
fuzz_copy(struct str s)
{
    char *p = malloc(s.len > 0 ? s.len : 1);
    CHECK(p != NULL);
    if (s.len > 0)
        memcpy(p, s.p, s.len);
    return str_n(p, s.len);
}

static inline void
fuzz_free(struct str s)
{
    free((void *)(uintptr_t)s.p);
}

/*
 * Calls fn for prefix lengths of s: all of them if it is short, else the first and last few and
 * some in between, so that a long input does not cost the square of its length.
 */
static inline void
fuzz_each_prefix(struct str s, void (*fn)(struct str s, size_t n, void *arg), void *arg)
{
    size_t step = s.len / 64 + 1;
    for (size_t n = 0; n < s.len; n++)
        if (n < 16 || s.len - n < 16 || n % step == 0)
            fn(s, n, arg);
}
#endif
