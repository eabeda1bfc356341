#ifndef CHMUX_TESTS_TEST_UPOOL_H
#define CHMUX_TESTS_TEST_UPOOL_H
/*
 * test_upool: what the tests of the pool share: up to three servers in the same loop, a pool with
 * short times, and waiters that note what they were told.
 */
#include "t.h"

#include <netinet/in.h>
#include <sys/socket.h>

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

static inline void
on_tick(void *arg)
{
    thr_check_loop();
    (void)arg;
    if (wanted(wanted_arg))
        loop_stop(loop);
    else
        timer_arm_in(&tick, 500);
}

static inline void
on_deadline(void *arg)
{
    thr_check_loop();
    (void)arg;
    fail_msg("not within the deadline");
}

static inline void LOOP_ONLY
run_until(bool (*cond)(void *arg), void *arg)
{
    wanted = cond;
    wanted_arg = arg;
    timer_arm_in(&deadline, 20000000);
    timer_arm_in(&tick, 0);
    loop_run(loop);
    timer_disarm(&deadline);
}

static inline bool
after_polls(void *arg)
{
    return --*(int *)arg <= 0;
}

/* Lets everything happen that is ready. */
static inline void LOOP_ONLY
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
    bool mute;          /* /ping is not answered */
};
static struct server servers[3];

static inline void LOOP_ONLY
served_close(struct served *c)
{
    loop_io_del(&c->io);
    close(c->fd);
    c->fd = -1;
    c->s->open--;
}

static inline void
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
    if (c->s->mute)
        return;
    c->s->pings++;
    const char *answer = c->s->sick ? "HTTP/1.1 500 Oh\r\n\r\n"
                                    : "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nOk.\n";
    T_EQ(send(c->fd, answer, strlen(answer), MSG_NOSIGNAL), strlen(answer));
}

/* What the other side has closed does not count as open, told or not. */
static inline void LOOP_ONLY
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

static inline void
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
static inline void
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

static inline void LOOP_ONLY
server_listen(struct server *s)
{
    T_EQ(listen(s->fd, 64), 0);
    T_TRUE(loop_io_add_level(loop, &s->io, s->fd, on_acceptable, s));
}

/* A server whose queue is full lets the handshake hang, as a dropped packet does. */
static inline void LOOP_ONLY
server_hang(struct server *s, int filler[4])
{
    struct sockaddr_in a = {.sin_family = AF_INET,
        .sin_port = htons(s->port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + s->host)};
    T_EQ(listen(s->fd, 0), 0);
    for (int i = 0; i < 4; i++) {
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(filler[i], (struct sockaddr *)&a, sizeof(a));
    }
    turns(2);
}

/* Closes the connections of a server, and tells nobody. */
static inline void LOOP_ONLY
server_drop_all(struct server *s)
{
    for (size_t i = 0; i < COUNT_OF(s->conns); i++)
        if (s->conns[i].fd >= 0)
            served_close(&s->conns[i]);
}

static inline void LOOP_ONLY
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

static inline int
setup(void **state)
{
    (void)state;
    loop = loop_new();
    if (loop == NULL)
        return -1;
    thr_check_loop();
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

static inline int
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

static inline void LOOP_ONLY
pool_start(size_t live_servers)
{
    char why[256] = "";
    for (size_t i = 0; i < live_servers; i++)
        server_listen(&servers[i]);
    pool = upool_new(loop, resolver, "default", &cfg, 120000000, why, sizeof(why));
    if (pool == NULL)
        fail_msg("%s", why);
    upool_start(pool);
}

static inline struct upool_stats LOOP_ONLY
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

static inline void
on_lease_ready(void *arg)
{
    thr_check_loop();
    (void)arg;
}

static inline void
on_granted(void *arg, struct uconn *uc)
{
    thr_check_loop();
    struct want *x = arg;
    x->granted = ++grant_count;
    x->uc = uc;
    uconn_set_handler(uc, on_lease_ready, x);
}

static inline void
on_failed(void *arg, enum err e, const char *detail)
{
    thr_check_loop();
    struct want *x = arg;
    x->failed++;
    x->e = e;
    snprintf(x->why, sizeof(x->why), "%s", detail);
}

static inline struct want
want_new(struct uaddr *pin, bool fresh)
{
    return (struct want){
        .w = {.granted = on_granted, .failed = on_failed, .pin = pin, .fresh = fresh}};
}

static inline enum err LOOP_ONLY
want_start(struct want *x, uint64_t flow)
{
    x->w.arg = x;
    enum err e = upool_wait(pool, &x->w, flow);
    T_TRUE(x->granted == 0 && x->failed == 0); /* never before it returned */
    return e;
}

static inline bool
is_settled(void *arg)
{
    const struct want *x = arg;
    return x->granted > 0 || x->failed > 0;
}

/* A lease by the queue; NULL: it failed. */
static inline struct uconn *LOOP_ONLY
lease(struct want *x, struct uaddr *pin, bool fresh)
{
    *x = want_new(pin, fresh);
    T_EQ(want_start(x, 1), ERR_OK);
    run_until(is_settled, x);
    T_FALSE(upool_waits(&x->w));
    return x->uc;
}

static const struct uconn_end plain_end = {.max_left = UINT64_MAX};

static inline void LOOP_ONLY
release(struct uconn *uc)
{
    uconn_release(uc, &plain_end);
}

static inline struct uaddr *
addr_of(unsigned host)
{
    for (size_t i = 0; i < UPOOL_MAX_ADDRS; i++)
        if (pool->addrs[i] != NULL &&
            ntohl(pool->addrs[i]->addr.in4.sin_addr.s_addr) == INADDR_LOOPBACK - 1 + host)
            return pool->addrs[i];
    return NULL;
}

#define POOL_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/* The cap holds, here and counted at the servers. */
static inline void LOOP_ONLY
expect_cap(void)
{
    size_t open = 0;
    for (size_t i = 0; i < COUNT_OF(servers); i++) {
        server_sweep(&servers[i]);
        open += servers[i].open;
    }
    struct upool_stats s = stats();
    T_TRUE(s.connecting + s.active + s.idle + s.closing <= (size_t)cfg.pool_size);
    T_TRUE(open <= (size_t)cfg.pool_size);
}

/* Until each has had its lease and given it back. */
static inline void LOOP_ONLY
all_served(struct want *x, size_t count)
{
    for (bool busy = true; busy;) {
        busy = false;
        for (size_t i = 0; i < count; i++) {
            T_EQ(x[i].failed, 0);
            busy = busy || upool_waits(&x[i].w) || x[i].uc != NULL;
            if (x[i].uc != NULL)
                release(x[i].uc);
            x[i].uc = NULL;
        }
        turns(1);
    }
}
#endif
