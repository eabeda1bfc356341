#include "upstream/waitq.h"

#include "base/mem.h"

#include "base/no_block.h"

#define SPARE_MAX 64

struct flow {
    struct list ring_link;
    struct list bucket_link;
    struct list waiters;
    uint64_t key;
};

void
waitq_init(struct waitq *q)
{
    memset(q, 0, sizeof *q);
    list_init(&q->urgent);
    list_init(&q->ring);
    list_init(&q->spare);
    for (size_t i = 0; i < WAITQ_BUCKETS; i++)
        list_init(&q->bucket[i]);
}

void
waitq_fini(struct waitq *q)
{
    CHECK(q->count == 0);
    struct list *node;
    while ((node = list_first(&q->spare)) != NULL) {
        list_remove(node);
        mem_free(CONTAINER_OF(node, struct flow, ring_link));
    }
}

static struct flow *
flow_find(struct waitq *q, uint64_t key)
{
    LIST_EACH (node, &q->bucket[key % WAITQ_BUCKETS]) {
        struct flow *f = CONTAINER_OF(node, struct flow, bucket_link);
        if (f->key == key)
            return f;
    }
    return NULL;
}

static struct flow *
flow_new(struct waitq *q, uint64_t key)
{
    struct list *node = list_first(&q->spare);
    struct flow *f;
    if (node != NULL) {
        list_remove(node);
        q->spare_count--;
        f = CONTAINER_OF(node, struct flow, ring_link);
    } else {
        f = mem_zalloc(sizeof *f);
        if (f == NULL)
            return NULL;
        list_init(&f->waiters);
    }
    f->key = key;
    list_push_back(&q->bucket[key % WAITQ_BUCKETS], &f->bucket_link);
    list_push_back(&q->ring, &f->ring_link);
    return f;
}

static void
flow_drop(struct waitq *q, struct flow *f)
{
    list_remove(&f->bucket_link);
    list_remove(&f->ring_link);
    if (q->spare_count >= SPARE_MAX) {
        mem_free(f);
        return;
    }
    list_push_back(&q->spare, &f->ring_link);
    q->spare_count++;
}

bool
waitq_push(struct waitq *q, struct waiter *w, uint64_t flow_key)
{
    CHECK(w->q == NULL);
    struct flow *f = flow_find(q, flow_key);
    if (f == NULL)
        f = flow_new(q, flow_key);
    if (f == NULL)
        return false;
    w->q = q;
    w->flow = f;
    list_push_back(&f->waiters, &w->link);
    q->count++;
    return true;
}

void
waitq_push_urgent(struct waitq *q, struct waiter *w)
{
    CHECK(w->q == NULL);
    w->q = q;
    w->flow = NULL;
    list_push_back(&q->urgent, &w->link);
    q->count++;
    q->urgent_count++;
}

void
waitq_remove(struct waiter *w)
{
    struct waitq *q = w->q;
    if (q == NULL)
        return;
    list_remove(&w->link);
    q->count--;
    if (w->flow == NULL)
        q->urgent_count--;
    else if (list_empty(&w->flow->waiters))
        flow_drop(q, w->flow);
    w->flow = NULL;
    w->q = NULL;
}

static struct waiter *
first_ok(const struct list *waiters, waitq_ok_fn ok, void *arg)
{
    LIST_EACH (node, waiters) {
        struct waiter *w = CONTAINER_OF(node, struct waiter, link);
        if (ok(arg, w))
            return w;
    }
    return NULL;
}

struct waiter *
waitq_pop(struct waitq *q, waitq_ok_fn ok, void *arg)
{
    struct waiter *w = first_ok(&q->urgent, ok, arg);
    if (w != NULL) {
        waitq_remove(w);
        return w;
    }
    LIST_EACH (node, &q->ring) {
        struct flow *f = CONTAINER_OF(node, struct flow, ring_link);
        w = first_ok(&f->waiters, ok, arg);
        if (w == NULL)
            continue;
        /* Its turn is over: to the back, behind every other flow. */
        list_remove(&f->ring_link);
        list_push_back(&q->ring, &f->ring_link);
        waitq_remove(w);
        return w;
    }
    return NULL;
}

struct waiter *
waitq_first(const struct waitq *q)
{
    struct list *node = list_first(&q->urgent);
    if (node == NULL) {
        struct list *ring = list_first(&q->ring);
        if (ring == NULL)
            return NULL;
        node = list_first(&CONTAINER_OF(ring, struct flow, ring_link)->waiters);
    }
    return CONTAINER_OF(node, struct waiter, link);
}

void
waitq_each(const struct waitq *q, waitq_each_fn fn, void *arg)
{
    LIST_EACH (node, &q->urgent)
        if (!fn(arg, CONTAINER_OF(node, struct waiter, link), 0))
            return;
    LIST_EACH (ring, &q->ring) {
        size_t round = 0;
        const struct flow *f = CONTAINER_OF(ring, struct flow, ring_link);
        LIST_EACH (node, &f->waiters)
            if (!fn(arg, CONTAINER_OF(node, struct waiter, link), ++round))
                return;
    }
}
