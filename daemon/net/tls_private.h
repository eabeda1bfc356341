#ifndef CHMUX_NET_TLS_PRIVATE_H
#define CHMUX_NET_TLS_PRIVATE_H
/*
 * tls_private: what the files of TLS share. Nobody else includes it.
 */
#include "net/tls_server.h"

#define TLS_NAME_MAX   255
#define TLS_LINK_MAGIC 0x746c736cu

/* Hangs on each SSL as its app data: whose it is, and what the handshake found out. */
struct tls_link {
    uint32_t magic;
    struct tls_ctx *ctx; /* shares */
    bool has_cert;       /* we can show a client certificate */
    bool cert_wanted;    /* the server asked, and we had none */
    bool answered_http;  /* its first bytes were those of an HTTP response */
    char name[TLS_NAME_MAX + 1];
    char cert_text[256]; /* on a refused certificate: its names, its date or its issuer */
};

/* OpenSSL's callbacks. */
int tls_on_verify(int ok, X509_STORE_CTX *store);
int tls_on_cert_wanted(SSL *ssl, X509 **cert, EVP_PKEY **key);
void tls_on_message(int is_write, int version, int content_type, const void *bytes, size_t len,
    SSL *ssl, void *arg);
/* The text of an error of OpenSSL, static. */
const char *tls_reason(unsigned long e);
/* Appends to a terminated text, cut at its size; bytes from the peer lose their control codes. */
void tls_text_add(char *text, size_t cap, const char *s, size_t len);
/* "2026-01-31", the same way. */
void tls_text_date(char *text, size_t cap, const ASN1_TIME *when);

/* ---- files ---- */

/* Neither NULL nor "". */
bool tls_given(const char *path);
/* Why OpenSSL could not use a file, from its error queue, which is emptied. */
void tls_why_file(char *why, size_t why_len, const char *path);
/* Certificate chain and key; without a key file the key is in the other one. false: why. */
MUST_USE bool tls_use_identity(
    SSL_CTX *ctx, const char *cert_file, const char *key_file, char *why, size_t why_len);

/* ---- server ---- */

/* What tls_session_free() and tls_why() do for a server's side. */
void tls_server_let_go(SSL *s);
/* Test hook: an hour goes by, and a key for tickets with it. */
void tls_server_next_key(struct tls_server *t);
void tls_server_why(SSL *s, int io_result, int sys_errno, char *out, size_t out_len);
#endif
