#include "test_pki.h"

#include <openssl/err.h>
#include <sys/socket.h>

#include "base/hash.h"
#include "base/mem.h"
#include "net/conn.h"
#include "net/tls_server.h"

static struct loop *loop;
static struct tls_server *server;
static SSL_CTX *client_ctx;

static void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* Lets everything that is ready now be told. */
static void LOOP_ONLY
turn(void)
{
    for (int i = 0; i < 2; i++) {
        struct timer t;
        timer_init(&t, loop, stop, NULL);
        T_TRUE(timer_reserve(&t));
        timer_arm_in(&t, 0);
        loop_run(loop);
        timer_fini(&t);
    }
}

static void
on_conn(void *arg)
{
    thr_check_loop();
    (void)arg;
}

/* A server's conn whose handshake is done, and its client. */
struct pair {
    struct conn c;
    SSL *client;
    int peer;
};

static void LOOP_ONLY
pair_open(struct pair *p)
{
    int fd[2];
    char why[256];
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    p->peer = fd[1];
    p->client = SSL_new(client_ctx);
    T_TRUE(p->client != NULL && SSL_set_fd(p->client, p->peer) == 1);
    SSL_set_connect_state(p->client);
    T_TRUE(conn_open(&p->c, loop, fd[0], NULL, on_conn, p));
    conn_start_tls(&p->c, tls_server_session(server, fd[0]));
    enum io r = IO_WAIT;
    for (int i = 0; i < 100 && (r == IO_WAIT || !SSL_is_init_finished(p->client)); i++) {
        (void)SSL_do_handshake(p->client);
        turn();
        if (r == IO_WAIT)
            r = conn_handshake(&p->c, NULL, why, sizeof why);
    }
    T_EQ(r, IO_OK);
}

static void LOOP_ONLY
pair_close(struct pair *p)
{
    conn_close(&p->c);
    SSL_free(p->client);
    close(p->peer);
    ERR_clear_error();
}

/* Records of one byte, as many as fit or `most`; how many went. */
static size_t LOOP_ONLY
fill(struct pair *p, size_t most)
{
    char x = 'x';
    struct iovec v = {.iov_base = &x, .iov_len = 1};
    for (size_t n = 0, put = 0; n < most; n++)
        if (conn_writev(&p->c, &v, 1, &put) != IO_OK)
            return n;
    return most;
}

/* What ends the client's reading: SSL_ERROR_WANT_READ, ..._ZERO_RETURN, ... */
static int
drain(struct pair *p, size_t *got)
{
    char c;
    int r;
    while ((r = SSL_read(p->client, &c, 1)) == 1)
        ++*got;
    int e = SSL_get_error(p->client, r);
    ERR_clear_error();
    return e;
}

/* conn_shutdown(): with no room for close_notify, it and the FIN wait until there is. */
static void
test_goodbye_waits_for_room(void **state)
{
    (void)state;
    thr_check_loop();
    struct pair p;
    size_t got = 0;
    pair_open(&p);
    size_t room = fill(&p, SIZE_MAX); /* the last one waits inside OpenSSL */
    pair_close(&p);
    pair_open(&p);
    T_EQ(fill(&p, room), room); /* and now not a byte is left behind, nor room for one */
    conn_shutdown(&p.c);
    T_TRUE(conn_is_shutting_down(&p.c));
    turn();
    T_TRUE(conn_is_shutting_down(&p.c));
    T_EQ(drain(&p, &got), SSL_ERROR_WANT_READ); /* no FIN came alone, as it does behind a cut */
    T_EQ(got, room);
    turn();
    T_FALSE(conn_is_shutting_down(&p.c));
    T_EQ(drain(&p, &got), SSL_ERROR_ZERO_RETURN);
    char c;
    T_EQ(recv(p.peer, &c, 1, 0), 0); /* and the FIN */
    pair_close(&p);
}

/* Without conn_shutdown() the end is no end: the peer knows that something is missing. */
static void
test_close_alone_is_a_cut(void **state)
{
    (void)state;
    thr_check_loop();
    struct pair p;
    size_t got = 0;
    pair_open(&p);
    T_EQ(fill(&p, 3), 3);
    conn_close(&p.c);
    T_EQ(drain(&p, &got), SSL_ERROR_SSL);
    T_EQ(got, 3);
    pair_close(&p);
}

/* A failed handshake leaves a plain socket, on which what still comes can be read. */
static void
test_stop_tls(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    char why[256], text[16];
    struct conn c;
    size_t n = 0;
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    T_TRUE(conn_open(&c, loop, fd[0], NULL, on_conn, NULL));
    conn_start_tls(&c, tls_server_session(server, fd[0]));
    T_EQ(send(fd[1], "GET /", 5, 0), 5);
    turn();
    T_EQ(conn_handshake(&c, NULL, why, sizeof why), IO_ERROR);
    T_ZEQ(why, "the client does not speak TLS");
    conn_stop_tls(&c);
    T_TRUE(conn_readable(&c) && conn_writable(&c));
    T_EQ(send(fd[1], "more", 4, 0), 4);
    T_EQ(conn_read(&c, text, sizeof text, &n), IO_OK);
    T_EQ(n, 4);
    conn_close(&c);
    close(fd[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_goodbye_waits_for_room),
        TEST(test_close_alone_is_a_cut),
        TEST(test_stop_tls),
    };
    char why[256] = "";
    signal(SIGPIPE, SIG_IGN);
    random_init();
    mem_init(8 << 20, 65536, 2);
    loop = loop_new();
    CHECK(loop != NULL && mkdtemp(folder) != NULL);
    thr_check_loop();
    struct identity id = make_identity(NULL, "localhost", "DNS:localhost", -60, 3600);
    write_pem("both.pem", &id, &id, NULL);
    struct tls_server_options o = {.cert_file = path_of("both.pem")};
    server = tls_server_new(&o, why, sizeof why);
    client_ctx = SSL_CTX_new(TLS_client_method());
    CHECK(server != NULL && client_ctx != NULL);
    int failed = TEST_MAIN(tests);
    SSL_CTX_free(client_ctx);
    tls_server_unref(&server);
    unlink(path_of("both.pem"));
    rmdir(folder);
    free_identity(&id);
    loop_free(&loop);
    mem_fini();
    return failed;
}
