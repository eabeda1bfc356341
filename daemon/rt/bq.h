#ifndef CHMUX_RT_BQ_H
#define CHMUX_RT_BQ_H
/*
 * bq: a bounded FIFO that moves jobs between the event loop and other threads.
 *
 * Ownership  BQ_OK gives the item to the queue; any other result leaves it with the caller;
 *            popping gives it to the popper. The queue never allocates, copies or frees items.
 * Threads    Marked below. Only bq_pop_wait() may sleep, so only workers may call it.
 * Bound      cap_items counts queued items, not items a worker has already popped.
 * Wake-up    On each empty -> non-empty edge an 8-byte 1 is written to wake_fd (non-blocking
 *            eventfd, borrowed, outlives the queue; -1: none). Read the eventfd, then drain.
 * Ordering   Writes to an item before its push are visible to whoever pops it.
 */
#include "base/thread.h"

struct bq;
struct bq_item { /* embed in the job; next is the queue's, and a drain's */
    struct bq_item *next;
};
enum bq_result {
    BQ_OK = 0,
    BQ_FULL,   /* cap_items are waiting: refuse the work, do not retry in a loop */
    BQ_CLOSED, /* bq_close() was called: shutting down */
};

/* Owned by the caller; NULL when out of memory. cap_items >= 1. */
MUST_USE struct bq *bq_new(size_t cap_items, int wake_fd) ANY_THREAD;
/* Frees *qp and nulls it. It is empty and no other thread uses it any more. NULL is fine. */
void bq_free(struct bq **qp) ANY_THREAD;
/* Never sleeps: the lock is held for a few stores. */
MUST_USE enum bq_result bq_try_push(struct bq *q, struct bq_item *it) ANY_THREAD;
/* Oldest item, owned; sleeps while empty; NULL once closed and empty. */
MUST_USE struct bq_item *bq_pop_wait(struct bq *q) WORKER_ONLY;
/* As a push and then a pop: the oldest item, owned, which is `it` itself when nothing waits. One
 * for one, so it is never refused for want of room and nobody is woken: who takes `it` out of turn
 * later is whom the push of the item returned has woken. Closed: `it` stays with the caller, and
 * the oldest of those left, or NULL, is returned. Never sleeps. */
MUST_USE struct bq_item *bq_rotate(struct bq *q, struct bq_item *it) ANY_THREAD;
/* Oldest item, owned; NULL: none now. Never sleeps. */
MUST_USE struct bq_item *bq_try_pop(struct bq *q) ANY_THREAD;
/* All items, oldest first, linked by next, owned; NULL if none. Never sleeps. */
MUST_USE struct bq_item *bq_drain(struct bq *q) LOOP_ONLY;
/* Refuses new items and wakes all sleepers; queued items stay poppable. Idempotent. */
void bq_close(struct bq *q) ANY_THREAD;
#endif
