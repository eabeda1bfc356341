/*
 * How an attempt to connect spends its time, and whose failure its end is.
 */
#include "test_upool.h"

#include <sys/syscall.h>
#include <unistd.h>

static struct uconn *LOOP_ONLY
first_dial(void)
{
    struct list *node = list_first(&pool->connecting);
    return node == NULL ? NULL : CONTAINER_OF(node, struct uconn, link);
}

static bool
tcp_stands(void *arg)
{
    (void)arg;
    thr_check_loop();
    const struct uconn *uc = first_dial();
    return uc != NULL && uc->tcp_done;
}

/* The servers accept, and never say a word of TLS. */
static void
use_tls(size_t count)
{
    for (size_t i = 0; i < count; i++)
        snprintf(urls[i], sizeof(urls[i]), "https://127.0.0.%zu:%u", i + 1, servers[i].port);
}

/* No address answers: the waiter hears of it within connect_timeout, and none is said to be up. */
static void
test_all_silent_fails_in_time(void **state)
{
    (void)state;
    thr_check_loop();
    int filler[3][4];
    struct want x;
    cfg.url.count = 3;
    cfg.connect_timeout = 1400000;
    cfg.eject_min = cfg.eject_max = 60000000;
    for (int i = 0; i < 3; i++)
        server_hang(&servers[i], filler[i]);
    pool_start(0);
    struct t_capture c = t_capture();
    struct mono start = mono_now();
    T_TRUE(lease(&x, NULL, false) == NULL);
    int64_t took = mono_diff_us(mono_now(), start);
    free(t_captured(c));
    T_TRUE(took >= 1300000 && took < 2 * cfg.connect_timeout);
    T_EQ(x.e, ERR_CONNECT);
    T_ZEQ(x.why, "connection timed out");
    T_EQ(stats().addresses_ejected, 3);
    T_FALSE(upool_seems_up(pool));
    for (int i = 0; i < 3; i++) {
        T_EQ(addr_of((unsigned)i + 1)->fails, 1);
        for (int k = 0; k < 4; k++)
            close(filler[i][k]);
    }
}

/* The same when they accept, and say nothing of TLS: each gets its share, once. */
static void
test_all_silent_in_tls_fails_in_time(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x;
    cfg.url.count = 2;
    cfg.connect_timeout = 800000;
    cfg.eject_min = cfg.eject_max = 60000000;
    use_tls(2);
    struct t_capture c = t_capture();
    pool_start(2);
    struct mono start = mono_now();
    T_TRUE(lease(&x, NULL, false) == NULL);
    int64_t took = mono_diff_us(mono_now(), start);
    free(t_captured(c));
    T_TRUE(took >= 700000 && took < 2 * cfg.connect_timeout);
    T_EQ(x.e, ERR_CONNECT);
    T_ZEQ(x.why, "TLS handshake timed out");
    T_TRUE(servers[0].accepted == 1 && servers[1].accepted == 1);
    T_EQ(stats().addresses_ejected, 2);
    T_FALSE(upool_seems_up(pool));
}

/* The short try is for TCP: a handshake that takes longer than that is waited for. Half of the time
 * stays for the other address, all of it is used when there is none. */
static void
test_a_slow_handshake_has_time(void **state)
{
    (void)state;
    thr_check_loop();
    for (size_t count = 1; count <= 2; count++) {
        struct want x = want_new(NULL, false);
        cfg.url.count = count;
        cfg.connect_timeout = 10000000;
        use_tls(2);
        if (count == 1)
            server_listen(&servers[0]);
        pool_start(0);
        T_EQ(want_start(&x, 1), ERR_OK);
        run_until(tcp_stands, NULL);
        const struct uconn *uc = first_dial();
        int64_t left = uc->timer.due_us - uc->tls_start.us;
        int64_t all = uc->dial_deadline.us - uc->tls_start.us;
        int64_t share = count == 1 ? all : all / 2;
        T_TRUE(uc->addr == addr_of(1) && left > share - 1000000 && left < share + 1000000);
        upool_cancel(&x.w);
        upool_free(&pool);
    }
}

/* One server stopped: it accepts, but no handshake ends. The other one serves, and the next
 * connects do not go by the stopped one. */
static void
test_a_server_silent_in_tls_is_left_out(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x, y;
    cfg.url.count = 2;
    cfg.connect_timeout = 600000;
    cfg.eject_min = cfg.eject_max = 60000000;
    use_tls(1);
    struct t_capture c = t_capture();
    pool_start(2);
    struct uconn *uc = lease(&x, NULL, false);
    T_TRUE(uc != NULL && uc->addr == addr_of(2));
    T_EQ(addr_of(1)->state, UADDR_EJECTED);
    struct uconn *other = lease(&y, NULL, false);
    free(t_captured(c));
    T_TRUE(other != NULL && other->addr == addr_of(2));
    T_EQ(servers[0].accepted, 1);
    release(uc);
    release(other);
}

/* ---- what is our own fault ---- */

static int connect_fails_with;    /* errno; 0: it does not */
static unsigned connect_fails_at; /* 127.0.0.host; 0: everywhere */
static int connect_calls;

/* The pool's connect(). */
int
connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t len)
{
    const struct sockaddr_in *in = (const void *)to.__sockaddr__;
    unsigned host = (unsigned)(ntohl(in->sin_addr.s_addr) - INADDR_LOOPBACK + 1);
    connect_calls++;
    if (connect_fails_with != 0 && (connect_fails_at == 0 || connect_fails_at == host)) {
        errno = connect_fails_with;
        return -1;
    }
    return (int)syscall(SYS_connect, fd, in, len);
}

static bool
called_again(void *arg)
{
    return connect_calls >= *(int *)arg;
}

/* Nobody is ejected, nobody fails, nothing spins; when there is room again all goes on. */
static void
test_own_want_is_not_the_servers_failure(void **state)
{
    (void)state;
    thr_check_loop();
    static const int wants[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL};
    cfg.url.count = 2;
    for (size_t i = 0; i < COUNT_OF(wants); i++) {
        pool_start(i == 0 ? 2 : 0); /* they listen already */
        int before = connect_calls, each = wants[i] == EADDRNOTAVAIL ? 2 : 1;
        int calls = before + 2 * each;
        connect_fails_with = wants[i];
        struct want x = want_new(NULL, true), pinned = want_new(addr_of(2), true);
        struct t_capture c = t_capture();
        struct mono start = mono_now();
        T_EQ(want_start(&x, 1), ERR_OK);
        T_EQ(want_start(&pinned, 2), ERR_OK);
        run_until(called_again, &calls);
        turns(5);
        char *said = t_captured(c);
        int64_t tries = mono_diff_us(mono_now(), start) / 90000 + 1;
        T_TRUE(tries >= 2 && connect_calls - before <= each * tries);
        T_HAS(said, "connect_starved");
        free(said);
        T_FALSE(is_settled(&x) || is_settled(&pinned));
        T_EQ(stats().addresses_up, 2);
        connect_fails_with = 0;
        run_until(is_settled, &x);
        run_until(is_settled, &pinned);
        T_TRUE(x.uc != NULL && pinned.uc != NULL);
        release(x.uc);
        release(pinned.uc);
        upool_free(&pool);
    }
}

/* All ports to one server are in use: another one has its own. */
static void
test_no_port_to_one_server(void **state)
{
    (void)state;
    thr_check_loop();
    struct want x;
    cfg.url.count = 2;
    connect_fails_with = EADDRNOTAVAIL;
    connect_fails_at = 1;
    pool_start(2);
    struct uconn *uc = lease(&x, NULL, false);
    T_TRUE(uc != NULL && uc->addr == addr_of(2));
    T_EQ(stats().addresses_up, 2);
    connect_fails_with = 0;
    connect_fails_at = 0;
    release(uc);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(test_all_silent_fails_in_time),
        POOL_TEST(test_all_silent_in_tls_fails_in_time),
        POOL_TEST(test_a_slow_handshake_has_time),
        POOL_TEST(test_a_server_silent_in_tls_is_left_out),
        POOL_TEST(test_own_want_is_not_the_servers_failure),
        POOL_TEST(test_no_port_to_one_server),
    };
    signal(SIGPIPE, SIG_IGN);
    random_init();
    return TEST_MAIN(tests);
}
