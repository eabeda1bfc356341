#include "t.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "base/hash.h"
#include "base/mem.h"
#include "net/resolver_private.h"
#include "upstream/upool_impl.h" /* deadlines and states are looked at, not waited for */

static struct loop *loop;
static struct resolver *resolver;
static struct upool *pool;
static struct config_upstream cfg;
static char urls[4][64];
static char *url_list[4];

/* ---- running the loop ---- */

static struct timer tick, deadline;
static bool (*wanted)(void *arg);
static void *wanted_arg;

static void
on_tick(void *arg)
{
    thr_check_loop();
    (void)arg;
    if (wanted(wanted_arg))
        loop_stop(loop);
    else
        timer_arm_in(&tick, 500);
}

static void
on_deadline(void *arg)
{
    thr_check_loop();
    (void)arg;
    fail_msg("not within the deadline");
}

static void LOOP_ONLY
run_until(bool (*cond)(void *arg), void *arg)
{
    wanted = cond;
    wanted_arg = arg;
    timer_arm_in(&deadline, 20000000);
    timer_arm_in(&tick, 0);
    loop_run(loop);
    timer_disarm(&deadline);
}

static bool
after_polls(void *arg)
{
    return --*(int *)arg <= 0;
}

/* Lets everything happen that is ready. */
static void LOOP_ONLY
turns(int n)
{
    run_until(after_polls, &n);
}

/* ---- the server, in the same loop ---- */

struct server;
struct served {
    struct loop_io io;
    struct server *s;
    int fd; /* -1: free place */
};
struct server {
    struct loop_io io;
    int fd; /* -1: not listening */
    uint16_t port;
    unsigned host; /* 127.0.0.host */
    struct served conns[64];
    size_t accepted, open, peak, pings;
    bool close_at_once; /* accepts only to close */
    bool sick;          /* /ping is answered with 500 */
};
static struct server servers[3];

static void LOOP_ONLY
served_close(struct served *c)
{
    loop_io_del(&c->io);
    close(c->fd);
    c->fd = -1;
    c->s->open--;
}

static void
on_served(void *arg, unsigned ready)
{
    thr_check_loop();
    (void)ready;
    struct served *c = arg;
    char text[1024];
    ssize_t n = recv(c->fd, text, sizeof(text) - 1, 0);
    if (n <= 0) {
        served_close(c);
        return;
    }
    text[n] = '\0';
    if (strncmp(text, "GET /ping HTTP/1.1\r\n", 20) != 0)
        return;
    c->s->pings++;
    const char *answer = c->s->sick ? "HTTP/1.1 500 Oh\r\n\r\n"
                                    : "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nOk.\n";
    T_EQ(send(c->fd, answer, strlen(answer), MSG_NOSIGNAL), strlen(answer));
}

/* What the other side has closed does not count as open, told or not. */
static void LOOP_ONLY
server_sweep(struct server *s)
{
    for (size_t i = 0; i < COUNT_OF(s->conns); i++) {
        char byte;
        struct served *c = &s->conns[i];
        if (c->fd < 0)
            continue;
        ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            served_close(c);
    }
}

static void
on_acceptable(void *arg, unsigned ready)
{
    thr_check_loop();
    (void)ready;
    struct server *s = arg;
    int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    s->accepted++;
    if (s->close_at_once) {
        close(fd);
        return;
    }
    server_sweep(s);
    size_t i = 0;
    while (i < COUNT_OF(s->conns) && s->conns[i].fd >= 0)
        i++;
    T_TRUE(i < COUNT_OF(s->conns));
    s->conns[i] = (struct served){.s = s, .fd = fd};
    T_TRUE(loop_io_add_level(loop, &s->conns[i].io, fd, on_served, &s->conns[i]));
    s->open++;
    s->peak = size_max(s->peak, s->open);
}

/* port 0: any. Only bound, so that connecting is refused, until server_listen(). */
static void
server_bind(struct server *s, unsigned host)
{
    *s = (struct server){.host = host};
    for (size_t i = 0; i < COUNT_OF(s->conns); i++)
        s->conns[i].fd = -1;
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + host)};
    socklen_t len = sizeof(a);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    T_EQ(bind(s->fd, (struct sockaddr *)&a, len), 0);
    T_EQ(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
}

static void LOOP_ONLY
server_listen(struct server *s)
{
    T_EQ(listen(s->fd, 64), 0);
    T_TRUE(loop_io_add_level(loop, &s->io, s->fd, on_acceptable, s));
}

/* Closes the connections of a server, and tells nobody. */
static void LOOP_ONLY
server_drop_all(struct server *s)
{
    for (size_t i = 0; i < COUNT_OF(s->conns); i++)
        if (s->conns[i].fd >= 0)
            served_close(&s->conns[i]);
}

static void LOOP_ONLY
server_close(struct server *s)
{
    if (s->fd < 0)
        return;
    server_drop_all(s);
    loop_io_del(&s->io);
    close(s->fd);
    s->fd = -1;
}

/* ---- setup: up to three servers, numeric URLs, short times ---- */

static int
setup(void **state)
{
    (void)state;
    loop = loop_new();
    if (loop == NULL)
        return -1;
    resolver = resolver_new(loop);
    timer_init(&tick, loop, on_tick, NULL);
    timer_init(&deadline, loop, on_deadline, NULL);
    for (size_t i = 0; i < COUNT_OF(servers); i++) {
        server_bind(&servers[i], (unsigned)i + 1);
        snprintf(urls[i], sizeof(urls[i]), "http://127.0.0.%zu:%u", i + 1, servers[i].port);
        url_list[i] = urls[i];
    }
    static char none[] = "";
    cfg = (struct config_upstream){
        .url = {.item = url_list, .count = 1},
        .pool_size = 4,
        .connect_concurrency = 4,
        .queue_size = 100,
        .queue_timeout = 30000000,
        .connect_timeout = 5000000,
        .idle_timeout = 60000000,
        .keepalive_margin = 2000000,
        .max_age = 3600000000,
        .eject_min = 5000,
        .eject_max = 40000,
        .resolve_interval = 30000000,
        .tls_verify = true,
        .tls_server_name = none,
        .tls_ca_file = none,
        .tls_ca_dir = none,
        .tls_cert_file = none,
        .tls_key_file = none,
    };
    return resolver != NULL && timer_reserve(&tick) && timer_reserve(&deadline) ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    thr_check_loop();
    /* Only a test that failed left any of these. */
    struct waiter *w;
    while (pool != NULL && (w = waitq_first(&pool->q)) != NULL)
        waitq_remove(w);
    struct list *node;
    while (pool != NULL && (node = list_first(&pool->active)) != NULL)
        uconn_close(CONTAINER_OF(node, struct uconn, link), M_CLOSE_ERROR);
    upool_free(&pool);
    for (size_t i = 0; i < COUNT_OF(servers); i++)
        server_close(&servers[i]);
    resolver_free(&resolver);
    timer_fini(&tick);
    timer_fini(&deadline);
    loop_free(&loop);
    return 0;
}

static void LOOP_ONLY
pool_start(size_t live_servers)
{
    char why[256] = "";
    for (size_t i = 0; i < live_servers; i++)
        server_listen(&servers[i]);
    pool = upool_new(loop, resolver, &cfg, 120000000, why, sizeof(why));
    if (pool == NULL)
        fail_msg("%s", why);
    upool_start(pool);
}

static struct upool_stats LOOP_ONLY
stats(void)
{
    struct upool_stats s;
    upool_stats(pool, &s);
    return s;
}

/* ---- waiters ---- */

struct want {
    struct upool_waiter w;
    struct uconn *uc; /* leased */
    int granted, failed;
    enum err e;
    char why[256];
};
static int grant_count; /* in order: who was when */

static void
on_lease_ready(void *arg)
{
    thr_check_loop();
    (void)arg;
}

static void
on_granted(void *arg, struct uconn *uc)
{
    thr_check_loop();
    struct want *x = arg;
    x->granted = ++grant_count;
    x->uc = uc;
    uconn_set_handler(uc, on_lease_ready, x);
}

static void
on_failed(void *arg, enum err e, const char *detail)
{
    thr_check_loop();
    struct want *x = arg;
    x->failed++;
    x->e = e;
    snprintf(x->why, sizeof(x->why), "%s", detail);
}

static struct want
want_new(struct uaddr *pin, bool fresh)
{
    return (struct want){
        .w = {.granted = on_granted, .failed = on_failed, .pin = pin, .fresh = fresh}};
}

static enum err LOOP_ONLY
want_start(struct want *x, uint64_t flow)
{
    x->w.arg = x;
    enum err e = upool_wait(pool, &x->w, flow);
    T_TRUE(x->granted == 0 && x->failed == 0); /* never before it returned */
    return e;
}

static bool
is_settled(void *arg)
{
    const struct want *x = arg;
    return x->granted > 0 || x->failed > 0;
}

/* A lease by the queue; NULL: it failed. */
static struct uconn *LOOP_ONLY
lease(struct want *x, struct uaddr *pin, bool fresh)
{
    *x = want_new(pin, fresh);
    T_EQ(want_start(x, 1), ERR_OK);
    run_until(is_settled, x);
    T_FALSE(upool_waits(&x->w));
    return x->uc;
}

static const struct uconn_end plain_end = {.max_left = UINT64_MAX};

static void LOOP_ONLY
release(struct uconn *uc)
{
    uconn_release(uc, &plain_end);
}

static struct uaddr *
addr_of(unsigned host)
{
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++)
        if (pool->addrs[i] != NULL &&
            ntohl(pool->addrs[i]->addr.in4.sin_addr.s_addr) == INADDR_LOOPBACK - 1 + host)
            return pool->addrs[i];
    return NULL;
}

static bool
nothing_is_closing(void *arg)
{
    (void)arg;
    return pool->closing_count == 0;
}

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
    for (bool busy = true; busy;) {
        busy = false;
        for (size_t i = 0; i < WANTS; i++) {
            T_EQ(x[i].failed, 0);
            busy = busy || upool_waits(&x[i].w) || x[i].uc != NULL;
            if (x[i].uc != NULL)
                release(x[i].uc);
            x[i].uc = NULL;
        }
        turns(1);
    }
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
    cfg.url.count = 2;
    cfg.connect_concurrency = 1;
    pool_start(2);
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
    T_EQ(stats().idle, 1);
    run_until(two_idle, NULL);
    server_drop_all(&servers[0]);
    release(uc); /* into a pool that is about to notice */
    run_until(nothing_is_closing, NULL);
    run_until(two_idle, NULL);
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
    return addr_of(1)->fails > *(int *)arg;
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
    int fails = addr_of(1)->fails;
    T_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    run_until(failed_again, &fails);
    turns(2);
    T_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    run_until(all_up, NULL);
    T_EQ(servers[0].pings, 1);
    free(t_captured(c));
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

static int
failing_lookup(const char *host, struct addr *addrs, size_t cap, size_t *count, int *sys_errno)
{
    (void)cap;
    *sys_errno = 0;
    *count = 0;
    if (strcmp(host, "bad.test") == 0)
        return EAI_NONAME;
    /* The good name is slow: the bad one has failed by then. */
    struct timespec ts = {.tv_nsec = 30000000};
    nanosleep(&ts, NULL);
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
    /* Another name may still be found: that is waited for. */
    url_list[1] = good;
    cfg.url.count = 2;
    char why[256];
    pool = upool_new(loop, resolver, &cfg, 120000000, why, sizeof(why));
    upool_start(pool);
    struct uconn *uc = lease(&x, NULL, false);
    free(t_captured(c));
    T_TRUE(uc != NULL);
    T_STR(uaddr_authority(uc->addr), good + strlen("http://"));
    release(uc);
}

static void
test_bad_urls_say_why(void **state)
{
    (void)state;
    thr_check_loop();
    static char bad[] = "ftp://x";
    char why[256] = "";
    url_list[0] = bad;
    T_TRUE(upool_new(loop, resolver, &cfg, 1, why, sizeof(why)) == NULL);
    T_TRUE(why[0] != '\0');
    static char tls[] = "https://127.0.0.1:1", missing[] = "/nonexistent/ca.pem";
    url_list[0] = tls;
    cfg.tls_ca_file = missing;
    T_TRUE(upool_new(loop, resolver, &cfg, 1, why, sizeof(why)) == NULL);
    T_HAS(why, "/nonexistent/ca.pem");
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
    T_TRUE(uconn_dial(pool, addr_of(2), true)); /* a probe */
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
        pool = upool_new(loop, resolver, &cfg, 1, why, sizeof(why));
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

int
main(void)
{
#define POOL_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
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
        POOL_TEST(test_refused_fails_all_waiters),
        POOL_TEST(test_failover_ejection_and_probe),
        POOL_TEST(test_back_off_grows),
        POOL_TEST(test_probe_that_fails_at_once_comes_again),
        POOL_TEST(test_unanswered_eject),
        POOL_TEST(test_leases_spread),
        POOL_TEST(test_pinned_to_a_dead_address_fails),
        POOL_TEST(test_room_is_made_for_the_pinned),
        POOL_TEST(test_pinned_head_is_not_starved),
        POOL_TEST(test_names),
        POOL_TEST(test_bad_urls_say_why),
        POOL_TEST(test_drain),
        POOL_TEST(test_free_in_every_state),
        POOL_TEST(test_no_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    random_init();
    return TEST_MAIN(tests);
}
