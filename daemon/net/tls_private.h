#ifndef CHMUX_NET_TLS_PRIVATE_H
#define CHMUX_NET_TLS_PRIVATE_H
/*
 * tls_private: what tls.c and tls_why.c share. Nobody else includes it.
 */
#include "net/tls.h"

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
#endif
