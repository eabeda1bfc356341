#include "net/tls_server.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/tls_private.h"

#include "base/no_block.h"

#define SERVER_MAGIC     0x746c7376u
#define TICKET_KEYS      3    /* the newest makes tickets, the others still read theirs */
#define TICKET_LIFE_S    7200 /* less than the keys live */
#define TICKET_NAME_LEN  16
#define TICKET_KEY_LEN   32
#define VERIFY_DEPTH_MAX 10

struct ticket_key {
    unsigned char name[TICKET_NAME_LEN], aes[TICKET_KEY_LEN], mac[TICKET_KEY_LEN];
};

struct tls_server {
    uint32_t magic;
    int refs;         /* the loop's alone once the server is handed over */
    SSL_CTX *ssl_ctx; /* owns */
    struct ticket_key keys[TICKET_KEYS];
    size_t key_count;
    struct mono keyed; /* when keys[0] was made */
    int64_t not_after;
    char refused[256]; /* whose certificate was refused last, for the words about it */
};

_Static_assert(TICKET_LIFE_S <= (TICKET_KEYS - 1) * TLS_TICKET_KEY_S, "a ticket needs its key");

/* ---- tickets ---- */

static bool
make_key(struct tls_server *t)
{
    struct ticket_key fresh;
    if (RAND_bytes((unsigned char *)&fresh, sizeof fresh) != 1)
        return false;
    memmove(&t->keys[1], &t->keys[0], sizeof t->keys - sizeof t->keys[0]);
    t->keys[0] = fresh;
    OPENSSL_cleanse(&fresh, sizeof fresh);
    if (t->key_count < TICKET_KEYS)
        t->key_count++;
    t->keyed = mono_now();
    return true;
}

void
tls_server_next_key(struct tls_server *t)
{
    CHECK(make_key(t));
}

static bool
has_fresh_key(struct tls_server *t)
{
    int64_t age_us = mono_diff_us(mono_now(), t->keyed);
    return (t->key_count > 0 && age_us < TLS_TICKET_KEY_S * INT64_C(1000000)) || make_key(t);
}

static bool
set_mac(EVP_MAC_CTX *mac, struct ticket_key *key)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* OpenSSL's callback, for a ticket to be made (making) or read. 0: none, or none of ours; 2: good,
 * and the client gets a newer one. */
static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int making)
{
    struct tls_server *t = OBJ_CAST(struct tls_server, SSL_get_app_data(ssl), SERVER_MAGIC);
    const EVP_CIPHER *aes = EVP_aes_256_cbc();
    if (making) {
        if (!has_fresh_key(t) || RAND_bytes(iv, EVP_CIPHER_get_iv_length(aes)) != 1)
            return 0;
        memcpy(name, t->keys[0].name, TICKET_NAME_LEN);
        return EVP_EncryptInit_ex(cipher, aes, NULL, t->keys[0].aes, iv) == 1 &&
                       set_mac(mac, &t->keys[0])
                   ? 1
                   : 0;
    }
    for (size_t i = 0; i < t->key_count; i++) {
        struct ticket_key *key = &t->keys[i];
        if (memcmp(name, key->name, TICKET_NAME_LEN) != 0)
            continue;
        if (!set_mac(mac, key) || EVP_DecryptInit_ex(cipher, aes, NULL, key->aes, iv) != 1)
            return 0;
        /* RFC 8446 C.4: a client of 1.3 uses a ticket once, so it needs another. */
        return i > 0 || SSL_version(ssl) >= TLS1_3_VERSION ? 2 : 1;
    }
    return 0;
}

/* ---- contexts ---- */

static int
on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
    unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0";
    (void)ssl, (void)arg;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Keeps whose certificate it is that is refused. */
static int
on_client_verify(int ok, X509_STORE_CTX *store)
{
    if (ok == 1)
        return 1;
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_server *t = OBJ_CAST(struct tls_server, SSL_get_app_data(ssl), SERVER_MAGIC);
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    char subject[sizeof t->refused] = "?";
    if (cert != NULL)
        X509_NAME_oneline(X509_get_subject_name(cert), subject, sizeof subject);
    t->refused[0] = '\0';
    tls_text_add(t->refused, sizeof t->refused, subject, strlen(subject));
    return 0;
}

/* Everything that reads no file. */
static bool
set_protocol(SSL_CTX *ctx, const struct tls_server_options *o)
{
    static const char tls12[] =
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
        "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
    static const unsigned char id[] = "chmux"; /* tickets of sessions with certificates need one */
    int least = o->min_tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
    if (SSL_CTX_set_min_proto_version(ctx, least) != 1 ||
        SSL_CTX_set_cipher_list(ctx, tls12) != 1 ||
        SSL_CTX_set_session_id_context(ctx, id, sizeof id - 1) != 1 ||
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket) != 1)
        return false;
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, TICKET_LIFE_S);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    return true;
}

static bool
set_client_trust(SSL_CTX *ctx, const struct tls_server_options *o, char *why, size_t why_len)
{
    if (o->clients == TLS_CLIENTS_ANY)
        return true;
    STACK_OF(X509_NAME) *names = NULL;
    if (SSL_CTX_load_verify_file(ctx, o->client_ca_file) != 1 ||
        (names = SSL_load_client_CA_file(o->client_ca_file)) == NULL) {
        tls_why_file(why, why_len, o->client_ca_file);
        return false;
    }
    SSL_CTX_set_client_CA_list(ctx, names); /* takes it */
    bool must = o->clients == TLS_CLIENTS_MUST_PROVE;
    SSL_CTX_set_verify(
        ctx, SSL_VERIFY_PEER | (must ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), on_client_verify);
    SSL_CTX_set_verify_depth(ctx, VERIFY_DEPTH_MAX);
    return true;
}

/* A certificate that no client would take is an error now, not theirs later. */
static bool
check_dates(struct tls_server *t, const char *file, char *why, size_t why_len)
{
    const X509 *cert = SSL_CTX_get0_certificate(t->ssl_ctx);
    const ASN1_TIME *from = X509_get0_notBefore(cert), *until = X509_get0_notAfter(cert);
    char date[32] = "";
    struct tm tm;
    if (X509_cmp_current_time(until) < 0) {
        tls_text_date(date, sizeof date, until);
        snprintf(why, why_len, "%s: the certificate has expired (on %s)", file, date);
        return false;
    }
    if (X509_cmp_current_time(from) > 0) {
        tls_text_date(date, sizeof date, from);
        snprintf(why, why_len, "%s: the certificate is not valid before %s; is the clock right?",
            file, date);
        return false;
    }
    t->not_after = ASN1_TIME_to_tm(until, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
    return true;
}

struct tls_server *
tls_server_new(const struct tls_server_options *o, char *why, size_t why_len)
{
    struct tls_server *t = mem_zalloc(sizeof *t);
    if (t == NULL) {
        snprintf(why, why_len, "out of memory");
        return NULL;
    }
    OBJ_INIT(t, SERVER_MAGIC);
    t->refs = 1;
    t->ssl_ctx = SSL_CTX_new(TLS_server_method());
    if (t->ssl_ctx == NULL || !set_protocol(t->ssl_ctx, o)) {
        snprintf(why, why_len, "OpenSSL: %s", tls_reason(ERR_peek_error()));
        ERR_clear_error();
        goto fail;
    }
    if (!tls_use_identity(t->ssl_ctx, o->cert_file, o->key_file, why, why_len) ||
        !check_dates(t, o->cert_file, why, why_len) ||
        !set_client_trust(t->ssl_ctx, o, why, why_len))
        goto fail;
    return t;
fail:
    tls_server_unref(&t);
    return NULL;
}

struct tls_server *
tls_server_ref(struct tls_server *t)
{
    OBJ_CHECK(t, SERVER_MAGIC);
    t->refs++;
    return t;
}

void
tls_server_unref(struct tls_server **tp)
{
    struct tls_server *t = *tp;
    if (t == NULL)
        return;
    *tp = NULL;
    OBJ_CHECK(t, SERVER_MAGIC);
    if (--t->refs > 0)
        return;
    SSL_CTX_free(t->ssl_ctx);
    OPENSSL_cleanse(t->keys, sizeof t->keys);
    OBJ_POISON(t);
    mem_free(t);
}

int64_t
tls_server_not_after(const struct tls_server *t)
{
    return t->not_after;
}

/* ---- sessions ---- */

SSL *
tls_server_session(struct tls_server *t, int fd)
{
    OBJ_CHECK(t, SERVER_MAGIC);
    if (!mem_take_long(TLS_SESSION_BYTES))
        return NULL;
    SSL *ssl = SSL_new(t->ssl_ctx);
    if (ssl == NULL || SSL_set_app_data(ssl, t) != 1 || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        ERR_clear_error();
        mem_give(TLS_SESSION_BYTES);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    t->refs++;
    return ssl;
}

void
tls_server_let_go(SSL *ssl)
{
    struct tls_server *t = OBJ_CAST(struct tls_server, SSL_get_app_data(ssl), SERVER_MAGIC);
    SSL_free(ssl);
    mem_give(TLS_SESSION_BYTES);
    tls_server_unref(&t);
}

/* The only common name, in UTF-8; else out stays empty. */
static void
get_common_name(const X509_NAME *name, char out[TLS_CN_MAX + 1])
{
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(name, NID_commonName, at) >= 0)
        return;
    unsigned char *text = NULL;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    bool fits = len > 0 && len <= TLS_CN_MAX;
    for (int i = 0; fits && i < len; i++)
        fits = text[i] >= 0x20 && text[i] != 0x7f;
    if (fits)
        memcpy(out, text, (size_t)len);
    OPENSSL_free(text);
    ERR_clear_error();
}

bool
tls_peer_get(const SSL *s, struct tls_peer *out)
{
    X509 *cert = SSL_get0_peer_certificate(s);
    if (cert == NULL || SSL_get_verify_result(s) != X509_V_OK)
        return false;
    *out = (struct tls_peer){.cn = ""};
    const X509_NAME *name = X509_get_subject_name(cert);
    get_common_name(name, out->cn);
    BIO *text = BIO_new(BIO_s_mem());
    /* Escapes what is not ASCII too: the text is cut at a byte. */
    if (text != NULL && X509_NAME_print_ex(text, name, 0, XN_FLAG_RFC2253) >= 0) {
        char *p = NULL;
        long len = BIO_get_mem_data(text, &p);
        tls_text_add(out->subject, sizeof out->subject, p, len < 0 ? 0 : (size_t)len);
    }
    BIO_free(text);
    ERR_clear_error();
    return true;
}

/* ---- why ---- */

/* What an alert of the client, or a finding of our side, means; NULL: nothing special. */
static const char *
why_reason(int reason)
{
    switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "the client showed no certificate; see tls_client_auth";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: return "no common TLS version; see tls_min_version";
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_GROUPS: return "no common TLS parameters (cipher or curve)";
    case SSL_R_NO_APPLICATION_PROTOCOL: return "the client does not offer HTTP/1.1 (ALPN)";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST: return "the client does not speak TLS";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
        return "the client does not accept our certificate";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING: return "handshake cut by the client";
    default: return NULL;
    }
}

void
tls_server_why(SSL *s, int io_result, int sys_errno, char *out, size_t out_len)
{
    const struct tls_server *t = OBJ_CAST(struct tls_server, SSL_get_app_data(s), SERVER_MAGIC);
    int kind = SSL_get_error(s, io_result); /* reads the queue, so before it is emptied */
    unsigned long e = ERR_peek_error();
    long verified = SSL_get_verify_result(s);
    bool of_ssl = ERR_GET_LIB(e) == ERR_LIB_SSL;
    const char *text = of_ssl ? why_reason(ERR_GET_REASON(e)) : NULL;

    if (of_ssl && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        snprintf(out, out_len, "the client's certificate is not accepted: %s (%s)",
            X509_verify_cert_error_string(verified), t->refused);
    else if (text != NULL)
        snprintf(out, out_len, "%s", text);
    else if (e != 0)
        snprintf(out, out_len, "TLS: %s", tls_reason(e));
    else if (kind == SSL_ERROR_SYSCALL && sys_errno != 0 && sys_errno != ECONNRESET)
        snprintf(out, out_len, "%s", strerror(sys_errno));
    else
        snprintf(out, out_len, "handshake cut by the client");
    ERR_clear_error();
}
