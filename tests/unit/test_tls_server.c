#include "test_pki.h"

#include <openssl/err.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "net/tls_private.h"

static struct identity ca, other_ca, good, other_key, expired, early, client, stranger, two_names,
    odd_name;

static void
make_files(void)
{
    const long day = 86400;
    CHECK(mkdtemp(folder) != NULL);
    ca = make_identity(NULL, "Test CA", NULL, -day, 2 * day);
    other_ca = make_identity(NULL, "Other CA", NULL, -day, 2 * day);
    good = make_identity(&ca, "localhost", "DNS:localhost", -day, 2 * day);
    other_key = make_identity(&ca, "other", "DNS:other", -day, 2 * day);
    expired = make_identity(&ca, "localhost", "DNS:localhost", -3 * day, -day);
    early = make_identity(&ca, "localhost", "DNS:localhost", day, 2 * day);
    client = make_identity(&ca, "app, the \xc3\xa4pp", "DNS:app", -day, 2 * day);
    stranger = make_identity(&other_ca, "app", "DNS:app", -day, 2 * day);
    two_names = make_identity(&ca, "one", "DNS:app", -day, 2 * day);
    CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(two_names.cert), "CN", MBSTRING_UTF8,
              (const unsigned char *)"two", -1, -1, 0) == 1 &&
          X509_sign(two_names.cert, ca.key, EVP_sha256()) > 0);
    odd_name = make_identity(&ca, "a\nb", "DNS:app", -day, 2 * day);
    write_pem("ca.pem", &ca, NULL, NULL);
    write_pem("good.pem", &good, NULL, NULL);
    write_pem("good.key", NULL, &good, NULL);
    write_pem("both.pem", &good, &good, NULL);
    write_pem("other.key", NULL, &other_key, NULL);
    write_pem("locked.key", NULL, &good, "secret");
    write_pem("expired.pem", &expired, &expired, NULL);
    write_pem("early.pem", &early, &early, NULL);
    write_text("text.pem", "no certificate\n");
}

static void
remove_files(void)
{
    static const char *const names[] = {"ca.pem", "good.pem", "good.key", "both.pem", "other.key",
        "locked.key", "expired.pem", "early.pem", "text.pem"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]));
    rmdir(folder);
    struct identity *const all[] = {&ca, &other_ca, &good, &other_key, &expired, &early, &client,
        &stranger, &two_names, &odd_name};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        free_identity(all[i]);
}

static struct tls_server *
server_new(enum tls_client_certs clients, bool min_tls13)
{
    char why[512] = "";
    struct tls_server_options o = {.cert_file = path_of("good.pem"),
        .key_file = path_of("good.key"),
        .client_ca_file = path_of("ca.pem"),
        .clients = clients,
        .min_tls13 = min_tls13};
    struct tls_server *t = tls_server_new(&o, why, sizeof why);
    if (t == NULL)
        fail_msg("tls_server_new: %s", why);
    return t;
}

/* A client of OpenSSL's own, that trusts our CA. */
static SSL_CTX *
client_new(int version, const struct identity *id)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    CHECK(ctx != NULL && SSL_CTX_load_verify_file(ctx, path_of("ca.pem")) == 1);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_security_level(ctx, 0);
    CHECK(SSL_CTX_set_min_proto_version(ctx, version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(ctx, version) == 1);
    if (id != NULL)
        CHECK(SSL_CTX_use_certificate(ctx, id->cert) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, id->key) == 1);
    return ctx;
}

/* Both ends in one thread. The client's bytes go through `wire`, so that they can be cut up. */
struct pair {
    SSL *server, *client;
    BIO *from_client, *to_client; /* the client's, in memory */
    int ours, peer;               /* the server's socket, and its other end */
    size_t piece;                 /* bytes that reach the server at a time */
    char why[256];                /* of the server, when it failed */
};

static void
pair_open(struct pair *p, struct tls_server *t, SSL_CTX *ctx)
{
    int fd[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    *p = (struct pair){.ours = fd[0], .peer = fd[1], .piece = SIZE_MAX};
    p->server = tls_server_session(t, p->ours);
    p->client = SSL_new(ctx);
    CHECK(p->server != NULL && p->client != NULL);
    p->from_client = BIO_new(BIO_s_mem());
    p->to_client = BIO_new(BIO_s_mem());
    SSL_set_bio(p->client, p->to_client, p->from_client);
    SSL_set_connect_state(p->client);
}

static void
pair_close(struct pair *p)
{
    SSL_set_shutdown(p->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(p->client);
    tls_session_free(&p->server);
    T_TRUE(p->server == NULL);
    close(p->ours);
    close(p->peer);
    ERR_clear_error(); /* the client's */
}

/* Moves what lies between them, a piece at most towards the server. Did anything move? */
static bool
pair_move(struct pair *p)
{
    char bytes[8192];
    bool moved = false;
    ssize_t n = recv(p->peer, bytes, sizeof bytes, 0);
    if (n > 0)
        moved = BIO_write(p->to_client, bytes, (int)n) == n;
    int m = BIO_read(p->from_client, bytes, (int)size_min(sizeof bytes, p->piece));
    if (m > 0)
        moved = send(p->peer, bytes, (size_t)m, MSG_NOSIGNAL) == m;
    return moved;
}

/* Both handshakes to their end. true: the server is through; else p->why says why not. */
static bool
pair_shake(struct pair *p)
{
    bool done = false;
    for (int idle = 0; idle < 3 && p->why[0] == '\0';) {
        (void)SSL_do_handshake(p->client);
        ERR_clear_error();
        idle = pair_move(p) ? 0 : idle + 1;
        if (done)
            continue;
        errno = 0;
        int rc = SSL_do_handshake(p->server);
        int sys_errno = errno;
        done = rc == 1;
        if (!done && SSL_get_error(p->server, rc) != SSL_ERROR_WANT_READ) {
            tls_why(p->server, rc, sys_errno, NULL, p->why, sizeof p->why);
            T_EQ(ERR_peek_error(), 0); /* nothing is left for others to trip over */
        }
    }
    return done;
}

/* One connection: "" or why the server refused it. */
static const char *
try_once(struct tls_server *t, SSL_CTX *ctx, struct tls_peer *peer)
{
    static char why[256];
    struct pair p;
    pair_open(&p, t, ctx);
    bool done = pair_shake(&p);
    T_TRUE(done == (p.why[0] == '\0'));
    if (peer != NULL && !tls_peer_get(p.server, peer))
        *peer = (struct tls_peer){.cn = "-"};
    snprintf(why, sizeof why, "%s", p.why);
    pair_close(&p);
    return why;
}

static const char *
try_client(struct tls_server *t, int version, const struct identity *id, struct tls_peer *peer)
{
    SSL_CTX *ctx = client_new(version, id);
    const char *why = try_once(t, ctx, peer);
    SSL_CTX_free(ctx);
    return why;
}

/* Is the second connection of ctx a resumption of its first? Reads a byte, for 1.3's tickets. */
static SSL_SESSION *
connect_with(struct tls_server *t, SSL_CTX *ctx, SSL_SESSION *session, bool *resumed)
{
    struct pair p;
    char byte;
    pair_open(&p, t, ctx);
    if (session != NULL)
        CHECK(SSL_set_session(p.client, session) == 1);
    T_TRUE(pair_shake(&p));
    *resumed = tls_was_resumed(p.server);
    T_EQ(SSL_write(p.server, "x", 1), 1);
    (void)pair_move(&p);
    T_EQ(SSL_read(p.client, &byte, 1), 1);
    SSL_SESSION *fresh = SSL_get1_session(p.client);
    pair_close(&p);
    SSL_SESSION_free(session);
    return fresh;
}

/* ---- the tests ---- */

static void
test_versions(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    T_ZEQ(try_client(t, TLS1_2_VERSION, NULL, NULL), "");
    T_ZEQ(try_client(t, TLS1_3_VERSION, NULL, NULL), "");
    T_ZEQ(try_client(t, TLS1_1_VERSION, NULL, NULL), "no common TLS version; see tls_min_version");
    tls_server_unref(&t);
    t = server_new(TLS_CLIENTS_ANY, true);
    T_ZEQ(try_client(t, TLS1_2_VERSION, NULL, NULL), "no common TLS version; see tls_min_version");
    T_ZEQ(try_client(t, TLS1_3_VERSION, NULL, NULL), "");
    tls_server_unref(&t);
    T_TRUE(t == NULL);
}

/* Clients: who offers protocols must offer HTTP/1. */
static void
test_alpn(void **state)
{
    (void)state;
    static const struct {
        const char *offer, *chosen, *why;
    } cases[] = {
        {"\x02h2\x08http/1.1", "http/1.1", ""},
        {"\x08http/1.0", "http/1.0", ""},
        {"\x02h2", "", "the client does not offer HTTP/1.1 (ALPN)"},
    };
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        SSL_CTX *ctx = client_new(TLS1_3_VERSION, NULL);
        CHECK(SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)cases[i].offer,
                  (unsigned)strlen(cases[i].offer)) == 0);
        struct pair p;
        const unsigned char *name;
        unsigned len;
        pair_open(&p, t, ctx);
        (void)pair_shake(&p);
        T_ZEQ(p.why, cases[i].why);
        SSL_get0_alpn_selected(p.client, &name, &len);
        T_STR(str_n((const char *)name, len), cases[i].chosen);
        pair_close(&p);
        SSL_CTX_free(ctx);
    }
    tls_server_unref(&t);
}

/* Only ciphers with forward secrecy and authentication. */
static void
test_weak_ciphers_are_refused(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    SSL_CTX *ctx = client_new(TLS1_2_VERSION, NULL);
    CHECK(SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-SHA:AES128-GCM-SHA256") == 1);
    T_ZEQ(try_once(t, ctx, NULL), "no common TLS parameters (cipher or curve)");
    SSL_CTX_free(ctx);
    tls_server_unref(&t);
}

/* Resumption: by ticket, with both versions; not with the tls_server that comes after. */
static void
test_tickets(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
        SSL_CTX *ctx = client_new(versions[i], NULL);
        bool resumed;
        SSL_SESSION *s = connect_with(t, ctx, NULL, &resumed);
        T_FALSE(resumed);
        s = connect_with(t, ctx, s, &resumed);
        T_TRUE(resumed);
        tls_server_next_key(t); /* an hour later, and another one: still good, and made new */
        tls_server_next_key(t);
        s = connect_with(t, ctx, s, &resumed);
        T_TRUE(resumed);
        tls_server_next_key(t);
        s = connect_with(t, ctx, s, &resumed); /* the newer ticket */
        T_TRUE(resumed);
        for (int k = 0; k < 3; k++)
            tls_server_next_key(t);
        s = connect_with(t, ctx, s, &resumed);
        T_FALSE(resumed);
        tls_server_unref(&t);
        t = server_new(TLS_CLIENTS_ANY, false);
        s = connect_with(t, ctx, s, &resumed);
        T_FALSE(resumed);
        SSL_SESSION_free(s);
        SSL_CTX_free(ctx);
        tls_server_unref(&t);
    }
}

static void
test_client_certificates(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls_peer peer;
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        int v = versions[i];
        struct tls_server *t = server_new(TLS_CLIENTS_MUST_PROVE, false);
        T_ZEQ(try_client(t, v, &client, &peer), "");
        T_ZEQ(peer.cn, "app, the \xc3\xa4pp");
        T_ZEQ(peer.subject, "CN=app\\, the \\C3\\A4pp");
        T_ZEQ(
            try_client(t, v, NULL, &peer), "the client showed no certificate; see tls_client_auth");
        T_HAS(try_client(t, v, &stranger, &peer), "the client's certificate is not accepted: ");
        T_ZEQ(peer.cn, "-"); /* shown, but not verified */
        T_HAS(try_client(t, v, &expired, NULL), "expired (/CN=localhost)");
        /* A name that could be read in two ways is none to be compared with. */
        T_ZEQ(try_client(t, v, &two_names, &peer), "");
        T_ZEQ(peer.cn, "");
        T_HAS(peer.subject, "CN=one");
        T_ZEQ(try_client(t, v, &odd_name, &peer), "");
        T_ZEQ(peer.cn, "");
        tls_server_unref(&t);
        t = server_new(TLS_CLIENTS_MAY_PROVE, false);
        T_ZEQ(try_client(t, v, NULL, &peer), "");
        T_ZEQ(peer.cn, "-");
        T_HAS(try_client(t, v, &stranger, NULL), "not accepted");
        tls_server_unref(&t);
        t = server_new(TLS_CLIENTS_ANY, false);
        T_ZEQ(try_client(t, v, &client, &peer), "");
        T_ZEQ(peer.cn, "-"); /* never asked for */
        tls_server_unref(&t);
    }
}

/* A resumed session is of the same client, by what its ticket says. */
static void
test_resumed_client_keeps_its_certificate(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_MUST_PROVE, false);
    SSL_CTX *ctx = client_new(TLS1_3_VERSION, &client);
    bool resumed;
    SSL_SESSION *s = connect_with(t, ctx, NULL, &resumed);
    struct pair p;
    struct tls_peer peer;
    pair_open(&p, t, ctx);
    CHECK(SSL_set_session(p.client, s) == 1);
    T_TRUE(pair_shake(&p));
    T_TRUE(tls_was_resumed(p.server) && tls_peer_get(p.server, &peer));
    T_HAS(peer.cn, "app");
    pair_close(&p);
    SSL_SESSION_free(s);
    SSL_CTX_free(ctx);
    tls_server_unref(&t);
}

/* Ownership: a session holds its tls_server. */
static void
test_session_outlives_the_listener(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    SSL_CTX *ctx = client_new(TLS1_3_VERSION, NULL);
    struct pair p;
    pair_open(&p, t, ctx);
    T_TRUE(tls_server_not_after(t) > 86400);
    tls_server_unref(&t);
    T_TRUE(pair_shake(&p));
    pair_close(&p);
    SSL_CTX_free(ctx);
}

static void
test_no_renegotiation(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    SSL_CTX *ctx = client_new(TLS1_2_VERSION, NULL);
    struct pair p;
    char byte;
    pair_open(&p, t, ctx);
    T_TRUE(pair_shake(&p));
    T_EQ(SSL_renegotiate(p.client), 1);
    (void)SSL_do_handshake(p.client);
    ERR_clear_error();
    (void)pair_move(&p);
    T_EQ(SSL_get_error(p.server, SSL_read(p.server, &byte, 1)), SSL_ERROR_WANT_READ);
    (void)pair_move(&p);
    T_TRUE(SSL_read(p.client, &byte, 1) <= 0);
    T_EQ(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    T_EQ(SSL_get_verify_result(p.server), X509_V_OK);
    pair_close(&p);
    SSL_CTX_free(ctx);
    tls_server_unref(&t);
}

/* A handshake that drips in byte by byte is the same handshake. */
static void
test_slow_handshake(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_MUST_PROVE, false);
    SSL_CTX *ctx = client_new(TLS1_3_VERSION, &client);
    struct pair p;
    pair_open(&p, t, ctx);
    p.piece = 1;
    T_TRUE(pair_shake(&p));
    pair_close(&p);
    SSL_CTX_free(ctx);
    tls_server_unref(&t);
}

/* Every byte of the client's first flight turned over: an error or no difference, never a crash. */
static void
test_garbled_hello(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    SSL_CTX *ctx = client_new(TLS1_3_VERSION, NULL);
    char hello[4096];
    int len = 1;
    for (int i = -1; i < len; i++) {
        struct pair p;
        pair_open(&p, t, ctx);
        (void)SSL_do_handshake(p.client);
        len = BIO_read(p.from_client, hello, sizeof hello);
        T_TRUE(len > 100);
        if (i >= 0)
            hello[i] = (char)~hello[i];
        T_EQ(send(p.peer, hello, (size_t)len, MSG_NOSIGNAL), len);
        errno = 0;
        int rc = SSL_do_handshake(p.server);
        T_TRUE(rc != 1);
        if (SSL_get_error(p.server, rc) != SSL_ERROR_WANT_READ) {
            tls_why(p.server, rc, errno, NULL, p.why, sizeof p.why);
            T_TRUE(p.why[0] != '\0');
        }
        T_TRUE(i >= 0 || p.why[0] == '\0');
        ERR_clear_error();
        pair_close(&p);
    }
    SSL_CTX_free(ctx);
    tls_server_unref(&t);
}

static void
test_peers_that_leave(void **state)
{
    (void)state;
    struct tls_server *t = server_new(TLS_CLIENTS_ANY, false);
    SSL_CTX *ctx = client_new(TLS1_3_VERSION, NULL);
    struct pair p;
    pair_open(&p, t, ctx);
    shutdown(p.peer, SHUT_WR);
    T_FALSE(pair_shake(&p));
    T_ZEQ(p.why, "handshake cut by the client");
    pair_close(&p);
    SSL_CTX_free(ctx);
    ctx = SSL_CTX_new(TLS_client_method()); /* trusts nobody */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    T_ZEQ(try_once(t, ctx, NULL), "the client does not accept our certificate");
    SSL_CTX_free(ctx);
    tls_server_unref(&t);
}

static void
test_files_refused_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *cert, *key, *ca, *why;
    } cases[] = {
        {"none.pem", "good.key", "ca.pem", "none.pem: No such file or directory"},
        {"text.pem", "good.key", "ca.pem", "text.pem: not PEM, or not the kind of object wanted"},
        {"good.pem", "none.key", "ca.pem", "none.key: No such file or directory"},
        {"good.pem", "text.pem", "ca.pem", "text.pem: not PEM, or not the kind of object wanted"},
        {"good.pem", "other.key", "ca.pem",
            "other.key: the key does not belong to the certificate"},
        {"good.pem", "locked.key", "ca.pem", "locked.key: the key is encrypted"},
        {"expired.pem", "expired.pem", "ca.pem", "expired.pem: the certificate has expired (on 2"},
        {"early.pem", "early.pem", "ca.pem", "early.pem: the certificate is not valid before 2"},
        {"good.pem", "good.key", "none.pem", "none.pem: No such file or directory"},
        {"good.pem", "good.key", "text.pem", "text.pem: not PEM, or not the kind of object wanted"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char why[512] = "";
        struct tls_server_options o = {.cert_file = path_of(cases[i].cert),
            .key_file = path_of(cases[i].key),
            .client_ca_file = path_of(cases[i].ca),
            .clients = TLS_CLIENTS_MUST_PROVE};
        T_TRUE(tls_server_new(&o, why, sizeof why) == NULL);
        T_HAS(why, cases[i].why);
        T_EQ(ERR_peek_error(), 0);
    }
    char why[512] = "";
    struct tls_server_options o = {.cert_file = path_of("both.pem"), .key_file = ""};
    struct tls_server *t = tls_server_new(&o, why, sizeof why); /* the key is in it */
    T_TRUE(t != NULL);
    tls_server_unref(&t);
}

/* Bound: a session takes its part of the budget, and gives it back. */
static void
test_memory(void **state)
{
    (void)state;
    struct tls_server *t = NULL;
    char why[512];
    struct tls_server_options o = {.cert_file = path_of("both.pem")};
    mem_fail_at(1);
    T_TRUE(tls_server_new(&o, why, sizeof why) == NULL);
    mem_fail_at(0);
    T_ZEQ(why, "out of memory");
    t = server_new(TLS_CLIENTS_ANY, false);
    size_t before = mem_used();
    SSL *s = tls_server_session(t, 0);
    T_TRUE(s != NULL);
    T_EQ(mem_used() - before, TLS_SESSION_BYTES);
    T_TRUE(mem_take(mem_long_limit() - mem_used()));
    T_TRUE(tls_server_session(t, 0) == NULL); /* what relays need is left to them */
    mem_give(mem_used() - before - TLS_SESSION_BYTES);
    tls_session_free(&s);
    T_EQ(mem_used(), before);
    uint64_t n = 0;
    for (s = NULL; s == NULL;) {
        openssl_fail_at = ++n;
        s = tls_server_session(t, 0);
        openssl_fail_at = 0;
        T_TRUE(s != NULL || mem_used() == before);
        T_EQ(ERR_peek_error(), 0);
    }
    T_TRUE(n > 5);
    tls_session_free(&s);
    tls_server_unref(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_versions),
        TEST(test_alpn),
        TEST(test_weak_ciphers_are_refused),
        TEST(test_tickets),
        TEST(test_client_certificates),
        TEST(test_resumed_client_keeps_its_certificate),
        TEST(test_session_outlives_the_listener),
        TEST(test_no_renegotiation),
        TEST(test_slow_handshake),
        TEST(test_garbled_hello),
        TEST(test_peers_that_leave),
        TEST(test_files_refused_say_why),
        TEST(test_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    CHECK(CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) == 1);
    mem_init(8 << 20, 65536, 2);
    make_files();
    int failed = TEST_MAIN(tests);
    remove_files();
    mem_fini();
    return failed;
}
