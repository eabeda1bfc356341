#ifndef CHMUX_NET_TLS_SERVER_H
#define CHMUX_NET_TLS_SERVER_H
/*
 * tls_server: the TLS of a listener: its certificate, whose certificates it takes, its tickets.
 *
 * Ownership  A tls_server is counted: whoever keeps it holds a reference, and so does each session,
 *            which goes on with it when the listener has got another one.
 * Clients    TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers, the server's order; no
 *            renegotiation, compression or early data; the name a client asks for (SNI) is not
 *            looked at. Who offers protocols (ALPN) must offer http/1.1 or http/1.0.
 * Resumption By tickets alone, so that nothing is kept for a client that is gone. Their keys live
 *            with the tls_server, are never written anywhere, and change every TLS_TICKET_KEY_S; a
 *            ticket is good for two hours at most. A new tls_server takes no old tickets: they
 *            would carry what the old one verified.
 * Bound      Each session takes TLS_SESSION_BYTES from the memory budget.
 */
#include "net/tls.h"

#define TLS_SESSION_BYTES 16384 /* measured, with malloc's share: 14.3 KiB when idle */
#define TLS_TICKET_KEY_S  3600
#define TLS_SUBJECT_MAX   255
#define TLS_CN_MAX        127

enum tls_client_certs { TLS_CLIENTS_ANY, TLS_CLIENTS_MAY_PROVE, TLS_CLIENTS_MUST_PROVE };

struct tls_server;
struct tls_server_options {
    const char *cert_file, *key_file; /* PEM; the chain after the certificate */
    const char *client_ca_file;       /* PEM; not looked at for TLS_CLIENTS_ANY */
    enum tls_client_certs clients;
    bool min_tls13; /* else 1.2 */
};

/* Reads the files: boot and reload only (it blocks). NULL: why names the file and the cause
 * (unreadable, not PEM, key of another certificate, encrypted key, expired, ...). */
MUST_USE struct tls_server *tls_server_new(
    const struct tls_server_options *o, char *why, size_t why_len);
MUST_USE struct tls_server *tls_server_ref(struct tls_server *t);
void tls_server_unref(struct tls_server **tp);
/* When its certificate ends, in seconds since 1970. */
int64_t tls_server_not_after(const struct tls_server *t);
/* An SSL on fd in accept state; freed by tls_session_free(). NULL: no memory. */
MUST_USE SSL *tls_server_session(struct tls_server *t, int fd);

/* Who the client is, by its verified certificate. */
struct tls_peer {
    char subject[TLS_SUBJECT_MAX + 1]; /* RFC 2253: "CN=app,O=Example"; cut to fit */
    char cn[TLS_CN_MAX + 1]; /* the common name in UTF-8; "" unless there is exactly one, and it
                                fits, and has no control characters: fit to be compared */
};
/* false: it showed none. */
MUST_USE bool tls_peer_get(const SSL *s, struct tls_peer *out);
#endif
