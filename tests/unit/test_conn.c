#include "t.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "base/hash.h"
#include "net/conn.h"

static struct loop *loop;

static void
stop(void *arg)
{
    thr_check_loop();
    (void)arg;
    loop_stop(loop);
}

/* Lets everything that is ready now be told: a timer of no length comes behind a poll. */
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

/* A conn, and the raw other end of its socket. */
struct link {
    struct conn c;
    int peer;
    int calls;
};

static void
on_conn(void *arg)
{
    thr_check_loop();
    ((struct link *)arg)->calls++;
}

static void LOOP_ONLY
link_open(struct link *k, SSL *ssl, const int fd[2])
{
    *k = (struct link){.peer = fd[1]};
    T_TRUE(conn_open(&k->c, loop, fd[0], ssl, on_conn, k));
    T_TRUE(conn_is_open(&k->c));
}

static void
unix_pair(int fd[2])
{
    T_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
}

static void
tcp_pair(int fd[2])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int l = socket(AF_INET, SOCK_STREAM, 0);
    T_EQ(bind(l, (struct sockaddr *)&a, len), 0);
    T_EQ(listen(l, 1), 0);
    T_EQ(getsockname(l, (struct sockaddr *)&a, &len), 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    T_EQ(connect(fd[0], (struct sockaddr *)&a, len), 0);
    fd[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    T_TRUE(fd[1] >= 0);
    T_EQ(fcntl(fd[0], F_SETFL, O_NONBLOCK), 0);
    close(l);
}

static void LOOP_ONLY
link_close(struct link *k)
{
    conn_close(&k->c);
    T_FALSE(conn_is_open(&k->c));
    conn_close(&k->c); /* idempotent */
    if (k->peer >= 0)
        close(k->peer);
}

static void
peer_says(struct link *k, const char *z)
{
    T_EQ(send(k->peer, z, strlen(z), MSG_NOSIGNAL), strlen(z));
}

static void
peer_resets(struct link *k)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    T_EQ(setsockopt(k->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(k->peer);
    k->peer = -1;
}

/* One read; the text when it is IO_OK. */
static enum io LOOP_ONLY
read_some(struct link *k, size_t cap, char text[64])
{
    size_t n = 99;
    enum io r = conn_read(&k->c, text, cap, &n);
    T_TRUE(r == IO_OK ? n > 0 && n <= cap : n == 0);
    text[n] = '\0';
    return r;
}

/* ---- plain ---- */

/* Short reads: what came, then IO_WAIT; a full buffer leaves the rest for the next call. */
static void
test_plain_reads(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    char text[64];
    struct link k;
    unix_pair(fd);
    link_open(&k, NULL, fd);
    T_EQ(read_some(&k, 8, text), IO_WAIT); /* nothing was told yet */
    T_FALSE(conn_writable(&k.c));
    turn();
    T_TRUE(conn_writable(&k.c) && !conn_readable(&k.c));
    peer_says(&k, "abcdef");
    turn();
    T_EQ(k.calls, 2);
    T_TRUE(conn_readable(&k.c));
    T_EQ(conn_peek(&k.c), IO_OK);
    T_EQ(read_some(&k, 4, text), IO_OK);
    T_ZEQ(text, "abcd");
    T_TRUE(conn_readable(&k.c));
    T_EQ(read_some(&k, 4, text), IO_OK);
    T_ZEQ(text, "ef");
    T_FALSE(conn_readable(&k.c)); /* it came short: no call is wasted on "would block" */
    T_TRUE(conn_worth_reading(&k.c));
    T_EQ(read_some(&k, 4, text), IO_WAIT);
    T_FALSE(conn_worth_reading(&k.c));
    T_EQ(conn_peek(&k.c), IO_WAIT);
    peer_says(&k, "gh");
    turn();
    T_EQ(read_some(&k, 4, text), IO_OK);
    conn_read_done(&k.c);
    T_FALSE(conn_worth_reading(&k.c));
    link_close(&k);
}

/* The end together with data: data first, then IO_EOF, whatever way the two came. */
static void
test_plain_eof_with_data(void **state)
{
    (void)state;
    thr_check_loop();
    for (int late = 0; late < 2; late++)
        for (int tcp = 0; tcp < 2; tcp++) {
            int fd[2];
            char text[64];
            struct link k;
            (tcp ? tcp_pair : unix_pair)(fd);
            link_open(&k, NULL, fd);
            peer_says(&k, "bye");
            if (!late) {
                close(k.peer);
                k.peer = -1;
            }
            turn();
            T_EQ(k.c.peer_closed, !late);
            T_EQ(conn_peek(&k.c), IO_OK);
            T_EQ(read_some(&k, 16, text), IO_OK);
            T_ZEQ(text, "bye");
            if (late) {
                T_FALSE(conn_readable(&k.c));
                close(k.peer);
                k.peer = -1;
                turn();
            }
            T_TRUE(conn_readable(&k.c)); /* or nobody would ever see the end */
            T_EQ(conn_peek(&k.c), IO_EOF);
            T_EQ(read_some(&k, 16, text), IO_EOF);
            link_close(&k);
        }
}

/* A half-closed peer still reads. */
static void
test_plain_half_close(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    char text[64];
    struct link k;
    tcp_pair(fd);
    link_open(&k, NULL, fd);
    T_EQ(shutdown(k.peer, SHUT_WR), 0);
    turn();
    T_EQ(read_some(&k, 16, text), IO_EOF);
    struct iovec v = {.iov_base = (char[]){'o', 'k'}, .iov_len = 2};
    size_t n = 0;
    T_EQ(conn_writev(&k.c, &v, 1, &n), IO_OK);
    T_EQ(n, 2);
    conn_shutdown(&k.c);
    T_EQ(recv(k.peer, text, sizeof(text), MSG_WAITALL), 2); /* both bytes and our end */
    link_close(&k);
    conn_shutdown(&k.c); /* no-op when closed */
}

/* A reset that came together with data: the data may be lost, the reset is seen. */
static void
test_plain_reset(void **state)
{
    (void)state;
    thr_check_loop();
    for (int late = 0; late < 2; late++) {
        int fd[2];
        char text[64];
        struct link k;
        tcp_pair(fd);
        link_open(&k, NULL, fd);
        peer_says(&k, "par");
        if (late) {
            turn();
            peer_resets(&k); /* between the event and the read: no event of its own */
        } else {
            peer_resets(&k);
            turn();
        }
        enum io r = IO_OK;
        for (int i = 0; i < 4 && r == IO_OK; i++) {
            T_TRUE(conn_worth_reading(&k.c));
            r = read_some(&k, 16, text);
        }
        T_EQ(r, IO_ERROR);
        T_ZEQ(conn_why(&k.c), strerror(ECONNRESET));
        T_TRUE(conn_tls_reason(&k.c) == NULL);
        link_close(&k);
    }
}

/* conn_reset_on_close(): the peer cannot take what it got for whole. */
static void
test_reset_on_close(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    char text[64];
    struct link k;
    tcp_pair(fd);
    link_open(&k, NULL, fd);
    turn();
    conn_reset_on_close(&k.c);
    conn_close(&k.c);
    conn_reset_on_close(&k.c); /* no-op when closed */
    T_EQ(recv(k.peer, text, sizeof(text), 0), -1);
    T_EQ(errno, ECONNRESET);
    link_close(&k);
}

/* Writing to a peer that is gone: IO_ERROR, and what it said before can still be read. */
static void
test_plain_write_error_leaves_reading(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    char text[64];
    struct link k;
    unix_pair(fd);
    link_open(&k, NULL, fd);
    peer_says(&k, "early answer");
    turn();
    close(k.peer);
    k.peer = -1;
    struct iovec v[2] = {{.iov_base = text, .iov_len = 8}, {.iov_base = text, .iov_len = 8}};
    size_t n = 0;
    T_EQ(conn_writev(&k.c, v, 2, &n), IO_ERROR);
    T_EQ(n, 0);
    T_ZEQ(conn_why(&k.c), strerror(EPIPE));
    T_FALSE(conn_writable(&k.c));
    T_EQ(read_some(&k, 32, text), IO_OK);
    T_ZEQ(text, "early answer");
    link_close(&k);
}

/* ---- moving much data in vectors, plain and TLS ---- */

#define MUCH 3000000

static char
byte_at(size_t i)
{
    return (char)(i * 2654435761u >> 13);
}

struct flood {
    struct link k;
    SSL *server; /* NULL: plain */
    size_t sent, offered, received;
    bool blocked;
};

/* Offers up to 8 entries of odd sizes, empty ones too, never fewer bytes than were offered before
 * and refused. */
static void LOOP_ONLY
flood_write(struct flood *f, const char *data)
{
    while (f->sent < MUCH) {
        struct iovec v[8];
        size_t end = f->sent, least = f->offered;
        int count = 0;
        while (count < 8 && (count == 0 || random_u64() % 4 != 0 || end < least)) {
            size_t len = random_u64() % 3 == 0 ? random_u64() % 7 : random_u64() % 40000;
            if (count == 7 && end + len < least)
                len = least - end;
            len = size_min(len, MUCH - end);
            v[count++] = (struct iovec){.iov_base = (char *)(uintptr_t)data + end, .iov_len = len};
            end += len;
        }
        size_t n = 0;
        enum io r = conn_writev(&f->k.c, v, count, &n);
        T_TRUE(r == IO_OK || r == IO_WAIT);
        T_TRUE(n <= end - f->sent && (r == IO_OK || n == 0));
        f->sent += n;
        f->offered = size_max(f->sent, end);
        if (!conn_writable(&f->k.c)) {
            f->blocked = true;
            T_EQ(conn_write_pending(&f->k.c), f->server != NULL);
            size_t none = 0;
            T_EQ(conn_writev(&f->k.c, v, count, &none), IO_WAIT); /* says so, does nothing */
            T_EQ(none, 0);
            return;
        }
    }
}

static void
flood_drain(struct flood *f)
{
    static char got[50000];
    for (;;) {
        size_t n = 0;
        if (f->server == NULL) {
            ssize_t r = recv(f->k.peer, got, sizeof(got), 0);
            if (r <= 0)
                return;
            n = (size_t)r;
        } else if (SSL_read_ex(f->server, got, sizeof(got), &n) != 1) {
            return;
        }
        for (size_t i = 0; i < n; i++)
            if (got[i] != byte_at(f->received + i))
                fail_msg("byte %zu differs", f->received + i);
        f->received += n;
    }
}

static void LOOP_ONLY
flood_run(struct flood *f)
{
    static char data[MUCH];
    for (size_t i = 0; i < MUCH; i++)
        data[i] = byte_at(i);
    turn();
    for (int i = 0; i < 100000 && f->received < MUCH; i++) {
        flood_write(f, data);
        flood_drain(f);
        turn();
    }
    T_EQ(f->received, MUCH);
    T_TRUE(f->blocked);
    T_FALSE(conn_write_pending(&f->k.c));
}

static void
test_plain_partial_writes(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    struct flood f = {0};
    unix_pair(fd);
    link_open(&f.k, NULL, fd);
    flood_run(&f);
    struct iovec nothing = {0};
    size_t n = 9;
    T_EQ(conn_writev(&f.k.c, &nothing, 1, &n), IO_OK); /* nothing to do is done */
    T_EQ(n, 0);
    link_close(&f.k);
}

/* Closing inside the callback is fine; no callback comes after. */
static void
on_conn_closing(void *arg)
{
    thr_check_loop();
    struct link *k = arg;
    k->calls++;
    conn_close(&k->c);
}
static void
test_close_inside_the_callback(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    unix_pair(fd);
    struct link k = {.peer = fd[1]};
    T_TRUE(conn_open(&k.c, loop, fd[0], NULL, on_conn_closing, &k));
    T_EQ(send(k.peer, "x", 1, 0), 1);
    turn();
    turn();
    T_EQ(k.calls, 1);
    link_close(&k);
}

/* conn_open() takes nothing when it fails. */
static void
test_open_fails_on_a_file(void **state)
{
    (void)state;
    thr_check_loop();
    struct conn c;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct t_capture cap = t_capture(); /* libevent warns */
    bool opened = conn_open(&c, loop, fd, NULL, on_conn, NULL);
    free(t_captured(cap));
    T_FALSE(opened);
    T_FALSE(conn_is_open(&c));
    conn_close(&c);
    T_EQ(close(fd), 0);
}

/* ---- TLS ---- */

static SSL_CTX *server_ctx[2]; /* TLS 1.2, TLS 1.3 */
static struct tls_ctx *client_ctx;

static SSL_CTX *
server_new(int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    CHECK(ctx != NULL && key != NULL && cert != NULL);
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -1000);
    X509_gmtime_adj(X509_getm_notAfter(cert), 100000);
    X509_NAME_add_entry_by_txt(
        X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"t", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_set_pubkey(cert, key);
    CHECK(X509_sign(cert, key, EVP_sha256()) > 0);
    CHECK(SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1);
    CHECK(SSL_CTX_set_min_proto_version(ctx, version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(ctx, version) == 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    return ctx;
}

static int
setup_group(void **state)
{
    (void)state;
    static const struct tls_options o = {.verify = false};
    char why[256];
    random_init();
    loop = loop_new();
    client_ctx = tls_ctx_new(&o, why, sizeof(why));
    server_ctx[0] = server_new(TLS1_2_VERSION);
    server_ctx[1] = server_new(TLS1_3_VERSION);
    return loop == NULL || client_ctx == NULL ? -1 : 0;
}

static int
teardown_group(void **state)
{
    (void)state;
    thr_check_loop();
    tls_ctx_unref(&client_ctx);
    SSL_CTX_free(server_ctx[0]);
    SSL_CTX_free(server_ctx[1]);
    loop_free(&loop);
    return 0;
}

/* Through the handshake; with TLS 1.3 the server's tickets are on their way then. */
static void LOOP_ONLY
tls_open(struct flood *f, int version, bool tcp)
{
    int fd[2];
    char why[256] = "";
    *f = (struct flood){.sent = 0};
    (tcp ? tcp_pair : unix_pair)(fd);
    link_open(&f->k, NULL, fd);
    T_EQ(conn_handshake(&f->k.c, "t", why, sizeof(why)), IO_OK); /* plain: nothing to do */
    SSL *ssl = tls_session(client_ctx, fd[0], "t");
    T_TRUE(ssl != NULL);
    conn_start_tls(&f->k.c, ssl);
    f->server = SSL_new(server_ctx[version]);
    T_TRUE(f->server != NULL && SSL_set_fd(f->server, f->k.peer) == 1);
    SSL_set_accept_state(f->server);
    enum io r = IO_WAIT;
    int done = 0;
    for (int i = 0; i < 100 && (r == IO_WAIT || done != 1); i++) {
        if (r == IO_WAIT)
            r = conn_handshake(&f->k.c, "t", why, sizeof(why));
        ERR_clear_error();
        if (done != 1)
            done = SSL_do_handshake(f->server);
        turn();
    }
    T_EQ(r, IO_OK);
    T_EQ(done, 1);
}

static void LOOP_ONLY
tls_close(struct flood *f)
{
    link_close(&f->k);
    SSL_free(f->server);
    ERR_clear_error();
}

static void
tls_says(struct flood *f, const char *z)
{
    T_EQ(SSL_write(f->server, z, (int)strlen(z)), strlen(z));
}

#define EACH_VERSION(v) for (int v = 0; v < 2; v++)

/* Partial writes, retries that offer more than before, records gathered from several entries. */
static void
test_tls_partial_writes(void **state)
{
    (void)state;
    thr_check_loop();
    EACH_VERSION(v)
    {
        struct flood f;
        tls_open(&f, v, false);
        flood_run(&f);
        tls_close(&f);
    }
}

/* Tickets are no data: an idle connection stays idle. */
static void
test_tls_tickets_are_nothing(void **state)
{
    (void)state;
    thr_check_loop();
    char text[64];
    struct flood f;
    tls_open(&f, 1, false);
    turn();
    T_EQ(conn_peek(&f.k.c), IO_WAIT);
    T_FALSE(conn_readable(&f.k.c));
    T_EQ(SSL_new_session_ticket(f.server), 1); /* one more, later */
    T_EQ(SSL_do_handshake(f.server), 1);
    turn();
    T_TRUE(conn_readable(&f.k.c));
    T_EQ(conn_peek(&f.k.c), IO_WAIT);
    T_EQ(read_some(&f.k, 8, text), IO_WAIT);
    tls_says(&f, "data"); /* its event has not come, and would find the socket empty then */
    T_EQ(conn_peek(&f.k.c), IO_OK);
    T_TRUE(conn_readable(&f.k.c));
    T_EQ(read_some(&f.k, 8, text), IO_OK);
    T_ZEQ(text, "data");
    tls_close(&f);
}

/* Bytes that OpenSSL has buffered are not forgotten: no event comes for them. */
static void
test_tls_reads_what_is_buffered(void **state)
{
    (void)state;
    thr_check_loop();
    EACH_VERSION(v)
    {
        char text[64];
        struct flood f;
        tls_open(&f, v, false);
        tls_says(&f, "one");
        tls_says(&f, "two"); /* two records in one buffer */
        turn();
        T_EQ(read_some(&f.k, 4, text), IO_OK);
        T_ZEQ(text, "onet");
        T_TRUE(conn_readable(&f.k.c));
        T_EQ(read_some(&f.k, 8, text), IO_OK);
        T_ZEQ(text, "wo");
        T_EQ(read_some(&f.k, 8, text), IO_WAIT);
        T_FALSE(conn_readable(&f.k.c));
        tls_close(&f);
    }
}

/* close_notify is IO_EOF; an end without it is IO_ERROR with a cause; both come behind the data,
 * also when one read took the data and met the end. */
static void
test_tls_ends(void **state)
{
    (void)state;
    thr_check_loop();
    for (int kind = 0; kind < 8; kind++) {
        bool clean = kind & 1, data = kind & 2;
        char text[64];
        struct flood f;
        tls_open(&f, kind >> 2, true);
        (void)read_some(&f.k, 8, text); /* tickets */
        if (data)
            tls_says(&f, "last");
        if (clean)
            (void)SSL_shutdown(f.server);
        T_EQ(shutdown(f.k.peer, SHUT_WR), 0);
        turn();
        if (data) {
            T_EQ(conn_peek(&f.k.c), IO_OK);
            T_EQ(read_some(&f.k, 32, text), IO_OK);
            T_ZEQ(text, "last");
            T_TRUE(conn_readable(&f.k.c));
        }
        T_EQ(conn_peek(&f.k.c), clean ? IO_EOF : IO_ERROR);
        f.k.c.can_read = true; /* a peek that failed said the rest; here the read is of interest */
        T_EQ(read_some(&f.k, 32, text), clean ? IO_EOF : IO_ERROR);
        T_FALSE(conn_readable(&f.k.c));
        if (!clean && data) {
            T_HAS(conn_why(&f.k.c), "unexpected eof");
            T_HAS(conn_tls_reason(&f.k.c), "unexpected eof");
        }
        tls_close(&f);
    }
}

/* Records that were tampered with are IO_ERROR, with the cause, behind the good ones. */
static void
test_tls_broken_record(void **state)
{
    (void)state;
    thr_check_loop();
    EACH_VERSION(v)
    {
        static const char bad[] = "\x17\x03\x03\x00\x20................................";
        char text[64];
        struct flood f;
        tls_open(&f, v, false);
        (void)read_some(&f.k, 8, text);
        tls_says(&f, "good");
        T_EQ(send(f.k.peer, bad, sizeof(bad) - 1, 0), sizeof(bad) - 1);
        turn();
        T_EQ(read_some(&f.k, 32, text), IO_OK);
        T_ZEQ(text, "good");
        T_EQ(read_some(&f.k, 32, text), IO_ERROR);
        T_HAS(conn_why(&f.k.c), "bad record mac");
        tls_close(&f);
    }
}

/* The server wants new keys while our writes are stuck: both directions go on. */
static void
test_tls_key_update_while_writing(void **state)
{
    (void)state;
    thr_check_loop();
    static char data[MUCH];
    for (size_t i = 0; i < MUCH; i++)
        data[i] = byte_at(i);
    struct flood f;
    tls_open(&f, 1, false);
    turn();
    size_t got = 0, said = 0;
    for (int i = 0; i < 100000 && f.received < MUCH; i++) {
        flood_write(&f, data); /* until it is stuck */
        if (i % 3 == 0 && i < 60) {
            T_EQ(SSL_key_update(f.server, SSL_KEY_UPDATE_REQUESTED), 1);
            tls_says(&f, "x");
            said++;
            turn();
        }
        char text[64];
        while (read_some(&f.k, 32, text) == IO_OK)
            got += strlen(text);
        flood_drain(&f);
        turn();
    }
    T_EQ(f.received, MUCH);
    T_TRUE(f.blocked);
    T_TRUE(said > 1);
    T_EQ(got, said);
    tls_close(&f);
}

/* A server that answers early and closes: the write fails, the answer can still be read. */
static void
test_tls_write_error_leaves_reading(void **state)
{
    (void)state;
    thr_check_loop();
    EACH_VERSION(v)
    {
        char text[64];
        struct flood f;
        tls_open(&f, v, false);
        turn();
        tls_says(&f, "early answer");
        turn();
        T_EQ(shutdown(f.k.peer, SHUT_RD), 0); /* our writes fail now */
        struct iovec w = {.iov_base = text, .iov_len = 8};
        size_t n = 0;
        T_EQ(conn_writev(&f.k.c, &w, 1, &n), IO_ERROR);
        T_ZEQ(conn_why(&f.k.c), strerror(EPIPE));
        T_TRUE(conn_readable(&f.k.c));
        T_EQ(read_some(&f.k, 32, text), IO_OK);
        T_ZEQ(text, "early answer");
        tls_close(&f);
    }
}

/* conn_shutdown() says goodbye in TLS's own words, then in TCP's. */
static void
test_tls_shutdown(void **state)
{
    (void)state;
    thr_check_loop();
    EACH_VERSION(v)
    {
        char c;
        struct flood f;
        tls_open(&f, v, true);
        conn_shutdown(&f.k.c);
        int r = SSL_read(f.server, &c, 1);
        T_EQ(SSL_get_error(f.server, r), SSL_ERROR_ZERO_RETURN);
        T_EQ(recv(f.k.peer, &c, 1, 0), 0);
        tls_close(&f);
    }
}

/* A handshake that fails says why; a peer that is no TLS server is told apart. */
static void
test_tls_handshake_fails(void **state)
{
    (void)state;
    thr_check_loop();
    int fd[2];
    char why[256] = "";
    struct link k;
    unix_pair(fd);
    SSL *ssl = tls_session(client_ctx, fd[0], "t");
    link_open(&k, ssl, fd);
    T_EQ(conn_handshake(&k.c, "t", why, sizeof(why)), IO_WAIT);
    peer_says(&k, "HTTP/1.1 400 Bad Request\r\n\r\n");
    turn();
    T_EQ(conn_handshake(&k.c, "t", why, sizeof(why)), IO_ERROR);
    T_HAS(why, "plain HTTP");
    link_close(&k);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plain_reads),
        TEST(test_plain_eof_with_data),
        TEST(test_plain_half_close),
        TEST(test_plain_reset),
        TEST(test_reset_on_close),
        TEST(test_plain_write_error_leaves_reading),
        TEST(test_plain_partial_writes),
        TEST(test_close_inside_the_callback),
        TEST(test_open_fails_on_a_file),
        TEST(test_tls_partial_writes),
        TEST(test_tls_tickets_are_nothing),
        TEST(test_tls_reads_what_is_buffered),
        TEST(test_tls_ends),
        TEST(test_tls_broken_record),
        TEST(test_tls_key_update_while_writing),
        TEST(test_tls_write_error_leaves_reading),
        TEST(test_tls_shutdown),
        TEST(test_tls_handshake_fails),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
