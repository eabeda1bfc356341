/*
 * fakeup: a ClickHouse HTTP server that costs next to nothing, so that a proxy in front of it is
 * what a benchmark measures. One thread, epoll, keep-alive, answers that look like 26.7's byte for
 * byte. What it does is told by parameters of the request target:
 *
 *   bench_bytes=N      N bytes of the pattern as the response
 *   bench_chunk=C      in chunks of C bytes; 0: with Content-Length
 *   bench_delay_ms=D   answer D ms later
 *   bench_stall_ms=D   read nothing of the request body for D ms
 *   bench_verify=1     check that the request body is the pattern
 *   bench_body=I       file I of those given by --body as the response, in chunks of 1 MiB; its
 * name says its Content-Encoding (.zst, .lz4, .gz) bench_repeat=K     K times over bench_check=I
 * decode the request body and check that it is file I, repeated
 *
 * The answer to a request with a body is the count of payload bytes received. Small answers come in
 * the first of zstd, lz4, gzip that the request accepts. Each connection made to the second port
 * gets the counters as one JSON line; reading them restarts peak_open.
 */
#include "coded.h"
#include "msg.h"
#include "stream.h"
#include "util.h"

#include <netinet/tcp.h>
#include <signal.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_BYTES = 16 * 1024,
    OUT_BYTES = 4 * 1024,
    SINK_BYTES = 1024 * 1024,
    BODIES_MAX = 32,
    EVENTS = 256,
    CLICKHOUSE_CHUNK = 1024 * 1024, /* of compressed bodies */
    MAX_REQUESTS = 10000,           /* per connection, as ClickHouse's max_keep_alive_requests */
};

struct body {
    struct bytes bytes;
    enum coding coding;
};

enum phase { PHASE_HEAD, PHASE_BODY, PHASE_DELAY, PHASE_SEND };

struct conn {
    struct stream io;
    struct conn *next_due; /* in the list of timers, sorted */
    int64_t due_ns;        /* 0: no timer */
    enum phase phase;
    uint32_t armed; /* epoll events asked for */
    uint32_t requests;
    struct msg req;
    int64_t delay_ms;
    bool verify;
    const struct body *check; /* NULL: the request body is not decoded */
    struct coded *decoder;    /* owned; while a request body is checked */
    uint64_t decoded_bytes;
    enum coding small_coding;   /* of a small answer */
    enum coding request_coding; /* of the request body */
    bool closing;               /* after this answer */
    char in[IN_BYTES];
    size_t in_len;
    char out[OUT_BYTES]; /* head, chunk headers, the end */
    size_t out_len, out_off;
    const struct body *body; /* of the response; NULL: the pattern */
    uint64_t bulk_bytes;     /* of the response */
    uint64_t bulk_at;
    uint64_t chunk_bytes; /* 0: Content-Length */
    uint64_t chunk_left;
    bool bulk_ended; /* the final bytes are in out */
};

static struct {
    uint64_t accepted, open, peak_open, requests, body_bytes, full_handshakes, resumed_handshakes;
    uint64_t bad_bytes;     /* uploads that were not the pattern, bytes beyond a request's end */
    uint64_t checked_bytes; /* of uploads, decoded and found right */
    uint64_t unasked;       /* coded bodies sent to who did not accept the coding */
    uint64_t coded_uploads;
} stats;

static int epoll_fd = -1;
static struct conn *timers;
static SSL_CTX *tls_ctx;
static int64_t default_delay_ms;
static char sink[SINK_BYTES];
static struct body bodies[BODIES_MAX];
static size_t body_count;

static const char HEAD_START[] =
    "HTTP/1.1 200 OK\r\n"
    "X-ClickHouse-Summary: {\"read_rows\":\"1\",\"read_bytes\":\"1\",\"written_rows\":\"0\","
    "\"written_bytes\":\"0\",\"total_rows_to_read\":\"1\",\"result_rows\":\"0\","
    "\"result_bytes\":\"0\",\"elapsed_ns\":\"1360768\",\"memory_usage\":\"1128503\"}\r\n"
    "Date: Sun, 22 Nov 2026 14:37:26 GMT\r\n"
    "Connection: ";
static const char HEAD_MIDDLE[] =
    "\r\nContent-Type: text/tab-separated-values; charset=UTF-8\r\n"
    "Access-Control-Expose-Headers: X-ClickHouse-Query-Id,X-ClickHouse-Summary,"
    "X-ClickHouse-Server-Display-Name,X-ClickHouse-Format,X-ClickHouse-Timezone,"
    "X-ClickHouse-Exception-Code,X-ClickHouse-Exception-Tag\r\n"
    "X-ClickHouse-Server-Display-Name: vm\r\n";
static const char HEAD_END[] = "X-ClickHouse-Query-Id: 4e76db96-869d-44c3-8740-f592b3acbb8c\r\n"
                               "X-ClickHouse-Format: TSV\r\n"
                               "X-ClickHouse-Timezone: Etc/UTC\r\n"
                               "Keep-Alive: timeout=30, max=%u\r\n"
                               "X-ClickHouse-Exception-Tag: izbcgcjyuweppawp\r\n\r\n";

static void
arm(struct conn *c, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};
    if (c->armed == events)
        return;
    c->armed = events;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->io.fd, &ev) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void
timer_add(struct conn *c, int64_t after_ms)
{
    struct conn **at = &timers;
    c->due_ns = now_ns() + after_ms * 1000000;
    while (*at != NULL && (*at)->due_ns <= c->due_ns)
        at = &(*at)->next_due;
    c->next_due = *at;
    *at = c;
}

static void
timer_remove(struct conn *c)
{
    struct conn **at = &timers;
    if (c->due_ns == 0)
        return;
    while (*at != c)
        at = &(*at)->next_due;
    *at = c->next_due;
    c->due_ns = 0;
}

static void
conn_free(struct conn *c)
{
    timer_remove(c);
    coded_free(&c->decoder);
    stream_close(&c->io);
    stats.open--;
    free(c);
}

static uint64_t
target_param(const char *target, size_t n, const char *name, uint64_t otherwise)
{
    const char *p = memmem(target, n, name, strlen(name));
    return p == NULL ? otherwise : strtoull(p + strlen(name), NULL, 10);
}

static void
put(struct conn *c, const char *p, size_t n)
{
    if (n > sizeof(c->out) - c->out_len)
        die("fakeup: a head too large");
    memcpy(c->out + c->out_len, p, n);
    c->out_len += n;
}

static void
put_head(struct conn *c, bool chunked, enum coding coding)
{
    char line[sizeof(HEAD_END) + 64];
    int n;
    put(c, HEAD_START, sizeof(HEAD_START) - 1);
    put(c, c->closing ? "Close" : "Keep-Alive", c->closing ? 5 : 10);
    put(c, HEAD_MIDDLE, sizeof(HEAD_MIDDLE) - 1);
    if (chunked) {
        put(c, "Transfer-Encoding: chunked\r\n", 28);
    } else {
        n = snprintf(line, sizeof(line), "Content-Length: %" PRIu64 "\r\n", c->bulk_bytes);
        put(c, line, (size_t)n);
    }
    if (coding != CODING_NONE) {
        n = snprintf(line, sizeof(line), "Content-Encoding: %s\r\n", coding_name(coding));
        put(c, line, (size_t)n);
    }
    n = snprintf(line, sizeof(line), HEAD_END, (unsigned)(MAX_REQUESTS - c->requests));
    put(c, line, (size_t)n);
}

static void
answer_start(struct conn *c)
{
    c->phase = PHASE_SEND;
    c->out_len = c->out_off = 0;
    c->requests++;
    stats.requests++;
    c->closing = c->req.closes || c->requests >= MAX_REQUESTS;
    c->bulk_at = c->chunk_left = 0;
    c->bulk_ended = c->bulk_bytes == 0;
    enum coding coding = c->bulk_bytes == 0 ? c->small_coding
                         : c->body != NULL  ? c->body->coding
                                            : CODING_NONE;
    put_head(c, c->bulk_bytes == 0 || c->chunk_bytes > 0, coding);
    if (c->bulk_bytes > 0)
        return;
    char text[32] = "1\n", body[256], line[16];
    int n = 2;
    if (c->req.framing != MSG_NONE)
        n = snprintf(text, sizeof(text), "%" PRIu64 "\n", c->req.body_bytes);
    size_t len = (size_t)n;
    if (coding != CODING_NONE)
        len = coding_once(coding, text, len, body, sizeof(body));
    else
        memcpy(body, text, len);
    n = snprintf(line, sizeof(line), "%zX\r\n", len);
    put(c, line, (size_t)n);
    put(c, body, len);
    put(c, "\r\n0\r\n\r\n", 7);
}

/* The bytes of a request body that is checked. */
static void
check_bytes(struct conn *c, const char *p, size_t n)
{
    static char step[CODED_OUT_MIN];
    struct coded_io io = {.in = p, .in_len = n, .out = step};
    do {
        if (!coded_step(c->decoder, &io) ||
            !bytes_match(&c->check->bytes, step, io.made, c->decoded_bytes)) {
            stats.bad_bytes += n;
            return;
        }
        c->decoded_bytes += io.made;
        stats.checked_bytes += io.made;
    } while (io.in_len > 0 || io.made == CODED_STEP);
}

static void
check_ended(struct conn *c)
{
    if (!coded_whole(c->decoder) || c->decoded_bytes % c->check->bytes.len != 0)
        stats.bad_bytes++;
    coded_free(&c->decoder);
}

/* The request is whole. */
static void
request_ended(struct conn *c)
{
    if (c->decoder != NULL)
        check_ended(c);
    if (c->delay_ms > 0) {
        c->phase = PHASE_DELAY;
        timer_add(c, c->delay_ms);
    } else {
        answer_start(c);
    }
}

/* Payload and framing bytes of a request body. Bytes beyond its end are dropped, as ClickHouse
 * drops them, and counted. */
static void
body_bytes(struct conn *c, const char *p, size_t n)
{
    while (n > 0 && !c->req.done && !c->req.broken) {
        const char *data;
        size_t len;
        uint64_t at = c->req.body_bytes;
        size_t used = msg_body(&c->req, p, n, &data, &len);
        if (len > 0 && c->verify && !pattern_matches(data, len, at))
            stats.bad_bytes += len;
        if (len > 0 && c->decoder != NULL)
            check_bytes(c, data, len);
        stats.body_bytes += len;
        p += used;
        n -= used;
    }
    stats.bad_bytes += n;
    if (c->req.done)
        request_ended(c);
}

/* Codings named in the field of that name: bit 1 << coding. Every field line of its own is looked
 * at; a name counts without its q, as long as that is not 0. */
static unsigned
head_codings(const char *head, size_t head_len, const char *name)
{
    unsigned found = 0;
    size_t name_len = strlen(name);
    const char *end = head + head_len;
    for (const char *p = memchr(head, '\n', head_len); p != NULL && p + 1 < end;
         p = memchr(p, '\n', (size_t)(end - p))) {
        p++;
        if ((size_t)(end - p) <= name_len || strncasecmp(p, name, name_len) != 0 ||
            p[name_len] != ':')
            continue;
        p += name_len + 1;
        while (p < end && *p != '\r') {
            p += strspn(p, " ,\t");
            size_t n = strcspn(p, " ,;\t\r");
            enum coding coding = coding_by_name(p, n);
            size_t whole = strcspn(p, ",\r");
            if (memmem(p, whole, "q=0", 3) == NULL || memmem(p, whole, "q=0.", 4) != NULL)
                found |= 1u << coding;
            p += whole;
        }
    }
    return found;
}

/* The server's own order, whatever the client's is. */
static enum coding
first_coding(unsigned set)
{
    for (int c = CODING_ZSTD; c <= CODING_GZIP; c++)
        if ((set & 1u << c) != 0)
            return (enum coding)c;
    return CODING_NONE;
}

static const struct body *
body_param(const char *target, size_t n, const char *name)
{
    uint64_t i = target_param(target, n, name, BODIES_MAX);
    if (i < BODIES_MAX && i >= body_count)
        die("fakeup: no body %" PRIu64, i);
    return i < BODIES_MAX ? &bodies[i] : NULL;
}

/* What the target says, of n bytes. */
static void
read_orders(struct conn *c, size_t n, unsigned accepts)
{
    c->bulk_bytes = target_param(c->in, n, "bench_bytes=", 0);
    c->chunk_bytes = target_param(c->in, n, "bench_chunk=", 0);
    c->delay_ms = (int64_t)target_param(c->in, n, "bench_delay_ms=", (uint64_t)c->delay_ms);
    c->verify = target_param(c->in, n, "bench_verify=", 0) != 0;
    c->body = body_param(c->in, n, "bench_body=");
    c->check = body_param(c->in, n, "bench_check=");
    if (c->body != NULL) {
        c->bulk_bytes = c->body->bytes.len * target_param(c->in, n, "bench_repeat=", 1);
        c->chunk_bytes = target_param(c->in, n, "bench_chunk=", CLICKHOUSE_CHUNK);
        if (c->body->coding != CODING_NONE && (accepts & 1u << c->body->coding) == 0)
            stats.unasked++;
    }
    if (c->check != NULL && c->req.framing != MSG_NONE)
        c->decoder = coded_new(c->request_coding, false, 0);
}

static void
head_ended(struct conn *c, size_t head_len)
{
    const char *target_end = memchr(c->in, '\r', head_len);
    size_t n = (size_t)(target_end - c->in);
    bool told = memmem(c->in, n, "bench_", 6) != NULL;
    size_t rest = c->in_len - head_len;
    unsigned accepts = head_codings(c->in, head_len, "accept-encoding");
    unsigned sends = head_codings(c->in, head_len, "content-encoding");
    int64_t stall_ms = 0;
    c->delay_ms = default_delay_ms;
    c->bulk_bytes = c->decoded_bytes = 0;
    c->verify = false;
    c->body = c->check = NULL;
    c->small_coding = first_coding(accepts);
    c->request_coding = first_coding(sends);
    stats.coded_uploads += c->request_coding != CODING_NONE;
    if (told) {
        read_orders(c, n, accepts);
        stall_ms = (int64_t)target_param(c->in, n, "bench_stall_ms=", 0);
    }
    c->in_len = 0;
    c->phase = PHASE_BODY;
    if (stall_ms > 0)
        timer_add(c, stall_ms);
    if (c->req.done) {
        stats.bad_bytes += rest;
        request_ended(c);
    } else {
        body_bytes(c, c->in + head_len, rest);
    }
}

/* One read; false when there is nothing more to read now, or the connection is gone (*cp NULL). */
static bool
read_some(struct conn **cp)
{
    struct conn *c = *cp;
    bool head = c->phase == PHASE_HEAD;
    char *to = head ? c->in + c->in_len : sink;
    size_t room = head ? sizeof(c->in) - c->in_len : sizeof(sink);
    ssize_t got = room > 0 ? stream_read(&c->io, to, room) : STREAM_FAILED;
    if (got == STREAM_AGAIN) {
        arm(c, (c->io.want_write ? EPOLLOUT : EPOLLIN) | EPOLLRDHUP);
        return false;
    }
    if (stream_handshake_done(&c->io))
        *(SSL_session_reused(c->io.tls) ? &stats.resumed_handshakes : &stats.full_handshakes) += 1;
    if (got <= 0) {
        conn_free(c);
        *cp = NULL;
        return false;
    }
    if (head) {
        c->in_len += (size_t)got;
        size_t head_len = msg_head(&c->req, c->in, c->in_len, false);
        if (head_len > 0)
            head_ended(c, head_len);
    } else {
        body_bytes(c, sink, (size_t)got);
    }
    /* A plain socket that gave less than asked is empty: epoll tells when it is not. */
    return c->io.tls != NULL || (size_t)got == room || c->phase == PHASE_SEND;
}

/* Puts the next framing bytes of a bulk body into out; false when none is due yet. */
static bool
bulk_frame(struct conn *c)
{
    if (c->bulk_ended || c->chunk_left > 0)
        return false;
    uint64_t left = c->bulk_bytes - c->bulk_at;
    c->out_len = c->out_off = 0;
    if (c->chunk_bytes == 0) {
        c->chunk_left = left;
        c->bulk_ended = left == 0;
        return false;
    }
    c->chunk_left = left < c->chunk_bytes ? left : c->chunk_bytes;
    char line[32];
    int n = snprintf(line, sizeof(line), "%s%" PRIX64 "\r\n%s", c->bulk_at > 0 ? "\r\n" : "",
        c->chunk_left, left == 0 ? "\r\n" : "");
    put(c, line, (size_t)n);
    c->bulk_ended = left == 0;
    return true;
}

/* One write; false when nothing can be written now, all is written, or the connection is gone. */
static bool
write_some(struct conn **cp)
{
    struct conn *c = *cp;
    if (c->out_off == c->out_len && !bulk_frame(c) && c->bulk_ended) {
        if (c->closing) {
            conn_free(c);
            *cp = NULL;
            return false;
        }
        c->phase = PHASE_HEAD;
        arm(c, EPOLLIN | EPOLLRDHUP);
        return c->io.tls != NULL; /* a record may wait inside OpenSSL */
    }
    bool frame = c->out_off < c->out_len;
    size_t n = PATTERN_BLOCK;
    const void *p;
    if (frame) {
        p = c->out + c->out_off;
        n = c->out_len - c->out_off;
    } else {
        p = c->body != NULL ? bytes_at(&c->body->bytes, c->bulk_at, &n) : pattern_at(c->bulk_at);
        n = size_min(n, (size_t)c->chunk_left);
    }
    ssize_t put_n = stream_write(&c->io, p, n);
    if (put_n == STREAM_AGAIN) {
        arm(c, (c->io.want_write ? EPOLLOUT : EPOLLIN) | EPOLLRDHUP);
        return false;
    }
    if (put_n <= 0) {
        conn_free(c);
        *cp = NULL;
        return false;
    }
    if (frame) {
        c->out_off += (size_t)put_n;
    } else {
        c->bulk_at += (uint64_t)put_n;
        c->chunk_left -= (uint64_t)put_n;
    }
    return true;
}

static void
conn_run(struct conn *c)
{
    bool more = true;
    for (int budget = 64; c != NULL && more && budget > 0; budget--) {
        switch (c->phase) {
        case PHASE_HEAD: more = read_some(&c); break;
        case PHASE_BODY:
            if (c->due_ns != 0) {
                arm(c, 0); /* stalled */
                return;
            }
            more = read_some(&c);
            break;
        case PHASE_DELAY: return;
        case PHASE_SEND: more = write_some(&c); break;
        }
    }
    /* The budget is spent, not the work: come back at once, after the others. Only a write or a
     * record inside OpenSSL can be left without an event of its own. */
    if (c != NULL && more && (c->phase == PHASE_SEND || c->io.tls != NULL))
        arm(c, EPOLLOUT | EPOLLRDHUP);
}

static void
on_conn(struct conn *c, uint32_t events)
{
    /* Only a peer that gave up sends EOF while its answer waits. */
    bool gone = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (c->phase == PHASE_DELAY || (c->phase == PHASE_BODY && c->due_ns != 0)) {
        if (gone)
            conn_free(c);
        else
            arm(c, EPOLLRDHUP);
        return;
    }
    conn_run(c);
}

static void
on_accept(int listen_fd)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct conn *c = calloc(1, sizeof(*c));
        if (c == NULL)
            die("out of memory");
        stream_init(&c->io, fd, tls_ctx, true);
        stats.accepted++;
        stats.open++;
        if (stats.open > stats.peak_open)
            stats.peak_open = stats.open;
        c->armed = EPOLLIN | EPOLLRDHUP;
        struct epoll_event ev = {.events = c->armed, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
            die("epoll_ctl: %s", strerror(errno));
        conn_run(c);
    }
}

static void
on_stats(int listen_fd)
{
    char line[512];
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int n = snprintf(line, sizeof(line),
        "{\"accepted\":%" PRIu64 ",\"open\":%" PRIu64 ",\"peak_open\":%" PRIu64
        ",\"requests\":%" PRIu64 ",\"body_bytes\":%" PRIu64 ",\"full_handshakes\":%" PRIu64
        ",\"resumed_handshakes\":%" PRIu64 ",\"bad_bytes\":%" PRIu64 ",\"checked_bytes\":%" PRIu64
        ",\"unasked\":%" PRIu64 ",\"coded_uploads\":%" PRIu64 "}\n",
        stats.accepted, stats.open, stats.peak_open, stats.requests, stats.body_bytes,
        stats.full_handshakes, stats.resumed_handshakes, stats.bad_bytes, stats.checked_bytes,
        stats.unasked, stats.coded_uploads);
    if (send(fd, line, (size_t)n, MSG_NOSIGNAL) == n)
        stats.peak_open = stats.open;
    close(fd);
}

static void
run_timers(void)
{
    int64_t now = timers != NULL ? now_ns() : 0;
    while (timers != NULL && timers->due_ns <= now) {
        struct conn *c = timers;
        timer_remove(c);
        if (c->phase == PHASE_DELAY)
            answer_start(c);
        arm(c, EPOLLIN | EPOLLRDHUP);
        conn_run(c);
    }
}

static SSL_CTX *
tls_server_ctx(const char *cert, const char *key, const char *version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    int v = strcmp(version, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    if (ctx == NULL || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_set_min_proto_version(ctx, v) != 1 || SSL_CTX_set_max_proto_version(ctx, v) != 1)
        die("fakeup: cannot use %s, %s", cert, key);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static void
serve(int listen_fd, int stats_fd)
{
    static int listeners[2]; /* their addresses tell the two apart from connections */
    struct epoll_event ev[EVENTS] = {{.events = EPOLLIN, .data.ptr = &listeners[0]}};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev[0]) != 0)
        die("epoll: %s", strerror(errno));
    ev[0].data.ptr = &listeners[1];
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, stats_fd, &ev[0]) != 0)
        die("epoll_ctl: %s", strerror(errno));
    for (;;) {
        struct timespec wait = {0};
        if (timers != NULL) {
            int64_t left = timers->due_ns - now_ns();
            left = left > 0 ? left : 0;
            wait = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        }
        int n = epoll_pwait2(epoll_fd, ev, EVENTS, timers != NULL ? &wait : NULL, NULL);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr == &listeners[0])
                on_accept(listen_fd);
            else if (ev[i].data.ptr == &listeners[1])
                on_stats(stats_fd);
            else
                on_conn(ev[i].data.ptr, ev[i].events);
        }
        run_timers();
    }
}

int
main(int argc, char **argv)
{
    struct sockaddr_in at = parse_addr("127.0.0.1:0");
    const char *cert = NULL, *key = NULL, *version = "1.3", *congestion = NULL;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--listen") == 0)
            at = parse_addr(value);
        else if (strcmp(argv[i], "--delay-ms") == 0)
            default_delay_ms = (int64_t)parse_size(value, argv[i]);
        else if (strcmp(argv[i], "--cert") == 0)
            cert = value;
        else if (strcmp(argv[i], "--key") == 0)
            key = value;
        else if (strcmp(argv[i], "--tls") == 0)
            version = value;
        else if (strcmp(argv[i], "--congestion") == 0)
            congestion = value;
        else if (strcmp(argv[i], "--body") == 0 && body_count < BODIES_MAX)
            bodies[body_count++] = (struct body){bytes_of_file(value), coding_of_path(value)};
        else
            die("usage: fakeup [--listen A:P] [--delay-ms D] [--congestion NAME] [--body FILE]... "
                "[--cert F --key F [--tls 1.2|1.3]]");
    }
    signal(SIGPIPE, SIG_IGN);
    raise_nofile(16384);
    pattern_init();
    if (cert != NULL && key != NULL)
        tls_ctx = tls_server_ctx(cert, key, version);
    prctl(PR_SET_TIMERSLACK, 1UL); /* 50 us by default, on each delayed answer */
    int listen_fd = listen_on(&at);
    if (congestion != NULL && setsockopt(listen_fd, IPPROTO_TCP, TCP_CONGESTION, congestion,
                                  (socklen_t)strlen(congestion)) != 0)
        die("fakeup: %s: %s", congestion, strerror(errno));
    at.sin_port = 0;
    int stats_fd = listen_on(&at);
    printf("{\"port\":%u,\"stats_port\":%u}\n", bound_port(listen_fd), bound_port(stats_fd));
    fflush(stdout);
    serve(listen_fd, stats_fd);
}
