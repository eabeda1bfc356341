#include "t.h"

#include "base/hash.h"
#include "base/mem.h"
#include "upstream/waitq.h"

static bool
anybody(void *arg, const struct waiter *w)
{
    (void)arg;
    (void)w;
    return true;
}

static bool
not_this(void *arg, const struct waiter *w)
{
    return w != arg;
}

static bool
nobody(void *arg, const struct waiter *w)
{
    ++*(int *)arg;
    (void)w;
    return false;
}

/* First in, first out inside a flow; one turn each between flows, in the order they came. */
static void
test_fifo_in_a_flow_round_robin_between(void **state)
{
    (void)state;
    thr_check_loop();
    struct waitq q;
    waitq_init(&q);
    struct waiter w[6] = {0};
    static const uint64_t key[6] = {1, 1, 1, 2, 2, 1 + WAITQ_BUCKETS}; /* two share a bucket */
    static const int order[6] = {0, 3, 5, 1, 4, 2};
    for (int i = 0; i < 6; i++)
        T_TRUE(waitq_push(&q, &w[i], key[i]));
    T_EQ(waitq_count(&q), 6);
    for (int i = 0; i < 6; i++) {
        T_TRUE(waitq_first(&q) == &w[order[i]]);
        T_TRUE(waiter_waits(&w[order[i]]));
        T_TRUE(waitq_pop(&q, anybody, NULL) == &w[order[i]]);
        T_FALSE(waiter_waits(&w[order[i]]));
    }
    T_TRUE(waitq_pop(&q, anybody, NULL) == NULL);
    T_TRUE(waitq_first(&q) == NULL);
    waitq_fini(&q);
}

/* The urgent lane goes before all flows, in its own order. */
static void
test_urgent_lane_first(void **state)
{
    (void)state;
    thr_check_loop();
    struct waitq q;
    waitq_init(&q);
    struct waiter plain = {0}, a = {0}, b = {0};
    T_TRUE(waitq_push(&q, &plain, 7));
    waitq_push_urgent(&q, &a);
    waitq_push_urgent(&q, &b);
    T_EQ(q.urgent_count, 2);
    T_TRUE(waitq_first(&q) == &a);
    T_TRUE(waitq_pop(&q, not_this, &a) == &b); /* not eligible: keeps its place */
    T_TRUE(waitq_pop(&q, not_this, &a) == &plain);
    T_TRUE(waitq_pop(&q, not_this, &a) == NULL);
    T_TRUE(waitq_pop(&q, anybody, NULL) == &a);
    T_EQ(waitq_count(&q), 0);
    T_EQ(q.urgent_count, 0);
    waitq_fini(&q);
}

/* One who is not eligible keeps his place, and so does his flow. */
static void
test_passed_over_keeps_its_turn(void **state)
{
    (void)state;
    thr_check_loop();
    struct waitq q;
    waitq_init(&q);
    struct waiter a1 = {0}, a2 = {0}, b1 = {0}, b2 = {0};
    T_TRUE(waitq_push(&q, &a1, 1));
    T_TRUE(waitq_push(&q, &b1, 2));
    T_TRUE(waitq_push(&q, &b2, 2));
    T_TRUE(waitq_pop(&q, not_this, &a1) == &b1); /* flow 1 has nobody else */
    T_TRUE(waitq_first(&q) == &a1);
    T_TRUE(waitq_push(&q, &a2, 1));
    T_TRUE(waitq_pop(&q, not_this, &a1) == &a2); /* its flow's turn, by another of it */
    T_TRUE(waitq_first(&q) == &b2);
    int asked = 0;
    T_TRUE(waitq_pop(&q, nobody, &asked) == NULL);
    T_EQ(asked, 2);
    waitq_remove(&a1);
    waitq_remove(&a1); /* no-op */
    waitq_remove(&b2);
    waitq_fini(&q);
}

/* Pushing twice is a bug of the caller's, and so is an end with people waiting. */
static void
test_misuse_is_caught(void **state)
{
    (void)state;
    thr_check_loop();
    struct waitq q;
    waitq_init(&q);
    struct waiter w = {0};
    waitq_push_urgent(&q, &w);
    T_ABORTS(waitq_push_urgent(&q, &w));
    T_ABORTS((void)!waitq_push(&q, &w, 1));
    T_ABORTS(waitq_fini(&q));
    waitq_remove(&w);
    waitq_fini(&q);
}

/* ---- against a model: an array in order of arrival, flows in order of turn ---- */

#define WAITERS 120
#define FLOWS   9

struct model_flow {
    struct waiter *line[WAITERS];
    size_t len;
};
struct model {
    struct model_flow flow[FLOWS + 1]; /* the last is the urgent lane */
    size_t turn[FLOWS], turns;         /* flows with waiters, next first */
    size_t count;
};
struct entry {
    struct waiter w;
    bool odd;
};
static struct entry entries[WAITERS];

static void
model_take(struct model *m, size_t flow, size_t at, bool popped)
{
    struct model_flow *f = &m->flow[flow];
    memmove(&f->line[at], &f->line[at + 1], (f->len - at - 1) * sizeof(f->line[0]));
    f->len--;
    m->count--;
    if (flow == FLOWS)
        return;
    size_t place = 0;
    while (m->turn[place] != flow)
        place++;
    if (!popped && f->len > 0)
        return; /* who leaves does not cost his flow its turn */
    memmove(&m->turn[place], &m->turn[place + 1], (m->turns - place - 1) * sizeof(m->turn[0]));
    if (f->len > 0)
        m->turn[m->turns - 1] = flow;
    else
        m->turns--;
}

static void
model_add(struct model *m, size_t flow, struct waiter *w)
{
    struct model_flow *f = &m->flow[flow];
    if (f->len == 0 && flow < FLOWS)
        m->turn[m->turns++] = flow;
    f->line[f->len++] = w;
    m->count++;
}

static bool
is_odd(void *arg, const struct waiter *w)
{
    (void)arg;
    return ((const struct entry *)(const void *)((const char *)w - offsetof(struct entry, w)))->odd;
}

static struct waiter *
model_pop(struct model *m, waitq_ok_fn ok)
{
    for (size_t i = 0; i <= m->turns; i++) {
        size_t flow = i == 0 ? FLOWS : m->turn[i - 1];
        struct model_flow *f = &m->flow[flow];
        for (size_t at = 0; at < f->len; at++) {
            struct waiter *w = f->line[at];
            if (!ok(NULL, w))
                continue;
            model_take(m, flow, at, true);
            return w;
        }
    }
    return NULL;
}

static void
model_remove(struct model *m, struct waiter *w)
{
    for (size_t flow = 0; flow <= FLOWS; flow++)
        for (size_t at = 0; at < m->flow[flow].len; at++)
            if (m->flow[flow].line[at] == w) {
                model_take(m, flow, at, false);
                return;
            }
}

static void
test_random_operations_agree_with_a_plain_model(void **state)
{
    (void)state;
    thr_check_loop();
    random_init();
    struct waitq q;
    waitq_init(&q);
    static struct model m;
    m = (struct model){.count = 0};
    for (size_t i = 0; i < WAITERS; i++)
        entries[i] = (struct entry){.odd = i % 2 == 1};
    for (int step = 0; step < 50000; step++) {
        struct waiter *w = &entries[random_u64() % WAITERS].w;
        size_t flow = random_u64() % (FLOWS + 1);
        switch (random_u64() % 4) {
        case 0: T_TRUE(waitq_pop(&q, anybody, NULL) == model_pop(&m, anybody)); break;
        case 1: T_TRUE(waitq_pop(&q, is_odd, NULL) == model_pop(&m, is_odd)); break;
        case 2:
            model_remove(&m, w);
            waitq_remove(w);
            break;
        default:
            if (waiter_waits(w))
                break;
            model_add(&m, flow, w);
            if (flow == FLOWS)
                waitq_push_urgent(&q, w);
            else
                T_TRUE(waitq_push(&q, w, flow * 7919));
            break;
        }
        T_EQ(waitq_count(&q), m.count);
        T_EQ(q.urgent_count, m.flow[FLOWS].len);
    }
    while (m.count > 0)
        T_TRUE(waitq_pop(&q, anybody, NULL) == model_pop(&m, anybody));
    waitq_fini(&q);
}

/* No memory for a new flow: refused, not queued; a known flow needs none. Dropped flows are kept
 * for the next, within bounds (the rest is freed: the leak checker would tell). */
static void
test_no_memory(void **state)
{
    (void)state;
    thr_check_loop();
    struct waitq q;
    waitq_init(&q);
    static struct waiter w[100];
    mem_fail_at(1);
    T_FALSE(waitq_push(&q, &w[0], 1));
    mem_fail_at(0);
    T_FALSE(waiter_waits(&w[0]));
    T_EQ(waitq_count(&q), 0);
    T_TRUE(waitq_push(&q, &w[0], 1));
    mem_fail_at(1);
    T_TRUE(waitq_push(&q, &w[1], 1));
    waitq_push_urgent(&q, &w[2]);
    mem_fail_at(0);
    for (size_t i = 3; i < COUNT_OF(w); i++)
        T_TRUE(waitq_push(&q, &w[i], i));
    for (size_t i = 0; i < COUNT_OF(w); i++)
        waitq_remove(&w[i]);
    T_TRUE(q.spare_count > 0 && q.spare_count < 98);
    mem_fail_at(1);
    T_TRUE(waitq_push(&q, &w[0], 12345)); /* from what was kept */
    mem_fail_at(0);
    waitq_remove(&w[0]);
    waitq_fini(&q);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fifo_in_a_flow_round_robin_between),
        TEST(test_urgent_lane_first),
        TEST(test_passed_over_keeps_its_turn),
        TEST(test_misuse_is_caught),
        TEST(test_random_operations_agree_with_a_plain_model),
        TEST(test_no_memory),
    };
    thr_become(THR_LOOP);
    return TEST_MAIN(tests);
}
