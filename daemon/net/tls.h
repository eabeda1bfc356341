#ifndef CHMUX_NET_TLS_H
#define CHMUX_NET_TLS_H
/*
 * tls: client-side TLS contexts (OpenSSL 3): trust, client certificate, versions, session cache.
 *
 * Ownership  A context is counted: sessions hold a reference. tls_session() gives an SSL the caller
 *            frees with tls_session_free().
 * Verify     On by default: chain and name (or IP address), system CAs or ca_file / ca_dir.
 * Resumption The newest sessions (TLS 1.2 ids and tickets, 1.3 tickets used once) of a context are
 *            kept per server name, at most TLS_SESSIONS_MAX, and offered to new handshakes.
 */
#include <openssl/ssl.h>

#include "base/thread.h"

#define TLS_SESSIONS_MAX 32
/* Begins the reason of tls_why() that has names in it. */
#define TLS_WRONG_NAME "certificate is for "

struct tls_ctx;
struct tls_options {
    bool verify;
    const char *ca_file, *ca_dir, *cert_file, *key_file; /* "" or NULL: none */
    bool min_tls13;                                      /* else 1.2 */
};

/* Reads the files: boot and reload only (it blocks). NULL: why names the file and the cause
 * (unreadable, not PEM, key does not match, ...). */
MUST_USE struct tls_ctx *tls_ctx_new(const struct tls_options *o, char *why, size_t why_len);
void tls_ctx_unref(struct tls_ctx **cp);
/* A client SSL on fd, in connect state, with SNI (names only, never for addresses), expected name
 * or address, and a session to resume if there is one. Partial writes and moving write buffers are
 * on, no read-ahead surprises: SSL_pending() tells all that is buffered. NULL: no memory. */
MUST_USE SSL *tls_session(struct tls_ctx *c, int fd, const char *server_name);
/* No close_notify is sent; nulls. A server's session too. */
void tls_session_free(SSL **sp);
/* Before a thread ends that made contexts: what OpenSSL keeps for it goes now, and not while the
 * process ends beside it. */
void tls_thread_end(void) ANY_THREAD;
/* Was the finished handshake a resumption? */
bool tls_was_resumed(const SSL *s);
/* Why the handshake failed, in words a user can act on, from the verify result, the error queue and
 * errno: "certificate has expired (on 2026-01-31)", "certificate is for db.example, not for
 * localhost", "unknown issuer (self-signed certificate in chain, by X); see tls_ca_file", "the
 * server speaks plain HTTP; use http://", "handshake cut by the server", "the server wants a client
 * certificate; see tls_cert_file", "no common TLS version; see tls_min_version". Empties the error
 * queue. io_result is what SSL_do_handshake() returned, or SSL_read() where a 1.3 server says only
 * behind the handshake that it wanted a certificate. server_name: as the client knows it; a
 * server's session (tls_server.h) has none and is told of in its own words. */
void tls_why(
    SSL *s, int io_result, int sys_errno, const char *server_name, char *out, size_t out_len);
#endif
