/* What conn asks of TCP itself: when it acknowledges, and in which packet the end travels. */
#include "t.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "net/conn.h"
#include "net/listener.h"

static struct loop *loop;
static int accepted = -1;

static void
on_conn(void *arg)
{
    thr_check_loop();
    (void)arg;
}

static void
on_accepted(void *arg, int fd, const struct addr *peer)
{
    thr_check_loop();
    (void)arg;
    (void)peer;
    T_EQ(accepted, -1);
    accepted = fd;
}

/* A client that said "half", and the conn that has read it. */
struct half {
    struct listener ls;
    struct conn c;
    int client;
};

static void LOOP_ONLY
half_open(struct half *h, bool clients_speak)
{
    struct listener_options o = {.backlog = 8, .clients_speak = clients_speak};
    const char *parse_why = "";
    char why[256] = "", got[8];
    size_t n = 0;
    T_TRUE(addr_parse(str_of("127.0.0.1:0"), &o.addr, &parse_why));
    if (!listener_open(&h->ls, &o, why, sizeof(why)))
        fail_msg("%s", why);
    T_TRUE(listener_start(&h->ls, loop, str_of("busy"), on_accepted, NULL));
    h->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(connect(h->client, &h->ls.addr.sa, h->ls.addr.len), 0);
    T_EQ(fcntl(h->client, F_SETFL, O_NONBLOCK), 0);
    T_EQ(send(h->client, "half", 4, 0), 4);
    listener_accept_rest(&h->ls);
    T_TRUE(conn_open(&h->c, loop, accepted, NULL, on_conn, h));
    h->c.can_read = h->c.can_write = true;
    T_EQ(conn_read(&h->c, got, sizeof(got), &n), IO_OK);
    T_EQ(n, 4);
}

static void LOOP_ONLY
half_close(struct half *h)
{
    conn_close(&h->c);
    accepted = -1;
    listener_close(&h->ls);
    close(h->client);
}

static unsigned
unacknowledged(int fd)
{
    struct tcp_info i = {0};
    socklen_t len = sizeof(i);
    T_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len), 0);
    return i.tcpi_unacked;
}

/* Behind a clients_speak listener the first bytes wait for the answer to acknowledge them, and
 * conn_ack_now() does it at once. The kernel waits 40 ms; on a machine so slow that these passed
 * meanwhile there is another try. */
static void
test_ack_now(void **state)
{
    (void)state;
    thr_check_loop();
    bool seen = false;
    for (int i = 0; i < 20 && !seen; i++) {
        struct half h;
        half_open(&h, true);
        bool waited = unacknowledged(h.client) == 1;
        conn_ack_now(&h.c);
        seen = waited && unacknowledged(h.client) == 0;
        half_close(&h);
        conn_ack_now(&h.c); /* no-op once closed */
    }
    T_TRUE(seen);
}

/* Any other listener acknowledges them by itself. */
static void
test_acknowledged_unasked(void **state)
{
    (void)state;
    thr_check_loop();
    struct half h;
    half_open(&h, false);
    T_EQ(unacknowledged(h.client), 0);
    half_close(&h);
}

/* The last bytes wait for the end and come with it, by conn_close() or conn_shutdown(). The kernel
 * waits 200 ms at most; see above. */
static void
test_fin_follows(void **state)
{
    (void)state;
    thr_check_loop();
    for (int by_close = 0; by_close < 2; by_close++) {
        bool waited = false;
        for (int i = 0; i < 10 && !waited; i++) {
            struct half h;
            char got[8];
            size_t n = 0;
            half_open(&h, true);
            struct iovec v[2] = {{(char[]){"by"}, 2}, {(char[]){"e"}, 1}};
            conn_fin_follows(&h.c);
            T_EQ(conn_writev(&h.c, v, 1 + by_close, &n), IO_OK);
            waited = recv(h.client, got, sizeof(got), MSG_PEEK) < 0 && errno == EAGAIN;
            if (by_close)
                conn_close(&h.c);
            else
                conn_shutdown(&h.c);
            T_EQ(fcntl(h.client, F_SETFL, 0), 0);
            T_EQ(recv(h.client, got, sizeof(got), 0), n);
            T_EQ(recv(h.client, got, sizeof(got), 0), 0);
            half_close(&h);
        }
        T_TRUE(waited);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ack_now),
        TEST(test_acknowledged_unasked),
        TEST(test_fin_follows),
    };
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    CHECK(loop != NULL);
    int failed = TEST_MAIN(tests);
    thr_check_loop();
    loop_free(&loop);
    return failed;
}
