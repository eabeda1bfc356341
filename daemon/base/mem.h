#ifndef CHMUX_BASE_MEM_H
#define CHMUX_BASE_MEM_H
/*
 * mem: the byte budget (memory_limit) and the blocks that bodies travel in.
 *
 * Whatever a peer or the size of data makes us hold is taken from the budget first: mem_take(),
 * and given back with mem_give(). Refused means: stop reading, or answer 503.
 *
 * Blocks are the buffers that bodies travel in. Those of the relay (mem_init's block_bytes) and the
 * chunks that pipes make (BLK_CHUNK) are kept on free lists and handed out last-in first-out, so
 * that one busy block stays hot in the cache; blocks of any other size come and go. Blocks out are
 * counted against the budget; each free list keeps at most `keep`.
 *
 * Threads: any. One short lock guards the free lists.
 */
#include "base/thread.h"

/* Once, at boot, before any other thread. keep: how many free blocks stay allocated. */
void mem_init(size_t limit_bytes, size_t block_bytes, size_t keep);
/* A reload: what is out already may be more; then nothing is granted until it is less. */
void mem_set_limit(size_t limit_bytes) ANY_THREAD;
/* Frees the kept blocks; mem_init() may be called again. */
void mem_fini(void);

MUST_USE bool mem_take(size_t bytes) ANY_THREAD;
void mem_give(size_t bytes) ANY_THREAD;
/* For what a stream holds as long as it lives (codec state, windows): refused above three quarters
 * of the limit, so that there is always room for the blocks that let those who hold state go on. */
MUST_USE bool mem_take_long(size_t bytes) ANY_THREAD;
/* For what can be done without: refused above a quarter of the limit. */
MUST_USE bool mem_take_spare(size_t bytes) ANY_THREAD;
/* The most mem_take_long() could ever grant. */
size_t mem_long_limit(void) ANY_THREAD;
size_t mem_used(void) ANY_THREAD;
size_t mem_limit(void) ANY_THREAD;

struct blk {
    struct blk *next; /* free for the owner's use while it is out */
    size_t start;     /* unread bytes are data[start, end) */
    size_t end;
    size_t cap; /* bytes in data[] */
    char data[];
};
/* data[] of a chunk: 256 KiB of payload, and room for chunked framing before and behind it */
#define BLK_CHUNK ((256u << 10) + 64)
size_t blk_cap(void); /* of a relay block */
/* Owned, empty; NULL: budget or memory exhausted. */
MUST_USE struct blk *blk_get(void) ANY_THREAD;
MUST_USE struct blk *blk_get_sized(size_t cap) ANY_THREAD;
void blk_put(struct blk **bp) ANY_THREAD; /* nulls *bp; NULL is fine */
static inline size_t
blk_len(const struct blk *b)
{
    return b == NULL ? 0 : b->end - b->start;
}

/* Test hook: the n-th allocation from now through mem_alloc() fails (0: never). */
void mem_fail_at(uint64_t n);
/* malloc/free with the test hook; not counted against the budget. */
MUST_USE void *mem_alloc(size_t bytes);
MUST_USE void *mem_zalloc(size_t bytes);
void mem_free(void *p);
#endif
