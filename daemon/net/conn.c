#include "net/conn.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/no_block.h"

#define TLS_RECORD_MAX 15360 /* fits one record, and the stack */

static void
on_ready(void *arg, unsigned ready)
{
    thr_check_loop();
    struct conn *c = arg;
    if (ready & LOOP_CLOSED)
        c->peer_closed = true;
    if (ready & (LOOP_READ | LOOP_CLOSED)) {
        c->can_read = true;
        if (c->write_wants_read)
            c->can_write = true;
    }
    if (ready & LOOP_WRITE) {
        c->can_write = true;
        if (c->read_wants_write)
            c->can_read = true;
        if (c->shutdown_waits)
            conn_shutdown(c);
    }
    c->fn(c->arg);
}

bool
conn_open(struct conn *c, struct loop *l, int fd, SSL *ssl, conn_fn fn, void *arg)
{
    *c = (struct conn){.fd = fd, .ssl = ssl, .fn = fn, .arg = arg};
    if (!loop_io_add(l, &c->io, fd, on_ready, c)) {
        c->sys_errno = errno;
        c->fd = -1;
        c->ssl = NULL;
        return false;
    }
    return true;
}

void
conn_close(struct conn *c)
{
    if (c->fd < 0)
        return;
    loop_io_del(&c->io);
    tls_session_free(&c->ssl);
    close(c->fd);
    c->fd = -1;
    c->can_read = c->can_write = false;
}

void
conn_reset_on_close(struct conn *c)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (c->fd >= 0)
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

size_t
conn_unsent(const struct conn *c)
{
    int n = 0;
    return c->fd >= 0 && ioctl(c->fd, SIOCOUTQ, &n) == 0 && n > 0 ? (size_t)n : 0;
}

void
conn_ack_now(struct conn *c)
{
    int on = 1;
    if (c->fd >= 0)
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on); /* not TCP: refused */
}

void
conn_start_tls(struct conn *c, SSL *ssl)
{
    CHECK(c->ssl == NULL);
    c->ssl = ssl;
}

void
conn_stop_tls(struct conn *c)
{
    tls_session_free(&c->ssl);
    c->can_read = c->can_write = true;
}

static enum io
fail(struct conn *c, int sys_errno)
{
    c->sys_errno = sys_errno;
    c->can_read = c->can_write = false;
    return IO_ERROR;
}

/* Turns the result of an SSL call into ours and remembers what it waits for. */
static enum io
tls_result(struct conn *c, int ret, bool reading)
{
    int e = SSL_get_error(c->ssl, ret);
    switch (e) {
    case SSL_ERROR_WANT_READ:
        if (reading) {
            c->can_read = false;
        } else {
            c->can_write = false;
            c->write_wants_read = true;
        }
        return IO_WAIT;
    case SSL_ERROR_WANT_WRITE:
        if (reading) {
            c->can_read = false;
            c->read_wants_write = true;
        } else {
            c->can_write = false;
        }
        return IO_WAIT;
    case SSL_ERROR_ZERO_RETURN: return reading ? IO_EOF : fail(c, EPIPE);
    case SSL_ERROR_SYSCALL: return fail(c, errno != 0 ? errno : ECONNRESET);
    default: c->tls_reason = ERR_reason_error_string(ERR_peek_last_error()); return fail(c, EPROTO);
    }
}

enum io
conn_handshake(struct conn *c, const char *server_name, char *why, size_t why_len)
{
    if (c->ssl == NULL)
        return IO_OK;
    ERR_clear_error();
    errno = 0;
    int ret = SSL_do_handshake(c->ssl);
    if (ret == 1) {
        c->can_read = c->can_write = true;
        return IO_OK;
    }
    int e = SSL_get_error(c->ssl, ret);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
        return IO_WAIT;
    int sys_errno = errno;
    tls_why(c->ssl, ret, sys_errno, server_name, why, why_len);
    return fail(c, sys_errno != 0 ? sys_errno : EPROTO);
}

static enum io
plain_read(struct conn *c, void *p, size_t cap, size_t *n)
{
    ssize_t got = recv(c->fd, p, cap, 0);
    if (LIKELY(got > 0)) {
        *n = (size_t)got;
        /* Less than asked for: the socket is empty, and the next byte or FIN brings an event. A FIN
         * whose event has come already brings none, so then reading must go on to see it. */
        if ((size_t)got < cap && !c->peer_closed) {
            c->can_read = false;
            c->came_short = true;
        }
        return IO_OK;
    }
    if (got == 0) {
        c->can_read = false;
        return IO_EOF;
    }
    if (errno == EAGAIN || errno == EINTR) {
        c->can_read = errno == EINTR;
        return IO_WAIT;
    }
    return fail(c, errno);
}

enum io
conn_read(struct conn *c, void *p, size_t cap, size_t *n)
{
    *n = 0;
    if (!c->can_read && !c->came_short)
        return IO_WAIT;
    c->came_short = false;
    if (c->ssl == NULL)
        return plain_read(c, p, cap, n);
    if (c->read_failed)
        return fail(c, c->sys_errno);
    ERR_clear_error();
    errno = 0;
    c->read_wants_write = false;
    size_t total = 0;
    /* Records are at most 16 KiB: fill the caller's buffer with as many as have arrived. */
    while (total < cap) {
        size_t got = 0;
        int ret = SSL_read_ex(c->ssl, (char *)p + total, cap - total, &got);
        if (ret != 1) {
            enum io r = tls_result(c, ret, true);
            if (total == 0) {
                c->can_read = c->can_read && r != IO_EOF;
                return r;
            }
            if (r == IO_ERROR) /* the data first; OpenSSL would not name the cause again */
                c->read_failed = c->can_read = true;
            break; /* EOF stays: the next call meets it again */
        }
        total += got;
    }
    *n = total;
    return IO_OK;
}

static enum io
plain_writev(struct conn *c, const struct iovec *v, int count, size_t want, size_t *n)
{
    ssize_t put;
    int flags = MSG_NOSIGNAL | (c->fin_follows ? MSG_MORE : 0);
    if (count == 1) {
        put = send(c->fd, v[0].iov_base, v[0].iov_len, flags);
    } else {
        struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = (size_t)count};
        put = sendmsg(c->fd, &m, flags);
    }
    if (LIKELY(put >= 0)) {
        *n = (size_t)put;
        if ((size_t)put < want)
            c->can_write = false;
        return put > 0 ? IO_OK : IO_WAIT;
    }
    if (errno == EAGAIN || errno == EINTR) {
        c->can_write = errno == EINTR;
        return IO_WAIT;
    }
    /* What the peer said before it closed can still be read, an early error response above all. */
    enum io r = fail(c, errno);
    c->can_read = true;
    return r;
}

/*
 * The next slice of at most one record, from byte `off` of the vector on: in place when one entry
 * holds it, else gathered, so that a head and its body do not cost two records. A retry after
 * "would block" must offer the same bytes and at least as many: the slice starts where the unsent
 * bytes start and only grows with them, so it does, as long as the caller heeds
 * conn_write_pending().
 */
static size_t
tls_slice(const struct iovec *v, int count, size_t off, char *joined, const char **p)
{
    size_t len = 0;
    for (int i = 0; i < count && len < TLS_RECORD_MAX; i++) {
        if (off >= v[i].iov_len) {
            off -= v[i].iov_len;
            continue;
        }
        const char *from = (const char *)v[i].iov_base + off;
        size_t n = size_min(v[i].iov_len - off, TLS_RECORD_MAX - len);
        off = 0;
        if (len == 0 && (n == TLS_RECORD_MAX || i == count - 1)) {
            *p = from;
            return n;
        }
        memcpy(joined + len, from, n);
        len += n;
    }
    *p = joined;
    return len;
}

static enum io
tls_writev(struct conn *c, const struct iovec *v, int count, size_t want, size_t *n)
{
    char joined[TLS_RECORD_MAX];
    while (*n < want) {
        const char *p;
        size_t len = tls_slice(v, count, *n, joined, &p), put = 0;
        ERR_clear_error();
        errno = 0;
        c->write_wants_read = false;
        int ret = SSL_write_ex(c->ssl, p, len, &put);
        c->write_pending = ret != 1;
        if (ret != 1) {
            enum io r = tls_result(c, ret, false);
            if (r == IO_ERROR)
                c->can_read = true; /* as plain_writev() does */
            return *n > 0 && r == IO_WAIT ? IO_OK : r;
        }
        *n += put;
    }
    return IO_OK;
}

enum io
conn_writev(struct conn *c, const struct iovec *v, int count, size_t *n)
{
    *n = 0;
    if (!c->can_write)
        return IO_WAIT;
    size_t want = 0;
    for (int i = 0; i < count; i++)
        want += v[i].iov_len;
    if (want == 0)
        return IO_OK;
    if (c->ssl == NULL)
        return plain_writev(c, v, count, want, n);
    return tls_writev(c, v, count, want, n);
}

/* As splice(2), but "nothing now" is said of the socket only: what comes between the call and the
 * look behind it is taken too, or it would pass for bytes that only recv() takes (it goes on behind
 * an urgent one, and where splice() finds no memory). */
static ssize_t LOOP_ONLY
splice_in(struct conn *c, int pipe, size_t max, enum io *left)
{
    for (int tries = 2;;) {
        ssize_t got = splice(c->fd, NULL, pipe, NULL, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (got >= 0 || errno != EAGAIN)
            return got;
        *left = conn_peek(c);
        if (--tries == 0 || *left != IO_OK) {
            errno = EAGAIN;
            return -1;
        }
    }
}

enum io
conn_splice_in(struct conn *c, int pipe, size_t max, size_t *n)
{
    *n = 0;
    if (!c->can_read && !c->came_short)
        return IO_WAIT;
    c->came_short = false;
    enum io left = IO_WAIT;
    ssize_t got = splice_in(c, pipe, max, &left);
    if (got > 0) { /* how much there was is not told by how much came: can_read stays */
        *n = (size_t)got;
        return IO_OK;
    }
    if (got == 0) {
        c->can_read = false;
        return IO_EOF;
    }
    switch (errno) {
    case EAGAIN: return left;
    case EINTR: return IO_WAIT;
    case ENOSYS: /* a sandbox, or a kernel without: it is conn_read()'s, whose turn this would be */
    case EINVAL:
    case EPERM:
    case EACCES:
    case ENOMEM: c->can_read = true; return IO_OK;
    default: return fail(c, errno);
    }
}

enum io
conn_splice_out(struct conn *c, int pipe, size_t len, size_t *n)
{
    *n = 0;
    if (!c->can_write)
        return IO_WAIT;
    ssize_t put = splice(pipe, NULL, c->fd, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (put > 0) {
        *n = (size_t)put;
        return IO_OK;
    }
    if (put == 0 || errno == EAGAIN || errno == EINTR) {
        c->can_write = put < 0 && errno == EINTR;
        return IO_WAIT;
    }
    enum io r = fail(c, errno); /* as plain_writev() */
    c->can_read = true;
    return r;
}

enum io
conn_peek(struct conn *c)
{
    char byte;
    if (c->read_failed)
        return fail(c, c->sys_errno);
    if (c->ssl != NULL) {
        ERR_clear_error();
        errno = 0;
        int ret = SSL_peek(c->ssl, &byte, 1);
        if (ret <= 0)
            return tls_result(c, ret, true);
        c->can_read = true; /* the record is out of the socket, and no event tells of it any more */
        return IO_OK;
    }
    ssize_t got = recv(c->fd, &byte, 1, MSG_PEEK);
    if (got > 0)
        return IO_OK;
    if (got == 0)
        return IO_EOF;
    if (errno == EAGAIN || errno == EINTR) {
        c->can_read = false;
        return IO_WAIT;
    }
    return fail(c, errno);
}

const char *
conn_why(const struct conn *c)
{
    if (c->sys_errno == EPROTO)
        return c->tls_reason != NULL ? c->tls_reason : "TLS protocol error";
    return strerror(c->sys_errno);
}

const char *
conn_tls_reason(const struct conn *c)
{
    return c->tls_reason;
}

void
conn_shutdown(struct conn *c)
{
    if (c->fd < 0)
        return;
    c->shutdown_waits = false;
    if (c->ssl != NULL && SSL_is_init_finished(c->ssl)) {
        ERR_clear_error();
        errno = 0;
        int ret = SSL_shutdown(c->ssl);
        c->shutdown_waits = ret < 0 && SSL_get_error(c->ssl, ret) == SSL_ERROR_WANT_WRITE;
    }
    if (c->shutdown_waits)
        return; /* without close_notify the FIN would look like a cut: on_ready() goes on */
    (void)shutdown(c->fd, SHUT_WR);
}
