#include "test_upool.h"

#include <sys/resource.h>

/* ---- failing addresses ---- */

/* Nobody there: everybody who waits hears why, exactly once. */
static void
test_refused_fails_all_waiters(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.connect_concurrency = 1;
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(0);
    struct want w[3];
    struct t_capture c = t_capture();
    for (int i = 0; i < 3; i++) {
        w[i] = want_new(NULL, i == 2);
        T_EQ(want_start(&w[i], (uint64_t)i), ERR_OK);
    }
    run_until(is_settled, &w[0]);
    turns(3);
    free(t_captured(c));
    for (int i = 0; i < 3; i++) {
        T_TRUE(w[i].failed == 1 && w[i].granted == 0);
        T_EQ(w[i].e, ERR_CONNECT);
        T_ZEQ(w[i].why, "Connection refused");
    }
    T_EQ(stats().addresses_ejected, 1);
    T_FALSE(upool_seems_up(pool));
    /* When it is back, a request finds out at once: no back-off stands in its way. */
    server_listen(&servers[0]);
    struct want x;
    release(lease(&x, NULL, false));
    T_EQ(stats().addresses_up, 1);
    T_EQ(servers[0].pings, 0);
}

static bool
all_up(void *arg)
{
    (void)arg;
    thr_check_loop();
    struct upool_stats s;
    upool_stats(pool, &s);
    return s.addresses_ejected == 0;
}

/* One dial goes through all addresses; the bad one is ejected and gets a /ping before traffic. */
static void
test_failover_ejection_and_probe(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 3;
    server_listen(&servers[2]);
    struct t_capture c = t_capture();
    pool_start(0);
    struct want x;
    struct uconn *uc = lease(&x, NULL, false);
    T_TRUE(uc != NULL && uc->addr == addr_of(3));
    T_EQ(stats().addresses_ejected, 2);
    T_EQ(x.failed, 0);
    struct want w[2];
    for (int i = 0; i < 2; i++)
        T_TRUE(lease(&w[i], NULL, false)->addr == addr_of(3));
    servers[1].sick = true; /* listens again, but /ping fails */
    server_listen(&servers[0]);
    server_listen(&servers[1]);
    while (servers[1].pings < 2 || addr_of(1)->state != UADDR_UP)
        turns(1);
    T_EQ(addr_of(2)->state, UADDR_EJECTED);
    T_EQ(servers[0].pings, 1);
    T_EQ(servers[0].accepted, 1); /* the probe, and no traffic before it */
    T_HAS(addr_of(2)->why, "/ping");
    servers[1].sick = false;
    run_until(all_up, NULL);
    free(t_captured(c));
    release(uc);
    release(w[0].uc);
    release(w[1].uc);
}

/* Back-off doubles up to eject_max, give or take 20 %. */
static void
test_back_off_grows(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(0);
    struct uaddr *a = addr_of(1);
    int64_t want = cfg.eject_min;
    struct t_capture c = t_capture();
    for (int i = 0; i < 6; i++) {
        uaddr_failed(a, "test");
        int64_t in_us = a->probe_timer.due_us - loop_now(loop).us;
        T_TRUE(in_us >= want / 10 * 8 && in_us <= want / 10 * 12);
        want = want * 2 > cfg.eject_max ? cfg.eject_max : want * 2;
    }
    uaddr_succeeded(a);
    T_FALSE(timer_armed(&a->probe_timer));
    uaddr_failed(a, "test");
    T_TRUE(a->probe_timer.due_us - loop_now(loop).us <= cfg.eject_min / 10 * 12);
    free(t_captured(c));
}

static bool
failed_again(void *arg)
{
    thr_check_loop();
    return metric_get(M_CONNECTS_FAILED) > *(int64_t *)arg;
}

/* A probe that fails at once, for want of a descriptor, is not the last. */
static void
test_probe_that_fails_at_once_comes_again(void **state)
{
    (void)state;
    thr_check_loop();
    pool_start(1);
    struct t_capture c = t_capture();
    struct rlimit old, none;
    T_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    uaddr_failed(addr_of(1), "test");
    int64_t before = metric_get(M_CONNECTS_FAILED);
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    run_until(failed_again, &before);
    turns(2);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    T_EQ(addr_of(1)->fails, 1); /* it is not the server's fault */
    run_until(all_up, NULL);
    T_EQ(servers[0].pings, 1);
    free(t_captured(c));
}

static bool
probe_under_way(void *arg)
{
    (void)arg;
    return addr_of(1)->probing && servers[0].accepted > 0;
}

/* As a reload with other TLS files does it. */
static void
test_an_abandoned_probe_is_not_the_last(void **state)
{
    (void)state;
    thr_check_loop();
    servers[0].mute = true;
    pool_start(1);
    struct t_capture c = t_capture();
    uaddr_failed(addr_of(1), "test");
    run_until(probe_under_way, NULL);
    struct list *node = list_first(&pool->connecting);
    T_TRUE(node != NULL);
    upool_retire(CONTAINER_OF(node, struct uconn, link), M_CLOSE_RELOAD);
    T_TRUE(addr_of(1)->state == UADDR_EJECTED && !addr_of(1)->probing);
    T_TRUE(timer_armed(&addr_of(1)->probe_timer));
    servers[0].mute = false;
    run_until(all_up, NULL);
    T_EQ(servers[0].pings, 1);
    free(t_captured(c));
}

/* The cap holds, here and counted at the servers, until the address is up again. */
static void LOOP_ONLY
turns_until_up(const struct uaddr *a)
{
    struct mono end = mono_add_us(mono_now(), 10000000);
    while (a->state != UADDR_UP) {
        expect_cap();
        T_TRUE(mono_diff_us(end, mono_now()) > 0);
        turns(1);
    }
}

/* A pool that is full of idle connections gives one up for the /ping to an ejected server: the one
 * that has rested longest. */
static void
test_probe_takes_the_place_of_an_idle_one(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 2;
    pool_start(2);
    struct want x, y;
    struct uconn *a = lease(&x, addr_of(1), false), *b = lease(&y, addr_of(1), false);
    release(b);
    release(a);
    int64_t before = metric_get(M_CLOSE_REBALANCE);
    struct t_capture c = t_capture();
    uaddr_failed(addr_of(2), "test");
    turns_until_up(addr_of(2));
    free(t_captured(c));
    T_EQ(metric_get(M_CLOSE_REBALANCE), before + 1);
    T_TRUE(upool_try_lease(pool, addr_of(1), 0) == a);
    release(a);
}

static bool
probe_waits(void *arg)
{
    return ((struct uaddr *)arg)->probe_waits;
}

/* When all are leased, the next place that comes free is the probe's, ahead of those who wait. */
static void
test_probe_takes_the_next_place(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 2;
    pool_start(2);
    struct want x, y, w[2] = {want_new(NULL, false), want_new(NULL, true)};
    struct uconn *a = lease(&x, addr_of(1), false), *b = lease(&y, addr_of(1), false);
    struct t_capture c = t_capture();
    uaddr_failed(addr_of(2), "test");
    run_until(probe_waits, addr_of(2));
    T_EQ(want_start(&w[0], 1), ERR_OK);
    T_EQ(want_start(&w[1], 2), ERR_OK);
    turns(3);
    T_EQ(servers[1].pings, 0); /* no room yet */
    release(a);
    T_EQ(stats().idle, 0);
    turns_until_up(addr_of(2));
    T_FALSE(is_settled(&w[0]) || is_settled(&w[1]));
    T_EQ(servers[1].pings, 1);
    free(t_captured(c));
    run_until(is_settled, &w[0]); /* the place is theirs again */
    release(b);
    uconn_close(w[0].uc, M_CLOSE_ERROR);
    run_until(is_settled, &w[1]);
    uconn_close(w[1].uc, M_CLOSE_ERROR);
}

/* Fresh connections that end without an answer eject the address; one answer in between clears. */
static void
test_unanswered_eject(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(1);
    struct want x;
    for (int i = 0; i < 5; i++) {
        struct uconn *uc = lease(&x, NULL, true);
        if (i == 2) {
            release(uc);
            continue;
        }
        T_EQ(stats().addresses_up, 1);
        struct t_capture c = t_capture();
        uconn_died_unanswered(uc);
        uconn_close(uc, M_CLOSE_PEER);
        free(t_captured(c));
    }
    T_EQ(stats().addresses_up, 1); /* two, an answer, two */
    struct uconn *uc = lease(&x, NULL, true);
    struct t_capture c = t_capture();
    uconn_died_unanswered(uc);
    uconn_close(uc, M_CLOSE_PEER);
    free(t_captured(c));
    T_EQ(stats().addresses_ejected, 1);
}

/* A silent address is left for the next one after a short try, and not ejected for it; it is given
 * up for good, and the waiter told, when the whole time is over. */
static void
test_silent_address(void **state)
{
    (void)state;
    thr_check_loop();
    int filler[4];
    struct want x;
    cfg.url.count = 2;
    server_hang(&servers[0], filler);
    server_listen(&servers[1]);
    pool_start(0);
    struct mono start = mono_now();
    struct uconn *uc = lease(&x, NULL, false);
    T_TRUE(uc != NULL && uc->addr == addr_of(2));
    T_TRUE(mono_diff_us(mono_now(), start) >= 300000);
    T_EQ(stats().addresses_ejected, 0);
    T_TRUE(addr_of(1)->silent_at.us > 0 && addr_of(2)->silent_at.us == 0);
    release(uc);
    cfg.connect_timeout = 50000;
    start = mono_now();
    struct t_capture c = t_capture();
    T_TRUE(lease(&x, addr_of(1), false) == NULL);
    free(t_captured(c));
    T_TRUE(mono_diff_us(mono_now(), start) >= 50000);
    T_EQ(x.e, ERR_SESSION_GONE);
    T_ZEQ(x.why, "connection timed out");
    T_EQ(stats().addresses_ejected, 1);
    for (int i = 0; i < 4; i++)
        close(filler[i]);
}

/* A server that says nothing holds the last place of the pool for a second at most. */
static void
test_probe_in_the_last_place_is_short(void **state)
{
    (void)state;
    thr_check_loop();
    int filler[4];
    struct want x;
    cfg.url.count = 2;
    cfg.pool_size = 2;
    cfg.eject_min = cfg.eject_max = 60000000;
    server_hang(&servers[1], filler);
    pool_start(1);
    struct uconn *held = lease(&x, addr_of(1), false);
    struct t_capture c = t_capture();
    uaddr_failed(addr_of(2), "test");
    for (int size = 2; size <= 3; size++) {
        cfg.pool_size = size;
        T_TRUE(uconn_dial(pool, addr_of(2), DIAL_PROBE));
        struct uconn *probe = CONTAINER_OF(list_first(&pool->connecting), struct uconn, link);
        int64_t in_us = probe->timer.due_us - probe->dial_start.us;
        T_TRUE(size == 2 ? in_us < 2000000 : in_us > 2000000);
        uconn_abandon(probe);
    }
    free(t_captured(c));
    release(held);
    for (int i = 0; i < 4; i++)
        close(filler[i]);
}

/* ---- several addresses ---- */

static void
test_leases_spread(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 3;
    cfg.pool_size = 6;
    cfg.connect_concurrency = 1;
    pool_start(3);
    struct want w[6];
    for (int i = 0; i < 6; i++)
        T_TRUE(lease(&w[i], NULL, false) != NULL);
    for (unsigned h = 1; h <= 3; h++)
        T_EQ(addr_of(h)->active, 2);
    for (int i = 0; i < 6; i++)
        release(w[i].uc);
    struct uconn *again[3];
    for (int i = 0; i < 3; i++)
        again[i] = upool_try_lease(pool, NULL, 0);
    for (unsigned h = 1; h <= 3; h++) /* idle ones, too, by the fewest leases */
        T_EQ(addr_of(h)->active, 1);
    for (int i = 0; i < 3; i++)
        release(again[i]);
}

/* A pinned waiter whose address is down is told so, even while other servers are busy, and even
 * when it is ejected already. */
static void
test_pinned_to_a_dead_address_fails(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(1);
    struct want x, y, other;
    struct t_capture c = t_capture();
    struct uconn *uc = lease(&x, addr_of(1), false);
    T_TRUE(lease(&y, addr_of(2), false) == NULL);
    T_EQ(y.e, ERR_SESSION_GONE);
    T_ZEQ(y.why, "Connection refused");
    uaddr_failed(addr_of(1), "test"); /* now no address is up, but a lease lives */
    other = want_new(NULL, false);
    T_EQ(want_start(&other, 2), ERR_OK); /* waits for it */
    turns(3);
    T_FALSE(is_settled(&other));
    upool_cancel(&other.w);
    T_TRUE(lease(&y, addr_of(2), false) == NULL);
    T_EQ(y.e, ERR_SESSION_GONE);
    T_EQ(y.failed, 1);
    free(t_captured(c));
    release(uc);
}

/* One bad server says nothing about the others: a connect to it, for a session that is pinned to it
 * or ahead of need, fails nobody who can use another. The retry (fresh) is the one that would. */
static void
test_one_bad_address_fails_only_who_is_pinned_to_it(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.connect_concurrency = 1; /* the others wait for it to end */
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(1);
    struct want held, fresh = want_new(NULL, true), plain = want_new(NULL, false),
                      pinned = want_new(addr_of(2), false);
    struct t_capture c = t_capture();
    T_TRUE(lease(&held, addr_of(1), false) != NULL);
    T_EQ(want_start(&fresh, 1), ERR_OK);
    T_TRUE(uconn_dial(pool, addr_of(2), DIAL_AHEAD));
    run_until(is_settled, &fresh);
    T_EQ(fresh.failed, 0);
    uconn_close(held.uc, M_CLOSE_ERROR);
    uconn_close(fresh.uc, M_CLOSE_ERROR);
    uaddr_failed(addr_of(1), "test"); /* nothing lives now */
    T_EQ(want_start(&pinned, 1), ERR_OK);
    fresh = want_new(NULL, true);
    T_EQ(want_start(&fresh, 2), ERR_OK);
    T_EQ(want_start(&plain, 3), ERR_OK);
    run_until(is_settled, &plain);
    run_until(is_settled, &fresh);
    free(t_captured(c));
    T_TRUE(pinned.failed == 1 && pinned.e == ERR_SESSION_GONE);
    T_EQ(plain.failed + fresh.failed, 0);
    release(plain.uc);
    release(fresh.uc);
}

/* All addresses refuse: a retry hears of it, who can use the connection that lives waits for it. */
static void
test_all_addresses_bad_fails_the_fresh(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.eject_min = cfg.eject_max = 60000000;
    pool_start(1);
    struct want held, fresh = want_new(NULL, true), plain = want_new(NULL, false);
    struct t_capture c = t_capture();
    T_TRUE(lease(&held, addr_of(1), false) != NULL);
    loop_io_del(&servers[0].io);
    close(servers[0].fd); /* listens no more; what it has accepted lives */
    T_EQ(want_start(&fresh, 1), ERR_OK);
    T_EQ(want_start(&plain, 2), ERR_OK);
    run_until(is_settled, &fresh);
    turns(3);
    free(t_captured(c));
    T_TRUE(fresh.failed == 1 && fresh.e == ERR_CONNECT);
    T_FALSE(is_settled(&plain));
    release(held.uc);
    run_until(is_settled, &plain);
    T_TRUE(plain.uc == held.uc);
    server_drop_all(&servers[0]);
    servers[0].fd = -1;
    release(plain.uc);
}

/* A pinned head of the line gets room made for it: an idle connection to another server goes. Only
 * one, while that one is closing. */
static void
test_room_is_made_for_the_pinned(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 3;
    pool_start(2);
    struct want w[3], x;
    for (int i = 0; i < 3; i++)
        T_TRUE(lease(&w[i], addr_of(1), false) != NULL);
    x = want_new(addr_of(2), false);
    T_EQ(want_start(&x, 1), ERR_OK);
    turns(2);
    T_FALSE(is_settled(&x)); /* all are leased */
    for (int i = 0; i < 3; i++)
        release(w[i].uc);
    run_until(is_settled, &x);
    T_TRUE(x.uc != NULL && x.uc->addr == addr_of(2));
    T_EQ(stats().idle, 2);
    release(x.uc);
}

/* When its address has a lease out, it waits for that a moment only, though nothing else happens.
 */
static void
test_pinned_head_is_not_starved(void **state)
{
    (void)state;
    thr_check_loop();
    cfg.url.count = 2;
    cfg.pool_size = 2;
    pool_start(2);
    struct want a, b, x;
    struct uconn *held = lease(&b, addr_of(2), false);
    release(lease(&a, addr_of(1), false));
    x = want_new(addr_of(2), false);
    T_EQ(want_start(&x, 1), ERR_OK);
    run_until(is_settled, &x); /* held stays held */
    T_TRUE(x.uc != NULL && x.uc->addr == held->addr && x.uc != held);
    T_TRUE(mono_diff_us(mono_now(), x.w.since) >= 100000);
    release(held);
    release(x.uc);
}

/* ---- names ---- */

static void
test_bad_urls_say_why(void **state)
{
    (void)state;
    thr_check_loop();
    static char bad[] = "ftp://x";
    char why[256] = "";
    url_list[0] = bad;
    T_TRUE(upool_new(loop, resolver, "default", &cfg, 1, why, sizeof(why)) == NULL);
    T_TRUE(why[0] != '\0');
    static char tls[] = "https://127.0.0.1:1", missing[] = "/nonexistent/ca.pem";
    url_list[0] = tls;
    cfg.tls_ca_file = missing;
    T_TRUE(upool_new(loop, resolver, "default", &cfg, 1, why, sizeof(why)) == NULL);
    T_HAS(why, "/nonexistent/ca.pem");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_refused_fails_all_waiters),
        POOL_TEST(test_failover_ejection_and_probe),
        POOL_TEST(test_back_off_grows),
        POOL_TEST(test_probe_that_fails_at_once_comes_again),
        POOL_TEST(test_an_abandoned_probe_is_not_the_last),
        POOL_TEST(test_unanswered_eject),
        POOL_TEST(test_probe_takes_the_place_of_an_idle_one),
        POOL_TEST(test_probe_takes_the_next_place),
        POOL_TEST(test_silent_address),
        POOL_TEST(test_probe_in_the_last_place_is_short),
        POOL_TEST(test_leases_spread),
        POOL_TEST(test_pinned_to_a_dead_address_fails),
        POOL_TEST(test_one_bad_address_fails_only_who_is_pinned_to_it),
        POOL_TEST(test_all_addresses_bad_fails_the_fresh),
        POOL_TEST(test_room_is_made_for_the_pinned),
        POOL_TEST(test_pinned_head_is_not_starved),
        POOL_TEST(test_bad_urls_say_why),
    };
    signal(SIGPIPE, SIG_IGN);
    random_init();
    return TEST_MAIN(tests);
}
