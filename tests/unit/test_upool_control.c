/*
 * What an administrator does to the pool, and what the control API is told of it.
 */
#include "test_upool.h"

/* ---- pause ---- */

static void
test_nobody_gets_a_lease_while_paused(void **state)
{
    (void)state;
    thr_check_loop();
    struct want a, b = want_new(NULL, false), urgent = want_new(NULL, false);
    pool_start(1);
    release(lease(&a, NULL, false));
    T_EQ(stats().idle, 1);
    upool_pause(pool, true);
    T_TRUE(stats().paused);
    T_TRUE(upool_try_lease(pool, NULL, 0) == NULL);
    T_EQ(want_start(&b, 1), ERR_OK);
    urgent.w.arg = &urgent;
    upool_wait_urgent(pool, &urgent.w);
    turns(20);
    T_TRUE(b.granted == 0 && urgent.granted == 0 && b.failed + urgent.failed == 0);
    T_EQ(servers[0].accepted, 1); /* and nothing connects */
    upool_pause(pool, false);
    run_until(is_settled, &urgent);
    run_until(is_settled, &b);
    T_TRUE(urgent.granted > 0 && b.granted > urgent.granted);
    release(b.uc);
    release(urgent.uc);
}

static void
test_the_queue_stays_bounded_while_paused(void **state)
{
    (void)state;
    thr_check_loop();
    static struct want x[8];
    cfg.pool_size = 2;
    cfg.queue_size = 3;
    pool_start(1);
    upool_pause(pool, true);
    for (size_t i = 0; i < COUNT_OF(x); i++) {
        x[i] = want_new(NULL, false);
        T_EQ(want_start(&x[i], i), i < 5 ? ERR_OK : ERR_QUEUE_FULL);
    }
    for (size_t i = 0; i < 5; i++)
        upool_cancel(&x[i].w);
}

/* The server goes away and comes back: those who wait notice nothing. */
static void
test_a_failed_connect_fails_nobody_while_paused(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x = want_new(NULL, false);
    pool_start(0); /* connects are refused */
    T_EQ(want_start(&x, 1), ERR_OK);
    upool_pause(pool, true);
    turns(20);
    T_EQ(x.failed + x.granted, 0);
    server_listen(&servers[0]);
    upool_pause(pool, false);
    run_until(is_settled, &x);
    T_TRUE(x.uc != NULL);
    release(x.uc);
}

static bool
probe_was_due(void *arg)
{
    return servers[0].accepted > 0 || addr_of(1)->probe_timer.due_us != *(int64_t *)arg;
}

static bool
is_up(void *arg)
{
    (void)arg;
    return addr_of(1)->state == UADDR_UP;
}

static void
test_no_probe_while_paused(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(1);
    struct t_capture c = t_capture();
    uaddr_failed(addr_of(1), "test");
    upool_pause(pool, true);
    for (int i = 0; i < 2; i++) {
        int64_t due = addr_of(1)->probe_timer.due_us;
        run_until(probe_was_due, &due);
        T_TRUE(timer_armed(&addr_of(1)->probe_timer) && stats().connecting == 0);
    }
    T_EQ(servers[0].accepted, 0);
    upool_pause(pool, false);
    run_until(is_up, NULL);
    free(t_captured(c));
    T_EQ(servers[0].pings, 1);
}

/* ---- reconnect ---- */

static bool
none_closing(void *arg)
{
    (void)arg;
    thr_check_loop();
    return stats().closing == 0;
}

static void
test_reconnect_closes_idle_now_and_active_when_released(void **state)
{
    (void)state;
    thr_check_loop();
    struct want a, b, c;
    size_t idle = 9, active = 9;
    pool_start(1);
    struct uconn *first = lease(&a, NULL, false), *second = lease(&b, NULL, false);
    uint64_t id = uconn_id(first), other = uconn_id(second);
    release(second);
    upool_reconnect(pool, &idle, &active);
    T_EQ(idle, 1);
    T_EQ(active, 1);
    T_EQ(stats().idle, 0);
    T_EQ(stats().active, 1); /* what runs is not cut */
    int64_t before = metric_get(M_CLOSE_RECONNECT);
    release(first);
    T_EQ(metric_get(M_CLOSE_RECONNECT), before + 1);
    T_EQ(stats().idle, 0);
    struct uconn *fresh = lease(&c, NULL, false);
    T_TRUE(uconn_id(fresh) != id && uconn_id(fresh) != other && !uconn_is_reused(fresh));
    release(fresh);
    T_EQ(stats().idle, 1); /* the new ones live on */
    run_until(none_closing, NULL);
}

/* ---- views ---- */

struct seen {
    size_t count, stop_at;
    size_t states[2]; /* active, idle */
    struct upool_conn_view conn;
    struct upool_addr_view addr[8];
    const struct upool_waiter *waiter[8];
    size_t round[8];
};

static bool
see_conn(void *arg, const struct upool_conn_view *v)
{
    struct seen *s = arg;
    s->conn = *v;
    s->states[0] += strcmp(v->state, "active") == 0;
    s->states[1] += strcmp(v->state, "idle") == 0;
    return ++s->count != s->stop_at;
}

static bool
see_addr(void *arg, const struct upool_addr_view *v)
{
    struct seen *s = arg;
    s->addr[s->count] = *v;
    return ++s->count != s->stop_at;
}

static bool
see_waiter(void *arg, const struct upool_waiter *w, size_t round)
{
    struct seen *s = arg;
    s->waiter[s->count] = w;
    s->round[s->count] = round;
    return ++s->count != s->stop_at;
}

static void
test_connections_are_told_with_their_state(void **state)
{
    (void)state;
    thr_check_loop();
    struct want a, b;
    struct seen s = {0};
    pool_start(1);
    struct uconn *first = lease(&a, NULL, false);
    release(lease(&b, NULL, false));
    upool_each_conn(pool, see_conn, &s);
    T_TRUE(s.count == 2 && s.states[0] == 1 && s.states[1] == 1);
    T_ZEQ(s.conn.address, addr_of(1)->text); /* the idle one is told last */
    T_TRUE(s.conn.idle_us >= 0 && s.conn.age_us >= s.conn.idle_us && s.conn.served == 1);
    s = (struct seen){.stop_at = 1};
    upool_each_conn(pool, see_conn, &s);
    T_EQ(s.count, 1);
    T_TRUE(s.conn.idle_us == -1 && !s.conn.retiring);
    release(first);
}

static bool
is_ejected(void *arg)
{
    const struct uaddr *a = arg;
    return a->state == UADDR_EJECTED;
}

static void
test_addresses_are_told_with_what_is_wrong_with_them(void **state)
{
    (void)state;
    thr_check_loop();
    struct want a;
    struct seen s = {0};
    cfg.url.count = 2;
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(1); /* the second refuses */
    struct uconn *uc = lease(&a, NULL, false);
    T_TRUE(uc != NULL);
    uaddr_failed(addr_of(2), "connection refused");
    run_until(is_ejected, addr_of(2));
    upool_each_addr(pool, see_addr, &s);
    T_EQ(s.count, 2);
    T_TRUE(s.addr[0].up && s.addr[0].active == 1 && s.addr[0].ejected_us == -1);
    T_TRUE(!s.addr[1].up && s.addr[1].fails >= 1 && s.addr[1].ejected_us >= 0);
    T_TRUE(s.addr[1].probe_us > 0);
    T_ZEQ(s.addr[1].why, "connection refused");
    T_ZEQ(s.addr[1].host, "127.0.0.2");
    release(uc);
}

static void
test_an_endpoint_without_an_address_is_told_too(void **state)
{
    (void)state;
    thr_check_loop();
    static char url[] = "http://no-such-name.invalid:8123";
    struct seen s = {0};
    url_list[0] = url;
    char why[256];
    pool = upool_new(loop, resolver, "default", &cfg, 1000000, why, sizeof why); /* not started */
    upool_each_addr(pool, see_addr, &s);
    T_EQ(s.count, 1);
    T_TRUE(s.addr[0].address == NULL && !s.addr[0].up && s.addr[0].port == 8123);
    T_ZEQ(s.addr[0].host, "no-such-name.invalid");
}

/* Round and place say who comes next. */
static void
test_waiters_are_told_by_flow_with_their_round(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x[5];
    struct seen s = {0};
    pool_start(1);
    upool_pause(pool, true);
    for (size_t i = 0; i < COUNT_OF(x); i++) {
        x[i] = want_new(NULL, false);
        x[i].w.arg = &x[i];
    }
    T_EQ(want_start(&x[0], 7), ERR_OK);
    T_EQ(want_start(&x[1], 7), ERR_OK);
    T_EQ(want_start(&x[2], 8), ERR_OK);
    T_EQ(want_start(&x[3], 7), ERR_OK);
    upool_wait_urgent(pool, &x[4].w);
    upool_each_waiter(pool, see_waiter, &s);
    const struct upool_waiter *order[] = {&x[4].w, &x[0].w, &x[1].w, &x[3].w, &x[2].w};
    const size_t rounds[] = {0, 1, 2, 3, 1};
    T_EQ(s.count, COUNT_OF(order));
    for (size_t i = 0; i < COUNT_OF(order); i++)
        T_TRUE(s.waiter[i] == order[i] && s.round[i] == rounds[i]);
    for (size_t stop = 1; stop < COUNT_OF(order); stop++) {
        s = (struct seen){.stop_at = stop};
        upool_each_waiter(pool, see_waiter, &s);
        T_EQ(s.count, stop);
    }
    for (size_t i = 0; i < COUNT_OF(x); i++)
        upool_cancel(&x[i].w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_nobody_gets_a_lease_while_paused),
        POOL_TEST(test_the_queue_stays_bounded_while_paused),
        POOL_TEST(test_a_failed_connect_fails_nobody_while_paused),
        POOL_TEST(test_no_probe_while_paused),
        POOL_TEST(test_reconnect_closes_idle_now_and_active_when_released),
        POOL_TEST(test_connections_are_told_with_their_state),
        POOL_TEST(test_addresses_are_told_with_what_is_wrong_with_them),
        POOL_TEST(test_an_endpoint_without_an_address_is_told_too),
        POOL_TEST(test_waiters_are_told_by_flow_with_their_round),
    };
    random_init();
    mem_init(64 << 20, 65536, 4);
    return TEST_MAIN(tests);
}
