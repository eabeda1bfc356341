#include "t.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "rt/bq.h"

/* Ownership: a refused item stays with the caller; a drain makes room; close keeps the queued. */
static void
test_refused_item_stays_with_caller(void **state)
{
    (void)state;
    thr_check_loop();
    struct bq *q = bq_new(2, -1);
    struct bq_item a = {0}, b = {0}, c = {0};
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_EQ(bq_try_push(q, &b), BQ_OK);
    T_EQ(bq_try_push(q, &c), BQ_FULL);
    T_TRUE(bq_drain(q) == &a && a.next == &b && b.next == NULL); /* FIFO, and no c */
    T_TRUE(bq_drain(q) == NULL);
    T_EQ(bq_try_push(q, &c), BQ_OK);
    bq_close(q);
    bq_close(q);
    T_EQ(bq_try_push(q, &a), BQ_CLOSED);
    T_TRUE(bq_drain(q) == &c && c.next == NULL);
    bq_free(&q);
    T_TRUE(q == NULL);
    bq_free(&q);
}

/* An item that was drained in the middle of a chain may be pushed again as it is. */
static void
test_drained_items_can_go_back(void **state)
{
    (void)state;
    thr_check_loop();
    struct bq *q = bq_new(3, -1);
    struct bq_item a = {0}, b = {0}, c = {0};
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_EQ(bq_try_push(q, &b), BQ_OK);
    T_EQ(bq_try_push(q, &c), BQ_OK);
    T_TRUE(bq_drain(q) == &a);
    T_EQ(bq_try_push(q, &b), BQ_OK);
    T_TRUE(bq_drain(q) == &b && b.next == NULL);
    bq_free(&q);
}

static uint64_t
edges(int fd)
{
    uint64_t n = 0;
    return read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) ? n : 0;
}

/* Wake-up: one count per empty -> non-empty edge, none for a refused or a further item. */
static void
test_one_wake_up_per_edge(void **state)
{
    (void)state;
    thr_check_loop();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct bq *q = bq_new(2, fd);
    struct bq_item a = {0}, b = {0}, c = {0};
    T_EQ(edges(fd), 0);
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_EQ(edges(fd), 1);
    T_EQ(bq_try_push(q, &b), BQ_OK);
    T_EQ(bq_try_push(q, &c), BQ_FULL);
    T_EQ(edges(fd), 0);
    T_TRUE(bq_drain(q) == &a);
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_TRUE(bq_drain(q) == &a);
    T_EQ(bq_try_push(q, &b), BQ_OK);
    T_EQ(edges(fd), 2);
    bq_close(q);
    T_EQ(bq_try_push(q, &c), BQ_CLOSED);
    T_EQ(edges(fd), 0);
    T_TRUE(bq_drain(q) == &b);
    bq_free(&q);
    close(fd);
}

/* A full eventfd counter is a pending wake-up: the push goes through. */
static void
test_full_eventfd_is_no_error(void **state)
{
    (void)state;
    thr_check_loop();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t most = UINT64_MAX - 1;
    T_EQ(write(fd, &most, sizeof(most)), sizeof(most));
    struct bq *q = bq_new(1, fd);
    struct bq_item a = {0};
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_TRUE(bq_drain(q) == &a);
    bq_free(&q);
    close(fd);
}

struct numbered {
    struct bq_item item;
    unsigned number;
    unsigned seen; /* by whoever holds the item, without a lock: TSan judges the hand-over */
};

struct pipes {
    struct bq *todo, *done;
};

/* The worker's side: hands each item on until the queue is closed and empty. */
static void *
relay_worker(void *arg)
{
    thr_become(THR_WORKER);
    thr_check_worker();
    struct pipes *p = arg;
    struct bq_item *it;
    while ((it = bq_pop_wait(p->todo)) != NULL) {
        CONTAINER_OF(it, struct numbered, item)->seen++;
        enum bq_result r = bq_try_push(p->done, it);
        CHECK(r == BQ_OK);
    }
    return NULL;
}

#define WORKERS 4
#define ROUNDS  200
#define ITEMS   32

/* Ordering: four workers, 200 rounds, each item goes round once per round, counted unlocked. */
static void
test_hand_over_is_ordered(void **state)
{
    (void)state;
    thr_check_loop();
    static struct numbered items[ITEMS];
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct pipes p = {bq_new(ITEMS, -1), bq_new(ITEMS, fd)};
    pthread_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        T_EQ(pthread_create(&workers[i], NULL, relay_worker, &p), 0);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 0; i < ITEMS; i++)
            T_EQ(bq_try_push(p.todo, &items[i].item), BQ_OK);
        for (unsigned back = 0; back < ITEMS;) {
            struct pollfd pfd = {.fd = fd, .events = POLLIN};
            T_EQ(poll(&pfd, 1, 10000), 1); /* a lost wake-up ends here */
            (void)edges(fd);
            for (struct bq_item *it = bq_drain(p.done), *next; it != NULL; it = next, back++) {
                next = it->next;
                T_EQ(CONTAINER_OF(it, struct numbered, item)->seen, round);
            }
        }
    }
    bq_close(p.todo);
    for (int i = 0; i < WORKERS; i++)
        T_EQ(pthread_join(workers[i], NULL), 0);
    bq_free(&p.todo);
    bq_free(&p.done);
    close(fd);
}

/* One popper sees the order of the pushes. */
static void
test_pop_is_fifo(void **state)
{
    (void)state;
    thr_check_loop();
    static struct numbered items[ITEMS];
    struct pipes p = {bq_new(ITEMS, -1), bq_new(ITEMS, -1)};
    pthread_t worker;
    for (unsigned i = 0; i < ITEMS; i++) {
        items[i].number = i;
        T_EQ(bq_try_push(p.todo, &items[i].item), BQ_OK);
    }
    bq_close(p.todo); /* queued items stay poppable */
    T_EQ(pthread_create(&worker, NULL, relay_worker, &p), 0);
    T_EQ(pthread_join(worker, NULL), 0);
    unsigned n = 0;
    for (struct bq_item *it = bq_drain(p.done); it != NULL; it = it->next)
        T_EQ(CONTAINER_OF(it, struct numbered, item)->number, n++);
    T_EQ(n, ITEMS);
    bq_free(&p.todo);
    bq_free(&p.done);
}

/* bq_try_pop() takes the oldest, never sleeps, and makes room and edges as a drain does. */
static void
test_try_pop_never_sleeps(void **state)
{
    (void)state;
    thr_check_loop();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct bq *q = bq_new(2, fd);
    struct bq_item a = {0}, b = {0}, c = {0};
    T_TRUE(bq_try_pop(q) == NULL);
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_EQ(bq_try_push(q, &b), BQ_OK);
    T_TRUE(bq_try_pop(q) == &a && a.next == NULL);
    T_EQ(bq_try_push(q, &c), BQ_OK);
    T_EQ(edges(fd), 1);
    T_TRUE(bq_try_pop(q) == &b);
    T_TRUE(bq_try_pop(q) == &c);
    T_TRUE(bq_try_pop(q) == NULL);
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_EQ(edges(fd), 1);
    bq_close(q);
    T_TRUE(bq_try_pop(q) == &a);
    T_TRUE(bq_try_pop(q) == NULL);
    bq_free(&q);
    close(fd);
}

/* One for one: the oldest for the one given, which is itself when nothing waits; in a full queue
 * too, without an edge; after the close nothing goes in any more. */
static void
test_rotate_gives_one_for_one(void **state)
{
    (void)state;
    thr_check_loop();
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct bq *q = bq_new(2, fd);
    struct bq_item a = {0}, b = {0}, c = {0};
    T_TRUE(bq_rotate(q, &a) == &a && a.next == NULL);
    T_TRUE(bq_rotate(q, &a) == &a);
    T_TRUE(bq_try_pop(q) == NULL);
    T_EQ(edges(fd), 0);
    T_EQ(bq_try_push(q, &a), BQ_OK);
    T_TRUE(bq_rotate(q, &b) == &a && a.next == NULL);
    T_EQ(bq_try_push(q, &c), BQ_OK);
    T_EQ(edges(fd), 1);
    T_TRUE(bq_rotate(q, &a) == &b); /* full: b, c */
    T_EQ(edges(fd), 0);
    T_EQ(bq_try_push(q, &b), BQ_FULL);
    bq_close(q);
    T_TRUE(bq_rotate(q, &b) == &c);
    T_TRUE(bq_rotate(q, &b) == &a);
    T_TRUE(bq_rotate(q, &b) == NULL);
    bq_free(&q);
    close(fd);
}

/* bq_close() wakes all sleepers, and each gets NULL. */
static void
test_close_wakes_all_sleepers(void **state)
{
    (void)state;
    thr_check_loop();
    struct pipes p = {bq_new(1, -1), bq_new(1, -1)};
    pthread_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        T_EQ(pthread_create(&workers[i], NULL, relay_worker, &p), 0);
    /* Whether they sleep already or not: they must all come home. */
    bq_close(p.todo);
    for (int i = 0; i < WORKERS; i++)
        T_EQ(pthread_join(workers[i], NULL), 0);
    bq_free(&p.todo);
    bq_free(&p.done);
}

static void
test_no_memory(void **state)
{
    (void)state;
    mem_fail_at(1);
    T_TRUE(bq_new(1, -1) == NULL);
    struct bq *q = bq_new(1, -1); /* the second allocation is the first that works */
    T_TRUE(q != NULL);
    mem_fail_at(0);
    bq_free(&q);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refused_item_stays_with_caller),
        TEST(test_drained_items_can_go_back),
        TEST(test_one_wake_up_per_edge),
        TEST(test_full_eventfd_is_no_error),
        TEST(test_hand_over_is_ordered),
        TEST(test_pop_is_fifo),
        TEST(test_try_pop_never_sleeps),
        TEST(test_rotate_gives_one_for_one),
        TEST(test_close_wakes_all_sleepers),
        TEST(test_no_memory),
    };
    thr_become(THR_LOOP);
    return TEST_MAIN(tests);
}
