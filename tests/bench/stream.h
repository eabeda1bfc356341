#ifndef CHMUX_BENCH_STREAM_H
#define CHMUX_BENCH_STREAM_H
/*
 * stream: one non-blocking connection, plain or TLS, with one result for both.
 *
 * Ownership  The stream owns its fd and its TLS session until stream_close().
 * Errors     STREAM_AGAIN says what to wait for in want_write; STREAM_FAILED is final.
 */
#include "base/base.h"

#include <openssl/ssl.h>

enum { STREAM_EOF = 0, STREAM_AGAIN = -1, STREAM_FAILED = -2 };

struct stream {
    int fd;          /* owned; -1: closed */
    SSL *tls;        /* owned; NULL: plain */
    bool handshaken; /* TLS only */
    bool want_write; /* what the last STREAM_AGAIN waits for */
};

/* Takes fd. ctx (borrowed) NULL: plain. server tells the side for TLS. */
void stream_init(struct stream *s, int fd, SSL_CTX *ctx, bool server);
void stream_close(struct stream *s);
/* Bytes moved (> 0), or one of the results above. n > 0. */
MUST_USE ssize_t stream_read(struct stream *s, void *p, size_t n);
MUST_USE ssize_t stream_write(struct stream *s, const void *p, size_t n);
/* True once, when the handshake of a TLS stream has just been found complete. */
MUST_USE bool stream_handshake_done(struct stream *s);
#endif
