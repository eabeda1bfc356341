/* One connection, one request after another: big bodies both ways, timed from a fresh process. */
#include "load.h"
#include "msg.h"
#include "stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

enum {
    BUF_BYTES = 1024 * 1024,
    STUCK_MS = 60 * 1000,          /* nothing moved for this long: given up */
    MAX_CHUNK = PATTERN_BLOCK / 2, /* pattern_at() gives that much from any offset */
};

struct fetch {
    const struct load_options *o;
    struct stream io;
    char *head; /* owned */
    size_t head_len, head_off;
    /* upload: chunk framing in frame, payload straight from the pattern or file */
    char frame[32];
    size_t frame_len, frame_off;
    uint64_t sent_bytes, chunk_left;
    bool last_frame; /* the one in frame ends the body */
    bool sent_all;
    /* response */
    struct msg msg;
    bool have_head;
    char count[256]; /* the start of the response body */
    size_t count_len;
    uint64_t wrong_bytes;
    int64_t first_byte_ns, start_ns;
    char *buf; /* owned; BUF_BYTES */
    size_t buf_len;
};

static const char *
upload_next(struct fetch *f, size_t *n)
{
    if (f->head_off < f->head_len) {
        *n = f->head_len - f->head_off;
        return f->head + f->head_off;
    }
    if (f->frame_off < f->frame_len) {
        *n = f->frame_len - f->frame_off;
        return f->frame + f->frame_off;
    }
    const unsigned char *p;
    *n = PATTERN_BLOCK;
    if (f->o->upload_file.len > 0)
        p = bytes_at(&f->o->upload_file, f->sent_bytes, n);
    else
        p = pattern_at(f->sent_bytes);
    *n = size_min(*n, (size_t)f->chunk_left);
    return (const char *)p;
}

/* After n bytes of what upload_next() gave went out. */
static void
upload_moved(struct fetch *f, size_t n)
{
    if (f->head_off < f->head_len)
        f->head_off += n;
    else if (f->frame_off < f->frame_len)
        f->frame_off += n;
    else {
        f->chunk_left -= n;
        f->sent_bytes += n;
    }
    if (f->head_off < f->head_len || f->frame_off < f->frame_len || f->chunk_left > 0)
        return;
    if (f->o->upload_bytes == 0 || f->last_frame) {
        f->sent_all = true;
        return;
    }
    uint64_t left = f->o->upload_bytes - f->sent_bytes;
    f->last_frame = left == 0;
    f->chunk_left = left < f->o->upload_chunk ? left : f->o->upload_chunk;
    int len = snprintf(f->frame, sizeof(f->frame), "%s%" PRIX64 "\r\n%s",
        f->sent_bytes > 0 ? "\r\n" : "", f->chunk_left, left == 0 ? "\r\n" : "");
    f->frame_len = (size_t)len;
    f->frame_off = 0;
}

/* False when the socket takes no more now. */
static bool
send_some(struct fetch *f)
{
    size_t n;
    const char *p = upload_next(f, &n);
    ssize_t put = stream_write(&f->io, p, n);
    if (put == STREAM_AGAIN)
        return false;
    if (put <= 0)
        die("fetch: the connection broke after %" PRIu64 " body bytes sent", f->sent_bytes);
    upload_moved(f, (size_t)put);
    return !f->sent_all;
}

static void
response_bytes(struct fetch *f)
{
    size_t at = 0;
    if (!f->have_head) {
        at = msg_head(&f->msg, f->buf, f->buf_len, true);
        if (at == 0)
            return;
        f->have_head = true;
        f->first_byte_ns = now_ns();
    }
    while (at < f->buf_len && !f->msg.done && !f->msg.broken) {
        const char *data;
        size_t len;
        uint64_t offset = f->msg.body_bytes;
        at += msg_body(&f->msg, f->buf + at, f->buf_len - at, &data, &len);
        if (f->o->verify && len > 0 && !pattern_matches(data, len, offset))
            f->wrong_bytes += len;
        if (f->o->verify_file.len > 0 && !bytes_match(&f->o->verify_file, data, len, offset))
            f->wrong_bytes += len;
        for (size_t i = 0; i < len && f->count_len < sizeof(f->count) - 1; i++)
            f->count[f->count_len++] = data[i];
    }
    if (f->msg.broken || at < f->buf_len)
        die("fetch: a bad response after %" PRIu64 " body bytes", f->msg.body_bytes);
    f->buf_len = 0;
}

/* How much may be read now under the rate; 0: wait a little. */
static size_t
read_allowance(const struct fetch *f)
{
    size_t room = BUF_BYTES - f->buf_len;
    if (f->o->rate == 0 || !f->have_head)
        return f->o->rate == 0 ? room : size_min(room, 16 * 1024);
    double due = (double)f->o->rate * (double)(now_ns() - f->first_byte_ns) / 1e9;
    uint64_t have = f->msg.body_bytes;
    return due > (double)have ? size_min(room, (size_t)(due - (double)have)) : 0;
}

/* False when nothing is there now. */
static bool
read_some(struct fetch *f, size_t allowance)
{
    ssize_t got = stream_read(&f->io, f->buf + f->buf_len, allowance);
    if (got == STREAM_AGAIN)
        return false;
    if (got <= 0) {
        if (got == STREAM_EOF && f->have_head && msg_eof(&f->msg))
            return true;
        die("fetch: the response ended after %" PRIu64 " body bytes", f->msg.body_bytes);
    }
    f->buf_len += (size_t)got;
    response_bytes(f);
    return true;
}

static void
wait_ready(struct fetch *f, bool reading)
{
    struct pollfd p = {.fd = f->io.fd, .events = reading ? POLLIN : 0};
    if (!f->sent_all || f->io.want_write)
        p.events = (short)(p.events | POLLOUT);
    int n = poll(&p, 1, reading ? STUCK_MS : 1);
    if (n == 0 && reading)
        die("fetch: stuck, %" PRIu64 " sent, %" PRIu64 " received", f->sent_bytes,
            f->msg.body_bytes);
    if (!reading && (p.revents & (POLLERR | POLLNVAL)) != 0)
        die("fetch: the connection broke");
}

static void
exchange(struct fetch *f)
{
    f->head_off = f->frame_len = f->frame_off = f->count_len = f->buf_len = 0;
    f->sent_bytes = f->chunk_left = 0;
    f->last_frame = f->sent_all = f->have_head = false;
    f->msg = (struct msg){0};
    while (!f->have_head || !f->msg.done) {
        bool moved = false;
        f->io.want_write = false;
        if (!f->sent_all)
            moved = send_some(f);
        size_t allowance = read_allowance(f);
        if (allowance > 0)
            moved = read_some(f, allowance) || moved;
        if (!moved)
            wait_ready(f, allowance > 0);
    }
}

static void
check_response(const struct fetch *f)
{
    const struct load_options *o = f->o;
    if (f->msg.status != 200)
        die("fetch: status %d: %.*s", f->msg.status, (int)f->count_len, f->count);
    if (o->expect_bytes != UINT64_MAX && f->msg.body_bytes != o->expect_bytes)
        die("fetch: %" PRIu64 " body bytes instead of %" PRIu64, f->msg.body_bytes,
            o->expect_bytes);
    if (f->wrong_bytes > 0)
        die("fetch: %" PRIu64 " body bytes differ", f->wrong_bytes);
    /* What the fake upstream counts is what came over its link: not the same when that is coded. */
    if (o->upload_bytes > 0 && o->upload_file.len == 0 &&
        strtoull(f->count, NULL, 10) != o->upload_bytes)
        die("fetch: of %" PRIu64 " bytes the server counted %s", o->upload_bytes, f->count);
}

static SSL_CTX *
client_ctx(const char *max)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    int v = strcmp(max, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    if (ctx == NULL || SSL_CTX_set_max_proto_version(ctx, v) != 1)
        die("fetch: no TLS context");
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static void
fetch_init(struct fetch *f, const struct load_options *o)
{
    f->o = o;
    f->buf = malloc(BUF_BYTES);
    if (f->buf == NULL || o->upload_chunk > MAX_CHUNK)
        die("fetch: no memory, or chunks over %d bytes", MAX_CHUNK);
    f->head =
        load_head(o, o->upload_bytes > 0 ? "Transfer-Encoding: chunked\r\n" : "", &f->head_len);
    if (o->verify || o->upload_bytes > 0)
        pattern_init();
}

int
load_fetch(const struct load_options *o)
{
    static struct fetch f;
    fetch_init(&f, o);
    SSL_CTX *ctx = o->tls ? client_ctx(o->tls_max) : NULL;
    uint64_t count = o->requests > 0 ? o->requests : 1;
    f.start_ns = now_ns(); /* the first time holds connect and handshake */
    int fd = connect_start(&o->to, NULL);
    if (fd < 0)
        die("fetch: connect: %s", strerror(errno));
    stream_init(&f.io, fd, ctx, false);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, STUCK_MS) != 1 || (p.revents & (POLLERR | POLLHUP)) != 0)
        die("fetch: cannot connect");
    printf("{\"mode\":\"fetch\",\"times_us\":[");
    for (uint64_t i = 0; i < count; i++) {
        if (i > 0)
            f.start_ns = now_ns();
        exchange(&f);
        int64_t end = now_ns();
        check_response(&f);
        printf("%s%" PRId64, i > 0 ? "," : "", (end - f.start_ns) / 1000);
    }
    printf("],\"sent_bytes\":%" PRIu64 ",\"received_bytes\":%" PRIu64 "}\n", f.sent_bytes,
        f.msg.body_bytes);
    stream_close(&f.io);
    SSL_CTX_free(ctx);
    free(f.buf);
    free(f.head);
    return 0;
}
