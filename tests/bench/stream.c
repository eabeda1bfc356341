#include "stream.h"

#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>

void
stream_init(struct stream *s, int fd, SSL_CTX *ctx, bool server)
{
    *s = (struct stream){.fd = fd};
    if (ctx == NULL)
        return;
    s->tls = SSL_new(ctx);
    if (s->tls == NULL || SSL_set_fd(s->tls, fd) != 1) {
        fputs("stream: no TLS session\n", stderr);
        exit(1);
    }
    if (server)
        SSL_set_accept_state(s->tls);
    else
        SSL_set_connect_state(s->tls);
}

void
stream_close(struct stream *s)
{
    if (s->tls != NULL) {
        /* Without a close_notify OpenSSL marks the session as not resumable. */
        if (s->handshaken)
            (void)SSL_shutdown(s->tls);
        SSL_free(s->tls);
        s->tls = NULL;
    }
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static ssize_t
tls_result(struct stream *s, int r)
{
    int e = SSL_get_error(s->tls, r);
    ERR_clear_error();
    if (e == SSL_ERROR_ZERO_RETURN)
        return STREAM_EOF;
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
        return STREAM_FAILED;
    s->want_write = e == SSL_ERROR_WANT_WRITE;
    return STREAM_AGAIN;
}

static ssize_t
plain_result(struct stream *s, ssize_t r, bool writing)
{
    if (r >= 0)
        return r; /* 0 is STREAM_EOF, and only a read gives it */
    if (errno != EAGAIN && errno != EINTR)
        return STREAM_FAILED;
    s->want_write = writing;
    return STREAM_AGAIN;
}

ssize_t
stream_read(struct stream *s, void *p, size_t n)
{
    if (s->tls == NULL)
        return plain_result(s, recv(s->fd, p, n, 0), false);
    int r = SSL_read(s->tls, p, (int)size_min(n, INT_MAX));
    return r > 0 ? r : tls_result(s, r);
}

ssize_t
stream_write(struct stream *s, const void *p, size_t n)
{
    if (s->tls == NULL)
        return plain_result(s, send(s->fd, p, n, MSG_NOSIGNAL), true);
    int r = SSL_write(s->tls, p, (int)size_min(n, INT_MAX));
    return r > 0 ? r : tls_result(s, r);
}

bool
stream_handshake_done(struct stream *s)
{
    if (s->tls == NULL || s->handshaken || !SSL_is_init_finished(s->tls))
        return false;
    s->handshaken = true;
    return true;
}
