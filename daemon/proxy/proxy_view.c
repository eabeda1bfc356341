#include "proxy/proxy_view.h"

#include <sys/socket.h>

#include "proxy/proxy_impl.h"

#include "base/no_block.h"

static const char *
client_state_name(const struct client *c)
{
    switch (c->state) {
    case CLIENT_SHAKING: return "handshake";
    case CLIENT_IDLE: return c->in.len > 0 ? "head" : "idle";
    case CLIENT_BUSY: return "busy";
    case CLIENT_LINGER:
    case CLIENT_CUTTING:
    case CLIENT_CLOSED: break;
    }
    return "closing";
}

/* "" when the kernel does not say: the client may be gone. */
static void
local_address(int fd, char out[ADDR_TEXT_MAX])
{
    struct addr a = {.len = sizeof a.un};
    out[0] = '\0';
    if (getsockname(fd, &a.sa, &a.len) == 0)
        addr_format(&a, out);
}

void
proxy_each_client(const struct proxy *px, proxy_client_fn fn, void *arg)
{
    struct mono now = loop_now(px->loop);
    LIST_EACH (node, &px->clients) {
        struct client *c = CONTAINER_OF(node, struct client, link);
        char peer[ADDR_TEXT_MAX] = "unix", local[ADDR_TEXT_MAX];
        struct proxy_client_view v = {
            .id = c->id,
            .served = c->served,
            .state = client_state_name(c),
            .peer = peer,
            .local = local,
            .uid = -1,
            .pid = -1,
            .age_us = mono_diff_us(now, c->since),
            .exchange = c->state == CLIENT_BUSY ? c->ex->id : 0,
            .tls = c->conn.ssl == NULL ? NULL : SSL_get_version(c->conn.ssl),
            .cert_cn = c->cert == NULL ? "" : c->cert->cn,
            .cert_subject = c->cert == NULL ? "" : c->cert->subject,
        };
        struct ucred cred;
        socklen_t len = sizeof cred;
        if (!c->is_unix) {
            client_peer(c, peer);
        } else if (getsockopt(c->conn.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
            v.uid = cred.uid;
            v.pid = cred.pid;
        }
        local_address(c->conn.fd, local);
        if (!fn(arg, &v))
            return;
    }
}

size_t
proxy_client_count(const struct proxy *px)
{
    return px->client_count;
}

/* The path as the client sent it, without what may be secret: parameters and user:password@. Of a
 * whole URL the part that is seen must show that there is no password in it. */
static struct str
path_of(const struct exchange *ex, char out[PROXY_VIEW_PATH])
{
    struct str s = str_n(ex->head.p, size_min(ex->head.len, HTTP_MAX_METHOD + PROXY_VIEW_PATH));
    ssize_t space = str_find(s, ' ');
    size_t n = 0;
    size_t i = space < 0 ? s.len : (size_t)space + 1;
    for (; i < s.len && n < PROXY_VIEW_PATH; i++) {
        if (s.p[i] == ' ' || s.p[i] == '?' || s.p[i] == '#')
            break;
        out[n++] = s.p[i];
    }
    struct str path = str_n(out, n);
    const char *host = n == 0 ? NULL : memmem(out, n, "://", 3);
    bool cut = i == s.len || (s.p[i] != ' ' && s.p[i] != '?' && s.p[i] != '#');
    bool hidden = str_find(path, '@') >= 0;
    if (host != NULL) /* the '?' or '#' at its end may belong to a password, too */
        hidden = hidden || cut || memchr(host + 3, '/', n - (size_t)(host + 3 - out)) == NULL;
    return hidden ? STR("***") : path;
}

static struct str
method_of(const struct exchange *ex)
{
    struct str s = str_n(ex->head.p, size_min(ex->head.len, HTTP_MAX_METHOD));
    ssize_t space = str_find(s, ' ');
    return str_n(s.p, space < 0 ? 0 : (size_t)space);
}

static const char *
coding_of(const struct pipe_spec *s, bool on)
{
    if (!on)
        return NULL;
    return codec_name(s->decode.id != CODEC_IDENTITY ? s->decode.id : s->encode.id);
}

static struct proxy_exchange_view LOOP_ONLY
view_of(const struct exchange *ex, char path[PROXY_VIEW_PATH])
{
    struct mono now = loop_now(ex->px->loop);
    bool leased = ex->leased.us != 0;
    const struct recode *rc = ex->rc;
    return (struct proxy_exchange_view){
        .id = ex->id,
        .client = ex->client->id,
        .conn = ex->uc == NULL ? 0 : uconn_id(ex->uc),
        .state = exchange_state_name(ex->state),
        .user = str_n(ex->ch.user, ex->ch.user_len),
        .query_id = str_n(ex->ch.query_id, ex->ch.query_id_len),
        .method = method_of(ex),
        .path = path_of(ex, path),
        .upstream = upool_name(ex->upstream->pool),
        .address = ex->uc == NULL ? NULL : uaddr_text(uconn_addr(ex->uc)),
        .in_session = ex->session != NULL,
        .retried = ex->retried,
        .answering = ex->down_bytes > ex->interim,
        .status = ex->got_byte ? ex->status.code : 0,
        .age_us = mono_diff_us(now, ex->start),
        .queued_us = mono_diff_us(leased ? ex->leased : now, ex->start),
        .running_us = leased ? mono_diff_us(now, ex->leased) : -1,
        .request_bytes = ex->up_bytes,
        .response_bytes = ex->down_bytes,
        .request_coding = rc == NULL ? NULL : coding_of(&rc->up_spec, rc->up_on),
        .response_coding = rc == NULL ? NULL : coding_of(&rc->down_spec, rc->down_on),
    };
}

void
proxy_each_exchange(const struct proxy *px, proxy_exchange_fn fn, void *arg)
{
    char path[PROXY_VIEW_PATH];
    LIST_EACH (node, &px->exchanges) {
        struct proxy_exchange_view v = view_of(CONTAINER_OF(node, struct exchange, link), path);
        if (!fn(arg, &v))
            return;
    }
}

/* ---- the queue ---- */

struct each_waiter {
    const struct proxy *px;
    const char *upstream;
    proxy_waiter_fn fn;
    void *arg;
    bool stopped;
};

static bool
on_waiter(void *arg, const struct upool_waiter *w, size_t round)
{
    thr_check_loop();
    struct each_waiter *each = arg;
    char path[PROXY_VIEW_PATH];
    const struct exchange *ex = exchange_of_waiter(w);
    struct proxy_waiter_view v = {
        .waits_for = ex == NULL       ? "kill query"
                     : w->pin != NULL ? "server"
                                      : "connection",
        .upstream = each->upstream,
        .round = round,
        .waited_us = mono_diff_us(loop_now(each->px->loop), w->since),
    };
    if (ex != NULL)
        v.ex = view_of(ex, path);
    each->stopped = !each->fn(each->arg, &v);
    return !each->stopped;
}

void
proxy_each_waiter(const struct proxy *px, proxy_waiter_fn fn, void *arg)
{
    struct each_waiter each = {.px = px, .fn = fn, .arg = arg};
    for (size_t i = 0; i < px->upstream_count && !each.stopped; i++) {
        each.upstream = upool_name(px->upstreams[i].pool);
        upool_each_waiter(px->upstreams[i].pool, on_waiter, &each);
    }
    if (each.stopped || proxy_sessions_waiting(px) + proxy_users_waiting(px) == 0)
        return;
    LIST_EACH (node, &px->exchanges) {
        char path[PROXY_VIEW_PATH];
        const struct exchange *ex = CONTAINER_OF(node, struct exchange, link);
        bool in_session = list_linked(&ex->session_link);
        if (!in_session && !waiter_waits(&ex->pass.waiter))
            continue;
        struct proxy_waiter_view v = {
            .waits_for = in_session ? "session" : "user", .ex = view_of(ex, path)};
        v.waited_us = v.ex.age_us;
        v.upstream = v.ex.upstream;
        if (!fn(arg, &v))
            return;
    }
}

/* ---- users ---- */

void
proxy_each_user(const struct proxy *px, proxy_user_fn fn, void *arg)
{
    struct user_view u;
    for (size_t i = 0; users_view(px->users, i, &u); i++) {
        struct proxy_user_view v = {
            .name = u.name,
            .upstream_user = u.upstream_user,
            .secret = u.secret,
            .in_flight = u.gate.in_flight,
            .waiting = u.gate.waiting,
            .max_in_flight = u.gate.limits.max_in_flight,
            .queue_share = u.gate.limits.queue_share,
            .requests = u.gate.requests,
            .waited = u.gate.waits,
            .refused = u.gate.refused,
        };
        if (!fn(arg, &v))
            return;
    }
}

/* A name needs no escaping: letters, digits and a few signs. */
void
proxy_print_metrics(const struct proxy *px, struct buf *out)
{
    struct user_view u;
    if (users_is_empty(px->users))
        return;
    buf_str(out, STR("# HELP chmux_user_requests Requests of each [user NAME]: that have a "
                     "connection or are next for one, and that wait\n"
                     "# TYPE chmux_user_requests gauge\n"));
    for (size_t i = 0; users_view(px->users, i, &u); i++)
        buf_addf(out,
            "chmux_user_requests{user=\"" STR_FMT "\",state=\"in_flight\"} %zu\n"
            "chmux_user_requests{user=\"" STR_FMT "\",state=\"waiting\"} %zu\n",
            STR_ARG(u.name), u.gate.in_flight, STR_ARG(u.name), u.gate.waiting);
    buf_str(
        out, STR("# HELP chmux_user_requests_total Requests of each [user NAME]: all, and those "
                 "refused over its queue_share\n"
                 "# TYPE chmux_user_requests_total counter\n"));
    for (size_t i = 0; users_view(px->users, i, &u); i++)
        buf_addf(out,
            "chmux_user_requests_total{user=\"" STR_FMT "\",result=\"taken\"} %" PRIu64 "\n"
            "chmux_user_requests_total{user=\"" STR_FMT "\",result=\"refused\"} %" PRIu64 "\n",
            STR_ARG(u.name), u.gate.requests - u.gate.refused, STR_ARG(u.name), u.gate.refused);
}

/* ---- pipes ---- */

static const char *
codec_or_null(const struct codec_spec *s)
{
    return s->id == CODEC_IDENTITY ? NULL : codec_name(s->id);
}

static const char *
pipe_state_name(enum pipe_status s)
{
    switch (s) {
    case PIPE_OPEN: break;
    case PIPE_STARVED: return "starved";
    case PIPE_ENDED: return "ended";
    case PIPE_CUT: return "cut";
    case PIPE_FAILED: return "failed";
    }
    return "open";
}

/* false: enough. */
static bool LOOP_ONLY
tell_pipe(const struct exchange *ex, bool request, proxy_pipe_fn fn, void *arg)
{
    const struct pipe_spec *spec = request ? &ex->rc->up_spec : &ex->rc->down_spec;
    struct pipe *p = request ? ex->rc->up.pipe : ex->rc->down.pipe;
    if (p == NULL)
        return true;
    struct proxy_pipe_view v = {
        .exchange = ex->id,
        .client = ex->client->id,
        .direction = request ? "request" : "response",
        .decode = codec_or_null(&spec->decode),
        .encode = codec_or_null(&spec->encode),
        .state = pipe_state_name(pipe_status(p)),
        .output_waits = pipe_has_output(p),
        .room_bytes = pipe_room(p),
        .in_bytes = pipe_bytes_in(p),
        .out_bytes = pipe_bytes_out(p),
    };
    return fn(arg, &v);
}

void
proxy_each_pipe(const struct proxy *px, proxy_pipe_fn fn, void *arg)
{
    LIST_EACH (node, &px->exchanges) {
        const struct exchange *ex = CONTAINER_OF(node, struct exchange, link);
        if (ex->rc != NULL && (!tell_pipe(ex, true, fn, arg) || !tell_pipe(ex, false, fn, arg)))
            return;
    }
}

/* ---- errors ---- */

void
proxy_each_error(const struct proxy *px, proxy_error_fn fn, void *arg)
{
    struct mono now = loop_now(px->loop);
    const struct errors *r = &px->errors;
    for (uint64_t back = 1; back <= r->count && back <= ERRORS_KEPT; back++) {
        const struct error_entry *e = &r->entry[(r->count - back) % ERRORS_KEPT];
        struct proxy_error_view v = {
            .age_us = mono_diff_us(now, e->at),
            .reason = e->token,
            .status = e->status,
            .code = e->code,
            .exchange = e->exchange,
            .client = e->client,
            .times = e->times,
            .upstream = e->upstream,
            .user = e->user,
            .query_id = e->query_id,
            .peer = e->peer,
            .detail = e->detail,
        };
        if (!fn(arg, &v))
            return;
    }
}

bool
proxy_kill(struct proxy *px, uint64_t exchange)
{
    LIST_EACH (node, &px->exchanges) {
        struct exchange *ex = CONTAINER_OF(node, struct exchange, link);
        if (ex->id != exchange)
            continue;
        const struct log_field f[] = {
            {"id", LOG_NUM, STR_NULL, (int64_t)ex->id},
            {"query_id", LOG_STR, str_n(ex->ch.query_id, ex->ch.query_id_len), 0},
        };
        log_fields(LOG_INFO, "exchange_killed", f, COUNT_OF(f));
        exchange_kill(ex);
        return true;
    }
    return false;
}
