#include "base/buf.h"

#define BUF_MIN 512

void
buf_init(struct buf *b, size_t max)
{
    CHECK(max <= SIZE_MAX / 2);
    *b = (struct buf){.max = max};
}

void
buf_fini(struct buf *b)
{
    if (b->p != NULL) {
        mem_free(b->p);
        mem_give(b->cap);
    }
    *b = (struct buf){.max = b->max};
}

/* Moves what b holds to memory of its own of `want` bytes; false: budget or memory exhausted. */
static bool
buf_move(struct buf *b, size_t want)
{
    if (!mem_take(want))
        return false;
    char *p = mem_alloc(want);
    if (p == NULL) {
        mem_give(want);
        return false;
    }
    if (b->len > 0)
        memcpy(p, b->p, b->len);
    if (b->p != NULL) {
        mem_free(b->p);
        mem_give(b->cap);
    }
    b->p = p;
    b->cap = want;
    return true;
}

bool
buf_reserve(struct buf *b, size_t n)
{
    if (b->failed)
        return false;
    if (LIKELY(b->cap - b->len >= n))
        return true;
    if (n <= b->max - b->len) {
        /* cap <= max <= SIZE_MAX / 2 (buf_init), so doubling cannot wrap. */
        size_t want = size_max(size_max(BUF_MIN, b->len + n), b->cap * 2);
        if (buf_move(b, size_min(want, b->max)))
            return true;
    }
    b->failed = true;
    return false;
}

void
buf_shrink(struct buf *b, size_t cap)
{
    char *p = b->cap > cap && b->len <= cap && cap > 0 ? mem_alloc(cap) : NULL;
    if (p == NULL)
        return;
    if (b->len > 0)
        memcpy(p, b->p, b->len);
    mem_free(b->p);
    mem_give(b->cap - cap); /* never refused, also when the budget is spent */
    b->p = p;
    b->cap = cap;
}

void
buf_add(struct buf *b, const void *p, size_t n)
{
    if (n == 0 || !buf_reserve(b, n))
        return;
    memcpy(b->p + b->len, p, n);
    b->len += n;
}

void
buf_vaddf(struct buf *b, const char *fmt, va_list ap)
{
    if (b->failed)
        return;
    va_list again;
    va_copy(again, ap);
    size_t room = b->cap - b->len;
    int n = vsnprintf(room > 0 ? b->p + b->len : NULL, room, fmt, ap);
    if (n >= 0 && (size_t)n >= room && buf_reserve(b, (size_t)n + 1))
        n = vsnprintf(b->p + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    if (n < 0)
        b->failed = true;
    else if (!b->failed)
        b->len += (size_t)n;
}

void
buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(b, fmt, ap);
    va_end(ap);
}

void
buf_consume(struct buf *b, size_t n)
{
    CHECK(n <= b->len);
    b->len -= n;
    if (b->len > 0)
        memmove(b->p, b->p + n, b->len);
}
