/* The closed-loop engine: many connections, one thread, edge-triggered epoll. */
#include "load.h"
#include "msg.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_BYTES = 4096, /* a small answer fits whole; a longer body passes through */
    EVENTS = 256,
    OPENING_AT_ONCE = 64, /* of idle clients */
    STUCK_MS = 60 * 1000,
    DRAIN_MS = 10 * 1000, /* for what is under way when the time is over */
    SOURCE_ADDRESSES = 8, /* 127.0.0.2 and up: enough ports for closed ones in TIME_WAIT */
};

enum client_phase {
    CLIENT_OFF,
    CLIENT_CONNECTING,
    CLIENT_WAITING,
    CLIENT_READING,
    CLIENT_EOF,  /* answered; the server still owes its EOF */
    CLIENT_IDLE, /* answered, kept alive, nothing more to ask for now */
};

struct client {
    int fd; /* owned; -1: none */
    enum client_phase phase;
    int64_t since_ns; /* of the request, or of the connect with new connections */
    uint64_t in_window;
    struct msg msg;
    size_t out_off; /* of the request, sent */
    size_t in_len;
    char in[IN_BYTES];
};

static struct {
    const struct load_options *o;
    struct client *clients; /* owned */
    char *request;          /* owned; with its body */
    size_t request_len;
    int epoll_fd;
    int64_t window_from_ns, window_to_ns;
    uint64_t issued, busy;
    uint64_t total, in_window;
    uint64_t reconnects; /* told to by the server */
    struct {
        uint64_t connect, send, reset, eof, bad, status;
    } err;
    int last_status;
    struct hist hist;
    bool idle_mode;
    uint64_t next_idle;
} run;

static void client_start(struct client *c);

static bool
may_issue(void)
{
    const struct load_options *o = run.o;
    return o->requests > 0 ? run.issued < o->requests : now_ns() < run.window_to_ns;
}

static void
client_off(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->phase = CLIENT_OFF;
}

static void
client_failed(struct client *c, uint64_t *counter)
{
    ++*counter;
    run.busy--;
    client_off(c);
    if (!run.idle_mode && may_issue())
        client_start(c);
}

static void
client_send_rest(struct client *c)
{
    while (c->out_off < run.request_len) {
        ssize_t n =
            send(c->fd, run.request + c->out_off, run.request_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return; /* a big body: the next edge tells */
        if (n < 0) {
            client_failed(c, &run.err.send);
            return;
        }
        c->out_off += (size_t)n;
    }
}

static void
client_send(struct client *c)
{
    c->in_len = c->out_off = 0;
    c->phase = CLIENT_WAITING;
    client_send_rest(c);
}

static void
client_start(struct client *c)
{
    struct sockaddr_in src = {.sin_family = AF_INET};
    bool spread = run.o->new_conn != NEW_CONN_NEVER &&
                  (ntohl(run.o->to.sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
    src.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(run.issued % SOURCE_ADDRESSES));
    run.issued++;
    run.busy++;
    c->since_ns = now_ns();
    if (c->fd >= 0) {
        client_send(c);
        return;
    }
    c->fd = connect_start(&run.o->to, spread ? &src : NULL);
    c->phase = CLIENT_CONNECTING;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (c->fd < 0 || epoll_ctl(run.epoll_fd, EPOLL_CTL_ADD, c->fd, &ev) != 0) {
        /* No retry here: client_failed() would recurse without end. */
        run.err.connect++;
        run.busy--;
        client_off(c);
    }
}

static void
client_next(struct client *c)
{
    if (run.idle_mode) {
        if (run.next_idle < run.o->clients)
            client_start(&run.clients[run.next_idle++]);
    } else if (may_issue()) {
        client_start(c);
    }
}

static void
client_answered(struct client *c)
{
    int64_t now = now_ns();
    run.total++;
    run.busy--;
    if (c->msg.status != 200) {
        run.err.status++;
        run.last_status = c->msg.status;
    } else if (run.o->requests > 0 || (now >= run.window_from_ns && now < run.window_to_ns)) {
        hist_add(&run.hist, (now - c->since_ns) / 1000);
        run.in_window++;
        c->in_window++;
    }
    c->in_len = 0;
    c->phase = run.o->new_conn == NEW_CONN_BY_SERVER ? CLIENT_EOF : CLIENT_IDLE;
    if (c->phase == CLIENT_EOF)
        return;
    if (run.o->new_conn == NEW_CONN_BY_CLIENT || c->msg.closes) {
        run.reconnects += run.o->new_conn == NEW_CONN_NEVER;
        client_off(c);
    }
    client_next(c);
}

static void
client_bytes(struct client *c)
{
    size_t at = 0;
    if (c->phase == CLIENT_WAITING) {
        at = msg_head(&c->msg, c->in, c->in_len, true);
        if (at == 0 && c->in_len == sizeof(c->in))
            client_failed(c, &run.err.bad);
        if (at == 0)
            return;
        c->phase = CLIENT_READING;
    }
    while (at < c->in_len && !c->msg.done && !c->msg.broken) {
        const char *data;
        size_t len;
        at += msg_body(&c->msg, c->in + at, c->in_len - at, &data, &len);
    }
    bool extra = at < c->in_len;
    c->in_len = 0;
    if (c->msg.broken || extra)
        client_failed(c, &run.err.bad);
    else if (c->msg.done)
        client_answered(c);
}

static void
client_eof(struct client *c)
{
    if (c->phase == CLIENT_EOF) {
        client_off(c);
        client_next(c);
    } else if (c->phase == CLIENT_READING && msg_eof(&c->msg)) {
        client_answered(c);
        if (c->phase == CLIENT_EOF) {
            client_off(c);
            client_next(c);
        }
    } else {
        client_failed(c, &run.err.eof);
    }
}

/* Nothing may come to an idle client: what does is an EOF, or bytes nobody asked for. */
static void
client_idle_check(struct client *c)
{
    char b;
    ssize_t n = recv(c->fd, &b, 1, MSG_PEEK);
    if (n < 0 && errno == EAGAIN)
        return;
    /* At the end of a fixed count the server may close; those who are to stay must stay. */
    if (n == 0 && run.idle_mode)
        run.err.eof++;
    else if (n != 0)
        ++*(n < 0 ? &run.err.reset : &run.err.bad);
    client_off(c);
}

static void
on_client(struct client *c, uint32_t events)
{
    if (c->phase == CLIENT_CONNECTING) {
        if ((events & (EPOLLERR | EPOLLHUP)) != 0)
            client_failed(c, &run.err.connect);
        else
            client_send(c);
        return;
    }
    if (c->phase == CLIENT_WAITING && c->out_off < run.request_len && (events & EPOLLOUT) != 0)
        client_send_rest(c);
    while (c->fd >= 0) {
        size_t room = sizeof(c->in) - c->in_len;
        ssize_t n = recv(c->fd, c->in + c->in_len, room, 0);
        if (n < 0) {
            if (errno != EAGAIN)
                client_failed(c, &run.err.reset);
            return;
        }
        if (n == 0) {
            client_eof(c);
            return;
        }
        int fd = c->fd;
        c->in_len += (size_t)n;
        client_bytes(c);
        if (c->fd != fd || c->phase == CLIENT_IDLE ||
            ((size_t)n < room && (events & EPOLLRDHUP) == 0))
            return; /* a short read: the next edge tells of more; not of an EOF already told */
    }
}

/* Until nothing is under way, or DRAIN_MS after the window, or when nothing happens any more. */
static void
run_loop(void)
{
    struct epoll_event ev[EVENTS];
    int64_t moved_ns = now_ns();
    while (run.busy > 0 || run.o->new_conn == NEW_CONN_BY_SERVER) {
        int64_t now = now_ns();
        if (run.window_to_ns > 0 && now > run.window_to_ns + (int64_t)DRAIN_MS * 1000000)
            break;
        if (now > moved_ns + (int64_t)STUCK_MS * 1000000)
            break; /* what is under way counts as unanswered */
        int n = epoll_wait(run.epoll_fd, ev, EVENTS, 100);
        if (n == 0 && run.busy == 0)
            break; /* the EOFs that a server owes */
        if (n > 0)
            moved_ns = now_ns();
        for (int i = 0; i < n; i++) {
            struct client *c = ev[i].data.ptr;
            if (c->phase == CLIENT_IDLE)
                client_idle_check(c);
            else if (c->fd >= 0)
                on_client(c, ev[i].events);
        }
    }
}

static double
jain_index(void)
{
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < run.o->clients; i++) {
        double x = (double)run.clients[i].in_window;
        sum += x;
        squares += x * x;
    }
    return squares > 0 ? sum * sum / ((double)run.o->clients * squares) : 0;
}

static int
report(const char *mode, double seconds)
{
    const struct hist *h = &run.hist;
    uint64_t errors = run.err.connect + run.err.send + run.err.reset + run.err.eof + run.err.bad +
                      run.err.status + run.busy;
    printf("{\"mode\":\"%s\",\"seconds\":%.3f,\"requests\":%" PRIu64
           ",\"rps\":%.1f,\"p50_us\":%" PRIu64 ",\"p99_us\":%" PRIu64 ",\"max_us\":%" PRIu64
           ",\"total_requests\":%" PRIu64 ",\"reconnects\":%" PRIu64
           ",\"jain\":%.5f,\"errors\":%" PRIu64,
        mode, seconds, run.in_window, (double)run.in_window / seconds, hist_quantile(h, 0.5),
        hist_quantile(h, 0.99), h->max_us, run.total, run.reconnects, jain_index(), errors);
    printf(",\"errors_by\":{\"connect\":%" PRIu64 ",\"send\":%" PRIu64 ",\"reset\":%" PRIu64
           ",\"eof\":%" PRIu64 ",\"bad\":%" PRIu64 ",\"status\":%" PRIu64 ",\"unanswered\":%" PRIu64
           "},\"last_bad_status\":%d}\n",
        run.err.connect, run.err.send, run.err.reset, run.err.eof, run.err.bad, run.err.status,
        run.busy, run.last_status);
    fflush(stdout);
    return errors == 0 ? 0 : 1;
}

static void
run_init(const struct load_options *o)
{
    run.o = o;
    run.clients = calloc(o->clients, sizeof(*run.clients));
    run.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (run.clients == NULL || run.epoll_fd < 0)
        die("load: no memory or no epoll");
    for (uint64_t i = 0; i < o->clients; i++)
        run.clients[i].fd = -1;
    const struct bytes *body = &o->upload_file;
    char framing[64] = "";
    if (body->len > 0)
        snprintf(framing, sizeof(framing), "Content-Length: %zu\r\n", body->len);
    char *head = load_head(o, framing, &run.request_len);
    run.request = realloc(head, run.request_len + body->len);
    if (run.request == NULL)
        die("load: no memory");
    if (body->len > 0)
        memcpy(run.request + run.request_len, body->p, body->len);
    run.request_len += body->len;
}

int
load_closed(const struct load_options *o)
{
    run_init(o);
    int64_t from = now_ns();
    if (o->requests == 0) {
        run.window_from_ns = from + o->warmup_ms * 1000000;
        run.window_to_ns = run.window_from_ns + o->duration_ms * 1000000;
    }
    for (uint64_t i = 0; i < o->clients && may_issue(); i++)
        client_start(&run.clients[i]);
    run_loop();
    int64_t took_ns = o->requests > 0 ? now_ns() - from : o->duration_ms * 1000000;
    return report("closed", (double)took_ns / 1e9);
}

static void
idle_round(void)
{
    for (run.next_idle = 0; run.next_idle < run.o->clients && run.next_idle < OPENING_AT_ONCE;)
        client_start(&run.clients[run.next_idle++]);
    run_loop();
    for (uint64_t i = 0; i < run.o->clients; i++)
        if (run.clients[i].fd >= 0)
            client_idle_check(&run.clients[i]);
}

int
load_idle(const struct load_options *o)
{
    struct load_options one_each = *o;
    char line[16];
    one_each.requests = UINT64_MAX;
    run_init(&one_each);
    run.idle_mode = true;
    int64_t from = now_ns();
    idle_round();
    int status = report("idle", (double)(now_ns() - from) / 1e9);
    if (fgets(line, sizeof(line), stdin) == NULL)
        return status;
    from = now_ns();
    idle_round();
    return report("idle again", (double)(now_ns() - from) / 1e9);
}
