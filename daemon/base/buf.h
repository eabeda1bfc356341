#ifndef CHMUX_BASE_BUF_H
#define CHMUX_BASE_BUF_H
/*
 * buf: a growable byte buffer for heads and texts (bodies travel in blocks, see mem.h).
 *
 * Ownership  embedded; buf_fini() frees. The bytes are counted against the budget.
 * Bound      a buffer never grows past `max`; a refused append leaves it as it was and marks it
 *            failed, so a writer may append many times and ask once with buf_ok().
 */
#include "base/mem.h"
#include "base/str.h"

struct buf {
    char *p;
    size_t len, cap;
    size_t max;
    bool failed;
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b); /* empties it and gives the memory back; reusable */
/* Room for n more bytes; false (and failed) past max or without memory. */
bool buf_reserve(struct buf *b, size_t n);
/* Gives back what is above `cap` bytes; nothing if more than that is in it, or memory is short. */
void buf_shrink(struct buf *b, size_t cap);
void buf_add(struct buf *b, const void *p, size_t n);
/* Needs room for a terminating NUL too, which is not counted in len. */
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vaddf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
/* Drops the first n bytes. */
void buf_consume(struct buf *b, size_t n);

static inline void
buf_str(struct buf *b, struct str s)
{
    buf_add(b, s.p, s.len);
}

static inline bool
buf_ok(const struct buf *b)
{
    return !b->failed;
}
#endif
