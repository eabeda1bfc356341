#ifndef CHMUX_NET_CONN_H
#define CHMUX_NET_CONN_H
/*
 * conn: a non-blocking byte stream over a socket, plain or TLS.
 *
 * The socket is watched edge-triggered for as long as it is open. conn remembers what is ready, so
 * a caller that stops reading or writing costs nothing, and goes on whenever it likes:
 * conn_readable() and conn_writable() say whether a call may make progress.
 *
 * Ownership  Owns the descriptor and the SSL from conn_open() to conn_close().
 * Callback   fn(arg) runs when something became ready; it looks at conn_readable() and friends.
 *            No callback after conn_close(); closing inside the callback is fine, freeing the
 *            memory is not (loop_defer).
 * Errors     IO_ERROR: conn_why() tells. The conn is only good for closing then.
 */
#include <sys/uio.h>

#include "net/tls.h"
#include "rt/loop.h"

enum io {
    IO_OK,    /* something moved */
    IO_WAIT,  /* nothing now: a callback will come */
    IO_EOF,   /* reads: the peer sent its last byte (TLS: close_notify seen) */
    IO_ERROR, /* reset, TLS failure, EOF without close_notify, ... */
};

typedef void (*conn_fn)(void *arg); /* on the loop */

struct conn { /* fields are conn's */
    struct loop_io io;
    conn_fn fn;
    void *arg;
    SSL *ssl; /* NULL: plain */
    int fd;   /* -1: closed */
    int sys_errno;
    const char *tls_reason; /* of the last TLS failure, static; NULL: see sys_errno */
    bool can_read, can_write;
    bool came_short;  /* the last read took all there was: another may still meet the end */
    bool peer_closed; /* the kernel has seen the peer's FIN or RST */
    bool read_wants_write, write_wants_read; /* TLS only */
    bool write_pending;                      /* see conn_write_pending() */
    bool fin_follows;                        /* plain only: see conn_fin_follows() */
    bool read_failed;                        /* TLS only: behind the data that the last read gave */
    bool shutdown_waits;                     /* TLS only: there was no room for close_notify yet */
};

/* Takes fd (and ssl, may be NULL) on success only. */
MUST_USE bool conn_open(struct conn *c, struct loop *l, int fd, SSL *ssl, conn_fn fn, void *arg)
    LOOP_ONLY;
/* Idempotent. */
void conn_close(struct conn *c) LOOP_ONLY;
/* Makes the coming conn_close() send a reset, so that the peer cannot take what it got for whole.
 */
void conn_reset_on_close(struct conn *c) LOOP_ONLY;
/* Bytes written that the peer has not acknowledged, over a unix socket not read. A reset throws
 * them away. */
size_t conn_unsent(const struct conn *c) LOOP_ONLY;
/* Hands a plain or not yet encrypted socket to TLS; before the first byte. Takes ssl. */
void conn_start_tls(struct conn *c, SSL *ssl) LOOP_ONLY;
/* The handshake has failed: the socket is plain again, to read what still comes before closing. */
void conn_stop_tls(struct conn *c) LOOP_ONLY;

static inline bool
conn_readable(const struct conn *c)
{
    return c->can_read;
}
/* May a read tell something, even if only that the peer reset the connection? See conn_read(). */
static inline bool
conn_worth_reading(const struct conn *c)
{
    return c->can_read || c->came_short;
}
/* The message is whole: nothing more is expected now. */
static inline void
conn_read_done(struct conn *c)
{
    c->came_short = false;
}
static inline bool
conn_writable(const struct conn *c)
{
    return c->can_write;
}
static inline bool
conn_is_open(const struct conn *c)
{
    return c->fd >= 0;
}

/* TLS handshake step, of either side: IO_OK when done (at once for plain). server_name: as for
 * tls_why(). */
enum io conn_handshake(struct conn *c, const char *server_name, char *why, size_t why_len)
    LOOP_ONLY;
/* cap > 0. *n > 0 with IO_OK only. Worth a call even when conn_readable() says no, if the message
 * the caller waits for is not whole: a reset that came together with data brings no event of its
 * own. */
enum io conn_read(struct conn *c, void *p, size_t cap, size_t *n) LOOP_ONLY;
/* May take a part: *n bytes of the vector, in order. IO_WAIT: none. At most 8 entries. */
enum io conn_writev(struct conn *c, const struct iovec *v, int count, size_t *n) LOOP_ONLY;
/* TLS took bytes of the last conn_writev() into a record that is not out: they count as not written
 * yet, and the next call must begin with them. What is put in their place would be lost behind
 * them.
 */
static inline bool
conn_write_pending(const struct conn *c)
{
    return c->write_pending;
}
/* Plain conns only: up to max bytes from the socket into the pipe, which is empty; results as those
 * of conn_read(), and IO_OK with nothing moved: the system does not do it, conn_read() will. */
enum io conn_splice_in(struct conn *c, int pipe, size_t max, size_t *n) LOOP_ONLY;
/* Out of a pipe that holds len bytes into the socket, as conn_writev(). */
enum io conn_splice_out(struct conn *c, int pipe, size_t len, size_t *n) LOOP_ONLY;
static inline bool
conn_is_plain(const struct conn *c)
{
    return c->ssl == NULL;
}
/* The coming writes are the last, and conn_shutdown() or conn_close() comes right behind them: the
 * end travels in the packet of the last byte. Else that byte may wait for 200 ms. */
static inline void
conn_fin_follows(struct conn *c)
{
    c->fin_follows = true;
}
/* Acknowledges now, and for a while at once, what has arrived: more of the message is expected, and
 * the peer may be one that waits for that. */
void conn_ack_now(struct conn *c) LOOP_ONLY;
/* Is there anything to read, without taking it? IO_WAIT: nothing (TLS: nothing but tickets),
 * IO_OK: bytes wait, IO_EOF, IO_ERROR. */
enum io conn_peek(struct conn *c) LOOP_ONLY;
/* "connection reset by peer", ...: why the last call said IO_ERROR. */
const char *conn_why(const struct conn *c) LOOP_ONLY;
/* The TLS library's words for it, static; NULL: it was no TLS failure. */
const char *conn_tls_reason(const struct conn *c) LOOP_ONLY;
/* Sends FIN; TLS: close_notify first. While there is no room for that, both wait, and follow of
 * themselves if the conn stays open: conn_is_shutting_down(). */
void conn_shutdown(struct conn *c) LOOP_ONLY;
static inline bool
conn_is_shutting_down(const struct conn *c)
{
    return c->shutdown_waits;
}
#endif
