/* Pools whose servers have names: looked up again, with many addresses, with some that lead
 * nowhere. */
#include "test_upool.h"

#include <netdb.h>

static int
failing_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    (void)cap;
    *sys_errno = 0;
    *count = 0;
    if (strcmp(host, "bad.test") == 0)
        return EAI_NONAME;
    *count = 1;
    return addr_from_ip("127.0.0.1", 0, &addrs[0]) ? 0 : EAI_FAIL;
}

static void
test_names(void **state)
{
    (void)state;
    thr_check_loop();
    static char bad[] = "http://bad.test:1", good[64];
    snprintf(good, sizeof(good), "http://good.test:%u", servers[0].port);
    url_list[0] = bad;
    resolver_set_lookup(resolver, failing_lookup);
    pool_start(1);
    struct want x;
    struct t_capture c = t_capture();
    T_TRUE(lease(&x, NULL, false) == NULL);
    T_EQ(x.e, ERR_CONNECT);
    T_HAS(x.why, "the host name cannot be resolved: ");
    upool_free(&pool);
    /* Another name may still be found, behind the one that was asked for first: that is waited
     * for. */
    url_list[1] = good;
    cfg.url.count = 2;
    char why[256];
    pool = upool_new(loop, resolver, "default", &cfg, 120000000, why, sizeof(why));
    upool_start(pool);
    struct uconn *uc = lease(&x, NULL, false);
    free(t_captured(c));
    T_TRUE(uc != NULL);
    T_STR(uaddr_authority(uc->addr), good + strlen("http://"));
    release(uc);
}

static int moved_count; /* the helper thread's, once there is one */

/* Two addresses, of which one is bad; then only that; then only the good one. */
static int
moving_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    (void)host;
    (void)cap;
    *sys_errno = 0;
    *count = 0;
    int nth = ++moved_count;
    if (nth != 2 && addr_from_ip("127.0.0.1", 0, &addrs[*count]))
        ++*count;
    if (nth <= 2 && addr_from_ip("127.0.0.3", 0, &addrs[*count]))
        ++*count;
    return *count > 0 ? 0 : EAI_FAIL;
}

static bool
resolved_so_often(void *arg)
{
    return metric_get(M_RESOLVES) >= *(const int64_t *)arg;
}

/* When no address of a name works any more it is looked up at once, a second after the last time at
 * the earliest; not before, and no longer once one works. */
static void
test_a_name_whose_addresses_fail_is_looked_up(void **state)
{
    (void)state;
    thr_check_loop();
    static char url[64];
    snprintf(url, sizeof(url), "http://moves.test:%u", servers[0].port);
    url_list[0] = url;
    cfg.eject_min = cfg.eject_max = 60000000;
    moved_count = 0;
    resolver_set_lookup(resolver, moving_lookup);
    int64_t times = metric_get(M_RESOLVES) + 1;
    struct want x;
    pool_start(1);
    run_until(resolved_so_often, &times);
    const struct endpoint *ep = pool->endpoints[0];
    struct mono late = mono_add_us(ep->looked_up_at, 20000000);
    struct t_capture c = t_capture();
    T_TRUE(lease(&x, addr_of(3), false) == NULL);
    T_TRUE(ep->resolve_timer.due_us > late.us); /* the other one works */
    uaddr_failed(addr_of(1), "test");
    T_EQ(ep->resolve_timer.due_us, ep->looked_up_at.us + 1000000);
    times++;
    run_until(resolved_so_often, &times);
    T_TRUE(addr_of(1) == NULL && addr_of(3)->state == UADDR_EJECTED);
    T_TRUE(ep->resolve_timer.due_us > late.us); /* it had its early one */
    T_TRUE(lease(&x, NULL, false) == NULL);
    T_EQ(x.e, ERR_CONNECT);
    times++;
    run_until(resolved_so_often, &times);
    free(t_captured(c));
    release(lease(&x, NULL, false)); /* where the name leads now */
    T_TRUE(ep->resolve_timer.due_us > late.us);
}

/* A multicast address: no machine has a route for a connect to that. */
static int
two_kinds_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    (void)host;
    (void)cap;
    *sys_errno = 0;
    *count = 2;
    return addr_from_ip("ff05::1", 0, &addrs[0]) && addr_from_ip("127.0.0.1", 0, &addrs[1])
               ? 0
               : EAI_FAIL;
}

/* A kind of address without a route is no server that is missing, while the other kind works. */
static void
test_no_route_is_no_missing_server(void **state)
{
    (void)state;
    thr_check_loop();
    static char url[64];
    snprintf(url, sizeof(url), "http://two.test:%u", servers[0].port);
    url_list[0] = url;
    cfg.eject_min = cfg.eject_max = 60000000;
    resolver_set_lookup(resolver, two_kinds_lookup);
    struct want x;
    struct t_capture c = t_capture();
    pool_start(1);
    struct uconn *uc = lease(&x, NULL, false);
    T_TRUE(uc != NULL && uc->addr == addr_of(1));
    struct uaddr *six = pool->addrs[0] == addr_of(1) ? pool->addrs[1] : pool->addrs[0];
    T_TRUE(six->state == UADDR_EJECTED && uaddr_is_unroutable(six));
    T_EQ(metric_get(M_ADDRESSES_UNROUTABLE), 1);
    T_EQ(metric_get(M_ADDRESSES_DOWN), 0);
    T_EQ(stats().addresses_ejected, 0);
    uaddr_failed(addr_of(1), "test"); /* now none works */
    T_EQ(metric_get(M_ADDRESSES_UNROUTABLE), 0);
    T_EQ(metric_get(M_ADDRESSES_DOWN), 2);
    uaddr_succeeded(addr_of(1));
    six->no_route = false;
    uaddr_failed(six, "refused");
    T_EQ(metric_get(M_ADDRESSES_UNROUTABLE), 0);
    T_EQ(stats().addresses_ejected, 1);
    free(t_captured(c));
    release(uc);
}

/* A name that was never found, beside a server that works: only who has nothing else hears. */
static void
test_an_unknown_name_fails_nobody_while_there_is_an_address(void **state)
{
    (void)state;
    thr_check_loop();
    static char bad[] = "http://bad.test:1";
    url_list[1] = bad;
    cfg.url.count = 2;
    cfg.connect_concurrency = 1;
    resolver_set_lookup(resolver, failing_lookup);
    struct t_capture c = t_capture();
    int filler[4];
    server_hang(&servers[0], filler); /* so that the retry waits while the name is looked up */
    struct want fresh = want_new(NULL, true);
    int64_t before = metric_get(M_RESOLVES_FAILED);
    pool_start(0);
    T_EQ(want_start(&fresh, 1), ERR_OK);
    while (metric_get(M_RESOLVES_FAILED) == before)
        turns(1);
    turns(3);
    free(t_captured(c));
    T_FALSE(is_settled(&fresh));
    upool_cancel(&fresh.w);
    for (int i = 0; i < 4; i++)
        close(filler[i]);
}

/* A list of many_count addresses from many_first on, which begins elsewhere at each call. Set while
 * no look-up is under way. */
static unsigned many_first, many_count, many_calls;

static int
shuffling_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    (void)host;
    *sys_errno = 0;
    unsigned from = many_calls++ * 7;
    for (*count = 0; *count < cap && *count < many_count; ++*count) {
        char ip[32];
        unsigned nth = (from + (unsigned)*count) % many_count;
        snprintf(ip, sizeof(ip), "127.0.1.%u", many_first + nth);
        if (!addr_from_ip(ip, 0, &addrs[*count]))
            return EAI_FAIL;
    }
    return 0;
}

static void LOOP_ONLY
look_up_wait(int64_t before)
{
    while (metric_get_in(pool->metrics, M_RESOLVES) == before)
        turns(1);
}

static void LOOP_ONLY
look_up_again(void)
{
    timer_arm_in(&pool->endpoints[0]->resolve_timer, 0);
    look_up_wait(metric_get_in(pool->metrics, M_RESOLVES));
}

/* How many addresses are in use, and how many of those that were before. */
static size_t
in_use(struct uaddr *before[UPOOL_MAX_ADDRS], size_t *kept)
{
    size_t n = 0;
    *kept = 0;
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++) {
        n += pool->addrs[i] != NULL;
        *kept += pool->addrs[i] != NULL && pool->addrs[i] == before[i];
    }
    return n;
}

/* The same ones stay in use while the name has them, and the log says once that it has more. */
static void
test_a_name_with_many_addresses(void **state)
{
    (void)state;
    thr_check_loop();
    static char many[] = "http://many.test:1";
    struct uaddr *before[UPOOL_MAX_ADDRS];
    size_t kept;
    url_list[0] = many;
    many_first = 1;
    many_count = 20;
    resolver_set_lookup(resolver, shuffling_lookup);
    struct t_capture c = t_capture();
    pool_start(1);
    look_up_wait(metric_get_in(pool->metrics, M_RESOLVES)); /* the loop has not run yet */
    memcpy(before, pool->addrs, sizeof(before));
    T_EQ(in_use(before, &kept), ENDPOINT_MAX_ADDRS);
    for (int i = 0; i < 6; i++) {
        look_up_again();
        T_EQ(in_use(before, &kept), ENDPOINT_MAX_ADDRS);
        T_EQ(kept, ENDPOINT_MAX_ADDRS);
    }
    char *text = t_captured(c);
    T_HAS(text, "address_ignored upstream=default host=many.test used=16 ignored=4 ");
    T_TRUE(strstr(strstr(text, "address_ignored") + 1, "address_ignored") == NULL);
    T_TRUE(strstr(text, "address_gone") == NULL);
    free(text);
    /* Others take the places of those that go. */
    many_first = 11;
    many_count = 10;
    c = t_capture();
    look_up_again();
    T_EQ(in_use(before, &kept), 10);
    T_TRUE(kept >= 6); /* 11 to 16; a new one may lie where an old one did */
    many_count = RESOLVER_MAX_ADDRS;
    look_up_again();
    free(t_captured(c));
    T_EQ(in_use(before, &kept), ENDPOINT_MAX_ADDRS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_names),
        POOL_TEST(test_a_name_whose_addresses_fail_is_looked_up),
        POOL_TEST(test_no_route_is_no_missing_server),
        POOL_TEST(test_an_unknown_name_fails_nobody_while_there_is_an_address),
        POOL_TEST(test_a_name_with_many_addresses),
    };
    signal(SIGPIPE, SIG_IGN);
    random_init();
    return TEST_MAIN(tests);
}
