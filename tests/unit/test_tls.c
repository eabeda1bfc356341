#include "test_pki.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "net/tls.h"

static struct identity ca, other_ca, good, expired, early, self_signed, client, multi, bare;

static void
make_files(void)
{
    const long day = 86400;
    CHECK(mkdtemp(folder) != NULL);
    ca = make_identity(NULL, "Test CA", NULL, -day, 2 * day);
    other_ca = make_identity(NULL, "Other CA", NULL, -day, 2 * day);
    good = make_identity(
        &ca, "ignored", "DNS:localhost,DNS:db.example,IP:127.0.0.1,IP:::1", -day, 2 * day);
    expired = make_identity(&ca, "localhost", "DNS:localhost", -3 * day, -day);
    early = make_identity(&ca, "localhost", "DNS:localhost", day, 2 * day);
    self_signed = make_identity(NULL, "localhost", "DNS:localhost", -day, 2 * day);
    client = make_identity(&ca, "client", "DNS:client", -day, 2 * day);
    bare = make_identity(&ca, "bare\n.x", NULL, -day, 2 * day); /* no names but the common one */
    multi = make_identity(&ca, "x", "DNS:a.x,DNS:b.x,DNS:c.x,DNS:d.x,DNS:e.x", -day, 2 * day);
    write_pem("ca.pem", &ca, NULL, NULL);
    write_pem("client.pem", &client, NULL, NULL);
    write_pem("client.key", NULL, &client, NULL);
    write_pem("client-both.pem", &client, &client, NULL);
    write_pem("other.key", NULL, &other_ca, NULL);
    write_pem("locked.key", NULL, &client, "secret");
    write_text("text.pem", "no certificate\n");
    mkdir(path_of("hashed"), 0700);
    char name[32];
    snprintf(name, sizeof(name), "hashed/%08lx.0", X509_subject_name_hash(ca.cert));
    write_pem(name, &ca, NULL, NULL);
    mkdir(path_of("empty"), 0700);
}

static void
remove_files(void)
{
    static const char *const names[] = {"ca.pem", "client.pem", "client.key", "client-both.pem",
        "other.key", "locked.key", "text.pem"};
    char name[32];
    for (size_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]));
    snprintf(name, sizeof(name), "hashed/%08lx.0", X509_subject_name_hash(ca.cert));
    unlink(path_of(name));
    rmdir(path_of("hashed"));
    rmdir(path_of("empty"));
    rmdir(folder);
    struct identity *const all[] = {
        &ca, &other_ca, &good, &expired, &early, &self_signed, &client, &multi, &bare};
    for (size_t i = 0; i < COUNT_OF(all); i++)
        free_identity(all[i]);
}

/* ---- a server in the same thread, on the other end of a socket pair ---- */

static SSL_CTX *
server_new(const struct identity *id, int min_version, int max_version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    CHECK(ctx != NULL);
    CHECK(SSL_CTX_use_certificate(ctx, id->cert) == 1);
    CHECK(SSL_CTX_use_PrivateKey(ctx, id->key) == 1);
    SSL_CTX_set_security_level(ctx, 0); /* so that it may speak TLS 1.0 */
    CHECK(SSL_CTX_set_min_proto_version(ctx, min_version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(ctx, max_version) == 1);
    CHECK(SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"t", 1) == 1);
    return ctx;
}

struct pair {
    SSL *client, *server;
    int client_fd, server_fd;
    bool failed;
    char why[256];
};

static void
pair_open(struct pair *p, struct tls_ctx *c, const char *name)
{
    int fd[2];
    *p = (struct pair){.failed = false};
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
    p->client_fd = fd[0];
    p->server_fd = fd[1];
    p->client = tls_session(c, p->client_fd, name);
    CHECK(p->client != NULL);
}

static void
pair_close(struct pair *p)
{
    tls_session_free(&p->client);
    T_TRUE(p->client == NULL);
    if (p->server != NULL) /* as servers do, or it would drop the session */
        SSL_set_shutdown(p->server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(p->server);
    close(p->client_fd);
    if (p->server_fd >= 0)
        close(p->server_fd);
    T_EQ(ERR_peek_error(), 0); /* nothing is left in the queue for others to trip over */
}

/* One call of OpenSSL for the client; on failure, asks why. Returns whether it is through. */
static bool
client_step(struct pair *p, const char *name, int (*step)(SSL *))
{
    errno = 0;
    int rc = step(p->client);
    int sys_errno = errno;
    if (rc == 1)
        return true;
    int kind = SSL_get_error(p->client, rc);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
        return false;
    p->failed = true;
    tls_why(p->client, rc, sys_errno, name, p->why, sizeof(p->why));
    return true;
}

static int
read_one(SSL *s)
{
    char c;
    return SSL_read(s, &c, 1);
}

/* Handshake, then one byte from the server: with 1.3 that brings the tickets, and the alert about a
 * missing certificate. */
static void
pair_run(struct pair *p, SSL_CTX *server, const char *name)
{
    p->server = SSL_new(server);
    CHECK(p->server != NULL && SSL_set_fd(p->server, p->server_fd) == 1);
    SSL_set_accept_state(p->server);
    bool client_done = false, server_done = false, server_failed = false;
    for (int i = 0; i < 100 && !(client_done && (server_done || server_failed)); i++) {
        if (!client_done)
            client_done = client_step(p, name, SSL_do_handshake);
        if (server_done || server_failed)
            continue;
        int rc = SSL_do_handshake(p->server);
        server_done = rc == 1;
        server_failed = rc != 1 && SSL_get_error(p->server, rc) != SSL_ERROR_WANT_READ;
        ERR_clear_error();
        if (p->failed)
            break;
    }
    if (p->failed)
        return;
    if (server_done)
        T_EQ(SSL_write(p->server, "x", 1), 1);
    T_TRUE(client_step(p, name, read_one));
}

static struct tls_ctx *
ctx_new(struct tls_options o)
{
    char why[256] = "";
    struct tls_ctx *c = tls_ctx_new(&o, why, sizeof(why));
    if (c == NULL)
        fail_msg("tls_ctx_new: %s", why);
    return c;
}

static struct tls_ctx *
trusting_ctx(void)
{
    return ctx_new((struct tls_options){.verify = true, .ca_file = path_of("ca.pem")});
}

/* One connection; why is "" when it worked. */
static const char *
try_once(struct tls_ctx *c, SSL_CTX *server, const char *name, bool *resumed)
{
    static char why[256];
    struct pair p;
    pair_open(&p, c, name);
    pair_run(&p, server, name);
    snprintf(why, sizeof(why), "%s", p.failed ? p.why : "");
    if (resumed != NULL)
        *resumed = tls_was_resumed(p.client);
    pair_close(&p);
    return why;
}

/* The same with a context and server of its own. */
static const char *
try_server(const struct identity *id, const char *name)
{
    struct tls_ctx *c = trusting_ctx();
    SSL_CTX *server = server_new(id, TLS1_2_VERSION, TLS1_3_VERSION);
    const char *why = try_once(c, server, name, NULL);
    SSL_CTX_free(server);
    tls_ctx_unref(&c);
    T_TRUE(c == NULL);
    return why;
}

/* ---- the tests ---- */

static void
test_good_names_and_addresses(void **state)
{
    (void)state;
    T_ZEQ(try_server(&good, "localhost"), "");
    T_ZEQ(try_server(&good, "db.example"), "");
    T_ZEQ(try_server(&good, "DB.example."), ""); /* the root dot is no part of the name */
    T_ZEQ(try_server(&good, "127.0.0.1"), "");
    T_ZEQ(try_server(&good, "::1"), "");
    T_ZEQ(try_server(&good, "::1%1"), ""); /* nor is the scope */
}

/* SNI: names only, never addresses. */
static void
test_server_name_indication(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"db.example", "db.example"},
        {"localhost.", "localhost"}, {"127.0.0.1", NULL}, {"::1", NULL}};
    struct tls_ctx *c = trusting_ctx();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        SSL *s = tls_session(c, 0, cases[i][0]);
        const char *sni = SSL_get_servername(s, TLSEXT_NAMETYPE_host_name);
        if (cases[i][1] == NULL)
            T_TRUE(sni == NULL);
        else
            T_ZEQ(sni, cases[i][1]);
        tls_session_free(&s);
    }
    tls_ctx_unref(&c);
}

static void
test_certificates_refused_say_why(void **state)
{
    (void)state;
    char date[16], want[128];
    time_t yesterday = time(NULL) - 86400;
    struct tm tm;
    T_TRUE(strftime(date, sizeof(date), "%Y-%m-%d", gmtime_r(&yesterday, &tm)) > 0);
    snprintf(want, sizeof(want), "certificate has expired (on %s)", date);
    T_ZEQ(try_server(&expired, "localhost"), want);
    T_TRUE(strncmp(try_server(&early, "localhost"), "certificate is not valid before 20", 34) == 0);
    T_ZEQ(try_server(&good, "other.example"),
        "certificate is for localhost, db.example, 127.0.0.1, ::1, not for other.example");
    T_ZEQ(try_server(&good, "127.0.0.2"),
        "certificate is for localhost, db.example, 127.0.0.1, ::1, not for 127.0.0.2");
    T_ZEQ(try_server(&multi, "f.x"), "certificate is for a.x, b.x, c.x, d.x, ..., not for f.x");
    T_ZEQ(try_server(&bare, "f.x"), "certificate is for bare?.x, not for f.x");
    T_ZEQ(try_server(&self_signed, "localhost"),
        "unknown issuer (self-signed certificate); see tls_ca_file");
}

static void
test_unknown_issuer(void **state)
{
    (void)state;
    struct identity stranger = make_identity(&other_ca, "x", "DNS:localhost", -10, 1000);
    T_ZEQ(try_server(&stranger, "localhost"), "unknown issuer (Other CA); see tls_ca_file");
    /* The same with the stranger's CA sent along. */
    struct tls_ctx *c = trusting_ctx();
    SSL_CTX *server = server_new(&stranger, TLS1_2_VERSION, TLS1_3_VERSION);
    T_EQ(SSL_CTX_add1_chain_cert(server, other_ca.cert), 1);
    T_ZEQ(try_once(c, server, "localhost", NULL),
        "unknown issuer (self-signed certificate in chain, by Other CA); see tls_ca_file");
    SSL_CTX_free(server);
    tls_ctx_unref(&c);
    free_identity(&stranger);
}

static void
test_without_verification_all_is_taken(void **state)
{
    (void)state;
    struct tls_ctx *c = ctx_new((struct tls_options){.verify = false});
    const struct identity *const ids[] = {&good, &expired, &self_signed};
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        SSL_CTX *server = server_new(ids[i], TLS1_2_VERSION, TLS1_3_VERSION);
        T_ZEQ(try_once(c, server, "wrong.example", NULL), "");
        SSL_CTX_free(server);
    }
    tls_ctx_unref(&c);
}

static void
test_ca_folder(void **state)
{
    (void)state;
    SSL_CTX *server = server_new(&good, TLS1_2_VERSION, TLS1_3_VERSION);
    struct tls_ctx *c =
        ctx_new((struct tls_options){.verify = true, .ca_dir = path_of("hashed"), .ca_file = ""});
    T_ZEQ(try_once(c, server, "localhost", NULL), "");
    tls_ctx_unref(&c);
    c = ctx_new((struct tls_options){.verify = true, .ca_dir = path_of("empty")});
    T_ZEQ(try_once(c, server, "localhost", NULL), "unknown issuer (Test CA); see tls_ca_file");
    tls_ctx_unref(&c);
    c = ctx_new((struct tls_options){.verify = true}); /* the system's: does not know ours */
    T_ZEQ(try_once(c, server, "localhost", NULL), "unknown issuer (Test CA); see tls_ca_file");
    tls_ctx_unref(&c);
    SSL_CTX_free(server);
}

static void
test_client_certificate(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const char wanted[] = "the server wants a client certificate; see tls_cert_file";
    struct tls_ctx *without = trusting_ctx();
    struct tls_ctx *with = ctx_new((struct tls_options){.verify = true,
        .ca_file = path_of("ca.pem"),
        .cert_file = path_of("client.pem"),
        .key_file = path_of("client.key")});
    struct tls_ctx *both = ctx_new((struct tls_options){
        .verify = true, .ca_file = path_of("ca.pem"), .cert_file = path_of("client-both.pem")});
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        SSL_CTX *server = server_new(&good, versions[i], versions[i]);
        SSL_CTX_set_verify(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        T_EQ(SSL_CTX_load_verify_file(server, path_of("ca.pem")), 1);
        T_ZEQ(try_once(without, server, "localhost", NULL), wanted);
        T_ZEQ(try_once(with, server, "localhost", NULL), "");
        T_ZEQ(try_once(both, server, "localhost", NULL), "");
        SSL_CTX_free(server);
        /* A server that trusts somebody else. */
        server = server_new(&good, versions[i], versions[i]);
        SSL_CTX_set_verify(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        T_ZEQ(try_once(with, server, "localhost", NULL),
            "the server does not accept our client certificate");
        SSL_CTX_free(server);
        /* Asked for, but not needed. */
        server = server_new(&good, versions[i], versions[i]);
        SSL_CTX_set_verify(server, SSL_VERIFY_PEER, NULL);
        T_ZEQ(try_once(without, server, "localhost", NULL), "");
        SSL_CTX_free(server);
    }
    tls_ctx_unref(&without);
    tls_ctx_unref(&with);
    tls_ctx_unref(&both);
}

static void
test_versions(void **state)
{
    (void)state;
    static const char none[] = "no common TLS version; see tls_min_version";
    struct tls_ctx *c = trusting_ctx();
    SSL_CTX *old = server_new(&good, TLS1_VERSION, TLS1_VERSION);
    SSL_CTX *v12 = server_new(&good, TLS1_2_VERSION, TLS1_2_VERSION);
    T_ZEQ(try_once(c, old, "localhost", NULL), none);
    T_ZEQ(try_once(c, v12, "localhost", NULL), "");
    tls_ctx_unref(&c);
    c = ctx_new(
        (struct tls_options){.verify = true, .ca_file = path_of("ca.pem"), .min_tls13 = true});
    T_ZEQ(try_once(c, v12, "localhost", NULL), none);
    tls_ctx_unref(&c);
    SSL_CTX_free(old);
    SSL_CTX_free(v12);
}

/* What comes back is not TLS, is cut, or is reset. */
static const char *
talk_back(const char *answer, bool reset)
{
    static char why[256];
    struct tls_ctx *c = trusting_ctx();
    struct pair p;
    pair_open(&p, c, "localhost");
    T_FALSE(client_step(&p, "localhost", SSL_do_handshake)); /* the hello is out */
    char hello[4096];
    T_TRUE(reset || read(p.server_fd, hello, sizeof(hello)) > 0); /* unread bytes make a reset */
    T_EQ(write(p.server_fd, answer, strlen(answer)), strlen(answer));
    close(p.server_fd);
    p.server_fd = -1;
    T_TRUE(client_step(&p, "localhost", SSL_do_handshake));
    T_TRUE(p.failed);
    snprintf(why, sizeof(why), "%s", p.why);
    pair_close(&p);
    tls_ctx_unref(&c);
    return why;
}

static void
test_peers_that_speak_no_tls(void **state)
{
    (void)state;
    T_ZEQ(talk_back("HTTP/1.1 400 Bad Request\r\n\r\n", false),
        "the server speaks plain HTTP; use http://");
    T_ZEQ(talk_back("220 mail.example\r\n", false), "the server does not speak TLS on this port");
    T_ZEQ(talk_back("", false), "handshake cut by the server");
    T_ZEQ(talk_back("", true), "handshake cut by the server");
    T_ZEQ(talk_back("\x16\x03\x03", false), "handshake cut by the server");
}

/* The server's alerts that a user can do something about, and one of another kind. */
static int
refuse_name(SSL *ssl, int *alert, void *arg)
{
    (void)ssl;
    *alert = *(int *)arg;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void
test_alerts_in_words(void **state)
{
    (void)state;
    static const struct {
        int alert;
        const char *want;
    } cases[] = {
        {SSL_AD_UNRECOGNIZED_NAME, "the server does not know this name; see tls_server_name"},
        {SSL_AD_CERTIFICATE_EXPIRED, "our client certificate has expired"},
        {SSL_AD_CERTIFICATE_REVOKED, "our client certificate was revoked"},
        {SSL_AD_HANDSHAKE_FAILURE, "the server found no common TLS parameters (cipher or curve)"},
        {SSL_AD_PROTOCOL_VERSION, "no common TLS version; see tls_min_version"},
        {SSL_AD_ACCESS_DENIED, "the server wants a client certificate; see tls_cert_file"},
        {SSL_AD_INTERNAL_ERROR, "TLS: tlsv1 alert internal error"},
    };
    struct tls_ctx *c = trusting_ctx();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int alert = cases[i].alert;
        SSL_CTX *server = server_new(&good, TLS1_2_VERSION, TLS1_3_VERSION);
        SSL_CTX_set_tlsext_servername_callback(server, refuse_name);
        SSL_CTX_set_tlsext_servername_arg(server, &alert);
        T_ZEQ(try_once(c, server, "localhost", NULL), cases[i].want);
        SSL_CTX_free(server);
    }
    tls_ctx_unref(&c);
}

/* An error of the socket itself is told as the system tells it. */
static void
test_socket_errors(void **state)
{
    (void)state;
    struct tls_ctx *c = trusting_ctx();
    struct pair p;
    pair_open(&p, c, "localhost");
    int closed = p.client_fd;
    close(closed);
    T_TRUE(client_step(&p, "localhost", SSL_do_handshake));
    T_TRUE(p.failed);
    T_ZEQ(p.why, strerror(EBADF));
    p.client_fd = dup(p.server_fd); /* pair_close() wants one to close */
    pair_close(&p);
    tls_ctx_unref(&c);
}

/* Resumption, 1.2 and 1.3, within one name and one context only. */
static void
test_resumption(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < COUNT_OF(versions); v++) {
        for (int tickets = 0; tickets < 2; tickets++) {
            struct tls_ctx *c = trusting_ctx();
            SSL_CTX *server = server_new(&good, versions[v], versions[v]);
            if (tickets == 0)
                SSL_CTX_set_options(server, SSL_OP_NO_TICKET); /* ids, kept by the server */
            bool resumed = true;
            T_ZEQ(try_once(c, server, "localhost", &resumed), "");
            T_FALSE(resumed);
            for (int i = 0; i < 5; i++) {
                T_ZEQ(try_once(c, server, "localhost", &resumed), "");
                T_TRUE(resumed);
            }
            T_ZEQ(try_once(c, server, "db.example", &resumed), "");
            T_FALSE(resumed);
            T_ZEQ(try_once(c, server, "127.0.0.1", &resumed), "");
            T_FALSE(resumed);
            T_ZEQ(try_once(c, server, "127.0.0.1", &resumed), "");
            T_TRUE(resumed);
            tls_ctx_unref(&c);
            SSL_CTX_free(server);
        }
    }
}

/* A 1.3 ticket is offered once: with none new, the third handshake is a full one again. */
static void
test_13_tickets_are_used_once(void **state)
{
    (void)state;
    struct tls_ctx *c = trusting_ctx();
    SSL_CTX *server = server_new(&good, TLS1_3_VERSION, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(server, 1);
    bool resumed = true;
    T_ZEQ(try_once(c, server, "localhost", &resumed), "");
    T_FALSE(resumed);
    SSL_CTX_set_num_tickets(server, 0);
    T_ZEQ(try_once(c, server, "localhost", &resumed), "");
    T_TRUE(resumed);
    T_ZEQ(try_once(c, server, "localhost", &resumed), "");
    T_FALSE(resumed);
    tls_ctx_unref(&c);
    SSL_CTX_free(server);
}

/* Bound: the oldest sessions make room, so the names used last can resume. */
static void
test_kept_sessions_are_bounded(void **state)
{
    (void)state;
    struct tls_ctx *c = ctx_new((struct tls_options){.verify = false});
    SSL_CTX *server = server_new(&good, TLS1_2_VERSION, TLS1_2_VERSION);
    char name[32];
    bool resumed;
    for (int i = 0; i < TLS_SESSIONS_MAX + 2; i++) {
        snprintf(name, sizeof(name), "n%d.example", i);
        T_ZEQ(try_once(c, server, name, &resumed), "");
    }
    T_ZEQ(try_once(c, server, "n2.example", &resumed), "");
    T_TRUE(resumed);
    T_ZEQ(try_once(c, server, "n0.example", &resumed), "");
    T_FALSE(resumed);
    tls_ctx_unref(&c);
    SSL_CTX_free(server);
}

/* A session kept by a context outlives the connection, not the other way round. */
static void
test_sessions_hold_the_context(void **state)
{
    (void)state;
    struct tls_ctx *c = trusting_ctx();
    SSL_CTX *server = server_new(&good, TLS1_2_VERSION, TLS1_3_VERSION);
    struct pair p;
    pair_open(&p, c, "localhost");
    tls_ctx_unref(&c);
    T_TRUE(c == NULL);
    pair_run(&p, server, "localhost");
    T_FALSE(p.failed);
    pair_close(&p);
    SSL_CTX_free(server);
    tls_ctx_unref(&c); /* NULL is fine */
}

/* EOF without close_notify is an error, not an end: P3. */
static void
test_cut_stream_is_no_eof(void **state)
{
    (void)state;
    struct tls_ctx *c = trusting_ctx();
    SSL_CTX *server = server_new(&good, TLS1_2_VERSION, TLS1_3_VERSION);
    for (int clean = 0; clean < 2; clean++) {
        struct pair p;
        pair_open(&p, c, "localhost");
        pair_run(&p, server, "localhost");
        T_FALSE(p.failed);
        if (clean)
            T_EQ(SSL_shutdown(p.server), 0);
        close(p.server_fd);
        p.server_fd = -1;
        char byte;
        int rc = SSL_read(p.client, &byte, 1);
        T_TRUE(rc <= 0);
        T_EQ(SSL_get_error(p.client, rc), clean ? SSL_ERROR_ZERO_RETURN : SSL_ERROR_SSL);
        ERR_clear_error();
        pair_close(&p);
    }
    tls_ctx_unref(&c);
    SSL_CTX_free(server);
}

static void
refused(struct tls_options o, const char *path, const char *cause)
{
    char why[256] = "", want[256];
    T_TRUE(tls_ctx_new(&o, why, sizeof(why)) == NULL);
    snprintf(want, sizeof(want), "%s: %s", path, cause);
    T_ZEQ(why, want);
    T_EQ(ERR_peek_error(), 0);
}

static void
test_files_refused_say_why(void **state)
{
    (void)state;
    const char *not_pem = "not PEM, or not the kind of object wanted here";
    const char *p = path_of("missing");
    refused((struct tls_options){.verify = true, .ca_file = p}, p, strerror(ENOENT));
    refused((struct tls_options){.verify = true, .ca_dir = p}, p, strerror(ENOENT));
    refused((struct tls_options){.cert_file = p}, p, strerror(ENOENT));
    refused((struct tls_options){.key_file = p}, p, "a key without a certificate");
    p = path_of("text.pem");
    refused((struct tls_options){.verify = true, .ca_file = p}, p, not_pem);
    refused((struct tls_options){.verify = true, .ca_dir = p}, p, strerror(ENOTDIR));
    refused((struct tls_options){.cert_file = p}, p, not_pem);
    const char *cert = path_of("client.pem");
    refused((struct tls_options){.cert_file = cert, .key_file = p}, p, not_pem);
    refused((struct tls_options){.cert_file = cert}, cert, not_pem); /* no key in it */
    p = path_of("other.key");
    char cause[256];
    snprintf(cause, sizeof(cause), "the key does not belong to the certificate in %s", cert);
    refused((struct tls_options){.cert_file = cert, .key_file = p}, p, cause);
    p = path_of("locked.key");
    refused((struct tls_options){.cert_file = cert, .key_file = p}, p,
        "the key is encrypted; chmux needs it without a passphrase");
}

static void
test_no_memory(void **state)
{
    (void)state;
    char why[64];
    struct tls_options o = {.verify = false};
    mem_fail_at(1);
    T_TRUE(tls_ctx_new(&o, why, sizeof(why)) == NULL);
    T_ZEQ(why, "out of memory");
    mem_fail_at(0);
    struct tls_ctx *c = tls_ctx_new(&o, why, sizeof(why));
    mem_fail_at(1);
    T_TRUE(tls_session(c, 0, "localhost") == NULL);
    mem_fail_at(0);
    SSL *ssl = NULL;
    uint64_t n = 0;
    while (ssl == NULL) {
        openssl_fail_at = ++n;
        ssl = tls_session(c, 0, "localhost");
        openssl_fail_at = 0;
        T_EQ(ERR_peek_error(), 0);
    }
    T_TRUE(n > 5);
    tls_session_free(&ssl);
    tls_ctx_unref(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_good_names_and_addresses),
        TEST(test_server_name_indication),
        TEST(test_certificates_refused_say_why),
        TEST(test_unknown_issuer),
        TEST(test_without_verification_all_is_taken),
        TEST(test_ca_folder),
        TEST(test_client_certificate),
        TEST(test_versions),
        TEST(test_peers_that_speak_no_tls),
        TEST(test_alerts_in_words),
        TEST(test_socket_errors),
        TEST(test_resumption),
        TEST(test_13_tickets_are_used_once),
        TEST(test_kept_sessions_are_bounded),
        TEST(test_sessions_hold_the_context),
        TEST(test_cut_stream_is_no_eof),
        TEST(test_files_refused_say_why),
        TEST(test_no_memory),
    };
    signal(SIGPIPE, SIG_IGN);
    CHECK(CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) == 1);
    make_files();
    int failed = TEST_MAIN(tests);
    remove_files();
    return failed;
}
