#include "test_upool.h"

#include <netinet/tcp.h>

/* ---- cap ---- */

#define WANTS 40

static void LOOP_ONLY
check_caps(void)
{
    struct upool_stats s = stats();
    T_TRUE(s.connecting + s.active + s.idle + s.closing <= (size_t)cfg.pool_size);
    T_TRUE(s.connecting <= (size_t)cfg.connect_concurrency);
    T_TRUE(servers[0].peak <= (size_t)cfg.pool_size);
}

static void LOOP_ONLY
random_step(struct want *x)
{
    if (x->uc != NULL) {
        switch (random_u64() % 8) {
        case 0: uconn_close(x->uc, M_CLOSE_ERROR); break;
        case 1:
            uconn_reset_on_close(x->uc);
            uconn_close(x->uc, M_CLOSE_ERROR);
            break;
        default: release(x->uc); break;
        }
        x->uc = NULL;
    } else if (upool_waits(&x->w)) {
        if (random_u64() % 4 == 0)
            upool_cancel(&x->w);
    } else {
        *x = want_new(NULL, random_u64() % 8 == 0);
        x->w.arg = x;
        x->uc = x->w.fresh ? NULL : upool_try_lease(pool, NULL, 0);
        if (x->uc != NULL)
            uconn_set_handler(x->uc, on_lease_ready, x);
        else if (random_u64() % 10 == 0)
            upool_wait_urgent(pool, &x->w);
        else
            T_EQ(want_start(x, random_u64() % 5), ERR_OK);
    }
}

/* Whatever the clients do: the cap holds, counted at the server, and so does connect_concurrency;
 * and everybody who stays is served in the end. */
static void
test_cap_holds_under_random_use(void **state)
{
    (void)state;
    thr_check_loop();
    static struct want x[WANTS];
    cfg.pool_size = 5;
    cfg.connect_concurrency = 2;
    memset(x, 0, sizeof(x));
    pool_start(1);
    for (int step = 0; step < 1500; step++) {
        for (int i = (int)(random_u64() % 6); i > 0; i--)
            random_step(&x[random_u64() % WANTS]);
        check_caps();
        turns(1);
        check_caps();
        struct served *c = &servers[0].conns[random_u64() % COUNT_OF(servers[0].conns)];
        if (c->fd >= 0 && random_u64() % 10 == 0)
            served_close(c); /* any time, leased or not */
    }
    T_TRUE(servers[0].peak >= 4); /* it was used */
    all_served(x, WANTS);
    T_EQ(stats().active, 0);
    T_EQ(stats().waiting, 0);
}

/* connect_concurrency also holds for the connection that a lease from a busier server starts. */
static void
test_concurrency_holds_for_balancing_dials(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x, y, z;
    cfg.url.count = 3;
    cfg.connect_concurrency = 1;
    pool_start(3);
    struct uconn *a = lease(&x, NULL, false), *b = lease(&y, NULL, false);
    T_TRUE(a != NULL && b != NULL && a->addr != b->addr); /* spread */
    release(a);
    z = want_new(b->addr, false);
    T_EQ(want_start(&z, 1), ERR_OK); /* one connect is on its way to b's server */
    loop_run_deferred(loop);
    T_EQ(stats().connecting, 1);
    upool_cancel(&z.w);
    struct uconn *c = upool_try_lease(pool, NULL, 0);
    T_TRUE(c == a);
    a->addr->active += 5; /* busier than the other, but the only one that is ready */
    release(a);
    c = upool_try_lease(pool, NULL, 0);
    a->addr->active -= 5;
    T_TRUE(c == a);
    T_EQ(stats().connecting, 1);
    release(a);
    release(b);
}

/* ---- queue ---- */

/* FIFO in a flow, turns between flows, the urgent first; a grant never comes inside a release. */
static void
test_order_of_grants(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.pool_size = 1;
    pool_start(1);
    struct want first, w[5];
    struct uconn *uc = lease(&first, NULL, false);
    static const uint64_t flow[5] = {1, 1, 2, 2, 0};
    static const int order[5] = {4, 0, 2, 1, 3};
    for (int i = 0; i < 5; i++) {
        w[i] = want_new(NULL, false);
        w[i].w.arg = &w[i];
        if (i == 4)
            upool_wait_urgent(pool, &w[i].w);
        else
            T_EQ(want_start(&w[i], flow[i]), ERR_OK);
    }
    T_TRUE(upool_try_lease(pool, NULL, 0) == NULL); /* others wait already */
    for (int i = 0; i < 5; i++) {
        release(uc);
        T_TRUE(w[order[i]].uc == NULL);
        T_TRUE(upool_try_lease(pool, NULL, 0) == NULL); /* nobody overtakes */
        turns(1);
        T_TRUE(w[order[i]].uc == uc);
    }
    release(uc);
    T_EQ(servers[0].accepted, 1);
}

/* queue_size counts those for whom no connection can be made; the urgent go past it. */
static void
test_queue_size(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.pool_size = 2;
    cfg.queue_size = 1;
    pool_start(1);
    struct want w[5];
    for (int i = 0; i < 5; i++)
        w[i] = want_new(NULL, false);
    for (int i = 0; i < 3; i++) /* two connects, one place in the queue */
        T_EQ(want_start(&w[i], 1), ERR_OK);
    T_EQ(want_start(&w[3], 1), ERR_QUEUE_FULL);
    T_FALSE(upool_waits(&w[3].w));
    run_until(is_settled, &w[1]);
    T_TRUE(w[0].uc != NULL && w[1].uc != NULL && w[2].uc == NULL);
    T_EQ(want_start(&w[3], 2), ERR_QUEUE_FULL);
    w[4].w.arg = &w[4];
    upool_wait_urgent(pool, &w[4].w);
    T_EQ(want_start(&w[3], 2), ERR_QUEUE_FULL);
    upool_cancel(&w[2].w);
    upool_cancel(&w[2].w); /* no-op */
    T_EQ(want_start(&w[3], 2), ERR_OK);
    T_EQ(stats().waiting, 2);
    upool_cancel(&w[3].w);
    upool_cancel(&w[4].w);
    release(w[0].uc);
    release(w[1].uc);
}

/* queue_size = 0: an idle connection that does not suit is room all the same. */
static void
test_queue_of_none_counts_idle_places(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 1;
    cfg.queue_size = 0;
    pool_start(2);
    struct want x, y;
    struct uconn *a = lease(&x, addr_of(1), false);
    release(a);
    struct uconn *b = lease(&y, addr_of(2), false);
    T_TRUE(b != NULL && b->addr == addr_of(2));
    struct want z = want_new(NULL, false);
    T_EQ(want_start(&z, 1), ERR_QUEUE_FULL);
    release(b);
}

/* ---- reuse ---- */

static void
test_most_recent_first(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(1);
    struct want x, y, z;
    struct uconn *a = lease(&x, NULL, false), *b = lease(&y, NULL, false),
                 *c = lease(&z, NULL, false);
    T_FALSE(uconn_is_reused(a));
    release(b);
    release(a);
    release(c);
    turns(2);
    T_TRUE(upool_try_lease(pool, NULL, 0) == c);
    T_TRUE(uconn_is_reused(c));
    T_TRUE(upool_try_lease(pool, NULL, uconn_id(b)) == b); /* a wish */
    T_TRUE(upool_try_lease(pool, NULL, uconn_id(b)) == a); /* that cannot be granted */
    T_TRUE(upool_try_lease(pool, NULL, 0) == NULL);
    release(a);
    release(b);
    release(c);
    T_EQ(servers[0].accepted, 3);
}

/* A wish does not beat a pin. */
static void
test_pin_beats_the_wish(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    pool_start(2);
    struct want x, y;
    struct uconn *a = lease(&x, addr_of(1), false), *b = lease(&y, addr_of(2), false);
    release(a);
    release(b);
    T_TRUE(upool_try_lease(pool, a->addr, uconn_id(b)) == a);
    T_TRUE(upool_try_lease(pool, a->addr, uconn_id(b)) == NULL);
    release(a);
}

static int64_t LOOP_ONLY
idle_life_after(struct uconn *uc, int64_t keep_alive_us)
{
    struct uconn_end end = {.keep_alive_us = keep_alive_us, .max_left = 5};
    uconn_release(uc, &end);
    T_EQ(uc->state, UCONN_IDLE);
    int64_t life_us = uc->timer.due_us - loop_now(loop).us;
    T_TRUE(upool_try_lease(pool, NULL, 0) == uc);
    return life_us;
}

/* idle_timeout, the server's limit minus the margin (or half of a short one), and max_age: whatever
 * comes first. */
static void
test_idle_life(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(1);
    struct want x;
    struct uconn *uc = lease(&x, NULL, false);
    int64_t age_us = uc->retire_at.us - uc->idle_since.us;
    T_TRUE(age_us >= cfg.max_age / 10 * 9 && age_us <= cfg.max_age / 10 * 11);
    T_EQ(idle_life_after(uc, 0), 60000000);
    T_EQ(idle_life_after(uc, 10000000), 8000000);
    T_EQ(idle_life_after(uc, 3000000), 1500000);
    T_EQ(idle_life_after(uc, 90000000), 60000000);
    uc->retire_at = mono_add_us(loop_now(loop), 12345);
    T_EQ(idle_life_after(uc, 0), 12345);
    uc->retire_at = loop_now(loop);
    int64_t before = metric_get(M_CLOSE_AGE);
    release(uc);
    T_EQ(metric_get(M_CLOSE_AGE), before + 1);
    T_TRUE(upool_try_lease(pool, NULL, 0) == NULL);
    uc = lease(&x, NULL, false);
    before = metric_get(M_CLOSE_MAX);
    uconn_release(uc, &(struct uconn_end){.max_left = 0});
    T_EQ(metric_get(M_CLOSE_MAX), before + 1);
}

static bool
no_idle(void *arg)
{
    (void)arg;
    return pool->idle_count == 0 && pool->closing_count == 0;
}

static void
test_idle_connections_retire(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.idle_timeout = 20000;
    pool_start(1);
    struct want x;
    int64_t before = metric_get(M_CLOSE_IDLE);
    struct uconn *uc = lease(&x, NULL, false);
    release(uc);
    struct mono released = loop_now(loop);
    run_until(no_idle, NULL);
    T_TRUE(mono_diff_us(mono_now(), released) >= 20000);
    T_EQ(metric_get(M_CLOSE_IDLE), before + 1);
    T_EQ(servers[0].open, 0);
    cfg.idle_timeout = 60000000;
    cfg.max_age = 20000;
    before = metric_get(M_CLOSE_AGE);
    uc = lease(&x, NULL, false);
    T_TRUE(mono_diff_us(uc->retire_at, loop_now(loop)) <= 22000);
    release(uc);
    run_until(no_idle, NULL);
    T_EQ(metric_get(M_CLOSE_AGE), before + 1);
}

/* A byte or an end on an idle connection closes it. */
static void
test_idle_connections_are_watched(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(1);
    for (int bytes = 0; bytes < 2; bytes++) {
        struct want x;
        int64_t before = metric_get(M_STALE);
        release(lease(&x, NULL, false));
        turns(2);
        T_EQ(stats().idle, 1);
        if (bytes)
            T_EQ(send(servers[0].conns[0].fd, "junk", 4, 0), 4);
        else
            served_close(&servers[0].conns[0]);
        run_until(no_idle, NULL);
        T_EQ(metric_get(M_STALE), before + 1);
    }
}

/* The end of a rested connection may not have been told yet: it is seen before it is leased, from
 * upool_try_lease() and from the queue. */
static void
test_closed_idle_is_not_leased(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 3;
    pool_start(2);
    struct want x, y;
    int64_t before = metric_get(M_STALE);
    struct uconn *uc = lease(&x, addr_of(1), false);
    release(uc);
    uc->idle_since.us -= 2000000;
    served_close(&servers[0].conns[0]);
    T_TRUE(upool_try_lease(pool, addr_of(1), 0) == NULL);
    T_EQ(metric_get(M_STALE), before + 1);
    uc = lease(&x, addr_of(1), false);
    release(uc);
    uc->idle_since.us -= 2000000;
    served_close(&servers[0].conns[0]);
    y = want_new(addr_of(1), false);
    T_EQ(want_start(&y, 1), ERR_OK);
    run_until(is_settled, &y);
    T_FALSE(uconn_is_reused(y.uc)); /* a new one */
    T_EQ(metric_get(M_STALE), before + 2);
    release(y.uc);
}

/* A reused one that dies unanswered takes those with it that were idle as long; younger ones stay.
 */
static void
test_stale_kin(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(1);
    struct want w[4];
    struct uconn *uc[4];
    for (int i = 0; i < 4; i++)
        uc[i] = lease(&w[i], NULL, false);
    for (int i = 0; i < 4; i++)
        release(uc[i]);
    T_TRUE(upool_try_lease(pool, NULL, 0) == uc[3]);
    T_TRUE(upool_try_lease(pool, NULL, 0) == uc[2]);
    turns(2);
    release(uc[3]); /* younger */
    uc[3]->idle_since.us++;
    int64_t before = metric_get(M_CLOSE_STALE_KIN);
    uconn_died_unanswered(uc[2]);
    uconn_close(uc[2], M_STALE);
    T_EQ(metric_get(M_CLOSE_STALE_KIN), before + 2);
    T_EQ(stats().idle, 1);
    T_TRUE(upool_try_lease(pool, NULL, 0) == uc[3]);
    release(uc[3]);
}

static void
test_fresh_only(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.pool_size = 1;
    pool_start(1);
    struct want x, y;
    struct uconn *uc = lease(&x, NULL, false);
    uint64_t first_id = uconn_id(uc);
    release(uc);
    uc = lease(&y, NULL, true); /* the used one makes room */
    T_TRUE(uconn_id(uc) != first_id);
    T_FALSE(uconn_is_reused(uc));
    release(uc);
    T_EQ(servers[0].peak, 1);
}

static bool
two_idle(void *arg)
{
    (void)arg;
    return pool->idle_count == 2;
}

static void
test_min_idle_is_kept(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.min_idle = 2;
    pool_start(1);
    run_until(two_idle, NULL);
    turns(2);
    T_EQ(servers[0].accepted, 2);
    struct uconn *uc = upool_try_lease(pool, NULL, 0);
    uconn_set_handler(uc, on_lease_ready, NULL);
    turns(3);
    T_EQ(stats().idle, 1); /* a lease alone opens nothing: it comes back */
    T_EQ(servers[0].accepted, 2);
    server_drop_all(&servers[0]);
    release(uc); /* into a pool that is about to notice */
    while (servers[0].open < 2 || pool->idle_count < 2)
        turns(1);
    T_EQ(servers[0].accepted, 4);
}

static bool
one_ejected(void *arg)
{
    (void)arg;
    struct upool_stats s;
    thr_check_loop();
    upool_stats(pool, &s);
    return s.addresses_ejected == 1;
}

/* A server that closes what it accepts is not stormed by min_idle. */
static void
test_min_idle_is_no_storm(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.min_idle = 2;
    cfg.eject_min = cfg.eject_max = 60000000;
    servers[0].close_at_once = true;
    pool_start(1);
    struct t_capture c = t_capture();
    run_until(one_ejected, NULL);
    turns(20);
    free(t_captured(c));
    T_TRUE(servers[0].accepted <= 8);
}

/* ---- the end ---- */

/* Drained: who waits is served, idle ones go, none is opened ahead of need. */
static void
test_drain(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.pool_size = 1;
    cfg.min_idle = 1;
    pool_start(1);
    struct want x, y;
    struct uconn *uc = lease(&x, NULL, false);
    y = want_new(NULL, false);
    T_EQ(want_start(&y, 1), ERR_OK);
    upool_drain(pool);
    release(uc);
    run_until(is_settled, &y);
    T_TRUE(y.uc == uc);
    release(uc);
    run_until(no_idle, NULL);
    turns(3);
    T_EQ(servers[0].accepted, 1);
    T_EQ(servers[0].open, 0);
}

/* Freed with something in every state: the leak checker would tell what is forgotten. */
static void
test_free_in_every_state(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 8;
    cfg.eject_min = 1;
    pool_start(1);
    struct want w[4], x;
    struct t_capture c = t_capture();
    for (int i = 0; i < 4; i++)
        T_TRUE(lease(&w[i], addr_of(1), false) != NULL);
    release(w[0].uc);
    uconn_close(w[1].uc, M_CLOSE_ERROR);
    uconn_reset_on_close(w[2].uc);
    uconn_close(w[2].uc, M_CLOSE_ERROR);
    release(w[3].uc);
    uaddr_failed(addr_of(2), "test");
    T_TRUE(uconn_dial(pool, addr_of(2), DIAL_PROBE));
    x = want_new(NULL, true);
    T_EQ(want_start(&x, 1), ERR_OK);
    loop_run_deferred(loop);
    upool_cancel(&x.w);
    struct uaddr *kept = uaddr_ref(addr_of(1));
    struct upool_stats s = stats();
    T_TRUE(s.idle >= 1 && s.closing >= 2 && s.connecting >= 1);
    upool_free(&pool);
    T_TRUE(pool == NULL);
    upool_free(&pool);           /* NULL is fine */
    T_TRUE(uaddr_is_gone(kept)); /* a session's reference outlives the pool */
    uaddr_unref(&kept);
    free(t_captured(c));
}

/* The n-th allocation fails, for each n: nothing crashes or leaks, and who waits is served once
 * there is memory again. */
static void
test_no_memory(void **state)
{
    (void)state;
    thr_check_loop();
    server_listen(&servers[0]);
    int refused = 0, late = 0, clean = 0;
    struct t_capture c = t_capture();
    for (uint64_t n = 1; n < 12; n++) {
        char why[256] = "";
        struct want x = want_new(NULL, false);
        mem_fail_at(n);
        pool = upool_new(loop, resolver, "default", &cfg, 1, why, sizeof(why));
        if (pool == NULL) {
            T_ZEQ(why, "out of memory");
            mem_fail_at(0);
            refused++;
            continue;
        }
        upool_start(pool);
        enum err e = want_start(&x, n);
        T_TRUE(e == ERR_OK || e == ERR_NOMEM);
        loop_run_deferred(loop);
        if (e == ERR_OK && stats().connecting == 1)
            clean++;
        else
            late++;
        mem_fail_at(0);
        if (e == ERR_OK) {
            run_until(is_settled, &x);
            T_TRUE(x.uc != NULL);
            release(x.uc);
        }
        upool_free(&pool);
        loop_run_deferred(loop);
    }
    free(t_captured(c));
    T_TRUE(refused >= 2 && late >= 2 && clean >= 3);
}

static int
user_timeout_ms(const struct uconn *uc)
{
    int ms = -1;
    socklen_t len = sizeof(ms);
    T_EQ(getsockopt(uc->conn.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &len), 0);
    return ms;
}

/* Patience is for one request: the next one hears of a dead server as soon as any other. */
static void
test_patience_ends_with_the_request(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x;
    pool_start(1);
    struct uconn *uc = lease(&x, NULL, false);
    int usual = user_timeout_ms(uc);
    for (int i = 0; i < 2; i++) {
        uconn_expect_stall(uc);
        T_EQ(user_timeout_ms(uc), 120000); /* stall_us of pool_start() */
        release(uc);
        T_EQ(user_timeout_ms(uc), usual);
        T_TRUE(upool_try_lease(pool, NULL, 0) == uc);
    }
    release(uc);
    T_TRUE(usual > 0 && usual < 120000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_cap_holds_under_random_use),
        POOL_TEST(test_concurrency_holds_for_balancing_dials),
        POOL_TEST(test_order_of_grants),
        POOL_TEST(test_queue_size),
        POOL_TEST(test_queue_of_none_counts_idle_places),
        POOL_TEST(test_most_recent_first),
        POOL_TEST(test_pin_beats_the_wish),
        POOL_TEST(test_idle_life),
        POOL_TEST(test_idle_connections_retire),
        POOL_TEST(test_idle_connections_are_watched),
        POOL_TEST(test_closed_idle_is_not_leased),
        POOL_TEST(test_stale_kin),
        POOL_TEST(test_fresh_only),
        POOL_TEST(test_min_idle_is_kept),
        POOL_TEST(test_min_idle_is_no_storm),
        POOL_TEST(test_drain),
        POOL_TEST(test_free_in_every_state),
        POOL_TEST(test_patience_ends_with_the_request),
        POOL_TEST(test_no_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    random_init();
    return TEST_MAIN(tests);
}
