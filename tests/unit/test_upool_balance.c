/*
 * A full pool and a server that has too little of it.
 */
#include "test_upool.h"

#define SIZE 4

static struct want w[SIZE];

static void LOOP_ONLY
lease_all(struct uaddr *pin)
{
    for (size_t i = 0; i < SIZE; i++)
        T_TRUE(lease(&w[i], pin, false) != NULL);
}

static void LOOP_ONLY
release_all(void)
{
    for (size_t i = 0; i < SIZE; i++)
        release(w[i].uc);
}

static bool
none_closing(void *arg)
{
    thr_check_loop();
    (void)arg;
    return stats().closing == 0;
}

/* Two servers, of which the first has the whole pool, all of it leased. */
static void LOOP_ONLY
start_one_sided(void)
{
    cfg.url.count = 2;
    cfg.pool_size = SIZE;
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(2);
    struct t_capture c = t_capture();
    uaddr_failed(addr_of(2), "test");
    lease_all(NULL);
    T_EQ(addr_of(1)->active, SIZE);
    free(t_captured(c));
}

/* The server gets its share of the pool, one connection at a time, and then all is quiet. */
static void
test_a_server_that_comes_back_gets_its_share(void **state)
{
    (void)state;
    thr_check_loop();
    int64_t before = metric_get(M_CLOSE_REBALANCE);
    start_one_sided();
    release_all();
    lease_all(NULL);
    T_EQ(metric_get(M_CLOSE_REBALANCE), before); /* an ejected one has no share */
    uaddr_succeeded(addr_of(2));
    for (int64_t round = 1; round <= 8; round++) {
        pool->rebalanced_at = (struct mono){0};
        release_all();
        T_EQ(metric_get(M_CLOSE_REBALANCE) - before, round < 2 ? round : 2);
        lease_all(NULL); /* the last of them when the closed one is gone */
        T_EQ(addr_of(2)->active, round < 2 ? round : 2);
    }
    release_all();
}

/* Who takes idle connections finds the other server warm next time. */
static void
test_without_a_queue_too(void **state)
{
    (void)state;
    thr_check_loop();
    start_one_sided();
    release_all();
    uaddr_succeeded(addr_of(2));
    struct uconn *uc = upool_try_lease(pool, NULL, 0);
    T_TRUE(uc->addr == addr_of(1));
    release(uc);
    run_until(none_closing, NULL);
    T_EQ(stats().idle, SIZE - 1);
    while (addr_of(2)->idle == 0) {
        uc = upool_try_lease(pool, NULL, 0); /* has it connected */
        turns(1);
        uconn_close(uc, M_CLOSE_ERROR);
        T_TRUE(stats().idle > 0);
        run_until(none_closing, NULL);
    }
    T_EQ(stats().connecting, 0);
}

/* One in so much time, and none while another is closing. */
static void
test_one_at_a_time(void **state)
{
    (void)state;
    thr_check_loop();
    int64_t before = metric_get(M_CLOSE_REBALANCE);
    start_one_sided();
    uaddr_succeeded(addr_of(2));
    release(w[0].uc);
    T_EQ(metric_get(M_CLOSE_REBALANCE), before + 1);
    pool->rebalanced_at = (struct mono){0};
    release(w[1].uc);
    T_EQ(metric_get(M_CLOSE_REBALANCE), before + 1);
    run_until(none_closing, NULL);
    T_TRUE(lease(&w[0], addr_of(1), true) != NULL); /* full again, as lopsided as before */
    pool->rebalanced_at = loop_now(loop);
    release(w[2].uc);
    T_EQ(metric_get(M_CLOSE_REBALANCE), before + 1);
    pool->rebalanced_at.us -= 100000;
    release(w[3].uc);
    T_EQ(metric_get(M_CLOSE_REBALANCE), before + 2);
    release(w[0].uc);
}

/* Who is pinned to the first server would only open it again; and nobody is sent to a server that
 * lets connects hang. */
static void
test_not_for_the_pinned_nor_to_the_silent(void **state)
{
    (void)state;
    thr_check_loop();
    int64_t before = metric_get(M_CLOSE_REBALANCE);
    start_one_sided();
    uaddr_succeeded(addr_of(2));
    addr_of(2)->silent_at = loop_now(loop);
    release_all();
    addr_of(2)->silent_at = (struct mono){0};
    for (size_t i = 0; i < SIZE; i++) {
        w[i].uc = upool_try_lease(pool, addr_of(1), 0);
        T_TRUE(w[i].uc != NULL);
    }
    release_all();
    lease_all(addr_of(1));
    release_all();
    T_EQ(metric_get(M_CLOSE_REBALANCE), before);
    T_EQ(addr_of(1)->idle, SIZE);
}

/* ---- everything at once ---- */

#define WANTS 24

static void LOOP_ONLY
random_step(struct want *x)
{
    if (x->uc != NULL) {
        if (random_u64() % 10 == 0)
            uconn_close(x->uc, M_CLOSE_ERROR);
        else
            release(x->uc);
        x->uc = NULL;
    } else if (!upool_waits(&x->w)) {
        struct uaddr *pin =
            random_u64() % 4 == 0 ? addr_of(1 + (unsigned)(random_u64() % 3)) : NULL;
        *x = want_new(pin, random_u64() % 8 == 0);
        T_EQ(want_start(x, random_u64() % 5), ERR_OK);
    }
}

/* Servers that are ejected and come back, pins, retries, a tight pool: the cap holds, counted at
 * the servers, and everybody is served. */
static void
test_cap_holds_while_servers_come_and_go(void **state)
{
    (void)state;
    thr_check_loop();
    static struct want x[WANTS];
    cfg.url.count = 3;
    cfg.pool_size = 5;
    cfg.connect_concurrency = 2;
    cfg.eject_min = cfg.eject_max = 500;
    memset(x, 0, sizeof(x));
    pool_start(3);
    struct t_capture c = t_capture();
    for (int step = 0; step < 3000; step++) {
        for (int i = (int)(random_u64() % 6); i > 0; i--)
            random_step(&x[random_u64() % WANTS]);
        if (random_u64() % 20 == 0)
            uaddr_failed(addr_of(1 + (unsigned)(random_u64() % 3)), "test");
        if (random_u64() % 4 == 0)
            pool->rebalanced_at = (struct mono){0};
        turns(1);
        expect_cap();
    }
    all_served(x, WANTS);
    free(t_captured(c));
    T_TRUE(servers[0].pings + servers[1].pings + servers[2].pings > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_a_server_that_comes_back_gets_its_share),
        POOL_TEST(test_without_a_queue_too),
        POOL_TEST(test_one_at_a_time),
        POOL_TEST(test_not_for_the_pinned_nor_to_the_silent),
        POOL_TEST(test_cap_holds_while_servers_come_and_go),
    };
    signal(SIGPIPE, SIG_IGN);
    random_init();
    return TEST_MAIN(tests);
}
