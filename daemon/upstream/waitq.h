#ifndef CHMUX_UPSTREAM_WAITQ_H
#define CHMUX_UPSTREAM_WAITQ_H
/*
 * waitq: the fair queue of those who wait for an upstream connection: first-in first-out inside a
 * flow, round-robin between flows, and a small urgent lane in front of both (a request that is sent
 * again, a KILL QUERY).
 *
 * Ownership  Waiters are embedded in their owners; the queue borrows them. Flows are the queue's.
 * Bound      The caller's: waitq_count() tells how many wait.
 * Cost       Push, remove and pop are O(1) when every waiter is eligible for what is handed out.
 */
#include "base/list.h"
#include "base/thread.h"

struct flow;
struct waitq;

struct waiter { /* embed; zero before first use; fields are the queue's */
    struct list link;
    struct flow *flow; /* NULL: urgent lane */
    struct waitq *q;   /* NULL: not waiting */
};

#define WAITQ_BUCKETS 256

struct waitq { /* fields are the queue's */
    struct list urgent;
    struct list ring; /* flows with waiters, next turn first */
    struct list spare;
    struct list bucket[WAITQ_BUCKETS];
    size_t count, urgent_count, spare_count;
};

void waitq_init(struct waitq *q) LOOP_ONLY;
/* Nobody waits any more. */
void waitq_fini(struct waitq *q) LOOP_ONLY;
/* false: no memory for a new flow. */
MUST_USE bool waitq_push(struct waitq *q, struct waiter *w, uint64_t flow_key) LOOP_ONLY;
void waitq_push_urgent(struct waitq *q, struct waiter *w) LOOP_ONLY;
/* No-op when it does not wait. */
void waitq_remove(struct waiter *w) LOOP_ONLY;
/* The next whose turn it is and whom ok() accepts, taken off the queue; NULL: nobody. */
typedef bool (*waitq_ok_fn)(void *arg, const struct waiter *w); /* on the loop */
MUST_USE struct waiter *waitq_pop(struct waitq *q, waitq_ok_fn ok, void *arg) LOOP_ONLY;

/* The head of the urgent lane, else of the flow whose turn it is; stays in the queue. */
struct waiter *waitq_first(const struct waitq *q) LOOP_ONLY;

/* Everybody who waits: the urgent lane, then flow by flow, each in its order; `round` is 0 for the
 * urgent ones and counts from 1 in each flow. Until fn says false. */
typedef bool (*waitq_each_fn)(void *arg, const struct waiter *w, size_t round); /* on the loop */
void waitq_each(const struct waitq *q, waitq_each_fn fn, void *arg) LOOP_ONLY;

static inline size_t
waitq_count(const struct waitq *q)
{
    return q->count;
}
static inline bool
waiter_waits(const struct waiter *w)
{
    return w->q != NULL;
}
#endif
