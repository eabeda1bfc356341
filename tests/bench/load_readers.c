/* Many big responses side by side, read as fast as it goes or at a rate, compared byte by byte. */
#include "load.h"
#include "msg.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUF_BYTES = 256 * 1024,
    HEAD_BYTES = 4096,
    TICK_MS = 5, /* how often readers with a rate look again */
    RCVBUF_SLOW = 64 * 1024,
};

struct reader {
    int fd; /* owned; -1: failed */
    size_t sent;
    bool have_head, flowing;
    struct msg msg;
    char head[HEAD_BYTES];
    size_t head_len;
    uint64_t total, in_window;
};

static struct {
    const struct load_options *o;
    struct reader *readers; /* owned */
    struct pollfd *polled;  /* owned */
    char *request;          /* owned */
    size_t request_len;
    int64_t from_ns, window_from_ns, window_to_ns;
    uint64_t flowing, wholes, wrong_bytes, failed;
    char buf[BUF_BYTES];
} run;

static volatile sig_atomic_t stopped;

static void
on_stop(int sig)
{
    (void)sig;
    stopped = 1;
}

static void
reader_fail(struct reader *r, const char *why)
{
    fprintf(stderr, "readers: %s after %" PRIu64 " bytes\n", why, r->total);
    run.failed++;
    close(r->fd);
    r->fd = -1;
}

static void
reader_send(struct reader *r)
{
    while (r->sent < run.request_len) {
        ssize_t n = send(r->fd, run.request + r->sent, run.request_len - r->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            reader_fail(r, "cannot send");
            return;
        }
        r->sent += (size_t)n;
    }
}

static void
reader_next(struct reader *r)
{
    r->sent = r->head_len = 0;
    r->have_head = false;
    r->msg = (struct msg){0};
    reader_send(r);
}

static void
take_payload(struct reader *r, const char *p, size_t n, uint64_t offset)
{
    if (run.o->verify_file.len > 0 && !bytes_match(&run.o->verify_file, p, n, offset))
        run.wrong_bytes += n;
    r->total += n;
    int64_t now = now_ns();
    if (now >= run.window_from_ns && now < run.window_to_ns)
        r->in_window += n;
    if (!r->flowing && n > 0) {
        r->flowing = true;
        run.flowing++;
    }
}

/* Bytes behind the head. */
static void
take_body(struct reader *r, const char *p, size_t n)
{
    while (n > 0 && !r->msg.done && !r->msg.broken) {
        const char *data;
        size_t len;
        uint64_t offset = r->msg.body_bytes;
        size_t used = msg_body(&r->msg, p, n, &data, &len);
        if (len > 0)
            take_payload(r, data, len, offset);
        p += used;
        n -= used;
    }
    if (r->msg.broken || n > 0) {
        reader_fail(r, "a bad response");
    } else if (r->msg.done) {
        const struct bytes *want = &run.o->verify_file;
        if (want->len > 0 && r->msg.body_bytes % want->len != 0)
            run.wrong_bytes++;
        run.wholes++;
        reader_next(r);
    }
}

static void
take_head(struct reader *r, size_t n)
{
    size_t had = r->head_len;
    if (n > sizeof(r->head) - had)
        n = sizeof(r->head) - had; /* the read was no longer than that */
    memcpy(r->head + had, run.buf, n);
    r->head_len += n;
    size_t head = msg_head(&r->msg, r->head, r->head_len, true);
    if (head == 0 && r->head_len == sizeof(r->head)) {
        reader_fail(r, "a head too long");
    } else if (head > 0 && r->msg.status != 200) {
        fprintf(stderr, "%.*s\n", (int)r->head_len, r->head);
        reader_fail(r, "not 200");
    } else if (head > 0) {
        r->have_head = true;
        take_body(r, r->head + head, r->head_len - head);
    }
}

/* Bytes it may read now. */
static size_t
allowance(const struct reader *r, int64_t now)
{
    if (!r->have_head)
        return sizeof(r->head) - r->head_len;
    if (run.o->rate == 0)
        return BUF_BYTES;
    double due = (double)run.o->rate * (double)(now - run.from_ns) / 1e9;
    return due > (double)r->total ? size_min(BUF_BYTES, (size_t)(due - (double)r->total)) : 0;
}

static void
reader_read(struct reader *r, size_t most)
{
    ssize_t n = recv(r->fd, run.buf, most, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        reader_fail(r, n == 0 ? "the response ended" : "the connection broke");
    else if (!r->have_head)
        take_head(r, (size_t)n);
    else
        take_body(r, run.buf, (size_t)n);
}

static void
one_turn(void)
{
    uint64_t count = run.o->clients;
    int64_t now = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        const struct reader *r = &run.readers[i];
        bool may_read = allowance(r, now) > 0;
        run.polled[i] = (struct pollfd){.fd = r->fd, .events = may_read ? POLLIN : 0};
        if (r->sent < run.request_len)
            run.polled[i].events |= POLLOUT;
    }
    int n = poll(run.polled, count, TICK_MS);
    for (uint64_t i = 0; n > 0 && i < count; i++) {
        struct reader *r = &run.readers[i];
        if (r->fd >= 0 && (run.polled[i].revents & POLLOUT) != 0)
            reader_send(r);
        if (r->fd >= 0 && (run.polled[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            reader_read(r, size_max(allowance(r, now), 1));
    }
}

static void
readers_start(const struct load_options *o)
{
    run.o = o;
    run.request = load_head(o, "", &run.request_len);
    run.readers = calloc(o->clients, sizeof(*run.readers));
    run.polled = calloc(o->clients, sizeof(*run.polled));
    if (run.readers == NULL || run.polled == NULL)
        die("readers: no memory");
    run.from_ns = now_ns();
    run.window_from_ns = run.from_ns + o->warmup_ms * 1000000;
    run.window_to_ns = run.window_from_ns + o->duration_ms * 1000000;
    for (uint64_t i = 0; i < o->clients; i++) {
        int small = RCVBUF_SLOW;
        struct reader *r = &run.readers[i];
        r->fd = connect_start(&o->to, NULL);
        if (r->fd < 0)
            die("readers: connect: %s", strerror(errno));
        /* Or the kernel's buffers would swallow what a slow reader does not read. */
        if (o->rate > 0)
            (void)setsockopt(r->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
}

static int
report(void)
{
    uint64_t total = 0, window = 0, least = UINT64_MAX, most = 0;
    for (uint64_t i = 0; i < run.o->clients; i++) {
        const struct reader *r = &run.readers[i];
        total += r->total;
        window += r->in_window;
        least = r->total < least ? r->total : least;
        most = r->total > most ? r->total : most;
        if (r->fd >= 0)
            close(r->fd);
    }
    int64_t to = stopped ? now_ns() : run.window_to_ns;
    double seconds = (double)(to - run.window_from_ns) / 1e9;
    printf("{\"mode\":\"readers\",\"bytes\":%" PRIu64 ",\"bytes_per_s\":%.0f,\"least\":%" PRIu64
           ",\"most\":%" PRIu64 ",\"flowing\":%" PRIu64 ",\"wholes\":%" PRIu64
           ",\"wrong_bytes\":%" PRIu64 ",\"failed\":%" PRIu64 "}\n",
        total, seconds > 0 ? (double)window / seconds : 0, least, most, run.flowing, run.wholes,
        run.wrong_bytes, run.failed);
    free(run.readers);
    free(run.polled);
    free(run.request);
    return run.wrong_bytes + run.failed > 0 ? 1 : 0;
}

int
load_readers(const struct load_options *o)
{
    bool told = false;
    readers_start(o);
    signal(SIGTERM, on_stop);
    while (!stopped && now_ns() < run.window_to_ns) {
        one_turn();
        if (!told && run.flowing == o->clients) {
            puts("{\"mode\":\"flowing\"}");
            fflush(stdout);
            told = true;
        }
    }
    return report();
}
