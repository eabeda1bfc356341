#include "rt/bq.h"

#include <pthread.h>
#include <unistd.h>

#include "base/mem.h"

/* not on the loop: bq_pop_wait() sleeps, which its WORKER_ONLY mark keeps off the loop thread */

struct bq {
    pthread_mutex_t lock;
    pthread_cond_t not_empty;
    struct bq_item *head, *tail; /* oldest, newest; NULL: empty */
    size_t count;
    size_t cap_items;
    int wake_fd; /* borrows, -1: none */
    bool closed;
};

/* The calls on a mutex and a condition that are set up right cannot fail. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        int rc = (call);                                                                           \
        CHECK(rc == 0);                                                                            \
    } while (0)

struct bq *
bq_new(size_t cap_items, int wake_fd)
{
    CHECK(cap_items >= 1);
    struct bq *q = mem_zalloc(sizeof(*q));
    if (q == NULL)
        return NULL;
    q->cap_items = cap_items;
    q->wake_fd = wake_fd;
    MUST(pthread_mutex_init(&q->lock, NULL));
    MUST(pthread_cond_init(&q->not_empty, NULL));
    return q;
}

void
bq_free(struct bq **qp)
{
    struct bq *q = *qp;
    if (q == NULL)
        return;
    *qp = NULL;
    CHECK(q->head == NULL);
    MUST(pthread_cond_destroy(&q->not_empty));
    MUST(pthread_mutex_destroy(&q->lock));
    mem_free(q);
}

static void
wake(int fd)
{
    const uint64_t one = 1;
    ssize_t n;
    do
        n = write(fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so the reader has a wake-up waiting already. */
    CHECK(n == (ssize_t)sizeof(one) || errno == EAGAIN);
}

static void
push_locked(struct bq *q, struct bq_item *it)
{
    it->next = NULL;
    if (q->head == NULL)
        q->head = it;
    else
        q->tail->next = it;
    q->tail = it;
    q->count++;
}

enum bq_result
bq_try_push(struct bq *q, struct bq_item *it)
{
    enum bq_result result = BQ_OK;
    bool edge = false;
    int wake_fd = q->wake_fd;

    MUST(pthread_mutex_lock(&q->lock));
    if (q->closed) {
        result = BQ_CLOSED;
    } else if (q->count == q->cap_items) {
        result = BQ_FULL;
    } else {
        edge = q->head == NULL;
        push_locked(q, it);
        /* One item, one sleeper: the others stay asleep. Signalled under the lock, since a popper
         * may free the queue as soon as it has this item and the lock is free. */
        MUST(pthread_cond_signal(&q->not_empty));
    }
    MUST(pthread_mutex_unlock(&q->lock));
    if (edge && wake_fd >= 0)
        wake(wake_fd);
    return result;
}

static struct bq_item *
pop_locked(struct bq *q)
{
    struct bq_item *it = q->head;
    if (it != NULL) {
        q->head = it->next;
        if (q->head == NULL)
            q->tail = NULL;
        q->count--;
        it->next = NULL;
    }
    return it;
}

struct bq_item *
bq_pop_wait(struct bq *q)
{
    MUST(pthread_mutex_lock(&q->lock));
    while (q->head == NULL && !q->closed)
        MUST(pthread_cond_wait(&q->not_empty, &q->lock));
    struct bq_item *it = pop_locked(q);
    MUST(pthread_mutex_unlock(&q->lock));
    return it;
}

struct bq_item *
bq_rotate(struct bq *q, struct bq_item *it)
{
    MUST(pthread_mutex_lock(&q->lock));
    if (!q->closed)
        push_locked(q, it);
    it = pop_locked(q);
    MUST(pthread_mutex_unlock(&q->lock));
    return it;
}

struct bq_item *
bq_try_pop(struct bq *q)
{
    MUST(pthread_mutex_lock(&q->lock));
    struct bq_item *it = pop_locked(q);
    MUST(pthread_mutex_unlock(&q->lock));
    return it;
}

struct bq_item *
bq_drain(struct bq *q)
{
    MUST(pthread_mutex_lock(&q->lock));
    struct bq_item *all = q->head;
    q->head = q->tail = NULL;
    q->count = 0;
    MUST(pthread_mutex_unlock(&q->lock));
    return all;
}

void
bq_close(struct bq *q)
{
    MUST(pthread_mutex_lock(&q->lock));
    q->closed = true;
    MUST(pthread_cond_broadcast(&q->not_empty));
    MUST(pthread_mutex_unlock(&q->lock));
}
