#include "base/mem.h"

#include <stdatomic.h>

/* Compilers tell us about ASan each in its own way. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

static size_t budget_bytes = SIZE_MAX;
static _Atomic size_t used_bytes;
static size_t block_size;
static size_t keep_max;
static struct blk *free_list;
static size_t free_count;
static _Atomic uint64_t fail_countdown;

void
mem_init(size_t limit_bytes, size_t block_bytes, size_t keep)
{
    CHECK(block_bytes > sizeof(struct blk) + 1024);
    CHECK(free_list == NULL); /* its blocks would have another size */
    budget_bytes = limit_bytes;
    block_size = block_bytes;
    keep_max = keep;
}

void
mem_fini(void)
{
    while (free_list != NULL) {
        struct blk *b = free_list;
        free_list = b->next;
        ASAN_UNPOISON_MEMORY_REGION(b->data, blk_cap());
        mem_free(b);
    }
    free_count = 0;
}

bool
mem_take(size_t bytes)
{
    /* Relaxed: the counter guards no other memory, it only has to add up. Compare-and-swap and not
     * add-then-undo, which could make another thread's small take fail, or wrap, in between. */
    size_t before = atomic_load_explicit(&used_bytes, memory_order_relaxed);
    do {
        if (before > budget_bytes || bytes > budget_bytes - before)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &used_bytes, &before, before + bytes, memory_order_relaxed, memory_order_relaxed));
    return true;
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
    return budget_bytes;
}

size_t
blk_cap(void)
{
    return block_size - sizeof(struct blk);
}

struct blk *
blk_get(void)
{
    if (!mem_take(block_size))
        return NULL;
    struct blk *b = free_list;
    if (LIKELY(b != NULL)) {
        free_list = b->next;
        free_count--;
        ASAN_UNPOISON_MEMORY_REGION(b->data, blk_cap());
    } else {
        b = mem_alloc(block_size);
        if (b == NULL) {
            mem_give(block_size);
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
    mem_give(block_size);
    if (free_count >= keep_max) {
        mem_free(b);
        return;
    }
    /* On the free list a block is still allocated, so ASan has to be told that nobody reads it. */
    ASAN_POISON_MEMORY_REGION(b->data, blk_cap());
    b->next = free_list;
    free_list = b;
    free_count++;
}

void
mem_fail_at(uint64_t n)
{
    atomic_store_explicit(&fail_countdown, n, memory_order_relaxed);
}

static bool
should_fail(void)
{
    return UNLIKELY(atomic_load_explicit(&fail_countdown, memory_order_relaxed) > 0) &&
           atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 1;
}

void *
mem_alloc(size_t bytes)
{
    return should_fail() ? NULL : malloc(bytes);
}

void *
mem_zalloc(size_t bytes)
{
    return should_fail() ? NULL : calloc(1, bytes);
}

void
mem_free(void *p)
{
    free(p);
}
