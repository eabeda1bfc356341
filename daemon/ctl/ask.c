#include "ctl/ask.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ctl/text.h"
#include "net/addr.h"

#define HEAD_MAX      65536
#define ADDRESSES_MAX 8
#define BACKLOG_US    10000 /* a full backlog of a unix socket cannot be waited for */

struct talk {
    const struct ask *ask;
    struct str address; /* the one that is asked, as it was given */
    struct mono deadline;
    char *why;
    int fd;
};

static enum ask_result PRINTF_LIKE(3, 4)
    fail(struct talk *t, enum ask_result result, const char *fmt, ...)
{
    char text[ASK_WHY_MAX / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(t->why, ASK_WHY_MAX, STR_FMT ": %s", STR_ARG(t->address), text);
    return result;
}

static enum ask_result
fail_late(struct talk *t, const char *what)
{
    char limit[TEXT_FIGURE_MAX];
    text_duration((double)t->ask->timeout_us / 1000, limit);
    return fail(t, ASK_FAILED, "%s within %s", what, limit);
}

/* ---- addresses ---- */

static struct str
first_of(const char *list)
{
    struct str all = str_of(list), first = STR_NULL;
    (void)str_next_token(&all, &first);
    return first;
}

/* NAME:PORT into name and port; false: it is not of that form. */
static bool
split_name(struct str text, char name[256], char port[8])
{
    uint64_t n = 0;
    ssize_t colon = str_find(text, ':');
    if (colon <= 0 || colon > 255)
        return false;
    struct str number = str_n(text.p + colon + 1, text.len - (size_t)colon - 1);
    if (!str_to_u64(number, UINT16_MAX, &n) || n == 0)
        return false;
    snprintf(name, 256, "%.*s", (int)colon, text.p);
    snprintf(port, 8, "%" PRIu64, n);
    return true;
}

/* What needs no resolver. false: *why is set where it cannot be a name either. */
static bool
parse_address(struct str text, struct addr *out, const char **why)
{
    char path[ADDR_TEXT_MAX + 8], name[256], port[8];
    *why = NULL;
    if (text.len == 0) {
        *why = "the address is empty";
        return false;
    }
    if (text.p[0] == '/' && text.len < ADDR_TEXT_MAX) {
        int n = snprintf(path, sizeof path, "unix:" STR_FMT, STR_ARG(text));
        text = str_n(path, (size_t)n);
    }
    const char *parse_why = NULL;
    if (addr_parse(text, out, &parse_why))
        return true;
    bool is_name =
        text.p[0] != '[' && !str_starts_nocase(text, STR("unix:")) && split_name(text, name, port);
    if (!is_name)
        *why = parse_why;
    return false;
}

bool
ask_check_address(const char *address, char why[ASK_WHY_MAX])
{
    struct addr a;
    const char *what = NULL;
    struct str first = first_of(address);
    if (parse_address(first, &a, &what) || what == NULL)
        return true;
    snprintf(why, ASK_WHY_MAX,
        "\"" STR_FMT "\": %s; an address is unix:/path, unix:@name, HOST:PORT or [V6]:PORT",
        STR_ARG(str_n(first.p, size_min(first.len, 100))), what);
    return false;
}

static size_t
resolve(struct talk *t, struct addr *out)
{
    const char *what = NULL;
    if (parse_address(t->address, &out[0], &what))
        return 1;
    char name[256] = "", port[8] = "";
    if (what != NULL || !split_name(t->address, name, port)) {
        (void)fail(t, ASK_FAILED, "%s", what != NULL ? what : "not an address");
        return 0;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int rc = getaddrinfo(name, port, &hints, &list);
    if (rc != 0) {
        (void)fail(t, ASK_ABSENT, "cannot find %s: %s", name, gai_strerror(rc));
        return 0;
    }
    size_t count = 0;
    for (const struct addrinfo *i = list; i != NULL && count < ADDRESSES_MAX; i = i->ai_next) {
        if (i->ai_addrlen > sizeof out[0].in6)
            continue;
        out[count] = (struct addr){.len = i->ai_addrlen};
        memcpy(&out[count++].sa, i->ai_addr, i->ai_addrlen);
    }
    freeaddrinfo(list);
    return count;
}

/* ---- waiting ---- */

static enum ask_result
wait_for(struct talk *t, short events, const char *late)
{
    struct pollfd p[] = {{.fd = t->fd, .events = events}, {.fd = t->ask->wake[0], .events = POLLIN},
        {.fd = t->ask->wake[1], .events = POLLIN}};
    for (;;) {
        int64_t left_us = mono_diff_us(t->deadline, mono_now());
        if (left_us <= 0)
            return fail_late(t, late);
        int n = poll(p, COUNT_OF(p), (int)(left_us / 1000) + 1);
        if (n < 0 && errno != EINTR)
            return fail(t, ASK_FAILED, "poll: %s", strerror(errno));
        if (n > 0 && (p[1].revents | p[2].revents) != 0)
            return ASK_STOPPED;
        if (n > 0)
            return ASK_OK;
    }
}

static enum ask_result
fail_connect(struct talk *t, int sys_errno)
{
    switch (sys_errno) {
    case ENOENT:
    case ECONNREFUSED:
        return fail(t, ASK_ABSENT,
            "no chmuxd answers there (%s); is it running, with this [admin] address? --admin or "
            "CHMUX_ADMIN_ADDRESS names another one",
            strerror(sys_errno));
    case EACCES:
    case EPERM:
        return fail(t, ASK_FAILED,
            "%s; who may connect is set by mode and group of [admin], and the folders above",
            strerror(sys_errno));
    default: return fail(t, ASK_ABSENT, "cannot connect: %s", strerror(sys_errno));
    }
}

static enum ask_result
finish_connect(struct talk *t)
{
    int err = 0;
    socklen_t len = sizeof err;
    enum ask_result r = wait_for(t, POLLOUT, "no connection");
    if (r != ASK_OK)
        return r;
    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        err = errno;
    return err == 0 ? ASK_OK : fail_connect(t, err);
}

static enum ask_result
connect_to(struct talk *t, const struct addr *a)
{
    t->fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (t->fd < 0)
        return fail(t, ASK_FAILED, "socket: %s", strerror(errno));
    while (connect(t->fd, &a->sa, a->len) != 0) {
        int err = errno;
        if (err == EINPROGRESS)
            return finish_connect(t);
        if (err == EINTR)
            continue;
        if (err != EAGAIN)
            return fail_connect(t, err);
        if (mono_diff_us(t->deadline, mono_now()) <= 0)
            return fail_late(t, "no connection");
        nanosleep(&(struct timespec){.tv_nsec = BACKLOG_US * 1000}, NULL);
    }
    return ASK_OK;
}

/* ---- the request and its answer ---- */

/* Over TCP chmuxd wants to be asked by IP address, against pages that browsers got from elsewhere.
 */
static void
put_host(struct talk *t, struct buf *out)
{
    struct addr peer = {.len = sizeof peer.un};
    char text[ADDR_TEXT_MAX] = "localhost";
    if (getpeername(t->fd, &peer.sa, &peer.len) == 0 && peer.sa.sa_family != AF_UNIX)
        addr_format(&peer, text);
    buf_addf(out, "Host: %s\r\n", text);
}

static enum ask_result
send_request(struct talk *t, enum http_method method, const char *target)
{
    struct buf head;
    size_t sent = 0;
    enum ask_result r = ASK_OK;
    buf_init(&head, HEAD_MAX);
    buf_addf(&head, "%s %s HTTP/1.1\r\n", method == HTTP_M_POST ? "POST" : "GET", target);
    put_host(t, &head);
    buf_addf(&head, "User-Agent: chmux/%s\r\nConnection: close\r\n", CHMUX_VERSION);
    if (method == HTTP_M_POST)
        buf_str(&head, STR("X-Chmux-Control: 1\r\nContent-Length: 0\r\n"));
    buf_str(&head, STR("\r\n"));
    if (!buf_ok(&head))
        r = fail(t, ASK_FAILED, "out of memory");
    while (r == ASK_OK && sent < head.len) {
        ssize_t n = send(t->fd, head.p + sent, head.len - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN)
            r = wait_for(t, POLLOUT, "the request was not taken");
        else if (errno == EPIPE || errno == ECONNRESET)
            break; /* the answer may be there all the same: "busy" */
        else if (errno != EINTR)
            r = fail(t, ASK_FAILED, "cannot send: %s", strerror(errno));
    }
    buf_fini(&head);
    return r;
}

/* Appends what comes next; *eof: nothing more comes. */
static enum ask_result
receive(struct talk *t, struct buf *in, bool *eof)
{
    char part[8192];
    ssize_t n;
    while ((n = recv(t->fd, part, sizeof part, 0)) < 0) {
        int err = errno;
        if (err == EAGAIN) {
            enum ask_result r = wait_for(t, POLLIN, in->len == 0 ? "no answer" : "no whole answer");
            if (r != ASK_OK)
                return r;
        } else if (err != EINTR) {
            return fail(t, ASK_FAILED, "the connection broke: %s", strerror(err));
        }
    }
    *eof = n == 0;
    buf_add(in, part, (size_t)n);
    if (!buf_ok(in))
        return fail(t, ASK_FAILED, "the answer is over %u MiB", ASK_ANSWER_MAX >> 20);
    return ASK_OK;
}

struct head {
    struct http_status status;
    struct http_meta meta;
    enum http_framing framing;
    size_t len;
};

static enum http_result
parse_head(struct str s, struct head *h)
{
    enum http_result r = http_status_parse(s, &h->status, &h->len);
    if (r != HTTP_OK)
        return r;
    http_meta_init(&h->meta);
    for (;;) {
        struct http_field f;
        size_t used = 0;
        switch (http_line_next(str_n(s.p + h->len, s.len - h->len), &f, &used)) {
        case HTTP_LINE_FIELD:
            if (http_meta_add(&h->meta, &f) != ERR_OK)
                return HTTP_BAD;
            break;
        case HTTP_LINE_MORE: return s.len > HEAD_MAX ? HTTP_BAD : HTTP_MORE;
        case HTTP_LINE_BAD:
        case HTTP_LINE_LARGE: return HTTP_BAD;
        case HTTP_LINE_END:
            h->len += used;
            return http_resp_framing(&h->meta, &h->status, HTTP_M_GET, &h->framing) == ERR_OK
                       ? HTTP_OK
                       : HTTP_BAD;
        }
        h->len += used;
    }
}

static enum ask_result
read_head(struct talk *t, struct buf *in, struct head *h, bool *eof)
{
    for (;;) {
        enum http_result r = parse_head(str_n(in->p, in->len), h);
        if (r == HTTP_OK)
            return ASK_OK;
        if (r == HTTP_BAD)
            return fail(t, ASK_FAILED, "what answers there does not speak HTTP");
        if (*eof)
            return fail(t, ASK_FAILED, "the connection was closed %s",
                in->len == 0 ? "without an answer" : "in the middle of the answer");
        enum ask_result got = receive(t, in, eof);
        if (got != ASK_OK)
            return got;
    }
}

/* in holds what came with the head, and is used up piece by piece. */
static enum ask_result
read_body(struct talk *t, struct buf *in, const struct head *h, bool eof, struct buf *body)
{
    struct http_body scan;
    http_body_init(&scan, h->framing, h->meta.content_length);
    for (;;) {
        struct str rest = str_n(in->p, in->len), data;
        enum http_body_result r = HTTP_BODY_MORE;
        while (rest.len > 0 && r == HTTP_BODY_MORE) {
            size_t used = 0;
            r = http_body_next(&scan, rest, &data, &used);
            buf_str(body, data);
            rest = str_n(rest.p + used, rest.len - used);
        }
        in->len = 0;
        if (!buf_ok(body))
            return fail(t, ASK_FAILED, "the answer is over %u MiB", ASK_ANSWER_MAX >> 20);
        if (r == HTTP_BODY_BAD)
            return fail(t, ASK_FAILED, "the answer is broken: %s", scan.why);
        if (r == HTTP_BODY_DONE || http_body_is_done(&scan) ||
            (eof && h->framing == HTTP_BODY_CLOSE))
            return ASK_OK;
        if (eof)
            return fail(t, ASK_FAILED, "the answer was cut after %zu bytes", body->len);
        enum ask_result got = receive(t, in, &eof);
        if (got != ASK_OK)
            return got;
    }
}

static enum ask_result
read_answer(struct talk *t, struct answer *out)
{
    struct buf in;
    struct head h = {0};
    bool eof = false;
    buf_init(&in, ASK_ANSWER_MAX);
    buf_init(&out->body, ASK_ANSWER_MAX);
    enum ask_result r = read_head(t, &in, &h, &eof);
    if (r == ASK_OK) {
        out->status = h.status.code;
        buf_consume(&in, h.len);
        r = read_body(t, &in, &h, eof, &out->body);
    }
    buf_fini(&in);
    if (r != ASK_OK)
        buf_fini(&out->body);
    return r;
}

enum ask_result
ask(const struct ask *a, enum http_method method, const char *target, struct answer *out,
    char why[ASK_WHY_MAX])
{
    struct addr addrs[ADDRESSES_MAX];
    struct talk t = {.ask = a,
        .address = first_of(a->address),
        .deadline = mono_add_us(mono_now(), a->timeout_us),
        .why = why,
        .fd = -1};
    size_t count = resolve(&t, addrs);
    enum ask_result r = ASK_ABSENT;
    for (size_t i = 0; i < count && r == ASK_ABSENT; i++) {
        if (t.fd >= 0)
            close(t.fd);
        r = connect_to(&t, &addrs[i]);
    }
    if (r == ASK_OK)
        r = send_request(&t, method, target);
    if (r == ASK_OK)
        r = read_answer(&t, out);
    if (t.fd >= 0)
        close(t.fd);
    return r;
}

void
answer_fini(struct answer *out)
{
    buf_fini(&out->body);
}
