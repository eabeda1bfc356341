#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "net/addr.h"
#include "net/tls_private.h"

#include "base/no_block.h"

#define CTX_MAGIC 0x746c7363u

/* A session that may be offered again. NULL session: a free slot. */
struct kept {
    SSL_SESSION *session; /* owns */
    uint64_t stamp;       /* higher is newer */
    char name[TLS_NAME_MAX + 1];
};

struct tls_ctx {
    uint32_t magic;
    int refs; /* the loop's alone once the context is handed over */
    bool has_cert;
    SSL_CTX *ssl_ctx; /* owns */
    uint64_t stamp;
    struct kept kept[TLS_SESSIONS_MAX];
};

/* ---- kept sessions ---- */

static void
kept_drop(struct kept *k)
{
    SSL_SESSION_free(k->session);
    k->session = NULL;
}

static struct kept *
kept_find(struct tls_ctx *c, const char *name)
{
    struct kept *newest = NULL;
    for (size_t i = 0; i < TLS_SESSIONS_MAX; i++) {
        struct kept *k = &c->kept[i];
        if (k->session != NULL && strcmp(k->name, name) == 0 &&
            (newest == NULL || k->stamp > newest->stamp))
            newest = k;
    }
    return newest;
}

/* Takes session. */
static void
kept_add(struct tls_ctx *c, const char *name, SSL_SESSION *session)
{
    struct kept *slot = &c->kept[0];
    for (size_t i = 0; i < TLS_SESSIONS_MAX && slot->session != NULL; i++)
        if (c->kept[i].session == NULL || c->kept[i].stamp < slot->stamp)
            slot = &c->kept[i];
    kept_drop(slot);
    slot->session = session;
    slot->stamp = ++c->stamp;
    snprintf(slot->name, sizeof(slot->name), "%s", name);
}

/* OpenSSL's callback: TLS 1.2 after the handshake, 1.3 with each ticket. 1: we keep the reference.
 */
static int
on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_link *link = OBJ_CAST(struct tls_link, SSL_get_app_data(ssl), TLS_LINK_MAGIC);
    if (!SSL_SESSION_is_resumable(session))
        return 0;
    kept_add(link->ctx, link->name, session);
    return 1;
}

static void
offer_session(struct tls_ctx *c, SSL *ssl, const char *name)
{
    struct kept *k = kept_find(c, name);
    if (k == NULL)
        return;
    /* A refusal here only means a full handshake. */
    (void)SSL_set_session(ssl, k->session);
    /* RFC 8446 C.4: a 1.3 ticket is used once, or observers could link the connections. */
    if (SSL_SESSION_get_protocol_version(k->session) >= TLS1_3_VERSION)
        kept_drop(k);
}

/* ---- contexts ---- */

static bool
set_trust(SSL_CTX *ctx, const struct tls_options *o, char *why, size_t why_len)
{
    struct stat st;
    if (tls_given(o->ca_file) && SSL_CTX_load_verify_file(ctx, o->ca_file) != 1) {
        tls_why_file(why, why_len, o->ca_file);
        return false;
    }
    if (tls_given(o->ca_dir)) { /* OpenSSL looks into it later only, so ask now */
        errno = 0;
        if (stat(o->ca_dir, &st) != 0 || !S_ISDIR(st.st_mode)) {
            snprintf(why, why_len, "%s: %s", o->ca_dir, strerror(errno != 0 ? errno : ENOTDIR));
            return false;
        }
        if (SSL_CTX_load_verify_dir(ctx, o->ca_dir) != 1) {
            tls_why_file(why, why_len, o->ca_dir);
            return false;
        }
    }
    if (!tls_given(o->ca_file) && !tls_given(o->ca_dir) &&
        SSL_CTX_set_default_verify_paths(ctx) != 1) {
        tls_why_file(why, why_len, "the system's CA certificates");
        return false;
    }
    return true;
}

/* Everything that reads no file. */
static bool
set_protocol(SSL_CTX *ctx, const struct tls_options *o)
{
    static const unsigned char alpn[] = "\x08http/1.1";
    int least = o->min_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
    if (SSL_CTX_set_min_proto_version(ctx, least) != 1 ||
        SSL_CTX_set_alpn_protos(ctx, alpn, sizeof(alpn) - 1) != 0)
        return false;
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Sessions are ours to keep: OpenSSL's own cache is not looked up by clients. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_new_session);
    if (o->verify)
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, tls_on_verify);
    else
        SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_client_cert_cb(ctx, tls_on_cert_wanted);
    return true;
}

struct tls_ctx *
tls_ctx_new(const struct tls_options *o, char *why, size_t why_len)
{
    struct tls_ctx *c = mem_zalloc(sizeof(*c));
    if (c == NULL) {
        snprintf(why, why_len, "out of memory");
        return NULL;
    }
    OBJ_INIT(c, CTX_MAGIC);
    c->refs = 1;
    c->has_cert = tls_given(o->cert_file);
    c->ssl_ctx = SSL_CTX_new(TLS_client_method());
    if (c->ssl_ctx == NULL || !set_protocol(c->ssl_ctx, o)) {
        snprintf(why, why_len, "OpenSSL: %s", tls_reason(ERR_peek_error()));
        ERR_clear_error();
        goto fail;
    }
    if (tls_given(o->key_file) && !c->has_cert) {
        snprintf(why, why_len, "%s: a key without a certificate", o->key_file);
        goto fail;
    }
    if (c->has_cert && !tls_use_identity(c->ssl_ctx, o->cert_file, o->key_file, why, why_len))
        goto fail;
    if (o->verify && !set_trust(c->ssl_ctx, o, why, why_len))
        goto fail;
    return c;
fail:
    tls_ctx_unref(&c);
    return NULL;
}

void
tls_ctx_unref(struct tls_ctx **cp)
{
    struct tls_ctx *c = *cp;
    if (c == NULL)
        return;
    *cp = NULL;
    OBJ_CHECK(c, CTX_MAGIC);
    if (--c->refs > 0)
        return;
    for (size_t i = 0; i < TLS_SESSIONS_MAX; i++)
        kept_drop(&c->kept[i]);
    SSL_CTX_free(c->ssl_ctx);
    OBJ_POISON(c);
    mem_free(c);
}

/* ---- sessions ---- */

/* Whom the certificate must name. An address is matched with the certificate's IP entries and never
 * sent as SNI (RFC 6066 section 3). */
static bool
set_expected(SSL *ssl, char *name) /* not const for the sake of OpenSSL's macro */
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    struct addr ip;
    if (addr_from_ip(name, 0, &ip)) {
        char text[TLS_NAME_MAX + 1]; /* without the scope: no certificate has one */
        snprintf(text, sizeof(text), "%.*s", (int)strcspn(name, "%"), name);
        return X509_VERIFY_PARAM_set1_ip_asc(param, text) == 1;
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
           SSL_set_tlsext_host_name(ssl, name) == 1;
}

static struct tls_link *
link_new(struct tls_ctx *c, const char *name)
{
    struct tls_link *link = mem_zalloc(sizeof(*link));
    if (link == NULL)
        return NULL;
    OBJ_INIT(link, TLS_LINK_MAGIC);
    link->has_cert = c->has_cert;
    size_t len = strlen(name);
    if (len > 1 && name[len - 1] == '.')
        len--; /* the root dot of a full DNS name is no part of it in certificates and SNI */
    snprintf(link->name, sizeof(link->name), "%.*s", (int)size_min(len, TLS_NAME_MAX), name);
    link->ctx = c;
    c->refs++;
    return link;
}

static void
link_free(struct tls_link *link)
{
    tls_ctx_unref(&link->ctx);
    OBJ_POISON(link);
    mem_free(link);
}

SSL *
tls_session(struct tls_ctx *c, int fd, const char *server_name)
{
    OBJ_CHECK(c, CTX_MAGIC);
    struct tls_link *link = link_new(c, server_name);
    if (link == NULL)
        return NULL;
    SSL *ssl = SSL_new(c->ssl_ctx);
    if (ssl == NULL)
        goto free_link;
    if (SSL_set_app_data(ssl, link) != 1 || SSL_set_fd(ssl, fd) != 1 ||
        !set_expected(ssl, link->name))
        goto free_ssl;
    SSL_set_msg_callback(ssl, tls_on_message);
    SSL_set_connect_state(ssl);
    offer_session(c, ssl, link->name);
    return ssl;
free_ssl:
    SSL_free(ssl);
free_link:
    ERR_clear_error();
    link_free(link);
    return NULL;
}

void
tls_session_free(SSL **sp)
{
    SSL *ssl = *sp;
    if (ssl == NULL)
        return;
    *sp = NULL;
    /* Freed without a close_notify, OpenSSL would mark the session as not resumable, and with it
     * the one we keep. A session that failed was marked when it failed. */
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    if (SSL_is_server(ssl)) {
        tls_server_let_go(ssl);
        return;
    }
    struct tls_link *link = OBJ_CAST(struct tls_link, SSL_get_app_data(ssl), TLS_LINK_MAGIC);
    SSL_free(ssl);
    link_free(link);
}

bool
tls_was_resumed(const SSL *s)
{
    return SSL_session_reused(s) == 1;
}

void
tls_thread_end(void)
{
    OPENSSL_thread_stop();
}
