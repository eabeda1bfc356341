#include "base/mem.h"

#include <stdatomic.h>

static size_t limit_bytes_ = SIZE_MAX;
static _Atomic size_t used_bytes;
static size_t block_bytes_;
static size_t keep_max;
static struct blk *free_list;
static size_t free_count;
static _Atomic uint64_t fail_countdown;

void
mem_init(size_t limit_bytes, size_t block_bytes, size_t keep)
{
    CHECK(block_bytes > sizeof(struct blk) + 1024);
    limit_bytes_ = limit_bytes;
    block_bytes_ = block_bytes;
    keep_max = keep;
}

void
mem_fini(void)
{
    while (free_list != NULL) {
        struct blk *b = free_list;
        free_list = b->next;
        free(b);
    }
    free_count = 0;
}

bool
mem_take(size_t bytes)
{
    /* Relaxed: the counter guards no other memory, it only has to add up. */
    size_t before = atomic_fetch_add_explicit(&used_bytes, bytes, memory_order_relaxed);
    if (LIKELY(before <= limit_bytes_ && bytes <= limit_bytes_ - before))
        return true;
    atomic_fetch_sub_explicit(&used_bytes, bytes, memory_order_relaxed);
    return false;
}

void
mem_give(size_t bytes)
{
    size_t before = atomic_fetch_sub_explicit(&used_bytes, bytes, memory_order_relaxed);
    CHECK(before >= bytes);
}

size_t
mem_used(void)
{
    return atomic_load_explicit(&used_bytes, memory_order_relaxed);
}

size_t
mem_limit(void)
{
    return limit_bytes_;
}

size_t
blk_cap(void)
{
    return block_bytes_ - sizeof(struct blk);
}

struct blk *
blk_get(void)
{
    if (!mem_take(block_bytes_))
        return NULL;
    struct blk *b = free_list;
    if (LIKELY(b != NULL)) {
        free_list = b->next;
        free_count--;
    } else {
        b = mem_alloc(block_bytes_);
        if (b == NULL) {
            mem_give(block_bytes_);
            return NULL;
        }
    }
    b->next = NULL;
    b->start = b->end = 0;
    return b;
}

void
blk_put(struct blk **bp)
{
    struct blk *b = *bp;
    if (b == NULL)
        return;
    *bp = NULL;
    mem_give(block_bytes_);
    if (free_count >= keep_max) {
        mem_free(b);
        return;
    }
    b->next = free_list;
    free_list = b;
    free_count++;
}

void
mem_fail_at(uint64_t n)
{
    atomic_store_explicit(&fail_countdown, n, memory_order_relaxed);
}

void *
mem_alloc(size_t bytes)
{
    if (UNLIKELY(atomic_load_explicit(&fail_countdown, memory_order_relaxed) > 0) &&
        atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 1)
        return NULL;
    return malloc(bytes);
}

void *
mem_zalloc(size_t bytes)
{
    void *p = mem_alloc(bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

void
mem_free(void *p)
{
    free(p);
}
