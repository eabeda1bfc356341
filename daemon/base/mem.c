#include "base/mem.h"

#include <pthread.h>
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

struct pool {   /* free blocks of one size */
    size_t cap; /* of data[] */
    struct blk *first;
    size_t count;
};

static _Atomic size_t budget_bytes = SIZE_MAX;
static _Atomic size_t used_bytes;
static size_t keep_max;
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pool relay_pool, chunk_pool = {.cap = BLK_CHUNK};
static _Atomic uint64_t fail_countdown;

/* A plain mutex that is set up right cannot fail. */
#define LOCKED(statements)                                                                         \
    do {                                                                                           \
        int rc_ = pthread_mutex_lock(&pool_lock);                                                  \
        CHECK(rc_ == 0);                                                                           \
        statements;                                                                                \
        rc_ = pthread_mutex_unlock(&pool_lock);                                                    \
        CHECK(rc_ == 0);                                                                           \
    } while (0)

void
mem_init(size_t limit_bytes, size_t block_bytes, size_t keep)
{
    CHECK(block_bytes > sizeof(struct blk) + 1024);
    CHECK(relay_pool.first == NULL); /* its blocks would have another size */
    mem_set_limit(limit_bytes);
    relay_pool.cap = block_bytes - sizeof(struct blk);
    keep_max = keep;
}

static void
pool_clear(struct pool *p)
{
    while (p->first != NULL) {
        struct blk *b = p->first;
        p->first = b->next;
        ASAN_UNPOISON_MEMORY_REGION(b->data, b->cap);
        mem_free(b);
    }
    p->count = 0;
}

void
mem_fini(void)
{
    pool_clear(&relay_pool);
    pool_clear(&chunk_pool);
}

static bool
take_below(size_t bytes, size_t limit)
{
    /* Relaxed: the counter guards no other memory, it only has to add up. Compare-and-swap and not
     * add-then-undo, which could make another thread's small take fail, or wrap, in between. */
    size_t before = atomic_load_explicit(&used_bytes, memory_order_relaxed);
    do {
        if (before > limit || bytes > limit - before)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &used_bytes, &before, before + bytes, memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool
mem_take(size_t bytes)
{
    return take_below(bytes, mem_limit());
}

size_t
mem_long_limit(void)
{
    size_t limit = mem_limit();
    return limit - limit / 4;
}

bool
mem_take_long(size_t bytes)
{
    return take_below(bytes, mem_long_limit());
}

bool
mem_take_spare(size_t bytes)
{
    return take_below(bytes, mem_limit() / 4);
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
    return atomic_load_explicit(&budget_bytes, memory_order_relaxed);
}

/* Relaxed: whoever takes memory at this moment may do so by either limit. */
void
mem_set_limit(size_t limit_bytes)
{
    atomic_store_explicit(&budget_bytes, limit_bytes, memory_order_relaxed);
}

size_t
blk_cap(void)
{
    return relay_pool.cap;
}

static struct pool *
pool_of(size_t cap)
{
    if (cap == relay_pool.cap)
        return &relay_pool;
    return cap == BLK_CHUNK ? &chunk_pool : NULL;
}

static struct blk *
pool_get(struct pool *p)
{
    struct blk *b;
    LOCKED({
        b = p->first;
        if (b != NULL) {
            p->first = b->next;
            p->count--;
        }
    });
    if (b != NULL)
        ASAN_UNPOISON_MEMORY_REGION(b->data, b->cap);
    return b;
}

struct blk *
blk_get_sized(size_t cap)
{
    size_t bytes = sizeof(struct blk) + cap;
    if (!mem_take(bytes))
        return NULL;
    struct pool *p = pool_of(cap);
    struct blk *b = p == NULL ? NULL : pool_get(p);
    if (b == NULL) {
        b = mem_alloc(bytes);
        if (b == NULL) {
            mem_give(bytes);
            return NULL;
        }
    }
    b->next = NULL;
    b->start = b->end = 0;
    b->cap = cap;
    return b;
}

struct blk *
blk_get(void)
{
    return blk_get_sized(relay_pool.cap);
}

void
blk_put(struct blk **bp)
{
    struct blk *b = *bp;
    if (b == NULL)
        return;
    *bp = NULL;
    struct pool *p = pool_of(b->cap);
    mem_give(sizeof(struct blk) + b->cap);
    if (p != NULL) {
        /* On the free list a block is still allocated, so ASan has to be told that nobody reads
         * it. */
        ASAN_POISON_MEMORY_REGION(b->data, b->cap);
        LOCKED({
            if (p->count < keep_max) {
                b->next = p->first;
                p->first = b;
                p->count++;
                b = NULL;
            }
        });
        if (b != NULL)
            ASAN_UNPOISON_MEMORY_REGION(b->data, b->cap);
    }
    mem_free(b);
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
